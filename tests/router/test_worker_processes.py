"""`serve` with `server.workers = 2` as an operator runs it: real processes, which are killed and signalled."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import trio

from tests.campaigns.starts import attempted_start
from tests.fakes.provider import FakeProvider, chat_events, gated, open_fake_provider, stream_script
from tests.patience import PATIENCE_S, wait_until
from tests.prepared_model import put_model
from tests.router.proxied import PATH, streamed
from tests.router.test_service import refused
from tests.running import Client, ServerProcess, open_http, open_process, open_reply

USERS = 4


def environment(provider: FakeProvider | None = None) -> dict[str, str]:
    """Settings of two workers with two shards each."""
    own = {"MEMORYROUTER_SERVER__WORKERS": "2", "MEMORYROUTER_STORE__SHARDS": "4"}
    if provider is not None:
        own |= {
            "MEMORYROUTER_PROVIDERS__OPENAI__BASE_URL": provider.base_url,
            "MEMORYROUTER_PROVIDERS__OPENAI__API_KEY": "sk-test",
        }
    return own


@asynccontextmanager
async def serving(
    data_dir: Path, provider: FakeProvider | None = None, settings: Mapping[str, str] | None = None
) -> AsyncIterator[ServerProcess]:
    """The program with its workers; what is left of them at the end is killed."""
    async with open_process(data_dir, environment={**environment(provider), **(settings or {})}) as server:
        try:
            yield server
        finally:
            for pid in pids(server):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def pids(server: ServerProcess, worker: int | None = None) -> list[int]:
    """The processes that workers have, or had, in the order of their starts."""
    started = [entry for entry in server.log if entry["event"] == "worker_started"]
    return [entry["pid"] for entry in started if worker in (None, entry["worker"])]


def count(server: ServerProcess, event: str) -> int:
    """How many lines of the log say this."""
    return [entry["event"] for entry in server.log].count(event)


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_users_of_all_shards_are_served_by_one_port_until_sigterm(tmp_path: Path) -> None:
    put_model(tmp_path / "data")
    async with serving(tmp_path / "data") as server:
        async with open_http(server.url) as http:
            users = [await Client(http, server.account_key).other(f"user {number}") for number in range(USERS)]
            for number, user in enumerate(users):
                await user.ingest(f"My dog is called Rex the {number}.")
        for number, user in enumerate(users):
            async with open_http(server.url) as http:
                assert await Client(http, user.key).contents("dog") == {f"My dog is called Rex the {number}."}
        async with attempted_start(tmp_path / "data", environment=environment()) as second:
            assert not second.problem()
            assert not second.serves
            assert "in use by another process" in second.reasons[0]
        for pid in pids(server):  # as a service manager does that signals every process of a service
            os.kill(pid, signal.SIGTERM)
        server.signal(signal.SIGTERM)
        assert await server.wait() == 0
        assert [line for line in server.stdout if line.startswith("account key: mk_")] == server.stdout
        assert len(server.stdout) == 1
        assert count(server, "serving") == 1
    async with open_process(tmp_path / "data") as server, open_http(server.url) as http:  # and with one process again
        assert server.stdout == []
        assert await Client(http, users[0].key).contents("dog") == {"My dog is called Rex the 0."}


async def test_a_killed_worker_comes_back_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    """Requests wait for it or get 503; the parent and the other worker go on."""
    put_model(tmp_path / "data")
    async with serving(tmp_path / "data") as server, open_http(server.url) as http:
        users = [await Client(http, server.account_key).other(f"user {number}") for number in range(USERS)]
        for number, user in enumerate(users):
            await user.ingest(f"A fact of user {number}.")
        os.kill(pids(server, 0)[0], signal.SIGKILL)
        for number, user in enumerate(users):
            await until_found(user, {f"A fact of user {number}."})
        await wait_until(lambda: count(server, "worker_serving") == 3)
        server.signal(signal.SIGINT)
        assert await server.wait() == 0
        assert [len(pids(server, worker)) for worker in range(2)] == [2, 1]


async def until_found(user: Client, facts: set[str]) -> None:
    """Ask until somebody answers, with no 503: what was acknowledged is in it."""
    with trio.fail_after(PATIENCE_S):
        while True:
            try:
                async with open_http(user.url) as http:
                    answer = await Client(http, user.key).post("/v1/memory/search", {"query": "fact", "limit": 100})
            except httpx.TransportError:
                continue  # the killed one had just taken the connection
            if answer.status_code != 503:
                assert {item["content"] for item in answer.json()["memories"]} == facts
                return


async def test_workers_without_their_parent_finish_and_end(tmp_path: Path) -> None:
    """As long as one of them lives, nobody else gets the data directory."""
    put_model(tmp_path / "data")
    events = chat_events()
    async with open_fake_provider() as provider, serving(tmp_path / "data", provider) as server:
        gates = [trio.Event() for _ in events]
        provider.enqueue(stream_script(gated(events, gates)))
        gates[0].set()
        async with open_http(server.url) as http:
            user = Client(http, server.account_key)
            async with open_reply(user, PATH, streamed("Are you there?")) as reply:
                received = await reply.next_data()
                server.process.kill()
                with trio.fail_after(PATIENCE_S):
                    await refused(server.url)
                async with attempted_start(tmp_path / "data", environment=environment(provider)) as second:
                    assert not second.serves
                    assert "in use by another process" in second.reasons[0]
                for gate in gates:
                    gate.set()
                while piece := await reply.next_data():
                    received += piece
        assert received == b"".join(events)
        await wait_until(lambda: not any(map(is_running, pids(server))))
    async with serving(tmp_path / "data") as server, open_http(server.url) as http:
        assert "Hello there." in await Client(http, user.key).contents("Are you there?")


async def test_a_second_signal_ends_every_process_at_once(tmp_path: Path) -> None:
    """Nobody waits an hour for a stream that does not end."""
    put_model(tmp_path / "data")
    patient = {"MEMORYROUTER_SERVER__DRAIN_TIMEOUT_S": "3600"}
    async with open_fake_provider() as provider, serving(tmp_path / "data", provider, patient) as server:
        provider.enqueue(stream_script([events := chat_events()[0], trio.Event()]))
        async with (
            open_http(server.url) as http,
            open_reply(Client(http, server.account_key), PATH, streamed("Are you there?")) as reply,
        ):
            assert await reply.next_data() == events
            server.signal(signal.SIGTERM)
            await wait_until(lambda: count(server, "shutdown_requested") == 1)
            server.signal(signal.SIGTERM)
            assert await server.wait() == 128 + signal.SIGTERM
            await wait_until(lambda: not any(map(is_running, pids(server))))


async def test_a_mistake_that_only_a_worker_can_see_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    own = environment() | {
        "MEMORYROUTER_EMBEDDERS__OWN__KIND": "onnx",
        "MEMORYROUTER_EMBEDDERS__OWN__PATH": str(tmp_path / "absent"),
    }
    put_model(tmp_path / "data")
    async with attempted_start(tmp_path / "data", environment=own) as start:
        assert not start.problem()
        assert start.code == 2
        assert "embedders.own" in start.reasons[0]
