"""The house: what a start leaves behind, what a stop finishes, and which settings reach their parts."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from models.errors import SetupError
from models.settings import Settings, StoreSettings, VaultSettings
from router.service import serve, vault_limits
from tests.fakes.embedding import HashEmbedding
from tests.fakes.provider import chat_events, gated, stream_script
from tests.patience import PATIENCE_S
from tests.router.proxied import PATH, open_both, streamed
from tests.running import Client, open_http, open_reply, open_server, settings_for


async def start(nursery: trio.Nursery, data_dir: Path, settings: Settings, announced: list[str]) -> str:
    """Start a server in this nursery; returns its URL."""
    run = partial(serve, settings, data_dir=data_dir, announce=announced.append, encoder=HashEmbedding())
    return str((await nursery.start(run)).url)


async def test_the_first_start_announces_the_account_key_and_no_other_does(tmp_path: Path) -> None:
    """It is never shown again."""
    announced: list[str] = []
    for starts in (1, 2):
        async with trio.open_nursery() as nursery:
            url = await start(nursery, tmp_path / "data", settings_for(), announced)
            async with open_http(url) as http:
                assert (await Client(http, announced[0]).stats())["memories"] == 0
            nursery.cancel_scope.cancel()
        assert len(announced) == 1, starts


async def test_two_servers_cannot_share_a_data_directory(tmp_path: Path) -> None:
    """The second one says so and touches nothing."""
    async with open_server(tmp_path / "data") as server:
        with pytest.RaisesGroup(SetupError, flatten_subgroups=True, allow_unwrapped=True):
            async with open_server(tmp_path / "data"):
                pytest.fail("it started")
        await server.ingest("Still here.")


async def test_the_servers_key_is_read_from_where_the_settings_say(tmp_path: Path) -> None:
    """Beside the data it would be of no use to somebody with a backup of the key on another disk."""
    key_file = tmp_path / "elsewhere" / "server.key"
    key_file.parent.mkdir(mode=0o700)
    settings = settings_for(store=StoreSettings(shards=1, server_key_file=str(key_file)))
    async with open_server(tmp_path / "data", settings) as server:
        await server.ingest("Sealed.")
    assert key_file.exists()
    assert not (tmp_path / "data" / "server.key").exists()


async def test_a_stop_lets_a_stream_finish_and_stores_it(tmp_path: Path) -> None:
    """Readiness goes first; connections that come later are refused; the exchange is there at the next start."""
    events = chat_events(["Until ", "the end."])
    gates = [trio.Event() for _ in events]
    async with open_both(tmp_path) as (server, provider):
        provider.enqueue(stream_script(gated(events, gates)))
        gates[0].set()
        async with open_reply(server, PATH, streamed("Are you there?")) as reply:
            received = await reply.next_data()
            signal.raise_signal(signal.SIGTERM)
            with trio.fail_after(PATIENCE_S):
                await refused(server.url)
            for gate in gates[1:]:
                gate.set()
            with trio.fail_after(PATIENCE_S):
                while piece := await reply.next_data():
                    received += piece
        assert received == b"".join(events)
    async with open_server(tmp_path / "data") as server:
        assert "Until the end." in await server.contents("end")


async def refused(url: str) -> None:
    """Return once nothing accepts connections there any more."""
    while True:
        try:
            async with httpx.AsyncClient(trust_env=False) as http:
                await http.get(f"{url}/livez")
        except httpx.TransportError:
            return


def test_vaults_get_their_limits_from_the_settings() -> None:
    """Every field."""
    settings = Settings()
    limits = vault_limits(settings)

    assert limits.repeat_window_s == settings.ingest.repeat_window_s
    assert limits.chunk_tokens_max == settings.memory.chunk_tokens_max
    assert limits.relevance_min == settings.recall.relevance_min


async def test_an_idle_vault_leaves_memory_and_comes_back_whole(tmp_path: Path) -> None:
    """Its next request hydrates it."""
    settings = settings_for(vaults=VaultSettings(idle_timeout_s=1, residency_min_s=0))

    async def live(server: Client) -> bool:
        return "memoryrouter_vaults_live 1" in (await server.get("/metrics")).text

    async with open_server(tmp_path / "data", settings) as server:
        await server.ingest("My dog is called Rex.")
        with trio.fail_after(PATIENCE_S):
            while await live(server):
                await trio.lowlevel.checkpoint()
        assert await server.contents("dog") == {"My dog is called Rex."}


async def test_what_was_acknowledged_but_not_taken_in_is_resumed_at_the_next_start(tmp_path: Path) -> None:
    """A server that ends before its texts are embedded embeds them after the next start."""

    async with open_server(tmp_path / "data") as server:
        await server.upload([{"content": f"Line {number} of many."} for number in range(500)])
    async with open_server(tmp_path / "data") as server:
        await server.wait_embedded()
        assert (await server.stats())["memories"] == 500
