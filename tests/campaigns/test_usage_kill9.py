"""kill -9 under load: every request that was answered is counted, each exactly once, and so is every memory.

Each client has a key of its own and one request under way at a time, so a key's count may be ahead of what its client
has seen by the one request that the kill has cut off, and never behind. Counts are folded ten times a second meanwhile,
so that kills strike between a fold and the removal of its file, too. MEMORYROUTER_TEST_LONG=1 makes it 300 kills.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.campaigns.echo_provider import open_echo_provider
from tests.campaigns.moments import cycles, dice, new_seed, pass_time
from tests.campaigns.wire import connected
from tests.running import Client, ServerProcess, object_of, open_process

CLIENTS = 4
ANSWERED_MIN = 40
"""Requests that must be answered before a kill."""

MOMENT_MAX_S = 0.3


def environment(provider_url: str) -> dict[str, str]:
    return {
        "MEMORYROUTER_STORE__BALLAST_BYTES": "4194304",
        "MEMORYROUTER_USAGE__FOLD_INTERVAL_S": "0.1",
        "MEMORYROUTER_PROVIDERS__OPENAI__BASE_URL": provider_url,
        "MEMORYROUTER_PROVIDERS__OPENAI__API_KEY": "sk-echo",
    }


class User:
    """One key and what its client knows of its use.

    Attributes:
        sent, answered: requests, over all lives of the server.
    """

    def __init__(self, key: str, number: int) -> None:
        self.key = key
        self.number = number
        self.sent = self.answered = 0
        self._said = 0

    async def work(self, url: str, seed: int, answered: Callable[[], None]) -> None:
        """One request after the other, until the server is gone."""
        random_ = dice(seed, self.number, self.sent)
        async with connected(url) as http:
            client = Client(http, self.key)
            try:
                while True:
                    self.sent += 1
                    await self._ask(client, random_.randrange(5))
                    self.answered += 1
                    answered()
            except httpx.TransportError:
                return

    async def _ask(self, client: Client, kind: int) -> None:
        self._said += 1
        text = f"Note {self._said} of user {self.number} about pottery."
        match kind:
            case 0:
                answer = await client.post("/v1/memory/ingest", {"messages": [{"role": "user", "content": text}]})
            case 1:
                answer = await client.post("/v1/memory/search", {"query": "pottery"})
            case 2:
                lines = b"".join(b'{"content": "%b %d"}\n' % (text.encode(), line) for line in range(3))
                answer = await client.post("/v1/memory/upload", lines)
            case _:
                answer = await client.chat(text, stream=kind == 3)
        assert answer.status_code < 300, answer.text


async def used(client: Client) -> dict[str, dict[str, Any]]:
    """Counts by the id of the key."""
    answer = await client.get("/v1/account/usage")
    assert answer.status_code == 200, answer.text
    by_key: dict[str, dict[str, Any]] = object_of(answer)["by_key"]
    return by_key


async def check(url: str, account_key: str, users: list[User], seen: str) -> None:
    """Compare the counts of a server that has just started with what clients know; then they are what is known."""
    async with connected(url) as http:
        memories = {}
        for user in users:
            stats = await Client(http, user.key).stats()  # behind whatever the inbox still held
            memories[user.number] = stats["memories"]
        by_key = await used(Client(http, account_key))
    for user in users:
        counted = by_key.get(f"key_{user.number}", Counter())
        requests = counted["requests"] - 1  # the stats above
        assert user.answered <= requests <= user.sent, f"{seen}, key {user.number}"
        assert counted["memories_stored"] == memories[user.number], f"{seen}, key {user.number}"
        assert counted["errors"] == 0, seen
        user.sent = user.answered = counted["requests"]


async def strike(server: ServerProcess, users: list[User], seed: int, cycle: int) -> None:
    """Let all work until enough has been answered, and a while longer; then kill the server."""
    left, enough = ANSWERED_MIN, trio.Event()

    def on_answered() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            enough.set()

    async with trio.open_nursery() as working:
        for user in users:
            working.start_soon(partial(user.work, server.url, seed + cycle, on_answered))
        await enough.wait()
        await pass_time(dice(seed, cycle, "moment").uniform(0, MOMENT_MAX_S))
        server.signal(signal.SIGKILL)
        await server.wait()


async def test_kill_9_loses_no_count_and_doubles_none(tmp_path: Path) -> None:
    seed, users, account_key = new_seed(), list[User](), ""
    async with open_echo_provider() as provider_url:
        for cycle in range(cycles(3, 300) + 1):
            async with open_process(tmp_path / "data", environment=environment(provider_url)) as server:
                if not users:
                    account_key = server.account_key
                    async with connected(server.url) as http:
                        for number in range(CLIENTS):
                            other = await Client(http, account_key).other(f"user {number}")
                            users.append(User(other.key, number + 2))
                else:
                    await check(server.url, account_key, users, f"seed {seed}, cycle {cycle}")
                if cycle < cycles(3, 300):
                    await strike(server, users, seed, cycle)


async def test_a_server_killed_right_after_an_answer_has_counted_it(tmp_path: Path) -> None:
    """Exactly: nothing else is under way."""
    asked = 0
    account_key = ""
    async with open_echo_provider() as provider_url:
        for cycle in range(2):
            async with open_process(tmp_path / "data", environment=environment(provider_url)) as server:
                account_key = account_key or server.account_key
                async with connected(server.url) as http:
                    client = Client(http, account_key)
                    if cycle:
                        assert (await used(client))["key_1"]["requests"] == asked
                    for number in range(20 * (cycle == 0)):
                        answer = await client.chat(f"Message {cycle} {number}", stream=number % 2 == 0)
                        assert answer.status_code == 200
                        asked += 1
                    server.signal(signal.SIGKILL)
                    await server.wait()
