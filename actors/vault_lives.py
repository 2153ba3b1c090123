"""The life of a vault in memory: one incarnation of its actor after the other, restarts, quarantine, the end.

Owns what becomes of a crash, and how many vaults load and build at once. Must never touch the routing table, which is
the supervisor's, nor what is inside a vault.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial

import trio

from actors.embedder import Embedder
from actors.embedders import Embedders
from actors.entry import Entry
from actors.metering import MemoryMeter
from actors.store.protocol import Store
from actors.vault_actor import VaultActor, VaultLimits
from actors.working_set import WorkingSet
from models.errors import NotOwner, ShardDamaged, StoreUnavailable
from models.messages import Applied
from models.settings import VaultSettings

logger = logging.getLogger(__name__)

STORE_REST_S = 2.0
"""How long a vault that cannot be loaded or written rests: as long as a restart of the store takes, about."""

ADMISSION_RETRY_S = 0.1
ADMISSION_WAIT_MAX_S = 1.0
BUILDS_MAX = 1
"""Segments of indexes that are built at once: a build takes a core."""


class VaultLives:
    """Lets vaults live, each in a task of its own.

    Attributes:
        counters: how often vaults were hydrated, passivated, reloaded, crashed and quarantined, and how many memories
            they stored, knew already and flagged.
    """

    def __init__(
        self,
        store: Store,
        embedders: Embedders,
        settings: VaultSettings,
        limits: VaultLimits,
        working_set: WorkingSet,
        *,
        meter: MemoryMeter,
        make_room: Callable[[], None],
    ) -> None:
        """Make one.

        Args:
            working_set: told how large vaults are; says when no more should come in.
            make_room: lets surplus vaults leave memory.
        """
        self.counters = Counter[str]()
        self._store = store
        self._embedders = embedders
        self._settings = settings
        self._limits = limits
        self._working_set = working_set
        self._meter = meter
        self._make_room = make_room
        self._hydrations = trio.CapacityLimiter(settings.hydrations_max)
        self._builds = trio.CapacityLimiter(BUILDS_MAX)

    async def live(self, entry: Entry) -> None:
        """Let a vault live until it passivates or is cancelled."""
        try:
            with entry.scope:
                while not await self._incarnation(entry) and await self._may_restart(entry):
                    pass
        except Exception as error:  # it crashed in the moment in which it was cancelled: the end all the same
            self._note_crash(entry, error)

    async def _incarnation(self, entry: Entry) -> bool:
        """One run of the actor; True when it ended by passivation, False when it is to begin anew, as after a crash."""
        self.counters["hydrated"] += 1
        try:
            await self._admission(entry)
            entry.embedder = await self._embedders.settle(entry.vault, self._store)
            actor = entry.actor = self._actor(entry, entry.embedder)
            await actor.run()
        except Exception as error:  # the edge of one vault: its crash must not touch the others
            if is_only(NotOwner, error):
                logger.info("vault_elsewhere", extra={"vault": entry.vault.number})
                return True  # whoever asks for it next is told where it is
            self._note_crash(entry, error)
            entry.store_failed = is_only(StoreUnavailable, error) and not is_only(ShardDamaged, error)
            return False
        self.counters["reloaded" if actor.reloads else "passivated"] += 1
        return not actor.reloads

    def _actor(self, entry: Entry, embedder: Embedder) -> VaultActor:
        return VaultActor(
            entry.vault, entry.mailbox, self._store, embedder, self._limits, self._hydrations, self._builds,
            lag=entry.lag,
            rows_sent=entry.rows_sent,
            suspects=entry.suspects,
            hydrated=entry.hydrated,
            applied=self._count,
            learned=partial(self._meter.learned, entry.vault.shard),
            resized=lambda size_bytes: self._working_set.resize(entry.vault.number, size_bytes),
        )  # fmt: skip

    async def _admission(self, entry: Entry) -> None:
        """Let surplus vaults leave memory before another comes in, for a while: one that is larger than the budget, or
        busy for long, must not keep all others out."""
        deadline = trio.current_time() + ADMISSION_WAIT_MAX_S
        while self._working_set.full and trio.current_time() < deadline and not entry.closed.is_set():
            self._make_room()
            with trio.move_on_after(ADMISSION_RETRY_S):
                await entry.closed.wait()

    def _count(self, applied: Applied) -> None:
        self.counters["stored"] += applied.stored
        self.counters["duplicates"] += applied.duplicates
        self.counters["flagged"] += applied.flagged

    def _note_crash(self, entry: Entry, error: Exception) -> None:
        self.counters["crashed"] += 1
        logger.error("vault_crashed", extra={"vault": entry.vault.number, "error": root_cause(error)})

    async def _may_restart(self, entry: Entry) -> bool:
        """Whether a crashed actor starts again: at once or after a quarantine; not when its mailbox closes in that."""
        if entry.actor is not None and entry.actor.reloads:
            return True  # no crash: it asked for it
        now_s = trio.current_time()
        if entry.restarts.may_restart(now_s):
            return True
        rest_s = self._settings.quarantine_s
        if entry.store_failed:  # nothing is wrong with the vault
            rest_s = min(rest_s, STORE_REST_S)
        else:
            self.counters["quarantined"] += 1
            logger.error("vault_quarantined", extra={"vault": entry.vault.number, "seconds": rest_s})
        entry.quarantined_until_s = now_s + rest_s
        with trio.move_on_after(rest_s) as rest:
            async for envelope in entry.mailbox.receive:
                envelope.drop()  # nobody should wait for an answer that cannot come
        entry.quarantined_until_s = None
        if not entry.store_failed:
            entry.restarts.reset()
        return rest.cancelled_caught


def root_cause(error: BaseException) -> str:
    """The type of the first error inside nested groups: for logs, which must not carry texts."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return type(error).__name__


def is_only(kind: type[BaseException], error: BaseException) -> bool:
    """Whether an error, or each of those in its nested groups, is of this kind."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_only(kind, inner) for inner in error.exceptions)
    return isinstance(error, kind)
