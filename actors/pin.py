"""How a finished exchange reaches its vault: a pin beforehand, a receipt afterwards.

The pin holds a place in the vault's mailbox from before the provider is called, so that the hand-over itself can
neither block nor be refused by the vault; a vault with such a place taken stays in memory. The exchange goes to the
store, and the commit tells the vault, by the place that the pin held.
Must never wait in `Pin.submit`: the task that calls it may be cancelled at any checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from actors.entry import Entry
from actors.inbox_lag import Claim, weigh
from actors.mailbox import ReplySlot
from actors.store.protocol import Commit, VaultStore
from models.errors import (
    DeadlineExceeded,
    MemoryRouterError,
    NotFound,
    Overloaded,
    StoreUnavailable,
    VaultUnavailable,
)
from models.ids import VaultRef
from models.memory import Exchange, InboxRow
from models.messages import Applied, Apply

COMMIT_TIMEOUT_S = 30.0


class Receipt:
    """What became of exchanges that were handed over: first durable, then taken into memory."""

    __slots__ = ("_commit", "_slot")

    def __init__(self, commit: Commit | None = None) -> None:
        self._commit = commit
        self._slot: ReplySlot | None = None

    @property
    def durable(self) -> bool:
        """Whether they are durable already."""
        return self._commit is not None and self._commit.durable

    async def wait_durable(self, *, timeout_s: float = COMMIT_TIMEOUT_S) -> None:
        """Return once the exchanges are durable; any search that starts afterwards finds them.

        Raises:
            StorageFull, StoreUnavailable: nothing was stored.
            DeadlineExceeded: the commit is still under way after `timeout_s`.
        """
        assert self._commit is not None
        with trio.move_on_after(timeout_s) as waiting:
            try:
                await self._commit.wait_durable()
            except NotFound:
                raise StoreUnavailable("The vault was erased meanwhile; nothing was stored.", retry_after_s=1) from None
        if waiting.cancelled_caught:
            raise DeadlineExceeded(f"The commit took longer than {timeout_s:g} s.")

    async def wait_applied(self, *, timeout_s: float) -> Applied:
        """What the vault made of the exchanges, once they are durable and taken into memory; wait for it once.

        Raises:
            StorageFull, StoreUnavailable: nothing was stored.
            DeadlineExceeded, VaultUnavailable: it may be durable, but its counts are not known.
        """
        deadline = trio.current_time() + timeout_s
        await self.wait_durable(timeout_s=timeout_s)
        if self._slot is None:
            raise VaultUnavailable("The exchange is stored, but its vault was not told.")
        applied: Applied = await self._slot.wait(timeout_s=max(0.0, deadline - trio.current_time()))
        return applied


class Pin:
    """A vault held in memory, with a reserved place for one hand-over, from before the provider is called.

    It counts in the vault's inbox lag from the start, so that many who come at once do not all find room.

    Use it as a context manager, or call `close` when nothing will be handed over any more.
    """

    __slots__ = ("_claim", "_entry", "_open", "_reservation", "_store", "_successor")

    def __init__(self, entry: Entry, claim: Claim, store: VaultStore, *, successor: Callable[[Entry], Entry]) -> None:
        """Pin a vault that is not closing.

        Args:
            claim: on room in the vault's inbox; the pin's from here on, whether or not there is a place.
            successor: the entry of the vault that took the place of an entry's vault when that was erased, else the
                entry itself.

        Raises:
            Overloaded: the vault has no place for another exchange.
        """
        try:
            self._reservation = entry.mailbox.reserve_nowait()
        except Overloaded:
            claim.release()
            raise
        self._entry = entry
        self._claim = claim
        self._store = store
        self._successor = successor
        self._open = True

    @property
    def vault(self) -> VaultRef:
        """The vault that is held: after a `submit`, the one that the exchanges went to."""
        return self._entry.vault

    def submit(self, exchanges: Sequence[Exchange], *, failed: Callable[[], None] = lambda: None) -> Receipt:
        """Put finished exchanges into the committer's queue. A plain function: it cannot be cancelled halfway.

        Args:
            failed: called when the commit has failed; the receipt says why.

        Raises:
            Overloaded, TooLarge, ShuttingDown, VaultUnavailable, NotOwner: nothing is being stored; the pin keeps its
                place.
        """
        assert self._open, "a pin hands over once, before it is closed"
        self._follow()
        entry, reservation, receipt = self._entry, self._reservation, Receipt()
        claim = entry.lag.hold(weigh(exchanges))

        def on_durable(rows: list[InboxRow]) -> None:
            claim.land(rows)
            entry.rows_sent = rows[-1].row_id if rows else entry.rows_sent
            receipt._slot = reservation.send(Apply(tuple(rows)))

        def on_failed() -> None:
            claim.release()
            reservation.release()
            failed()

        try:
            receipt._commit = self._store.accept_nowait(
                entry.vault, exchanges, on_durable=on_durable, on_failed=on_failed
            )
        except MemoryRouterError:
            claim.release()
            raise
        self._open = False  # from here on the place is the commit's to use or to give back
        self._claim.release()
        return receipt

    def _follow(self) -> None:
        """If the vault was erased since it was pinned, hold the one that took its place instead."""
        entry = self._successor(self._entry)
        if entry is not self._entry:
            self._reservation = entry.mailbox.reserve_nowait()  # the old one went with its mailbox
            self._entry = entry

    def close(self) -> None:
        """Let the vault go; harmless a second time. What was submitted goes its way."""
        if self._open:
            self._open = False
            self._claim.release()
            self._reservation.release()

    def __enter__(self) -> Pin:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
