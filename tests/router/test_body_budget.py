"""The budget of request bodies: bounded, fair, never deadlocked, and given back on every path."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from models.errors import Overloaded
from router.body_budget import FREE_BYTES, BodyBudget, BodyClaim, BudgetedBodies, claim_of

KIB = 1024


def claim(budget: BodyBudget) -> BodyClaim:
    """A claim whose free bytes are used up."""
    made = BodyClaim(budget)
    made.add_nowait(FREE_BYTES)
    return made


async def test_small_requests_need_no_room() -> None:
    budget = BodyBudget(0)
    small = BodyClaim(budget)
    await small.add(FREE_BYTES)
    with pytest.raises(Overloaded):
        small.add_nowait(1)


async def test_who_waits_gets_room_when_another_gives_it_back_in_order() -> None:
    budget = BodyBudget(10)
    first, large, small = (claim(budget) for _ in range(3))
    await first.add(8)
    let_in: list[str] = []

    async def wait(name: str, one: BodyClaim, count: int) -> None:
        await one.add(count)
        let_in.append(name)

    async with trio.open_nursery() as waiting:
        waiting.start_soon(wait, "large", large, 9)
        await wait_all_tasks_blocked()
        waiting.start_soon(wait, "small", small, 2)
        await wait_all_tasks_blocked()
        assert let_in == []  # the small one does not overtake, or the large one might wait for ever
        assert not budget.take_nowait(1)
        first.close()
        await wait_all_tasks_blocked()
        assert let_in == ["large"]
        large.close()
    assert let_in == ["large", "small"]
    assert budget.held_bytes == 2


async def test_who_waits_too_long_is_refused_and_gives_back_what_it_has(autojump_clock: MockClock) -> None:
    """So requests that hold the whole budget between them and all want more cannot block each other for ever."""
    budget = BodyBudget(10)
    claims = [claim(budget) for _ in range(5)]
    for one in claims:
        await one.add(2)
    refused = 0

    async def want_more(one: BodyClaim) -> None:
        nonlocal refused
        try:
            await one.add(2)
        except Overloaded:
            refused += 1

    async with trio.open_nursery() as wanting:
        for one in claims:
            wanting.start_soon(want_more, one)
    assert 1 <= refused <= 5
    for one in claims:
        one.close()
    assert budget.held_bytes == 0
    assert budget.statistics() == {"bytes": 0, "waiting": 0, "refused": refused}


async def test_who_leaves_while_waiting_lets_the_next_one_in(autojump_clock: MockClock) -> None:
    budget = BodyBudget(10)
    holder = claim(budget)
    await holder.add(5)
    next_one = claim(budget)
    async with trio.open_nursery() as waiting:
        with trio.move_on_after(1):
            async with trio.open_nursery() as leaving:
                leaving.start_soon(claim(budget).add, 10)
                await wait_all_tasks_blocked()
                waiting.start_soon(next_one.add, 5)
                await trio.sleep_forever()
    assert budget.held_bytes == 10


async def test_what_is_held_is_never_more_than_the_bound_and_nothing_in_the_end(autojump_clock: MockClock) -> None:
    """Whatever comes, waits, leaves and is refused, in whatever order."""
    for seed in range(30):
        choice = random.Random(seed)
        budget = BodyBudget(300 * KIB)
        claims = [BodyClaim(budget, wait_timeout_s=0.5) for _ in range(5)]
        async with trio.open_nursery() as adding:
            for _ in range(40):
                one, count = choice.choice(claims), choice.randrange(200 * KIB)
                match choice.choice(["add", "nowait", "close"]):
                    case "add":
                        adding.start_soon(add_and_leave, one, count, choice.choice([0.25, 0.5, 9.0]))
                    case "nowait":
                        with suppress(Overloaded):
                            one.add_nowait(count)
                    case _:
                        one.close()
                assert 0 <= budget.held_bytes <= budget.bytes_max
                await trio.sleep(choice.choice([0, 0.125, 0.25]))
                assert 0 <= budget.held_bytes <= budget.bytes_max
        for one in claims:
            one.close()
        assert budget.held_bytes == 0
        assert budget.statistics()["waiting"] == 0


async def add_and_leave(one: BodyClaim, count: int, leaves_after_s: float) -> None:
    """Wait for room, but not for ever."""
    with trio.move_on_after(leaves_after_s), suppress(Overloaded):
        await one.add(count)


# --- the wrapper ---


class Request:
    """One request of an ASGI client: sends `parts` of a body, then says nothing more."""

    def __init__(self, *parts: bytes) -> None:
        last = len(parts) - 1
        self._messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": part, "more_body": number < last} for number, part in enumerate(parts)
        ]
        self.scope: dict[str, Any] = {"type": "http"}
        self.sent: list[Mapping[str, Any]] = []

    async def receive(self) -> Mapping[str, Any]:
        await trio.lowlevel.checkpoint()
        if self._messages:
            return self._messages.pop(0)
        return {"type": "http.disconnect"}

    async def send(self, message: Mapping[str, Any]) -> None:
        self.sent.append(message)

    @property
    def unread(self) -> int:
        return len(self._messages)


async def keep_body(scope: Any, receive: Any, send: Any) -> None:
    """An application that keeps the body and says how much of it there is."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    claim_of(scope).check()
    await send({"type": "http.response.start", "status": 200, "size": len(body)})


