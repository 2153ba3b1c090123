"""The supervisor: routes requests to vault actors and owns their lives.

A vault exists whether or not it is in memory. The first request for it makes an entry and starts its actor; everybody
else who comes meanwhile finds the same entry, whose mailbox already takes messages (hydrate once). The mailbox belongs to
the entry, not to the actor, so a restart loses only the message in hand, whose caller is told.

Owns the routing table, restarts, quarantine, passivation and drain. Must never touch what is inside a vault.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from actors.embedder import Embedder
from actors.mailbox import Mailbox, ReplySlot, Reservation
from actors.restart import RestartPolicy
from actors.store.protocol import Commit, Store
from actors.vault_actor import VaultActor, VaultLimits
from actors.working_set import WorkingSet
from models.errors import (
    DeadlineExceeded,
    MemoryRouterError,
    ShuttingDown,
    VaultQuarantined,
    VaultUnavailable,
)
from models.ids import VaultNumber, VaultRef
from models.memory import Exchange, InboxRow
from models.messages import AnyMessage, Apply, Barrier
from models.settings import VaultSettings

logger = logging.getLogger(__name__)

FORWARDS_MAX = 4096
"""Erased vaults whose successor is remembered, for requests that were under way when they were erased."""

RESUME_TIMEOUT_S = 60.0
COMMIT_TIMEOUT_S = 30.0


SWEEP_INTERVAL_S = 1.0
"""How often idle and surplus vaults are looked for; a sweep stops at the first vault that may stay."""


class Receipt:
    """What became of an exchange that was handed over: first durable, then taken into memory."""

    __slots__ = ("_commit", "_slot")

    def __init__(self) -> None:
        self._commit: Commit | None = None
        self._slot: ReplySlot | None = None

    @property
    def durable(self) -> bool:
        """Whether it is durable already."""
        return self._commit is not None and self._commit.durable

    async def wait_durable(self, *, timeout_s: float = COMMIT_TIMEOUT_S) -> None:
        """Return once the exchange is durable; any search that starts afterwards finds it.

        Raises:
            StorageFull, StoreUnavailable: nothing was stored.
            DeadlineExceeded: the commit is still under way after `timeout_s`.
        """
        assert self._commit is not None
        with trio.move_on_after(timeout_s) as waiting:
            await self._commit.wait_durable()
        if waiting.cancelled_caught:
            raise DeadlineExceeded(f"The commit took longer than {timeout_s:g} s.")

    async def wait_applied(self, *, timeout_s: float) -> Any:
        """The vault's `Applied`, once the exchange is durable and taken into memory.

        Raises:
            StorageFull, StoreUnavailable: nothing was stored.
            DeadlineExceeded, VaultUnavailable: it may be durable, but its counts are not known yet.
        """
        await self.wait_durable(timeout_s=timeout_s)
        if self._slot is None:
            raise VaultUnavailable("The exchange is stored, but its vault was closed before it could be counted.")
        return await self._slot.wait(timeout_s=timeout_s)


class Pin:
    """A vault held in memory, with a reserved place for one hand-over, from before the provider is called.

    Use it as a context manager, or call `close` when nothing will be handed over any more.
    """

    __slots__ = ("_entry", "_open", "_reservation", "_supervisor")

    def __init__(self, supervisor: Supervisor, entry: _Entry, reservation: Reservation) -> None:
        self._supervisor = supervisor
        self._entry = entry
        self._reservation: Reservation | None = reservation
        self._open = True
        entry.pins += 1

    def submit(self, exchanges: Sequence[Exchange]) -> Receipt:
        """Put finished exchanges into the committer's queue. A plain function: it cannot be cancelled halfway.

        Raises:
            Overloaded, ShuttingDown: the store takes nothing now; nothing was stored.
        """
        assert self._reservation is not None, "a pin hands over once"
        entry, reservation = self._supervisor._landing(self._entry, self._reservation)
        receipt = Receipt()

        def settled(rows: list[InboxRow]) -> None:
            entry.pins -= 1
            if rows:
                receipt._slot = reservation.send(Apply(tuple(rows)))
            else:
                reservation.release()

        entry.pins += 1  # held until the actor knows, however early this pin is closed
        self._reservation = None
        try:
            receipt._commit = self._supervisor.store.accept_nowait(entry.vault, exchanges, settled)
        except MemoryRouterError:
            settled([])
            raise
        return receipt

    def close(self) -> None:
        """Let the vault go; harmless a second time. What was submitted goes its way."""
        if self._open:
            self._open = False
            self._entry.pins -= 1
            if self._reservation is not None:
                self._reservation.release()

    def __enter__(self) -> Pin:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Entry:
    """One vault's row in the routing table."""

    __slots__ = (
        "actor",
        "closed",
        "gone",
        "mailbox",
        "pins",
        "quarantined_until_s",
        "restarts",
        "scope",
        "vault",
    )

    def __init__(self, vault: VaultRef, mailbox: Mailbox, restarts: RestartPolicy) -> None:
        self.vault = vault
        self.mailbox = mailbox
        self.restarts = restarts
        self.actor: VaultActor | None = None
        self.pins = 0
        self.closed = trio.Event()
        self.gone = trio.Event()
        self.quarantined_until_s = 0.0
        self.scope = trio.CancelScope(shield=True)  # ends by passivation, erasure or the drain deadline only

    @property
    def idle(self) -> bool:
        """Could leave memory without disturbing anybody."""
        busy = self.actor is None or self.actor.busy
        return not (self.closed.is_set() or self.pins or self.mailbox.waiting or self.mailbox.reserved or busy)

    def close(self) -> None:
        """Begin passivation: what the mailbox holds is still handled."""
        self.closed.set()
        self.mailbox.close()


