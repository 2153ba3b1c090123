"""kill -9 and SIGTERM at random moments under mixed load over HTTP: nothing acknowledged is lost, nothing is doubled.

Each cycle starts the program on the same data directory, compares every vault with what clients were promised, and
strikes again. MEMORYROUTER_TEST_LONG=1 makes it 1 000 kills; MEMORYROUTER_TEST_SEED repeats a run's choices (though not
the scheduling of processes).
"""

from __future__ import annotations

import random
import signal
from collections.abc import Awaitable, Callable, Set
from pathlib import Path

import msgspec
import trio

from tests.campaigns.echo_provider import open_echo_provider
from tests.campaigns.load import Load, story
from tests.campaigns.moments import cycles, dice, new_seed, pass_time
from tests.patience import PATIENCE_S
from tests.running import ServerProcess, open_process, user

CLIENTS = 8
MOMENT_MAX_S = 0.9
DRAIN_S = 600
"""Longer than any test waits: a stop that is through before has not been ended by its deadline."""

KINDS = {"ingest", "upload", "chat", "stream", "left", "ask", "session deleted", "key"}
"""What a campaign must have had acknowledged before it is over."""

Strike = Callable[[ServerProcess, random.Random], Awaitable[None]]
"""Ends a server that is under load."""

COMPLAINTS = {"error", "critical"}
ERASED = {"event": "not_stored", "reason": "store_unavailable"}
"""What the log says of a chat whose vault was erased while it lasted."""


def environment(provider_url: str) -> dict[str, str]:
    """Two shards, a provider, and time enough for every commit: a reply may end unstored after that, and says so."""
    return {
        "MEMORYROUTER_STORE__SHARDS": "2",
        "MEMORYROUTER_STORE__BALLAST_BYTES": "4194304",
        "MEMORYROUTER_STORE__CHECKPOINT_WAL_BYTES": "1048576",
        "MEMORYROUTER_EMBEDDING__BATCH_TEXTS_MAX": "4",  # questions wait for the batch before them
        "MEMORYROUTER_SERVER__DRAIN_TIMEOUT_S": str(DRAIN_S),
        "MEMORYROUTER_PROXY__COMMIT_WAIT_MS": "20000",
        "MEMORYROUTER_PROXY__RECALL_BUDGET_MS": "2000",
        "MEMORYROUTER_PROVIDERS__OPENAI__BASE_URL": provider_url,
        "MEMORYROUTER_PROVIDERS__OPENAI__API_KEY": "sk-echo",
    }


async def campaign(data_dir: Path, seed: int, *, count: int, strike: Strike, exit_codes: set[int]) -> Load:
    """Start, compare, load, strike: `count` times, and compare once more."""
    load: Load | None = None
    async with open_echo_provider() as provider_url:
        for cycle in range(count + 1):
            async with open_process(data_dir, environment=environment(provider_url)) as server:
                load = load or Load(seed, account_key=server.account_key)
                faults = await load.verify(server.url)
                assert not faults, f"seed {seed}, before cycle {cycle}:{story(faults)}"
                if cycle < count:
                    kinds = KINDS if cycle == count - 1 and strike is kill else set[str]()
                    code = await strike_under_load(server, load, cycle=cycle, strike=strike, kinds=kinds)
                    assert code in exit_codes, f"seed {seed}, cycle {cycle}: exit code {code}; {server.log[-5:]}"
            complaints = [
                entry
                for entry in server.log
                if entry.get("level") in COMPLAINTS and not entry.items() >= ERASED.items()
            ]
            assert not complaints, f"seed {seed}, cycle {cycle}: {complaints[:5]}"
    assert load is not None
    print(f"seed {seed}: {dict(load.acknowledged)}, {dict(load.model.counters)}")
    return load


async def strike_under_load(
    server: ServerProcess, load: Load, *, cycle: int, strike: Strike, kinds: Set[str] = frozenset()
) -> int:
    """Let clients work, end the server at a random time or with a random acknowledgement, and return its exit code.

    Args:
        kinds: what must have been acknowledged before; only then it is left to chance.
    """
    random_ = dice(load.seed, cycle, "strike")
    left = random_.choice((1_000_000, random_.randrange(1, 150)))
    reached, complete = trio.Event(), trio.Event()

    def on_acknowledged() -> None:
        nonlocal left
        if kinds <= load.acknowledged.keys():
            complete.set()
        left -= 1
        if left == 0:
            reached.set()

    async with trio.open_nursery() as clients:

        async def work() -> None:
            await load.run(server.url, cycle=cycle, clients=CLIENTS, on_acknowledged=on_acknowledged)

        clients.start_soon(work)
        if kinds:
            with trio.fail_after(PATIENCE_S):
                await complete.wait()
        with trio.move_on_after(random_.uniform(0.02, MOMENT_MAX_S)):
            await reached.wait()
        await strike(server, random_)
        code = await server.wait()
    load.model.restart()
    return code


async def kill(server: ServerProcess, _: random.Random) -> None:
    server.signal(signal.SIGKILL)


async def terminate(server: ServerProcess, _: random.Random) -> None:
    """Requests under way end soon, so the server does too, before the drain time is over."""
    server.signal(signal.SIGTERM)
    await server.wait()


async def terminate_twice(server: ServerProcess, random_: random.Random) -> None:
    server.signal(signal.SIGTERM)
    await pass_time(random_.uniform(0, 0.1))
    server.signal(signal.SIGTERM)
    await server.wait()


async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    load = await campaign(tmp_path / "data", new_seed(), count=cycles(30, 1000), strike=kill, exit_codes={-9})

    assert load.acknowledged.keys() >= KINDS


async def test_sigterm_drains_and_loses_nothing(tmp_path: Path) -> None:
    await campaign(tmp_path / "data", new_seed(), count=cycles(4, 100), strike=terminate, exit_codes={0})


async def test_a_second_sigterm_ends_at_once_and_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    codes = {128 + signal.SIGTERM, 0, -signal.SIGTERM}  # the last two where it was through before the second one came
    await campaign(tmp_path / "data", new_seed(), count=cycles(3, 100), strike=terminate_twice, exit_codes=codes)


async def test_a_request_that_waits_behind_another_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """Sent on one connection while the reply before it still streams: the stream ends, the connection closes."""
    async with (
        open_echo_provider() as provider_url,
        open_process(tmp_path / "data", environment=environment(provider_url)) as server,
    ):
        body = msgspec.json.encode({"model": "openai/m", "stream": True, "messages": [user("How are you? " * 50)]})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.account_key}\r\n"
        request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
        async with await trio.open_tcp_stream("127.0.0.1", int(server.url.rpartition(":")[2])) as stream:
            await stream.send_all(request + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            said = bytes(await stream.receive_some())
            server.signal(signal.SIGTERM)
            with trio.fail_after(PATIENCE_S):
                while data := await stream.receive_some():
                    said += data
                assert await server.wait() == 0
    assert b"[DONE]" in said