async def test_a_body_is_counted_until_its_request_is_over() -> None:
    budget = BodyBudget(1000 * KIB)
    held = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal held
        await keep_body(scope, receive, send)
        held = budget.held_bytes

    request = Request(bytes(100 * KIB), bytes(100 * KIB), b"")
    await BudgetedBodies(app, budget)(request.scope, request.receive, request.send)
    assert request.sent[0]["size"] == 200 * KIB
    assert held == 200 * KIB - FREE_BYTES
    assert budget.held_bytes == 0


async def test_a_body_without_room_ends_early_and_its_rest_is_dropped(autojump_clock: MockClock) -> None:
    budget = BodyBudget(100 * KIB)
    wrapped = BudgetedBodies(keep_body, budget)
    request = Request(bytes(100 * KIB), bytes(100 * KIB), bytes(100 * KIB), b"")
    with pytest.raises(Overloaded):
        await wrapped(request.scope, request.receive, request.send)
    assert budget.held_bytes == 0
    assert budget.refused == 1


async def test_what_comes_after_the_reply_is_neither_counted_nor_waited_for() -> None:
    """A refusal (401, 413) goes out before the body has come; the rest of that body must not wait for room."""
    budget = BodyBudget(0)
    request = Request(bytes(100 * KIB), bytes(100 * KIB), b"")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with trio.open_nursery() as tasks:
            tasks.start_soon(drain, receive)
            await wait_all_tasks_blocked()
            assert request.unread == 2  # it waits for room
            await send({"type": "http.response.start", "status": 401})

    async def drain(receive: Any) -> None:
        while (await receive()).get("more_body"):
            pass

    await BudgetedBodies(app, budget)(request.scope, request.receive, request.send)
    assert request.unread == 0
    assert budget.held_bytes == 0


async def test_a_cancelled_request_gives_everything_back() -> None:
    budget = BodyBudget(100 * KIB)
    request = Request(bytes(100 * KIB), bytes(200 * KIB), b"")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as serving:
            serving.start_soon(BudgetedBodies(keep_body, budget), request.scope, request.receive, request.send)
            await wait_all_tasks_blocked()
            assert budget.held_bytes == 36 * KIB
            assert budget.statistics()["waiting"] == 1
            scope.cancel()
    assert budget.held_bytes == 0
    assert budget.statistics()["waiting"] == 0


async def test_bodies_that_are_passed_on_are_counted_by_who_keeps_them() -> None:
    budget = BodyBudget(0)
    request = Request(bytes(100 * KIB), b"")
    await BudgetedBodies(keep_body, budget, is_streamed=lambda _: True)(request.scope, request.receive, request.send)
    assert request.sent[0]["size"] == 100 * KIB


async def test_what_is_no_request_passes_untouched() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await BudgetedBodies(app, BodyBudget(0))({"type": "lifespan"}, keep_body, keep_body)  # type: ignore[arg-type]
    assert seen == ["lifespan"]
