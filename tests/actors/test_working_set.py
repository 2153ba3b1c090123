"""Which vaults leave memory: unused ones, and under pressure the least recently used."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.working_set import WorkingSet
from models.ids import VaultNumber

A, B, C = VaultNumber(1), VaultNumber(2), VaultNumber(3)


def working_set(*, memory_max_bytes: int = 1_000_000) -> WorkingSet:
    return WorkingSet(memory_max_bytes=memory_max_bytes, idle_timeout_s=300, residency_min_s=30)


def victims(live: WorkingSet, now_s: float, *, busy: Iterable[VaultNumber] = ()) -> list[tuple[VaultNumber, str]]:
    held = set(busy)
    return list(live.victims(now_s, idle=lambda vault: vault not in held))


def test_a_vault_unused_for_the_idle_timeout_leaves() -> None:
    live = working_set()
    live.touch(A, 0)
    live.touch(B, 100)
    assert victims(live, 299) == []
    assert victims(live, 300) == [(A, "idle")]
    assert victims(live, 400) == [(A, "idle"), (B, "idle")]


def test_use_keeps_a_vault() -> None:
    live = working_set()
    live.touch(A, 0)
    live.touch(A, 299)
    assert victims(live, 300) == []


def test_over_the_budget_the_least_recently_used_leave_until_it_fits() -> None:
    live = working_set(memory_max_bytes=100)
    for now_s, vault in enumerate((A, B, C, A)):
        live.touch(vault, now_s)
        live.resize(vault, 60)
    assert live.bytes_in_memory == 180
    assert victims(live, 40) == [(B, "memory"), (C, "memory")]


def test_a_vault_that_has_just_come_stays_even_over_the_budget() -> None:
    live = working_set(memory_max_bytes=100)
    for vault in (A, B):
        live.touch(vault, 0)
        live.resize(vault, 80)
    assert victims(live, 29.9) == []
    assert victims(live, 30) == [(A, "memory")]


def test_a_vault_larger_than_the_budget_leaves_only_when_it_is_unused() -> None:
    """It takes minutes to load: whoever uses it now and then must find it, whatever else is used meanwhile."""
    live = working_set(memory_max_bytes=100)
    live.touch(A, 0)
    live.resize(A, 500)
    for now_s in (40, 80):
        live.touch(B, now_s)
        live.resize(B, 60)
        assert victims(live, now_s + 31) == []
    assert victims(live, 300) == [(A, "idle")]
    live.touch(A, 300)
    assert victims(live, 301) == []


def test_beside_a_vault_larger_than_the_budget_the_others_have_all_of_it() -> None:
    live = working_set(memory_max_bytes=100)
    for now_s, (vault, size_bytes) in enumerate([(A, 500), (B, 60), (C, 40)]):
        live.touch(vault, now_s)
        live.resize(vault, size_bytes)
        assert not live.full, "nobody waits to be let in"
    live.resize(C, 60)
    assert live.full
    assert victims(live, 100) == [(B, "memory")]
    live.resize(A, 90)
    assert victims(live, 100) == [(A, "memory"), (B, "memory")], "a usual vault again"


def test_of_several_vaults_larger_than_the_budget_the_last_used_stays() -> None:
    live = working_set(memory_max_bytes=100)
    for now_s, vault in enumerate((A, B, C, A)):
        live.touch(vault, now_s)
        live.resize(vault, 150)
    assert victims(live, 100) == [(B, "memory"), (C, "memory")]
    live.remove(A)
    live.touch(B, 101)
    assert victims(live, 102) == [(C, "memory")]


def test_busy_vaults_are_passed_over() -> None:
    live = working_set(memory_max_bytes=100)
    for vault in (A, B):
        live.touch(vault, 0)
        live.resize(vault, 80)
    assert victims(live, 100, busy=[A]) == [(B, "memory")]
    assert victims(live, 1_000, busy=[A, B]) == []


def test_what_has_left_takes_no_memory() -> None:
    live = working_set()
    live.touch(A, 0)
    live.resize(A, 70)
    live.resize(A, 50)
    assert live.bytes_in_memory == 50
    live.remove(A)
    live.remove(A)
    live.resize(A, 10)
    assert live.bytes_in_memory == 0
    assert victims(live, 10_000) == []


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(0, 200), st.sampled_from("tur")), max_size=60))
def test_the_bytes_are_always_the_sum_of_the_live_vaults(steps: list[tuple[VaultNumber, int, str]]) -> None:
    live = working_set(memory_max_bytes=150)
    sizes: dict[VaultNumber, int] = {}
    for now_s, (vault, size_bytes, step) in enumerate(steps):
        if step == "t":
            live.touch(vault, now_s)
            sizes.setdefault(vault, 0)
        elif step == "u":
            live.resize(vault, size_bytes)
            if vault in sizes:
                sizes[vault] = size_bytes
        else:
            live.remove(vault)
            sizes.pop(vault, None)
        assert live.bytes_in_memory == sum(sizes.values())
    for vault, _ in victims(live, len(steps) + 250):
        del sizes[vault]
    # No vault is too new any more, so the budget is kept but for one vault that is larger by itself.
    assert sum(sizes.values()) - max((size for size in sizes.values() if size > 150), default=0) <= 150


def test_the_log_says_once_that_a_vault_alone_is_larger_than_the_budget(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever runs the server has to know: such a vault stays beside the others, which have the budget for them."""
    live = working_set(memory_max_bytes=1_000)
    live.touch(A, 0)
    live.resize(A, 1_000)
    assert caplog.records == []
    live.resize(A, 1_001)
    live.resize(A, 1_002)
    (record,) = caplog.records
    assert (record.message, vars(record)["bytes"]) == ("vault_larger_than_memory_max_bytes", 1_001)
