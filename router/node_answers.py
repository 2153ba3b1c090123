"""Answers of other nodes on their way: which of them are being waited for, and when that is given up.

A frozen node keeps its connections for ever; that its lease has ended is no proof, though: a node that is cut off from
the database goes on with the chats that it has begun. So a node whose lease has ended is asked for a sign of life. Owns
the waits for bodies only. Must never end what still comes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from router.headers import HeaderList
from router.provider_connections import Answer, ConnectionBroken


class NodeAnswer:
    """An answer of another node.

    Attributes:
        status: of it.
        headers: names in lower case, as they came otherwise.
    """

    __slots__ = ("_answer", "_readings", "_sender", "headers", "status")

    def __init__(self, answer: Answer, sender: str, readings: Readings) -> None:
        self.status: int = answer.status
        self.headers: HeaderList = answer.headers
        self._answer = answer
        self._sender = sender
        self._readings = readings

    async def receive(self) -> bytes:
        """What has come of the body since, at least a byte; b"" at its end.

        Raises:
            ConnectionBroken: it ended too early, or its node is dead.
        """
        with trio.CancelScope() as waiting:
            self._readings.begin(waiting, self._sender)
            try:
                return await self._answer.receive()
            finally:
                self._readings.end(waiting)
        raise ConnectionBroken

    async def aclose(self) -> None:
        """Hang up, unless the body was read to its end. May be called again."""
        await self._answer.aclose()


class Readings:
    """The waits for pieces of bodies, with the addresses of the nodes that they should come from."""

    def __init__(self) -> None:
        self._senders: dict[trio.CancelScope, str] = {}
        self._doubted: set[str] = set()

    def begin(self, waiting: trio.CancelScope, sender: str) -> None:
        """Somebody waits."""
        self._senders[waiting] = sender

    def end(self, waiting: trio.CancelScope) -> None:
        """And does not any more."""
        del self._senders[waiting]

    def doubtful(self, is_gone: Callable[[str], bool]) -> set[str]:
        """Nodes that are waited for although they are gone, but those that are just being asked."""
        return {sender for sender in self._senders.values() if is_gone(sender)} - self._doubted

    async def end_unless(self, sender: str, is_alive: Callable[[str], Awaitable[bool]]) -> None:
        """Ask a node for a sign of life; without one nobody waits for it any longer."""
        self._doubted.add(sender)
        try:
            alive = await is_alive(sender)
        finally:
            self._doubted.discard(sender)
        for waiting, other in self._senders.items():
            if other == sender and not alive:
                waiting.cancel(reason="the node is dead")
