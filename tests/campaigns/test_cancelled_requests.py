"""A request may end at any checkpoint: its client leaves, or its connection is cancelled. What was promised is kept.

Each request runs again and again, struck at its first checkpoint, its second, its third, until it gets through; all its
tasks count. Then the same request comes once more, as clients do that have not seen the answer: it must be answered,
and nothing may be there twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from models.ids import VaultRef
from tests.actors.checkpoints import Attempt, every_checkpoint, lineage
from tests.actors.house import exchange
from tests.campaigns.in_process import Building, Request, open_building
from tests.campaigns.moments import LONG
from tests.fakes.provider import Script, chat_events, chat_reply, reply_script, stream_script
from tests.running import assistant, user

KNOWN = "Rex is a dog."
ASKED = "What is Rex?"
ANSWER = "Rex is a dog, you said."
FINISH = b'"finish_reason":"stop"'

Way = Literal["cancelled", "left"]


class Visit(msgspec.Struct, frozen=True):
    """One kind of request.

    Attributes:
        adds: what a whole one adds to the vault, in order.
        promises: how many of those the client may count on after what it has seen.
        script: what the provider answers.
    """

    path: str
    body: Any
    status: int
    adds: tuple[str, ...] = ()
    promises: Callable[[Request], int] = lambda _: 0
    script: Callable[[], Script] = reply_script
    method: str = "POST"


def chat(*, stream: bool) -> dict[str, Any]:
    return {"model": "openai/m", "messages": [user(ASKED)], "stream": stream}


def promised_by_stream(seen: Request) -> int:
    """With the finishing event the exchange is stored; with the response begun, the question is going to be."""
    return 2 if FINISH in seen.body else int(seen.status == 200)


def stored_whole(status: int, count: int) -> Callable[[Request], int]:
    """Everything is stored when the response begins."""
    return lambda seen: count if seen.status == status else 0


VISITS = {
    "stream": Visit(
        path="/v1/chat/completions",
        body=chat(stream=True),
        status=200,
        adds=(ASKED, ANSWER),
        promises=promised_by_stream,
        script=lambda: stream_script(chat_events(["Rex is a dog, ", "you said."])),
    ),
    "chat": Visit(
        path="/v1/chat/completions",
        body=chat(stream=False),
        status=200,
        adds=(ASKED, ANSWER),
        promises=stored_whole(200, 2),
        script=lambda: Script(body=chat_reply(ANSWER), headers=[("content-type", "application/json")]),
    ),
    "ingest": Visit(
        path="/v1/memory/ingest",
        body={"messages": [user(KNOWN), user(ASKED), assistant(ANSWER)]},
        status=202,
        adds=(ASKED, ANSWER),
        promises=stored_whole(202, 2),
    ),
    "upload": Visit(
        path="/v1/memory/upload",
        body=b"\n".join(msgspec.json.encode({"content": text}) for text in (ASKED, ANSWER)),
        status=200,
        adds=(ASKED, ANSWER),
        promises=stored_whole(200, 2),
    ),
    "prepare": Visit(path="/v1/memory/prepare", body={"messages": [user(ASKED)]}, status=200),
    "export": Visit(path="/v1/memory/export", body=b"", status=200, method="GET"),
}


async def strike(building: Building, attempt: Attempt, request: Request, way: Way) -> None:
    """Serve a request that is struck at this attempt's checkpoint."""
    if way == "cancelled":
        with attempt.cancelling():
            await building.call(request)
    else:
        root = trio.lowlevel.current_task()
        with attempt.striking(request.left.set, follows=lambda task: root in lineage(task)):
            await building.call(request)


async def known_vault(building: Building, *, warm: bool) -> tuple[str, VaultRef]:
    """A vault that knows one thing, in memory or not."""
    key, vault = await building.new_key()
    await building.house.store.accept_nowait(vault, [exchange(KNOWN)], lambda _: None).wait_durable()
    if warm:
        await building.house.stats(vault)
        await wait_all_tasks_blocked()
    return key, vault


WAYS: list[tuple[Way, bool]] = [("cancelled", False), ("left", True)]
MORE_WAYS: list[tuple[Way, bool]] = [("cancelled", True), ("left", False)]


@pytest.mark.parametrize(("way", "warm"), WAYS + MORE_WAYS * LONG)
@pytest.mark.parametrize("name", list(VISITS))
async def test_what_was_promised_is_kept_and_nothing_stays_behind(
    name: str, way: Way, warm: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    visit = VISITS[name]
    whole = sorted([KNOWN, *visit.adds])
    async with open_building() as building:
        house, provider = building.house, building.provider
        for attempt in every_checkpoint():
            key, vault = await known_vault(building, warm=warm)
            provider.enqueue(visit.script())
            seen = Request(visit.path, key, visit.body, method=visit.method)
            await strike(building, attempt, seen, way)
            await wait_all_tasks_blocked()
            provider._scripts.clear()  # it may never have been asked
            held = await house.found(vault)
            assert held in [sorted([KNOWN, *visit.adds[:count]]) for count in range(len(visit.adds) + 1)], held
            assert len(held) >= 1 + visit.promises(seen), f"{seen.body!r} was seen, but the vault holds {held}"

            provider.enqueue(visit.script())
            again = await building.call(Request(visit.path, key, visit.body, method=visit.method))
            assert again.status == visit.status, again.body
            assert await house.found(vault) == whole
            await wait_all_tasks_blocked()
            assert sorted(house.stored(vault)) == whole
            await building.check_empty(vault)
            provider._scripts.clear()
        assert house.supervisor.statistics()["crashed"] == 0
    assert not [record.message for record in caplog.records if record.levelno >= logging.ERROR]
