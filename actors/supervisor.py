"""The supervisor: routes requests to vault actors and owns their lives.

A vault exists whether or not it is in memory. The first request for it makes an entry and starts its actor; everybody
else who comes meanwhile finds the same entry, whose mailbox already takes messages (hydrate once). The mailbox belongs
to the entry, not to the actor, so a restart loses only the message in hand, whose caller is told.

Owns the routing table, erasure, passivation and drain. What happens between a vault's coming and its going is the
business of `actors.vault_lives`. Must never touch what is inside a vault.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from contextvars import Context
from functools import partial
from typing import Any

import trio

from actors.embedder import Embedder
from actors.embedders import Embedders
from actors.emptied import Addressed, nothing_left
from actors.entry import Entry
from actors.inbox_lag import ONE, InboxLag, Weight
from actors.mailbox import Mailbox, TurnTimes
from actors.metering import MemoryMeter, Unmetered
from actors.pin import Pin, Receipt
from actors.restart import RestartPolicy
from actors.store.protocol import Store
from actors.vault_actor import VaultLimits
from actors.vault_lives import VaultLives
from actors.working_set import WorkingSet
from models.accounts import SERVER, Actor
from models.distributions import STEP_SECONDS, Distribution
from models.errors import (
    DeadlineExceeded,
    MemoryRouterError,
    NotFound,
    NotOwner,
    ShuttingDown,
    StoreUnavailable,
    VaultQuarantined,
    VaultUnavailable,
)
from models.ids import VaultNumber, VaultRef
from models.messages import AnyMessage, Barrier
from models.settings import VaultSettings

__all__ = ["Pin", "Receipt", "Supervisor", "open_supervisor"]

logger = logging.getLogger(__name__)

FORWARDS_MAX = 4096
"""Erased vaults whose successor is remembered, for requests that were under way when they were erased."""

PIN_TIMEOUT_S = 10.0
ERASE_TIMEOUT_S = 60.0
RESUME_TIMEOUT_S = 60.0

RELEASE_PINNED_S = 1.0
"""How long a vault that moves waits for chats under way; what they say later is not stored, and says so."""

COUNTED = ("hydrated", "passivated", "crashed", "quarantined", "stored", "duplicates", "flagged")
"""Counters of lives that metrics show."""

SWEEP_INTERVAL_S = 1.0
"""How often idle and surplus vaults are looked for; a sweep stops at the first vault that may stay."""


def anybody(part: int) -> None:
    """Every partition is this node's."""


