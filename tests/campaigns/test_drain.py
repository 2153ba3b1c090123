"""The program's end when somebody does not want it to end: streams that last, clients that never read, work undone.

`test_kill9.py` ends it at random moments under load; these are the single cases, each with its own exit code. A stop
that hangs is ended by the watchdog with exit code 1, so that no test here needs to measure time.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import trio
from trio.testing import wait_all_tasks_blocked

from tests.campaigns.echo_provider import open_echo_provider
from tests.campaigns.test_kill9 import environment
from tests.fakes.provider import FakeProvider, Script, Step, chat_chunk, chat_reply, open_fake_provider, stream_script
from tests.patience import PATIENCE_S, wait_until
from tests.running import Client, ServerProcess, open_http, open_process, open_reply, user

EXIT_BY_SIGTERM = 128 + signal.SIGTERM
LINES = 600
"""Enough that the last are not embedded when the upload is answered."""


def flood() -> Iterator[Step]:
    """More than all buffers on the way hold, for ever."""
    while True:
        yield chat_chunk("and on and on " * 500)


def settings(provider: FakeProvider, *, drain_timeout_s: int) -> dict[str, str]:
    """Of a server that gives up on a client that has taken nothing for a second."""
    return environment(provider.base_url) | {
        "MEMORYROUTER_SERVER__DRAIN_TIMEOUT_S": str(drain_timeout_s),
        "MEMORYROUTER_SERVER__STALLED_WRITE_TIMEOUT_S": "1",
    }


def streaming(text: str) -> dict[str, object]:
    """A chat that is to be streamed."""
    return {"model": "openai/m", "messages": [user(text)], "stream": True}


async def stop_has_begun(server: ServerProcess) -> None:
    """Return once the server has heard its first signal."""
    await wait_until(lambda: any(entry["event"] == "shutdown_requested" for entry in server.log))


async def port_is_closed(server: ServerProcess) -> None:
    """Return once the server takes no more connections."""
    with trio.fail_after(PATIENCE_S):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", int(server.url.rpartition(":")[2]))).aclose()
            except OSError:
                return


async def memories(server: ServerProcess, key: str) -> set[str]:
    """All that the vault holds, each once."""
    async with open_http(server.url) as http:
        client = Client(http, key)
        found = await client.search("violin roofs sailing", limit=1000)
        contents = {item["content"] for item in found}
        assert len(found) == len(contents) == (await client.stats())["memories"]
        return contents


async def test_a_client_that_never_reads_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """Its connection cannot be cancelled, only broken: the kernel does that when the data waits for too long."""
    async with open_fake_provider() as provider:
        provider.enqueue(stream_script(flood()))
        async with open_process(tmp_path / "data", environment=settings(provider, drain_timeout_s=20)) as server:
            key = server.account_key
            async with (
                open_http(server.url) as http,
                open_reply(Client(http, key), "/v1/chat/completions", streaming("Who plays the violin?")) as stalled,
            ):
                assert stalled.status == 200
                await Client(http, key).ingest("Ben repairs roofs.")
                await wait_all_tasks_blocked(0.5)  # every buffer on the way is full
                server.signal(signal.SIGTERM)
                assert await server.wait() == 0
        async with open_process(tmp_path / "data", environment=settings(provider, drain_timeout_s=20)) as server:
            assert await memories(server, key) == {"Who plays the violin?", "Ben repairs roofs."}


async def test_a_reply_that_begins_during_the_stop_is_whole_and_says_that_it_is_the_last(tmp_path: Path) -> None:
    """Who keeps connections would else send the next request into one that is being closed."""
    gate = trio.Event()
    late = Script(headers=[("content-type", "application/json")], steps=[gate, chat_reply("Anna.")])
    async with open_fake_provider() as provider:
        provider.enqueue(late)
        async with open_process(tmp_path / "data", environment=settings(provider, drain_timeout_s=600)) as server:
            key, replies = server.account_key, list[httpx.Response]()
            async with open_http(server.url) as http, trio.open_nursery() as asking:

                async def ask() -> None:
                    replies.append(await Client(http, key).chat("Who plays the violin?"))

                asking.start_soon(ask)
                await wait_until(lambda: bool(provider.requests))
                server.signal(signal.SIGTERM)
                await port_is_closed(server)
                gate.set()
            assert await server.wait() == 0
        (reply,) = replies
        assert (reply.status_code, reply.headers["connection"]) == (200, "close")
        async with open_process(tmp_path / "data", environment=settings(provider, drain_timeout_s=20)) as server:
            assert await memories(server, key) == {"Who plays the violin?", "Anna."}


async def test_a_second_signal_ends_a_stop_that_waits_for_a_stream(tmp_path: Path) -> None:
    """At once, whatever the drain time is; what was acknowledged, before or since the first one, is there."""
    gate = trio.Event()
    async with open_fake_provider() as provider:
        provider.enqueue(stream_script([chat_chunk("An"), gate]))
        async with open_process(tmp_path / "data", environment=settings(provider, drain_timeout_s=600)) as server:
            key = server.account_key
            async with (
                open_http(server.url) as http,
                open_reply(Client(http, key), "/v1/chat/completions", streaming("Who plays the violin?")) as lasting,
            ):
                assert await lasting.next_data()
                await Client(http, key).ingest("Ben repairs roofs.")
                server.signal(signal.SIGTERM)
                await stop_has_begun(server)
                server.signal(signal.SIGTERM)
                assert await server.wait() == EXIT_BY_SIGTERM
        async with open_process(tmp_path / "data", environment=settings(provider, drain_timeout_s=20)) as server:
            held = await memories(server, key)
            assert held - {"Who plays the violin?"} == {"Ben repairs roofs."}


async def test_a_stop_leaves_what_is_not_embedded_to_the_next_start(tmp_path: Path) -> None:
    async with open_echo_provider() as provider_url:
        async with open_process(tmp_path / "data", environment=environment(provider_url)) as server:
            key = server.account_key
            async with open_http(server.url) as http:
                lines = [{"content": f"Carla went sailing on day {number}."} for number in range(LINES)]
                assert (await Client(http, key).upload(lines))["stats"]["stored"] == LINES
                server.signal(signal.SIGTERM)
                assert await server.wait() == 0
        async with open_process(tmp_path / "data", environment=environment(provider_url)) as server:
            assert len(await memories(server, key)) == LINES
