"""Retention: what was stored long ago is deleted, and nothing else; vaults with nothing to delete are not woken."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from msgspec import UNSET
from trio.testing import MockClock, wait_all_tasks_blocked

from actors import single_memories
from actors.retention import (
    FIRST_SWEEP_S,
    PAGE_ENTRIES,
    SWEEP_INTERVAL_S,
    delete_expired,
    sweep,
    trim_audit,
)
from models.accounts import OPERATOR, AccountChange
from models.errors import NotOwner, StoreUnavailable
from models.ids import VaultRef
from models.memory import Message
from models.messages import ChangeMemory, MemoryChange
from models.times import DAY_MS
from tests.actors.house import NOW_MS, House, exchange, open_house

NAMES = ("old", "recent")


class Swept:
    """What a sweep told of."""

    def __init__(self, house: House, *, now_ms: int = NOW_MS) -> None:
        self.house = house
        self.now_ms = now_ms
        self.deleted: list[VaultRef] = []

    async def sweep(self, *, default_days: int = 0) -> None:
        await sweep(
            self.house.store,
            self.house.supervisor,
            default_days=default_days,
            now_ms=lambda: self.now_ms,
            deleted=self.deleted.append,
        )


async def remember(house: House, vault: VaultRef, text: str, *, days_ago: int) -> None:
    """Store a text as if that had been so many days ago."""
    with await house.supervisor.pin(vault) as pin:
        stored = exchange(text, accepted_ms=NOW_MS - days_ago * DAY_MS)
        await pin.submit([stored]).wait_applied(timeout_s=30)


async def filled_vault(house: House) -> VaultRef:
    vault = await house.new_vault()
    await remember(house, vault, "old", days_ago=31)
    await remember(house, vault, "recent", days_ago=29)
    await until_written(house, vault)
    return vault


async def until_written(house: House, vault: VaultRef) -> None:
    await wait_all_tasks_blocked()
    assert not house.inbox(vault)


async def test_a_vault_of_another_node_is_left_to_that(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await filled_vault(house)

        def refuse(part: int) -> None:
            raise NotOwner("another worker has it")

        check_owned, house.supervisor.check_owned = house.supervisor.check_owned, refuse
        swept = Swept(house)
        await swept.sweep(default_days=30)
        assert swept.deleted == []
        house.supervisor.check_owned = check_owned
        await swept.sweep(default_days=30)
        assert swept.deleted == [vault]


async def test_a_vaults_own_setting_wins_over_its_accounts_and_that_over_the_default(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        own, kept, of_account = [await filled_vault(house) for _ in range(3)]
        change = partial(house.store.change_vault, 1, now_ms=NOW_MS, by=OPERATOR)
        swept = Swept(house)
        await swept.sweep()
        assert swept.deleted == [], "nobody said anything"
        await change(own.number, retention_days=30)
        await change(kept.number, retention_days=0)
        await swept.sweep()
        assert swept.deleted == [own]
        await swept.sweep(default_days=40)
        assert swept.deleted == [own]
        await house.store.change_account(1, AccountChange(retention_days=30), now_ms=NOW_MS, by=OPERATOR)
        await swept.sweep()
        assert swept.deleted == [own, of_account]
        for vault, expected in ((own, ["recent"]), (kept, list(NAMES)), (of_account, ["recent"])):
            assert await house.found(vault) == house.stored(vault) == expected
        await house.store.change_account(1, AccountChange(retention_days=None, name=UNSET), now_ms=NOW_MS, by=OPERATOR)
        await swept.sweep(default_days=28)
        assert swept.deleted == [own, of_account, of_account]
        assert await house.found(kept) == list(NAMES)


async def test_what_counts_is_when_it_was_stored_not_when_it_was_said(autojump_clock: MockClock) -> None:
    """An archive from years ago is kept as long as everything else; no given time keeps anything longer."""
    async with open_house() as house:
        vault = await house.new_vault()
        archive = Message(role="user", content="archive", timestamp_ms=1)
        future = Message(role="user", content="future", timestamp_ms=NOW_MS + 10_000 * DAY_MS)
        for message, days_ago in ((future, 31), (archive, 1)):
            with await house.supervisor.pin(vault) as pin:
                one = exchange(accepted_ms=NOW_MS - days_ago * DAY_MS)
                one = type(one)(messages=(message,), source="upload", accepted_ms=one.accepted_ms)
                await pin.submit([one]).wait_applied(timeout_s=30)
        await until_written(house, vault)
        await Swept(house).sweep(default_days=30)
        assert await house.found(vault) == ["archive"]


async def test_a_changed_text_counts_as_stored_when_it_was_changed(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await filled_vault(house)
        change = ChangeMemory(1, MemoryChange(content="new words"), now_ms=NOW_MS)
        await house.supervisor.ask(vault, change, timeout_s=30)
        await Swept(house).sweep(default_days=30)
        assert await house.found(vault) == ["new words", "recent"]


async def test_a_vault_with_nothing_to_delete_is_not_brought_into_memory(autojump_clock: MockClock) -> None:
    async with open_house(idle_timeout_s=1.0, residency_min_s=0.0) as house:
        vault = await filled_vault(house)
        await trio.sleep(60)
        assert house.supervisor.statistics()["live"] == 0
        await Swept(house).sweep(default_days=32)
        assert house.supervisor.statistics()["hydrated"] == 1
        await Swept(house).sweep(default_days=30)
        assert house.supervisor.statistics()["hydrated"] == 2
        assert house.stored(vault) == ["recent"]


async def test_a_vault_that_fails_does_not_keep_others_from_being_swept(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        first, second = await filled_vault(house), await filled_vault(house)
        house.store.refusing["delete_memories"] = StoreUnavailable("not now")
        swept = Swept(house)
        await swept.sweep(default_days=30)
        assert swept.deleted == []
        del house.store.refusing["delete_memories"]
        await swept.sweep(default_days=30)
        assert swept.deleted == [first, second]


async def test_the_audit_log_says_how_many_have_expired(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await filled_vault(house)
        await Swept(house).sweep(default_days=30)
        newest = (await house.store.list_audit())[0]
    assert (newest.action, newest.actor, newest.target) == ("memories.expired", "server", f"vault:{vault.number}")
    assert newest.detail == {"memories": 1, "retention_days": 30}


async def test_time_passes_and_memories_go(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Swept soon after the start, and every hour; many memories go in parts."""
    monkeypatch.setattr(single_memories, "FORGET_MEMORIES_MAX", 10)
    async with open_house() as house, trio.open_nursery() as background:
        vault = await house.new_vault()
        texts = [f"text {number}" for number in range(35)]
        await house.remember(vault, *texts)
        await until_written(house, vault)
        began_s = trio.current_time()

        def now_ms() -> int:
            """A clock on which an hour is a day."""
            return NOW_MS + int((trio.current_time() - began_s) * 24_000)

        expire = partial(
            delete_expired, house.store, house.supervisor, default_days=1, now_ms=now_ms, deleted=lambda _: None
        )
        background.start_soon(expire)
        await trio.sleep(FIRST_SWEEP_S + 10)
        assert len(house.stored(vault)) == len(texts)
        await trio.sleep(2 * SWEEP_INTERVAL_S)
        assert house.stored(vault) == []
        background.cancel_scope.cancel()