class Supervisor:
    """Memory vaults by number: asks, pins, erasure. Made by `open_supervisor`."""

    def __init__(
        self,
        store: Store,
        embedders: Embedders,
        settings: VaultSettings,
        limits: VaultLimits,
        vaults: trio.Nursery,
        *,
        meter: MemoryMeter | None = None,
        check_owned: Callable[[int], object] = anybody,
    ) -> None:
        self.store = store
        self.check_owned = check_owned  # raises NotOwner for a partition of another node or worker
        self._meter = meter or Unmetered()
        self.embedders = embedders
        self._settings = settings
        self._vaults = vaults
        self._entries: dict[VaultNumber, Entry] = {}
        self._forwards: OrderedDict[VaultNumber, VaultRef] = OrderedDict()
        self._working_set = WorkingSet(
            memory_max_bytes=settings.memory_max_bytes,
            idle_timeout_s=settings.idle_timeout_s,
            residency_min_s=settings.residency_min_s,
        )
        self._lives = VaultLives(
            store, embedders, settings, limits, self._working_set, meter=self._meter, make_room=self._passivate
        )
        self._erasing = trio.Lock()
        self._draining = False
        self._resuming = 0
        self._waited = Distribution(STEP_SECONDS)

    # What requests use.

    async def ask(
        self, vault: VaultRef, message: AnyMessage, *, timeout_s: float, times: TurnTimes | None = None
    ) -> Any:
        """Send a message to a vault and return its reply, hydrating the vault if need be.

        What is about memories that there are never reaches the vault that took this one's place.

        Args:
            times: filled in on the way.

        Raises:
            Overloaded, DeadlineExceeded, VaultUnavailable, VaultQuarantined, ShuttingDown: no answer; retry later.
            MemoryRouterError: whatever the vault answered.
        """
        deadline = trio.current_time() + timeout_s
        while True:
            if isinstance(message, Addressed) and self.current(vault) != vault:
                return nothing_left(message)
            entry = await self._entry(vault, deadline)
            try:
                remaining_s = max(0.0, deadline - trio.current_time())
                return await entry.mailbox.ask(message, timeout_s=remaining_s, times=times)
            except trio.ClosedResourceError:
                await trio.lowlevel.checkpoint()  # it began to close meanwhile: look it up again
            except NotFound:
                async with self._erasing:  # perhaps the vault is just being replaced
                    if self.current(vault) == entry.vault:
                        raise

    async def pin(self, vault: VaultRef, weight: Weight | None = None, *, wait_room_s: float = 0.0) -> Pin:
        """Hold a vault in memory with a reserved place for one hand-over.

        Args:
            weight: how much will be handed over, where that is known: there must be room for it in the vault's inbox.
            wait_room_s: how long to wait for that room.

        Raises:
            Overloaded, DeadlineExceeded, VaultQuarantined, ShuttingDown: no place now.
        """
        room_until = trio.current_time() + wait_room_s
        while True:
            entry = await self._entry(vault, room_until + PIN_TIMEOUT_S)
            wait_s = room_until - trio.current_time()
            if weight is None or wait_s <= 0:
                claim = entry.lag.claim_nowait(weight or ONE, ahead=weight is None)
            elif (waited := await entry.lag.claim(weight, timeout_s=wait_s)) is not None:
                claim = waited
            else:
                continue  # it began to close meanwhile
            return Pin(entry, claim, self.store, successor=self._successor)

    async def erase(self, vault: VaultRef, *, by: Actor = SERVER) -> None:
        """Shred a vault. When this returns its old rows are unreadable and its keys open an empty vault.

        Once begun it goes on when its caller is cancelled: half an erasure would leave the old content in memory.

        Raises:
            StorageFull, StoreUnavailable: nothing may have been deleted; ask again. NotOwner: it is another node's.
        """
        async with self._erasing:
            with trio.move_on_after(ERASE_TIMEOUT_S, shield=True) as erasing:
                await self._replace(self.current(vault), by)
            if erasing.cancelled_caught:
                raise StoreUnavailable("The vault could not be erased in time; ask again until it is.")

    async def _replace(self, old: VaultRef, by: Actor) -> None:
        self.check_owned(old.shard)
        self._forwards[old.number] = await self.store.replace_vault(old, by=by)
        while len(self._forwards) > FORWARDS_MAX:
            self._forwards.popitem(last=False)
        await self._evict(old)

    async def retire(self, vault: VaultRef) -> None:
        """Take a vault out of memory that the directory has shredded; no key opens it any more.

        Raises:
            StoreUnavailable: it is still in memory; ask again.
        """
        with trio.move_on_after(ERASE_TIMEOUT_S, shield=True) as retiring:
            await self._evict(vault)
        if retiring.cancelled_caught:
            raise StoreUnavailable("The vault could not be taken out of memory in time; ask again until it is.")

    async def _evict(self, vault: VaultRef) -> None:
        entry = self._entries.get(vault.number)
        if entry is not None:
            entry.close()
            entry.scope.cancel(reason="the vault was erased")
            await entry.gone.wait()

    async def resume(self, parts: Collection[int] | None = None) -> None:
        """Hydrate, one by one, the vaults that an earlier run left with an inbox or on the way to another embedder.

        Args:
            parts: only those of these partitions.
        """
        left = {*await self.store.vaults_with_inbox(), *await self.store.vaults_moving()}
        if parts is not None:
            left = {vault for vault in left if vault.shard in parts}
        self._resuming = len(left)
        for vault in left:
            try:
                await self.ask(vault, Barrier(), timeout_s=RESUME_TIMEOUT_S)
            except NotOwner:
                pass  # its owner does this
            except MemoryRouterError as error:
                logger.warning("vault_not_resumed", extra={"vault": vault.number, "code": error.code})
            self._resuming -= 1

    # Partitions that go to another node.

    async def release_part(self, part: int) -> None:
        """Let the vaults of a partition leave memory, with what they have to commit. Requests are already elsewhere."""
        async with trio.open_nursery() as leaving:
            for entry in self._of_part(part):
                leaving.start_soon(self._let_leave, entry)

    def drop_part_nowait(self, part: int) -> None:
        """Take the vaults of a partition out of memory at once: another node has it, and has read what is durable."""
        for entry in self._of_part(part):
            entry.close()
            entry.scope.cancel(reason="another node owns the vault")

    async def _let_leave(self, entry: Entry) -> None:
        if entry.mailbox.reserved:
            await trio.sleep(RELEASE_PINNED_S)
        entry.close()
        await entry.gone.wait()

    def _of_part(self, part: int) -> list[Entry]:
        return [entry for entry in self._entries.values() if entry.vault.shard == part]

    def current(self, vault: VaultRef) -> VaultRef:
        """The vault that took this one's place when it was erased, or itself."""
        while vault.number in self._forwards:
            vault = self._forwards[vault.number]
        return vault

    def embedder_nowait(self, vault: VaultRef) -> Embedder | None:
        """The embedder of a vault, as far as that is known without asking the store."""
        if not self.embedders.several:
            return self.embedders.default
        entry = self._entries.get(self.current(vault).number)
        return None if entry is None else entry.embedder

    def statistics(self) -> dict[str, Any]:
        """Live vaults, bytes, waiting messages and life-cycle counts, for metrics."""
        waiting = [entry.mailbox.waiting for entry in self._entries.values()]
        return {
            "live": len(self._entries),
            "resting": sum(entry.quarantined_until_s is not None for entry in self._entries.values()),
            "resuming": self._resuming,
            "bytes_in_memory": self._working_set.bytes_in_memory,
            "messages_waiting": sum(waiting),
            "mailbox_longest": max(waiting, default=0),
            "wait_seconds": self._waited,
            "inbox_messages": sum(entry.lag.held.messages for entry in self._entries.values()),
            "inbox_bytes": sum(entry.lag.held.size_bytes for entry in self._entries.values()),
            **{name: self._lives.counters[name] for name in COUNTED},
        }

    # The routing table.

    async def _entry(self, vault: VaultRef, deadline: float) -> Entry:
        """The vault's entry, not closing: one that is leaving memory is waited for, and made anew."""
        with trio.move_on_at(deadline):
            while True:
                entry = self._entry_nowait(vault)
                if not entry.closed.is_set():
                    return entry
                await entry.gone.wait()
        raise DeadlineExceeded("The vault was not ready in time.")

    def _entry_nowait(self, vault: VaultRef) -> Entry:
        """The vault's entry, made on first use; it may be closing. Synchronous, so that nobody can make a second.

        Raises:
            NotOwner, ShuttingDown, VaultQuarantined: it cannot be had here, or not now.
        """
        vault = self.current(vault)
        now_s = trio.current_time()
        entry = self._entries.get(vault.number)
        if entry is None:
            if self._draining:
                raise ShuttingDown("The server is shutting down.", retry_after_s=1)
            self.check_owned(vault.shard)
            entry = self._start(vault)
        if entry.quarantined_until_s is not None:
            wait_s = max(1, math.ceil(entry.quarantined_until_s - now_s))
            raise VaultQuarantined("The vault failed repeatedly and is resting.", retry_after_s=wait_s)
        self._working_set.touch(vault.number, now_s)
        return entry

    def _start(self, vault: VaultRef) -> Entry:
        settings = self._settings
        mailbox = Mailbox(
            messages_max=settings.mailbox_messages_max, reserved_max=settings.exchanges_max, waited=self._waited
        )
        lag = InboxLag(
            messages_max=settings.inbox_messages_max,
            bytes_max=settings.inbox_bytes_max,
            gone=partial(self._meter.gone, vault.shard),
        )
        restarts = RestartPolicy(restarts_max=settings.restarts_max, window_s=settings.restart_window_s)
        entry = self._entries[vault.number] = Entry(vault, mailbox, lag, restarts)
        # In a context of its own: a vault outlives the request that it is loaded for, whose id is not the vault's.
        Context().run(partial(self._vaults.start_soon, self._live, entry, name=f"vault {vault.number}"))
        return entry

    def _successor(self, entry: Entry) -> Entry:
        """The entry of the vault that replaced this one's when it was erased, or the same."""
        vault = self.current(entry.vault)
        if vault == entry.vault:
            return entry
        successor = self._entry_nowait(vault)
        if successor.closed.is_set():
            raise VaultUnavailable("The vault is just leaving memory.")
        return successor

    # Lives begin and end.

    async def _live(self, entry: Entry) -> None:
        """Let a vault live, and take its entry out when it has ended."""
        try:
            await self._lives.live(entry)
        finally:
            entry.close()
            entry.mailbox.drop_all()
            if self.current(entry.vault) != entry.vault:  # erased, with what was in its inbox
                entry.lag.remove(entry.lag.rows)
            del self._entries[entry.vault.number]
            self._working_set.remove(entry.vault.number)
            entry.gone.set()

    async def _sweep(self) -> None:
        """Passivate idle vaults, and the least recently used ones when memory is over its budget."""
        while True:
            await trio.sleep(SWEEP_INTERVAL_S)
            self._passivate()

    def _passivate(self) -> None:
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


@asynccontextmanager
async def open_supervisor(
    store: Store,
    embedders: Embedders | Embedder,
    settings: VaultSettings,
    limits: VaultLimits,
    *,
    drain_timeout_s: float,
    meter: MemoryMeter | None = None,
    check_owned: Callable[[int], object] = anybody,
) -> AsyncIterator[Supervisor]:
    """Run the vaults for the length of the block; leaving it drains them within `drain_timeout_s`.

    Actors run in shielded scopes of their own: an outer cancellation reaches the block first and the actors only
    through the drain, which has a deadline.

    Args:
        embedders: of all models, or the only one.
        check_owned: raises `NotOwner` for a partition of another node; no vault of that comes into memory.
    """
    if isinstance(embedders, Embedder):
        embedders = Embedders([embedders])
    async with trio.open_nursery() as vaults:
        supervisor = Supervisor(store, embedders, settings, limits, vaults, meter=meter, check_owned=check_owned)
        try:
            async with trio.open_nursery() as services:
                services.start_soon(supervisor._sweep)
                yield supervisor
                services.cancel_scope.cancel(reason="the supervisor closes")
        finally:
            supervisor._begin_drain(drain_timeout_s)
