"""How many memories a vault may hold: exact, also for requests at once, and never in the way of a chat."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from models.errors import DeadlineExceeded, QuotaExceeded
from models.ids import Principal, VaultNumber, VaultRef
from models.key_limits import KeyLimits
from models.limit_settings import LimitSettings
from models.memory import Message
from models.messages import AnyMessage, Sift, Sifted, VaultStats
from router.memory_quota import MemoryQuota, Reservation
from tests.router.limited import FORMATS, MODEL, limited, refusals
from tests.router.test_flood import HeldEncoder
from tests.running import assistant, object_of, open_server, settings_for, user


class CountedVault:
    """As much of a supervisor as a quota asks: how many memories there are, when it may say so."""

    def __init__(self, memories: int) -> None:
        self.memories = memories
        self.asked = 0
        self.may_answer = trio.Event()
        self.may_answer.set()

    async def ask(self, vault: VaultRef, message: AnyMessage, *, timeout_s: float) -> Any:
        self.asked += 1
        counted = VaultStats(memories=self.memories)
        await self.may_answer.wait()
        return Sifted(unknown=tuple(range(len(message.exchange.messages)))) if isinstance(message, Sift) else counted


VAULT = VaultRef(number=VaultNumber(1), shard=0)
PRINCIPAL = Principal(key_number=1, account_number=1, kind="user", name="n", vault=VAULT)


def quota_of(vault: CountedVault, memories_max: int) -> MemoryQuota:
    supervisor: Any = vault
    return MemoryQuota(supervisor, memories_max=memories_max, refused=lambda: None)


async def reserve(quota: MemoryQuota, count: int = 1, *, principal: Principal = PRINCIPAL) -> Reservation:
    messages = [Message(role="user", content=f"text {number}") for number in range(count)]
    return await quota.reserve(principal, messages, source="upload", now_ms=0)


async def test_what_is_on_its_way_counts_until_it_is_let_go() -> None:
    vault = CountedVault(memories=1)
    quota = quota_of(vault, 3)
    first, second = await reserve(quota), await reserve(quota)
    with pytest.raises(QuotaExceeded) as caught:
        await reserve(quota)
    assert caught.value.details == {"memories": 3, "memories_wanted": 1, "memories_max": 3}
    vault.memories += 1
    first.close()
    first.close()
    with pytest.raises(QuotaExceeded):
        await reserve(quota)
    second.close()  # nothing came of it
    (await reserve(quota)).close()


async def test_what_arrives_while_a_request_looks_is_counted_once_in_the_end() -> None:
    """The count may have been taken before it arrived or after; neither lets one in too many, nor one too few."""
    for arrived_before_count, fits in ((True, True), (False, False)):
        vault = CountedVault(memories=0)
        quota = quota_of(vault, 2 if fits else 1)
        first = await reserve(quota)
        vault.may_answer = trio.Event()
        if arrived_before_count:
            vault.memories = 1
        outcome: list[str] = []

        async def look(quota: MemoryQuota, outcome: list[str]) -> None:
            try:
                await reserve(quota)
                outcome.append("in")
            except QuotaExceeded:
                outcome.append("out")

        async with trio.open_nursery() as looking:
            looking.start_soon(look, quota, outcome)
            await wait_all_tasks_blocked()
            first.close()
            vault.memories = 1
            vault.may_answer.set()
        assert outcome == ["in" if fits else "out"]


async def test_a_key_without_a_quota_asks_nobody_and_its_own_quota_comes_first() -> None:
    vault = CountedVault(memories=5)
    quota = quota_of(vault, 0)
    (await reserve(quota, 1_000)).close()
    assert vault.asked == 0
    small = msgspec.structs.replace(PRINCIPAL, limits=KeyLimits(memories_max=5))
    with pytest.raises(QuotaExceeded):
        await reserve(quota, principal=small)
    free = msgspec.structs.replace(PRINCIPAL, limits=KeyLimits(memories_max=0))
    (await reserve(quota_of(vault, 1), 1_000, principal=free)).close()


async def test_a_look_that_is_cancelled_reserves_nothing(autojump_clock: MockClock) -> None:
    vault = CountedVault(memories=0)
    vault.may_answer = trio.Event()
    quota = quota_of(vault, 1)
    with trio.move_on_after(1):
        await reserve(quota)
    with pytest.raises(DeadlineExceeded):
        await reserve(quota)  # a vault that never says how large it is
    vault.may_answer.set()
    (await reserve(quota)).close()


async def test_vaults_that_nobody_stores_in_are_forgotten() -> None:
    quota = quota_of(CountedVault(memories=0), 10)
    kept = await reserve(quota)
    for number in range(2, 100):
        vault = VaultRef(number=VaultNumber(number), shard=0)
        (await reserve(quota, principal=msgspec.structs.replace(PRINCIPAL, vault=vault))).close()
        assert len(quota) == 1
    kept.close()
    assert len(quota) == 0


async def test_a_vault_that_is_full_takes_no_more_and_says_how_much_it_holds(tmp_path: Path) -> None:
    async with limited(tmp_path, memories_max=3) as client:
        await client.ingest("The first is true.", "The second is true.")
        refused = await client.post("/v1/memory/upload", b'{"content":"a is true"}\n{"content":"b is true"}')
        assert refused.status_code == 402
        assert object_of(refused)["error"] == {
            "message": "The vault may hold 3 memories.",
            "type": "payment_required",
            "code": "payment_required",
            "details": {
                "memories": 2, "memories_wanted": 2, "memories_max": 3,
                "hint": "Delete memories, or have the limit of this key raised.",
            },
        }  # fmt: skip
        assert (await client.stats())["memories"] == 2  # all or none
        await client.upload([{"content": "a is true"}])
        assert (await client.post("/v1/memory/ingest", {"messages": [user("More is true.")]})).status_code == 402
        assert (await client.stats())["memories"] == 3
        assert await refusals(client, "memories") == 2

        assert (await client.delete()).status_code == 200
        await client.ingest("There is room again.")


async def test_what_is_known_already_needs_no_room(tmp_path: Path) -> None:
    """A client that sends an upload again, since it has not heard the answer, must not be told to pay."""
    async with limited(tmp_path, memories_max=2) as client:
        lines = [{"content": "a is true", "timestamp": 1}, {"content": "b is true", "timestamp": 2}]
        await client.upload(lines)
        again = await client.upload(lines)
        assert again["stats"]["duplicates"] == 2


async def test_memories_that_wait_for_their_embeddings_count(tmp_path: Path) -> None:
    encoder = HeldEncoder()
    settings = settings_for(limits=LimitSettings(memories_max=2))
    async with open_server(tmp_path / "data", settings, encoder=encoder) as client:
        await client.ingest("The first is true.", "The second is true.")
        assert (await client.post("/v1/memory/ingest", {"messages": [user("More is true.")]})).status_code == 402
        encoder.go.set()


async def test_requests_at_once_fill_a_vault_exactly(tmp_path: Path) -> None:
    async with limited(tmp_path, memories_max=7) as client:
        statuses = Counter[int]()

        async def ingest(number: int) -> None:
            answer = await client.post("/v1/memory/ingest", {"messages": [user(f"Fact {number} is true.")]})
            statuses[answer.status_code] += 1

        async with trio.open_nursery() as ingesting:
            for number in range(20):
                ingesting.start_soon(ingest, number)
        assert statuses == {202: 7, 402: 13}
        assert (await client.stats())["memories"] == 7


async def test_a_chat_beside_a_full_vault_goes_on_without_being_stored(tmp_path: Path) -> None:
    async with limited(tmp_path, memories_max=3) as client:
        stored = await client.chat("My dog is called Rex.", model=MODEL)
        assert stored.headers["x-memory-status"] in ("ok", "empty")
        assert (await client.stats())["memories"] == 2
        for name in ("openai", "responses", "anthropic", "gemini"):
            path, body = FORMATS[name]
            answer = await client.post(path, body)
            assert answer.status_code == 200
            assert answer.headers["x-memory-status"] == "not_stored"
        assert (await client.stats())["memories"] == 2
        assert await refusals(client, "memories") == 4
        question = await client.chat("What is my dog called?", model=MODEL, headers={"x-memory-mode": "read"})
        assert "Rex" in question.json()["choices"][0]["message"]["content"]


async def test_a_conversation_counts_every_message_that_it_adds(tmp_path: Path) -> None:
    async with limited(tmp_path, memories_max=4) as client:
        turns = [user("My dog is called Rex."), assistant("A fine name."), user("He is a beagle.")]
        first = await client.chat(*turns, model=MODEL)
        assert first.headers["x-memory-status"] != "not_stored"
        assert (await client.stats())["memories"] == 4
        assert (await client.chat(*turns, user("And old."), model=MODEL)).headers["x-memory-status"] == "not_stored"
