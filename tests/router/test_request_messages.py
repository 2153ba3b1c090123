"""A request's messages wait in a queue that takes no turn of the event loop, and that is bounded all the same."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import assert_no_checkpoints, wait_all_tasks_blocked

from router.request_messages import RequestMessages, messages_of, put_messages, take_messages_away

LEFT = {"type": "http.disconnect"}


def part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    """A part of a request's body."""
    return {"type": "http.request", "body": body, "more_body": more}


async def test_what_has_room_and_what_is_here_costs_no_turn() -> None:
    messages = RequestMessages(2)
    with assert_no_checkpoints():
        await messages.put(part(b"a"))
        await messages.put(part(b"b", more=False))
        assert await messages.receive() == part(b"a")
        assert await messages.receive() == part(b"b", more=False)


async def test_who_puts_more_than_there_is_room_for_waits(nursery: trio.Nursery) -> None:
    messages = RequestMessages(1)
    await messages.put(part(b"a"))
    nursery.start_soon(messages.put, part(b"b"))
    await wait_all_tasks_blocked()
    assert await messages.receive() == part(b"a")
    await wait_all_tasks_blocked()
    with assert_no_checkpoints():
        assert await messages.receive() == part(b"b")


async def test_who_waits_for_room_is_let_go_when_the_request_is_over(nursery: trio.Nursery) -> None:
    """Its task reads the connection, where the next request may be: nobody may ever receive of this one again."""
    messages = RequestMessages(1)
    await messages.put(part(b"a"))
    nursery.start_soon(messages.put, part(b"", more=False))
    await wait_all_tasks_blocked()
    assert nursery.child_tasks
    await messages.put(LEFT)
    await wait_all_tasks_blocked()
    assert not nursery.child_tasks
    assert [await messages.receive(), await messages.receive()] == [part(b"a"), LEFT]


async def test_who_receives_waits_for_the_next_message(nursery: trio.Nursery) -> None:
    messages, received = RequestMessages(1), []

    async def receive() -> None:
        received.append(await messages.receive())

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    assert received == []
    await messages.put(LEFT)
    await wait_all_tasks_blocked()
    assert received == [LEFT]


async def test_the_end_finds_room_and_is_told_at_once() -> None:
    messages, told = RequestMessages(1), []
    messages.when_over(lambda: told.append("first"))
    await messages.put(part(b"a"))
    with assert_no_checkpoints():
        await messages.put(LEFT)
    messages.when_over(lambda: told.append("late"))
    assert told == ["first", "late"]
    assert [await messages.receive(), await messages.receive()] == [part(b"a"), LEFT]


async def test_a_body_is_here_when_its_last_part_is_and_it_is_not_too_large() -> None:
    messages = RequestMessages(10)
    await messages.put(part(b"1234"))
    assert not messages.is_here(100)
    await messages.put(part(b"5", more=False))
    assert messages.is_here(5)
    assert not messages.is_here(4)


async def test_a_wrapper_can_take_the_queue_out_of_sight() -> None:
    scope: dict[str, Any] = {}
    assert messages_of(scope) is None
    messages = RequestMessages(1)
    put_messages(scope, messages)
    assert messages_of(scope) is messages
    take_messages_away(scope)
    assert messages_of(scope) is None