async def test_entries_of_the_audit_log_go_after_their_days_and_are_kept_without_any(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        await house.new_vault()
        recent = await house.store.list_audit()
        for number in range(2 * PAGE_ENTRIES + 1):
            await house.store.audit(
                at_ms=NOW_MS - 8 * DAY_MS + number, account_number=1, action="x", target="server", by=OPERATOR
            )
        await house.store.audit(at_ms=NOW_MS - 6 * DAY_MS, account_number=1, action="y", target="server", by=OPERATOR)
        for keep_days, gone in ((0, 0), (9, 0), (7, 2 * PAGE_ENTRIES + 1), (7, 0)):
            assert await trim_audit(house.store, keep_days=keep_days, now_ms=NOW_MS) == gone
        newest, *rest = await house.store.list_audit()
        assert (newest.action, rest) == ("y", recent)


async def test_the_audit_log_is_trimmed_every_hour_beside_the_vaults(autojump_clock: MockClock) -> None:
    async with open_house() as house, trio.open_nursery() as background:
        await house.new_vault()
        now = [NOW_MS]
        sweeping = partial(delete_expired, house.store, house.supervisor, default_days=0, deleted=lambda _: None)
        background.start_soon(partial(sweeping, audit_keep_days=7, now_ms=lambda: now[0]))
        await house.store.audit(at_ms=NOW_MS, account_number=1, action="x", target="server", by=OPERATOR)
        await trio.sleep(FIRST_SWEEP_S + 10)
        assert "x" in [entry.action for entry in await house.store.list_audit()]
        now[0] += 7 * DAY_MS + 1
        await trio.sleep(SWEEP_INTERVAL_S)
        assert await house.store.list_audit() == []
        background.cancel_scope.cancel()