class Supervisor:
    """Memory vaults by number: asks, pins, erasure. Made by `open_supervisor`."""

    def __init__(
        self,
        store: Store,
        embedder: Embedder,
        settings: VaultSettings,
        limits: VaultLimits,
        vaults: trio.Nursery,
    ) -> None:
        self.store = store
        self.embedder = embedder
        self._settings = settings
        self._limits = limits
        self._vaults = vaults
        self._entries: dict[VaultNumber, _Entry] = {}
        self._forwards: OrderedDict[VaultNumber, VaultRef] = OrderedDict()
        self._working_set = WorkingSet(
            memory_max_bytes=settings.memory_max_bytes,
            idle_timeout_s=settings.idle_timeout_s,
            residency_min_s=settings.residency_min_s,
        )
        self._hydrations = trio.CapacityLimiter(settings.hydrations_max)
        self._erasing = trio.Lock()
        self._draining = False
        self._counters = Counter[str]()

    # What requests use.

    async def ask(self, vault: VaultRef, message: AnyMessage, *, timeout_s: float) -> Any:
        """Send a message to a vault and return its reply, hydrating the vault if need be.

        Raises:
            Overloaded, DeadlineExceeded, VaultUnavailable, VaultQuarantined, ShuttingDown: no answer; retry later.
            MemoryRouterError: whatever the vault answered.
        """
        deadline = trio.current_time() + timeout_s
        while True:
            with trio.move_on_at(deadline) as waiting:
                entry = await self._entry(vault)
            if waiting.cancelled_caught:
                raise DeadlineExceeded(f"The vault was not ready within {timeout_s:g} s.")
            try:
                return await entry.mailbox.ask(message, timeout_s=max(0.0, deadline - trio.current_time()))
            except trio.ClosedResourceError:
                await trio.lowlevel.checkpoint()  # it began to close meanwhile: look it up again

    async def pin(self, vault: VaultRef) -> Pin:
        """Hold a vault in memory with a reserved place for one hand-over.

        Raises:
            Overloaded, VaultQuarantined, ShuttingDown: no place now.
        """
        entry = await self._entry(vault)
        return Pin(self, entry, entry.mailbox.reserve_nowait())

    async def erase(self, vault: VaultRef) -> None:
        """Shred a vault. When this returns its old rows are unreadable and its keys open an empty vault.

        Raises:
            StorageFull, StoreUnavailable: nothing was deleted.
        """
        async with self._erasing:
            old = self.current(vault)
            self._forwards[old.number] = await self.store.replace_vault(old)
            while len(self._forwards) > FORWARDS_MAX:
                self._forwards.popitem(last=False)
            entry = self._entries.get(old.number)
            if entry is not None:
                entry.close()
                entry.scope.cancel(reason="the vault was erased")
                await entry.gone.wait()

    async def resume(self) -> None:
        """Hydrate, one after the other, the vaults whose exchanges wait in the inbox since an earlier run."""
        for vault in await self.store.vaults_with_inbox():
            try:
                await self.ask(vault, Barrier(), timeout_s=RESUME_TIMEOUT_S)
            except MemoryRouterError as error:
                logger.warning("vault_not_resumed", extra={"vault": vault.number, "code": error.code})

    def current(self, vault: VaultRef) -> VaultRef:
        """The vault that took this one's place when it was erased, or itself."""
        while vault.number in self._forwards:
            vault = self._forwards[vault.number]
        return vault

    def statistics(self) -> dict[str, int]:
        """Live vaults, bytes and life-cycle counts, for metrics."""
        return {
            "live": len(self._entries),
            "bytes_in_memory": self._working_set.bytes_in_memory,
            "messages_waiting": sum(entry.mailbox.waiting for entry in self._entries.values()),
            "hydrated": self._counters["hydrated"],
            "passivated": self._counters["passivated"],
            "crashed": self._counters["crashed"],
            "quarantined": self._counters["quarantined"],
        }

    # The routing table.

    async def _entry(self, vault: VaultRef) -> _Entry:
        while True:
            entry = self._entry_nowait(vault)
            if not entry.closed.is_set():
                return entry
            await entry.gone.wait()

    def _entry_nowait(self, vault: VaultRef) -> _Entry:
        """The vault's entry, made on first use; it may be closing. Synchronous, so that nobody can make a second."""
        vault = self.current(vault)
        now_s = trio.current_time()
        entry = self._entries.get(vault.number)
        if entry is None:
            if self._draining:
                raise ShuttingDown("The server is shutting down.", retry_after_s=1)
            entry = self._start(vault)
        if entry.quarantined_until_s > now_s:
            wait_s = math.ceil(entry.quarantined_until_s - now_s)
            raise VaultQuarantined("The vault failed repeatedly and is resting.", retry_after_s=wait_s)
        self._working_set.touch(vault.number, now_s)
        return entry

    def _start(self, vault: VaultRef) -> _Entry:
        settings = self._settings
        mailbox = Mailbox(messages_max=settings.mailbox_messages_max, reserved_max=settings.exchanges_max)
        restarts = RestartPolicy(restarts_max=settings.restarts_max, window_s=settings.restart_window_s)
        entry = self._entries[vault.number] = _Entry(vault, mailbox, restarts)
        self._vaults.start_soon(self._live, entry, name=f"vault {vault.number}")
        return entry

    def _landing(self, entry: _Entry, reservation: Reservation) -> tuple[_Entry, Reservation]:
        """Where a pinned exchange goes: its own entry, or that of the vault that replaced it meanwhile."""
        vault = self.current(entry.vault)
        if vault.number == entry.vault.number:
            return entry, reservation
        reservation.release()
        landing = self._entry_nowait(vault)
        return landing, landing.mailbox.reserve_nowait()

    # The life of one vault.

    async def _live(self, entry: _Entry) -> None:
        """Run the actor, restart it when it crashes, and take the entry out when it has ended."""
        with entry.scope:
            try:
                while not await self._incarnation(entry):
                    pass
            finally:
                entry.mailbox.close()
                entry.mailbox.drop_all()
                del self._entries[entry.vault.number]
                self._working_set.remove(entry.vault.number)
                entry.gone.set()

    async def _incarnation(self, entry: _Entry) -> bool:
        """One run of the actor; True when it ended by passivation, False when it crashed and shall start again."""
        actor = entry.actor = VaultActor(
            entry.vault, entry.mailbox, self.store, self.embedder, self._limits, self._hydrations,
            resized=lambda size_bytes: self._working_set.resize(entry.vault.number, size_bytes),
        )  # fmt: skip
        self._counters["hydrated"] += 1
        try:
            await actor.run()
        except Exception as error:  # the edge of one vault: its crash must not touch the others
            self._counters["crashed"] += 1
            logger.error("vault_crashed", extra={"vault": entry.vault.number, "error": root_cause(error)})
            await self._after_crash(entry)
            return False
        self._counters["passivated"] += 1
        return True

    async def _after_crash(self, entry: _Entry) -> None:
        now_s = trio.current_time()
        if entry.restarts.may_restart(now_s):
            return
        self._counters["quarantined"] += 1
        entry.quarantined_until_s = now_s + self._settings.quarantine_s
        logger.error("vault_quarantined", extra={"vault": entry.vault.number, "seconds": self._settings.quarantine_s})
        entry.mailbox.drop_all()  # nobody should wait for an answer that cannot come
        with trio.move_on_after(self._settings.quarantine_s):
            await entry.closed.wait()
        entry.quarantined_until_s = 0.0
        entry.restarts.reset()

    async def _sweep(self) -> None:
        """Passivate idle vaults, and the least recently used ones when memory is over its budget."""
        while True:
            await trio.sleep(SWEEP_INTERVAL_S)
            victims = self._working_set.victims(trio.current_time(), idle=lambda number: self._entries[number].idle)
            for number, reason in victims:
                logger.debug("vault_passivating", extra={"vault": number, "reason": reason})
                self._entries[number].close()

    def _begin_drain(self, timeout_s: float) -> None:
        """Close every mailbox; what is still running at the deadline is cancelled. The store makes that safe."""
        self._draining = True
        deadline = trio.current_time() + timeout_s
        for entry in self._entries.values():
            entry.close()
            entry.scope.deadline = deadline


def root_cause(error: BaseException) -> str:
    """The type of the first error inside nested groups: for logs, which must not carry texts."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return type(error).__name__


@asynccontextmanager
async def open_supervisor(
    store: Store, embedder: Embedder, settings: VaultSettings, limits: VaultLimits, *, drain_timeout_s: float
) -> AsyncIterator[Supervisor]:
    """Run the vaults for the length of the block; leaving it drains them within `drain_timeout_s`.

    Actors run in shielded scopes of their own: an outer cancellation reaches the block first and the actors only
    through the drain, which has a deadline.
    """
    async with trio.open_nursery() as vaults:
        supervisor = Supervisor(store, embedder, settings, limits, vaults)
        try:
            async with trio.open_nursery() as services:
                services.start_soon(supervisor._sweep)
                yield supervisor
                services.cancel_scope.cancel(reason="the supervisor closes")
        finally:
            supervisor._begin_drain(drain_timeout_s)
