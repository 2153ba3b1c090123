"""A request that is here as a whole is answered in its own task; any other is received beside its handler."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from quart import request
from trio.testing import wait_all_tasks_blocked

from router.body_budget import FREE_BYTES
from router.quart_app import App, take_body
from router.request_messages import RequestMessages, put_messages
from tests.patience import PATIENCE_S


class Exchange:
    """One request to an application, with the queue that a server has.

    Attributes:
        sent: what the application has sent.
        bodies: what its handler found: the body, and whether it was here before.
    """

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.bodies: list[tuple[bytes, bool]] = []
        self.messages = RequestMessages(10)
        self.release = trio.Event()
        self.app = App("test")
        self.app.post("/echo")(self._handle)

    async def _handle(self) -> Any:
        whole = take_body(request)
        body: Any = whole if whole is not None else await request.get_data(cache=False, as_text=False)
        self.bodies.append((body, whole is not None))
        assert await request.get_data(cache=False, as_text=False) == b"", "the body was kept"
        await self.release.wait()
        return body[:5]

    async def put(self, body: bytes, *, more: bool = False) -> None:
        """Let a part of the body come."""
        await self.messages.put({"type": "http.request", "body": body, "more_body": more})

    async def serve(self) -> None:
        """Let the application answer."""
        scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "method": "POST",
            "path": "/echo", "raw_path": b"/echo", "query_string": b"", "headers": [(b"host", b"x")], "root_path": "",
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {}, "extensions": {},
        }  # fmt: skip
        put_messages(scope, self.messages)

        async def send(message: Any) -> None:
            self.sent.append(message)

        application: Any = self.app  # annotated with what each kind of ASGI message may hold
        with trio.fail_after(PATIENCE_S):
            await application(scope, self.messages.receive, send)


@pytest.mark.parametrize(("size", "was_here"), [(0, True), (FREE_BYTES, True), (FREE_BYTES + 1, False)])
async def test_a_small_body_that_has_come_needs_no_second_task(size: int, was_here: bool) -> None:
    exchange = Exchange()
    await exchange.put(b"x" * (size // 2), more=True)
    await exchange.put(b"x" * (size - size // 2))
    exchange.release.set()
    await exchange.serve()
    assert exchange.bodies == [(b"x" * size, was_here)]
    assert [message.get("body") for message in exchange.sent][1] == b"x" * min(size, 5)


async def test_a_body_that_is_still_coming_is_received_beside_the_handler(nursery: trio.Nursery) -> None:
    exchange = Exchange()
    exchange.release.set()
    await exchange.put(b"12", more=True)
    nursery.start_soon(exchange.serve)
    await wait_all_tasks_blocked()
    assert exchange.bodies == []
    await exchange.put(b"34")
    await wait_all_tasks_blocked()
    assert exchange.bodies == [(b"1234", False)]


@pytest.mark.parametrize("size", [10, FREE_BYTES + 1])
async def test_who_leaves_ends_the_handler(nursery: trio.Nursery, size: int) -> None:
    """Whether or not a task of its own waits for that."""
    exchange = Exchange()
    await exchange.put(b"x" * size)
    nursery.start_soon(exchange.serve)
    await wait_all_tasks_blocked()
    assert len(exchange.bodies) == 1
    await exchange.messages.put({"type": "http.disconnect"})
    await wait_all_tasks_blocked()
    assert exchange.sent == []
    assert not nursery.child_tasks


async def test_who_left_before_is_not_served() -> None:
    exchange = Exchange()
    exchange.release.set()
    await exchange.put(b"x")
    await exchange.messages.put({"type": "http.disconnect"})
    await exchange.serve()
    assert exchange.sent == []
