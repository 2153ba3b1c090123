"""How far a vault is behind its log: what counts, who is let in, who waits, and that all of it is given back."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.inbox_lag import ONE, WAITERS_MAX, Claim, InboxLag, Weight, weigh
from models.errors import DeadlineExceeded, Overloaded
from models.memory import ImportedVectors, InboxRow
from tests.actors.house import exchange, message


def new_lag(messages_max: int = 10, bytes_max: int = 10_000) -> InboxLag:
    return InboxLag(messages_max=messages_max, bytes_max=bytes_max)


def row(row_id: int, *texts: str) -> InboxRow:
    return InboxRow(row_id=row_id, exchange=exchange(*texts))


def test_texts_and_vectors_are_weighed() -> None:
    vectors = ImportedVectors(model_id="m", spans=((0, 1),), rows=b"\0" * 700)
    plain, heavy = exchange("a", "b"), exchange("a" * 500)
    brought = type(plain)(messages=(message("a", embedded=vectors),), source="upload", accepted_ms=0)
    assert weigh([plain, heavy]).messages == 3
    assert weigh([heavy]).size_bytes >= 500
    assert weigh([brought]).size_bytes - weigh([exchange("a")]).size_bytes == 700
    assert weigh([]) == Weight()


def test_the_limit_holds_for_messages_and_for_bytes() -> None:
    lag = new_lag()
    lag.hold(Weight(9, 0))
    with pytest.raises(Overloaded):
        lag.claim_nowait(Weight(2, 0), ahead=False)
    with pytest.raises(Overloaded):
        lag.claim_nowait(Weight(1, 10_001), ahead=False)
    lag.claim_nowait(Weight(1, 10_000), ahead=False)
    with pytest.raises(Overloaded):
        lag.claim_nowait(ONE, ahead=True)


def test_what_is_larger_than_the_limit_gets_in_alone() -> None:
    """Otherwise it never would."""
    lag = new_lag()
    small = lag.claim_nowait(ONE, ahead=False)
    with pytest.raises(Overloaded):
        lag.claim_nowait(Weight(1_000, 1_000_000), ahead=False)
    small.release()
    lag.claim_nowait(Weight(1_000, 1_000_000), ahead=False)
    with pytest.raises(Overloaded):
        lag.claim_nowait(ONE, ahead=False)


def test_a_claim_becomes_rows_and_the_rows_end() -> None:
    lag = new_lag()
    rows = [row(1, "one", "two"), row(2, "three")]
    weight = weigh([row.exchange for row in rows])
    claim = lag.claim_nowait(weight, ahead=False)
    claim.land(rows)
    assert (lag.held, set(lag.rows)) == (weight, {1, 2})
    claim.release()  # harmless
    lag.add(rows)  # hydration reads what is known already
    assert lag.held == weight
    lag.remove([1, 7])
    assert (lag.held.messages, set(lag.rows)) == (1, {2})
    lag.remove([2])
    assert lag.held == Weight()


def test_hydration_corrects_what_is_known_but_not_what_comes_meanwhile() -> None:
    """A row that was set aside, or is damaged, is found no more."""
    lag = new_lag()
    lag.add([row(1, "written"), row(2, "waits")])
    known = lag.rows
    lag.add([row(4, "came meanwhile")])
    lag.correct(known, [row(2, "waits"), row(3, "from an earlier run")])
    assert lag.rows == {2, 3, 4}
    assert lag.held.messages == 3


class Waiting:
    """Uploads that wait for room, in order, and the claims that they got."""

    def __init__(self, lag: InboxLag, nursery: trio.Nursery) -> None:
        self._lag = lag
        self._nursery = nursery
        self.got: dict[int, Claim | None] = {}

    async def start(self, *messages: int) -> None:
        for count in messages:
            self._nursery.start_soon(self._wait, count)
            await wait_all_tasks_blocked()

    async def _wait(self, count: int) -> None:
        self.got[count] = await self._lag.claim(Weight(count), timeout_s=60)


async def test_who_waits_gets_in_first_come_first_served(autojump_clock: MockClock) -> None:
    lag = new_lag()
    held = [lag.hold(Weight(5)) for _ in range(2)]
    async with trio.open_nursery() as nursery:
        waiting = Waiting(lag, nursery)
        await waiting.start(8, 2, 3)
        assert (lag.waiting, waiting.got) == (3, {})
        held[0].release()  # room for 2 and for 3, but 8 is first
        await wait_all_tasks_blocked()
        assert (lag.waiting, waiting.got) == (3, {})
        held[1].release()
        await wait_all_tasks_blocked()
        assert sorted(waiting.got) == [2, 8]
        claim = waiting.got[8]
        assert claim is not None
        claim.release()
    assert sorted(waiting.got) == [2, 3, 8]


async def test_only_a_chat_goes_before_those_who_wait(autojump_clock: MockClock) -> None:
    lag = new_lag()
    held = lag.hold(Weight(5))
    async with trio.open_nursery() as nursery:
        waiting = Waiting(lag, nursery)
        await waiting.start(8)
        with pytest.raises(Overloaded):
            lag.claim_nowait(ONE, ahead=False)
        lag.claim_nowait(ONE, ahead=True).release()
        held.release()
    assert waiting.got[8] is not None


async def test_few_may_wait_and_none_for_ever(autojump_clock: MockClock) -> None:
    lag = new_lag()
    lag.hold(Weight(10))
    refused = 0

    async def wait() -> None:
        nonlocal refused
        with pytest.raises(DeadlineExceeded):
            await lag.claim(ONE, timeout_s=5)
        refused += 1

    async with trio.open_nursery() as nursery:
        for _ in range(WAITERS_MAX):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        with pytest.raises(Overloaded):
            await lag.claim(ONE, timeout_s=5)
    assert (refused, lag.waiting, lag.held) == (WAITERS_MAX, 0, Weight(10))


async def test_who_leaves_holds_nothing_and_lets_the_next_one_in(autojump_clock: MockClock) -> None:
    lag = new_lag()
    lag.hold(Weight(5))
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as leaving:
            async with trio.open_nursery() as first:
                await Waiting(lag, first).start(8)
                waiting = Waiting(lag, nursery)
                await waiting.start(2)
                leaving.cancel(reason="the client left")
    assert waiting.got[2] is not None
    assert (lag.waiting, lag.held) == (0, Weight(7))


@pytest.mark.parametrize("room", [False, True])
async def test_a_closing_vault_sends_those_who_wait_away(autojump_clock: MockClock, *, room: bool) -> None:
    """Also who was let in at the same moment: its vault takes nothing any more."""
    lag = new_lag()
    held = lag.hold(Weight(10))
    async with trio.open_nursery() as nursery:
        waiting = Waiting(lag, nursery)
        await waiting.start(8)
        if room:
            held.release()
        lag.close()
    assert waiting.got == {8: None}
    assert lag.held == (Weight() if room else Weight(10))
