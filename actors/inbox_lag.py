"""How far one vault is behind its log: what was acknowledged, or soon will be, and is not materialised yet.

An inbox row waits until its memories are embedded and written, which is much slower than accepting it. So whoever
brings something asks here first, and is refused, or waits, while too much is waiting already. Owns the count, and
outlasts the vault's actor. Must never look into a vault.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec
import trio

from models.errors import DeadlineExceeded, Overloaded
from models.memory import Exchange, InboxRow

WAITERS_MAX = 16
"""Who waits holds a request with its body in memory, so only a few may."""


class Weight(msgspec.Struct, frozen=True):
    """How much something is: messages, and the bytes of their texts and vectors in memory."""

    messages: int = 0
    size_bytes: int = 0

    def __add__(self, other: Weight) -> Weight:
        return Weight(self.messages + other.messages, self.size_bytes + other.size_bytes)

    def __sub__(self, other: Weight) -> Weight:
        return Weight(self.messages - other.messages, self.size_bytes - other.size_bytes)


ONE = Weight(messages=1)
"""What is counted for an exchange that is not finished yet."""


def weigh(exchanges: Iterable[Exchange]) -> Weight:
    """How much these exchanges are."""
    messages = [message for exchange in exchanges for message in exchange.messages]
    vectors = sum(len(message.embedded.rows) for message in messages if message.embedded is not None)
    return Weight(len(messages), vectors + sum(sys.getsizeof(message.content) for message in messages))


class Claim:
    """Something that is on its way into the inbox and counts already. Ends once: as inbox rows, or by `release`."""

    __slots__ = ("_lag", "_weight")

    def __init__(self, lag: InboxLag, weight: Weight) -> None:
        self._lag = lag
        self._weight: Weight | None = weight

    def land(self, rows: Sequence[InboxRow]) -> None:
        """It has become these inbox rows."""
        self._lag.add(rows)
        self.release()

    def release(self) -> None:
        """Nothing comes of it any more; harmless a second time."""
        if self._weight is not None:
            self._lag._change(self._weight, -1)
            self._weight = None


class InboxLag:
    """The unmaterialised rows of one vault with their weights, and what is about to join them."""

    def __init__(
        self, *, messages_max: int, bytes_max: int, gone: Callable[[Collection[int]], None] | None = None
    ) -> None:
        """Make a lag of nothing.

        Args:
            gone: told which rows are in the inbox no more.
        """
        self._most = Weight(messages_max, bytes_max)
        self._gone = gone
        self._rows: dict[int, Weight] = {}
        self._waiters: deque[_Waiter] = deque()
        self._closed = False
        self.held = Weight()

    @property
    def rows(self) -> frozenset[int]:
        """The inbox rows that are known to wait."""
        return frozenset(self._rows)

    @property
    def waiting(self) -> int:
        """Who waits for room."""
        return len(self._waiters)

    # Coming.

    def claim_nowait(self, weight: Weight, *, ahead: bool) -> Claim:
        """Count something before it comes. What is too large ever to fit is let in when nothing else is there.

        Args:
            ahead: whether it goes before those who wait: a chat cannot come again, an upload can wait.

        Raises:
            Overloaded: there is no room for it.
        """
        if not self._fits(weight) or (self._waiters and not ahead):
            raise Overloaded(self._reason, hint="Send it again when some of them are done.")
        return self.hold(weight)

    def hold(self, weight: Weight) -> Claim:
        """Count something for which there may be no room: it cannot be refused any more."""
        self._change(weight, 1)
        return Claim(self, weight)

    async def claim(self, weight: Weight, *, timeout_s: float) -> Claim | None:
        """Count something as soon as there is room, first come, first served; None if the vault closes meanwhile.

        Raises:
            Overloaded: too many wait already.
            DeadlineExceeded: there was no room for so long.
        """
        if not self._waiters and self._fits(weight):
            return self.hold(weight)
        if len(self._waiters) >= WAITERS_MAX:
            raise Overloaded(f"{WAITERS_MAX} requests wait for room in this vault.")
        waiter = _Waiter(weight)
        self._waiters.append(waiter)
        try:
            with trio.move_on_after(timeout_s):
                await waiter.settled.wait()
        except trio.Cancelled:
            self._leave(waiter)
            raise
        if self._closed:
            self._leave(waiter)
            return None
        if waiter.claim is None:
            self._leave(waiter)
            raise DeadlineExceeded(self._reason, hint="Send it again when some of them are done.")
        return waiter.claim

    @property
    def _reason(self) -> str:
        return f"{self.held.messages} messages of this vault wait for their embeddings."

    def _leave(self, waiter: _Waiter) -> None:
        if waiter.claim is not None:
            waiter.claim.release()
        elif waiter in self._waiters:
            self._waiters.remove(waiter)
            self._let_in()  # who stands behind may be smaller

    def _fits(self, weight: Weight) -> bool:
        wanted = self.held + weight
        return not self.held.messages or (
            wanted.messages <= self._most.messages and wanted.size_bytes <= self._most.size_bytes
        )

    def _change(self, weight: Weight, sign: int) -> None:
        self.held = self.held + weight if sign > 0 else self.held - weight
        if sign < 0:
            self._let_in()

    def _let_in(self) -> None:
        while self._waiters and self._fits(self._waiters[0].weight):
            waiter = self._waiters.popleft()
            waiter.claim = self.hold(waiter.weight)
            waiter.settled.set()

    # Waiting in the inbox, and gone from it.

    def add(self, rows: Iterable[InboxRow]) -> None:
        """These rows are in the inbox. A row that is known counts once."""
        for row in rows:
            if row.row_id not in self._rows:
                weight = self._rows[row.row_id] = weigh([row.exchange])
                self._change(weight, 1)

    def remove(self, row_ids: Collection[int]) -> None:
        """These rows are in the inbox no more; unknown ones are passed over."""
        for row_id in row_ids:
            weight = self._rows.pop(row_id, None)
            if weight is not None:
                self._change(weight, -1)
        if self._gone is not None and row_ids:
            self._gone(row_ids)

    def correct(self, known: Collection[int], rows: Sequence[InboxRow]) -> None:
        """These rows are what the store has found in the inbox, of the ones `known` before it looked and of others."""
        self.add(rows)
        self.remove(set(known) - {row.row_id for row in rows})

    def close(self) -> None:
        """The vault leaves memory, or is erased: who waits looks it up again."""
        self._closed = True
        while self._waiters:
            self._waiters.popleft().settled.set()


class _Waiter:
    __slots__ = ("claim", "settled", "weight")

    def __init__(self, weight: Weight) -> None:
        self.weight = weight
        self.settled = trio.Event()
        self.claim: Claim | None = None
