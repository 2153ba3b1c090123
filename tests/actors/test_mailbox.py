"""Mailboxes: bounded, in order, and every asker learns what became of its message."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.mailbox import Mailbox, TurnTimes
from models.distributions import STEP_SECONDS, Distribution
from models.errors import DeadlineExceeded, NotFound, Overloaded, VaultUnavailable
from models.messages import Barrier, Stats, VaultStats
from tests.patience import PATIENCE_S


async def serve(mailbox: Mailbox, seen: list[Any]) -> None:
    """An actor that notes each message and answers with its place in the order."""
    async for envelope in mailbox.receive:
        envelope.taken()
        seen.append(envelope.message)
        envelope.reply(VaultStats(memories=len(seen)))


async def outcome_of(mailbox: Mailbox, timeout_s: float, outcomes: list[Any]) -> None:
    try:
        outcomes.append(await mailbox.ask(Barrier(), timeout_s=timeout_s))
    except (Overloaded, trio.ClosedResourceError) as error:
        outcomes.append(type(error))


async def test_messages_are_answered_in_the_order_of_sending() -> None:
    mailbox = Mailbox(messages_max=8, reserved_max=1)
    seen: list[Any] = []
    async with trio.open_nursery() as actors:
        actors.start_soon(serve, mailbox, seen)
        for number in range(20):
            reply = await mailbox.ask(Stats(session_id=str(number)), timeout_s=PATIENCE_S)
            assert reply.memories == number + 1
        mailbox.close()
    assert [message.session_id for message in seen] == [str(number) for number in range(20)]


async def test_an_ask_waits_for_a_place_until_its_deadline_and_is_then_overloaded(autojump_clock: MockClock) -> None:
    mailbox = Mailbox(messages_max=2, reserved_max=1)
    outcomes: list[Any] = []
    async with trio.open_nursery() as askers:
        for _ in range(2):
            askers.start_soon(outcome_of, mailbox, 60.0, outcomes)
        await wait_all_tasks_blocked()
        began_s = trio.current_time()
        with pytest.raises(Overloaded) as caught:
            await mailbox.ask(Barrier(), timeout_s=5)
        assert trio.current_time() - began_s == 5
        assert caught.value.code == "overloaded"
        assert caught.value.retry_after_s == 1
        assert mailbox.waiting == 2
        askers.cancel_scope.cancel()


async def test_a_message_that_is_not_answered_in_time_exceeds_its_deadline(autojump_clock: MockClock) -> None:
    mailbox = Mailbox(messages_max=1, reserved_max=1)
    began_s = trio.current_time()
    with pytest.raises(DeadlineExceeded):
        await mailbox.ask(Barrier(), timeout_s=5)
    assert trio.current_time() - began_s == 5
    envelope = await mailbox.receive.receive()
    assert envelope.expired


async def test_a_place_is_free_again_as_soon_as_the_actor_takes_the_message() -> None:
    mailbox = Mailbox(messages_max=1, reserved_max=1)
    outcomes: list[Any] = []
    async with trio.open_nursery() as askers:
        for _ in range(2):
            askers.start_soon(outcome_of, mailbox, 60.0, outcomes)
        await wait_all_tasks_blocked()
        assert mailbox.waiting == 1
        first = await mailbox.receive.receive()
        first.taken()
        await wait_all_tasks_blocked()
        assert mailbox.waiting == 1
        second = await mailbox.receive.receive()
        second.taken()
        for envelope in (first, second):
            envelope.reply(None)
    assert outcomes == [None, None]


async def test_a_reply_after_the_caller_has_left_is_no_error() -> None:
    mailbox = Mailbox(messages_max=1, reserved_max=1)
    async with trio.open_nursery() as askers:
        askers.start_soon(outcome_of, mailbox, 60.0, [])
        await wait_all_tasks_blocked()
        askers.cancel_scope.cancel()
    envelope = await mailbox.receive.receive()
    envelope.taken()
    envelope.reply(None)
    assert mailbox._places.value == 1


async def test_the_caller_of_a_dropped_message_is_told_that_the_vault_is_unavailable() -> None:
    mailbox = Mailbox(messages_max=1, reserved_max=1)
    outcomes: list[Any] = []
    async with trio.open_nursery() as askers:
        askers.start_soon(outcome_of, mailbox, 60.0, outcomes)
        await wait_all_tasks_blocked()
        mailbox.drop_all()
    assert outcomes == [VaultUnavailable]
    assert mailbox._places.value == 1


async def test_dropping_after_a_reply_changes_nothing() -> None:
    mailbox = Mailbox(messages_max=1, reserved_max=1)
    outcomes: list[Any] = []
    async with trio.open_nursery() as askers:
        askers.start_soon(outcome_of, mailbox, 60.0, outcomes)
        envelope = await mailbox.receive.receive()
        envelope.taken()
        envelope.reply(None)
        envelope.drop()
    assert outcomes == [None]
    assert mailbox._places.value == 1


async def test_an_error_that_is_the_reply_is_raised_in_the_caller() -> None:
    mailbox = Mailbox(messages_max=1, reserved_max=1)
    slot = mailbox.reserve_nowait().send(Barrier())
    (await mailbox.receive.receive()).reply(NotFound("no such memory"))
    with pytest.raises(NotFound):
        await slot.wait(timeout_s=PATIENCE_S)


async def test_closing_delivers_what_waits_and_then_ends() -> None:
    mailbox = Mailbox(messages_max=8, reserved_max=1)
    outcomes: list[Any] = []
    seen: list[Any] = []
    async with trio.open_nursery() as askers:
        for _ in range(3):
            askers.start_soon(outcome_of, mailbox, 60.0, outcomes)
        await wait_all_tasks_blocked()
        mailbox.close()
        await serve(mailbox, seen)
    assert len(seen) == len(outcomes) == 3


async def test_a_closed_mailbox_takes_nothing_and_keeps_no_place() -> None:
    mailbox = Mailbox(messages_max=2, reserved_max=2)
    mailbox.close()
    with pytest.raises(trio.ClosedResourceError):
        await mailbox.ask(Barrier(), timeout_s=PATIENCE_S)
    with pytest.raises(trio.ClosedResourceError):
        await mailbox.post(Barrier())
    slot = mailbox.reserve_nowait().send(Barrier())
    with pytest.raises(VaultUnavailable):
        await slot.wait(timeout_s=PATIENCE_S)
    assert mailbox._places.value == 2
    assert mailbox.reserved == 0


async def test_who_waits_for_a_place_when_the_mailbox_closes_is_sent_to_look_again() -> None:
    mailbox = Mailbox(messages_max=1, reserved_max=1)
    outcomes: list[Any] = []
    async with trio.open_nursery() as askers:
        for _ in range(3):
            askers.start_soon(outcome_of, mailbox, 60.0, outcomes)
        await wait_all_tasks_blocked()
        mailbox.close()
        await serve(mailbox, [])
    assert outcomes.count(trio.ClosedResourceError) == 2
    assert mailbox._places.value == 1


async def test_reserved_places_are_bounded_and_given_back() -> None:
    mailbox = Mailbox(messages_max=1, reserved_max=2)
    first, second = mailbox.reserve_nowait(), mailbox.reserve_nowait()
    with pytest.raises(Overloaded):
        mailbox.reserve_nowait()
    first.release()
    first.release()
    assert mailbox.reserved == 1
    third = mailbox.reserve_nowait()
    with pytest.raises(Overloaded):
        mailbox.reserve_nowait()
    second.release()
    third.release()
    assert mailbox.reserved == 0


async def test_a_reservation_can_send_however_full_the_mailbox_is() -> None:
    """A reserved message keeps its place while it waits: otherwise reserving again would overfill the channel."""
    mailbox = Mailbox(messages_max=2, reserved_max=3)
    async with trio.open_nursery() as askers:
        for _ in range(9):
            askers.start_soon(outcome_of, mailbox, 60.0, [])
        await wait_all_tasks_blocked()
        for _ in range(3):
            mailbox.reserve_nowait().send(Barrier())
        assert mailbox.waiting == 5
        with pytest.raises(Overloaded):
            mailbox.reserve_nowait()
        while mailbox.waiting:
            (await mailbox.receive.receive()).taken()
        assert mailbox.reserved == 0
        askers.cancel_scope.cancel()


async def test_a_reserved_message_never_expires_and_keeps_its_turn(autojump_clock: MockClock) -> None:
    mailbox = Mailbox(messages_max=1, reserved_max=1)
    slot = mailbox.reserve_nowait().send(Stats(session_id="first"))
    with pytest.raises(DeadlineExceeded):
        await mailbox.ask(Stats(session_id="second"), timeout_s=3600)
    first, second = await mailbox.receive.receive(), await mailbox.receive.receive()
    assert not first.expired
    assert second.expired
    assert (first.message, second.message) == (Stats(session_id="first"), Stats(session_id="second"))
    first.reply(None)
    assert await slot.wait(timeout_s=PATIENCE_S) is None


async def test_waiting_for_a_reserved_message_has_a_deadline(autojump_clock: MockClock) -> None:
    mailbox = Mailbox(messages_max=1, reserved_max=1)
    slot = mailbox.reserve_nowait().send(Barrier())
    with pytest.raises(DeadlineExceeded):
        await slot.wait(timeout_s=2)
    (await mailbox.receive.receive()).reply(None)  # nobody listens any more; that is no error


async def test_a_post_waits_for_a_place() -> None:
    mailbox = Mailbox(messages_max=1, reserved_max=1)
    await mailbox.post(Stats(session_id="1"))
    async with trio.open_nursery() as posts:
        posts.start_soon(mailbox.post, Stats(session_id="2"))
        await wait_all_tasks_blocked()
        assert mailbox.waiting == 1
        (await mailbox.receive.receive()).taken()
    assert (await mailbox.receive.receive()).message == Stats(session_id="2")


async def test_waiting_is_measured_until_the_actor_takes_a_message(autojump_clock: MockClock) -> None:
    """For all by their spread, and for who asks by the moments themselves."""
    waited, times = Distribution(STEP_SECONDS), TurnTimes()
    mailbox = Mailbox(messages_max=8, reserved_max=1, waited=waited)
    async with trio.open_nursery() as actors:

        async def serve_late() -> None:
            await trio.sleep(2)
            envelope = await mailbox.receive.receive()
            envelope.taken()
            await trio.sleep(3)
            envelope.reply(VaultStats())
            envelope.drop()

        actors.start_soon(serve_late)
        began_s = trio.current_time()
        await mailbox.ask(Barrier(), timeout_s=60, times=times)
    assert (times.sent_s - began_s, times.taken_s - began_s, times.answered_s - began_s) == (0, 2, 5)
    assert (waited.count, waited.total) == (1, 2)


async def test_who_gives_up_knows_how_far_it_came(autojump_clock: MockClock) -> None:
    mailbox, times = Mailbox(messages_max=8, reserved_max=1), TurnTimes()
    await trio.sleep(1)  # the clock begins at 0
    with pytest.raises(DeadlineExceeded):
        await mailbox.ask(Barrier(), timeout_s=1, times=times)
    assert times.sent_s > 0
    assert (times.taken_s, times.answered_s) == (0, 0)
