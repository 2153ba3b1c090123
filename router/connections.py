"""How many client connections there are: in all, and from one address.

Owns the counts. Must never read from a connection or know what it is for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import trio

from router.addresses import Network, group_of, is_in, parse_address
from router.limits import Concurrency


class LimitedListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts only while fewer than `connections_max` connections are open; the kernel queues the others.

    Connections beyond those that one address may have are closed at once: queued, they would keep others waiting.

    Args:
        per_address_max: connections that one address, or one /64 of IPv6, may have; 0 for any number.
        exempt: networks that this does not apply to: behind a proxy stand many.
        refused: is told of each connection that is closed.
        pause_s: after each connection, for other processes that accept from the same socket. Who is awake takes the
            next one at once, before the others have been woken: without it, most of a burst goes to one of them.
        note_room: is told for how many more there is room, at first and whenever that has changed.
    """

    def __init__(
        self,
        listener: trio.abc.Listener[trio.SocketStream],
        connections_max: int,
        *,
        per_address_max: int = 0,
        exempt: Sequence[Network] = (),
        refused: Callable[[], None] = lambda: None,
        pause_s: float = 0.0,
        note_room: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._pause_s = pause_s
        self._note_room = note_room
        note_room(connections_max)
        self._accepted_s = -math.inf
        self._listener = listener
        self._slots = trio.Semaphore(connections_max, max_value=connections_max)
        self._per_address_max = per_address_max
        self._exempt = exempt
        self._refused = refused
        self._by_address = Concurrency()
        self._leave: dict[trio.SocketStream, Callable[[], None]] = {}

    async def accept(self) -> trio.SocketStream:
        """The next connection, once there is room for it; its handler calls `release` at its end."""
        await self._slots.acquire()
        stream = None
        try:
            if self._pause_s:
                await trio.sleep_until(self._accepted_s + self._pause_s)
            while stream is None:
                accepted = await self._listener.accept()
                self._accepted_s = trio.current_time()
                if self._admits(accepted):
                    stream = accepted
                else:
                    self._refused()
                    await trio.aclose_forcefully(accepted)
        finally:
            if stream is None:
                self._slots.release()
        self._note_room(self._slots.value)
        return stream

    def _admits(self, stream: trio.SocketStream) -> bool:
        if not self._per_address_max:
            return True
        try:
            peer = stream.socket.getpeername()
        except OSError:
            return False  # it has gone already
        address = parse_address(str(peer[0]))
        if address is None or is_in(address, self._exempt):
            return True
        leave = self._by_address.enter(group_of(address), self._per_address_max)
        if leave is None:
            return False
        self._leave[stream] = leave
        return True

    @property
    def free(self) -> int:
        """How many further connections there is room for."""
        return self._slots.value

    @property
    def addresses(self) -> int:
        """How many addresses are counted."""
        return len(self._by_address)

    def release(self, stream: trio.SocketStream) -> None:
        """This connection has ended."""
        self._slots.release()
        self._note_room(self._slots.value)
        leave = self._leave.pop(stream, None)
        if leave is not None:
            leave()

    async def aclose(self) -> None:
        """Stop listening."""
        await self._listener.aclose()
