"""How many bytes of request bodies are in memory, all connections together, and the wrapper that keeps to it.

A body is counted while it is received and until its request is over. Where there is no room, receiving waits, which
slows down its sender and nobody else; if that lasts, the request is refused (503) and gives up what it has. The first
bytes of every request are free: neither small requests nor their refusal ever wait for large ones. Must never hold
more than its bound and those free bytes, and never keep a count whose request has ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import trio

from models.errors import Overloaded

FREE_BYTES = 64 * 1024
"""Of each request. With a thousand connections they make 64 MiB, which is part of what a connection costs."""

WAIT_TIMEOUT_S = 5.0
"""Long enough for a burst of uploads to be taken in; shorter than the patience of any client."""

RETRY_AFTER_S = 2

_SCOPE_KEY = "memoryrouter.body"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class BodyBudget:
    """Room for so many bytes. Who waits for room is let in in order."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held_bytes = 0
        self.refused = 0
        self._waiters: deque[tuple[int, trio.Event]] = deque()

    def take_nowait(self, count: int) -> bool:
        """Take room for so many bytes, unless there is none or others wait for it. For no bytes there always is."""
        if count and (self._waiters or not self._fits(count)):
            return False
        self.held_bytes += count
        return True

    async def take(self, count: int, *, timeout_s: float) -> bool:
        """Take room for so many bytes, and wait for it so long; False when there was none."""
        if self.take_nowait(count):
            return True
        waiter = (count, trio.Event())
        self._waiters.append(waiter)
        try:
            with trio.move_on_after(timeout_s):
                await waiter[1].wait()
        except trio.Cancelled:
            if waiter[1].is_set():  # let in and cancelled at once
                self.give_back(count)
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self._let_in()  # who stands behind may want less
        return waiter[1].is_set()

    def give_back(self, count: int) -> None:
        """So many bytes are not in memory any more."""
        self.held_bytes -= count
        assert self.held_bytes >= 0, "what is given back was taken"
        self._let_in()

    def statistics(self) -> dict[str, int]:
        """For metrics."""
        return {"bytes": self.held_bytes, "waiting": len(self._waiters), "refused": self.refused}

    def _fits(self, count: int) -> bool:
        return self.held_bytes + count <= self.bytes_max

    def _let_in(self) -> None:
        while self._waiters and self._fits(self._waiters[0][0]):
            count, room = self._waiters.popleft()
            self.held_bytes += count
            room.set()


class BodyClaim:
    """What one request holds of the budget."""

    def __init__(self, budget: BodyBudget, *, wait_timeout_s: float = WAIT_TIMEOUT_S) -> None:
        self._budget = budget
        self._wait_timeout_s = wait_timeout_s
        self._free_bytes = FREE_BYTES
        self._held_bytes = 0
        self.refused = False

    def add_nowait(self, count: int) -> None:
        """Count so many bytes more that are in memory.

        Raises:
            Overloaded: there is no room for them; the request must let go of its body.
        """
        charged = self._charged(count)
        if self.refused or not self._budget.take_nowait(charged):
            raise self._refuse()
        self._held_bytes += charged

    def add_free(self, count: int) -> bool:
        """Count so many bytes more if they are among the free ones; False when they are not."""
        if self.refused or count > self._free_bytes:
            return False
        self._free_bytes -= count
        return True

    async def add(self, count: int) -> None:
        """Count so many bytes more, as soon as there is room.

        Raises:
            Overloaded: there was none in time; the request must let go of its body.
        """
        charged = self._charged(count)
        if self.refused or not await self._budget.take(charged, timeout_s=self._wait_timeout_s):
            raise self._refuse()
        self._held_bytes += charged

    def check(self) -> None:
        """Nothing, unless a part of the body was refused.

        Raises:
            Overloaded: it was.
        """
        if self.refused:
            raise no_room()

    def drop(self) -> None:
        """The body is not wanted: what has come is given back, what is still to come is thrown away."""
        self.refused = True
        self.close()

    def close(self) -> None:
        """Give everything back; harmless a second time."""
        held, self._held_bytes = self._held_bytes, 0
        if held:
            self._budget.give_back(held)

    def _charged(self, count: int) -> int:
        free = min(count, self._free_bytes)
        self._free_bytes -= free
        return count - free

    def _refuse(self) -> Overloaded:
        if not self.refused:
            self._budget.refused += 1
        self.drop()
        return no_room()


def no_room() -> Overloaded:
    """The error of a request whose body found no room."""
    return Overloaded(
        "Too many large requests are being received.",
        hint="The operator sets limits.buffered_bodies_max_bytes.",
        retry_after_s=RETRY_AFTER_S,
    )


def claim_of(scope: Mapping[str, Any]) -> BodyClaim:
    """What the request that is being served holds."""
    claim: BodyClaim = scope[_SCOPE_KEY]
    return claim


class BudgetedBodies:
    """ASGI wrapper that counts what requests receive. It belongs around everything that keeps bodies.

    When there is no room for a part of a body, the application gets an end of the body instead, and its `BodyClaim`
    says that it was refused; what comes after is dropped.

    Args:
        is_streamed: whether the application passes a request's body on instead of keeping it. Such bodies are counted
            by whoever keeps a part of them.
    """

    def __init__(
        self,
        app: Callable[[Any, Any, Any], Awaitable[None]],
        budget: BodyBudget,
        *,
        is_streamed: Callable[[Scope], bool] = lambda _: False,
        wait_timeout_s: float = WAIT_TIMEOUT_S,
    ) -> None:
        self._app = app
        self._budget = budget
        self._is_streamed = is_streamed
        self._wait_timeout_s = wait_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        claim = scope[_SCOPE_KEY] = BodyClaim(self._budget, wait_timeout_s=self._wait_timeout_s)
        exchange = _Counted(receive, send, claim)
        try:
            if self._is_streamed(scope):
                await self._app(scope, receive, send)
            else:
                await self._app(scope, exchange.receive, exchange.send)
        finally:
            claim.close()


class _Counted:
    """One request. The application receives in one task and sends in another."""

    def __init__(self, receive: Receive, send: Send, claim: BodyClaim) -> None:
        self._receive = receive
        self._send = send
        self._claim = claim
        self._waiting: trio.CancelScope | None = None
        self._replying = False

    async def receive(self) -> Mapping[str, Any]:
        """The next message, once its bytes are counted."""
        message = await self._receive()
        while message["type"] == "http.request" and message.get("body"):
            if not (self._claim.refused or self._replying):
                try:
                    if self._claim.add_free(len(message["body"])):
                        return message
                    with trio.CancelScope() as self._waiting:
                        await self._claim.add(len(message["body"]))
                        return message
                except Overloaded:
                    return {"type": "http.request", "body": b"", "more_body": False}
            if not message.get("more_body", False):
                return {**message, "body": b""}
            message = await self._receive()  # nobody reads what comes after a refusal or a reply
        return message

    async def send(self, message: Mapping[str, Any]) -> None:
        """Pass a message on; from the first one on nobody reads the body any more."""
        self._replying = True
        if self._waiting is not None:
            self._waiting.cancel(reason="the reply begins")
        await self._send(message)
