"""Which live vaults must leave memory: decisions only, the supervisor performs them.

Order is by last use, so that a sweep looks only at vaults that it may let go: idle ones first found, first gone.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator

from models.ids import VaultNumber

logger = logging.getLogger(__name__)


class WorkingSet:
    """Last use and size of every live vault, under one budget of bytes."""

    def __init__(self, *, memory_max_bytes: int, idle_timeout_s: float, residency_min_s: float) -> None:
        self._memory_max_bytes = memory_max_bytes
        self._idle_timeout_s = idle_timeout_s
        self._residency_min_s = residency_min_s
        self._live: OrderedDict[VaultNumber, _Resident] = OrderedDict()
        self._oversized: OrderedDict[VaultNumber, _Resident] = OrderedDict()  # larger than the budget by themselves
        self.bytes_in_memory = 0

    def touch(self, vault: VaultNumber, now_s: float) -> None:
        """A request arrived for this vault."""
        resident = self._live.get(vault)
        if resident is None:
            resident = self._live[vault] = _Resident(since_s=now_s)
        resident.used_s = now_s
        self._live.move_to_end(vault)
        if vault in self._oversized:
            self._oversized.move_to_end(vault)

    def resize(self, vault: VaultNumber, size_bytes: int) -> None:
        """The vault takes this much memory now."""
        resident = self._live.get(vault)
        if resident is None:
            return
        self.bytes_in_memory += size_bytes - resident.size_bytes
        resident.size_bytes = size_bytes
        if size_bytes <= self._memory_max_bytes:
            self._oversized.pop(vault, None)
        elif vault not in self._oversized:
            self._oversized[vault] = resident
            facts = {"vault": vault, "bytes": size_bytes, "memory_max_bytes": self._memory_max_bytes}
            logger.warning("vault_larger_than_memory_max_bytes", extra=facts)

    def remove(self, vault: VaultNumber) -> None:
        """The vault has left memory."""
        resident = self._live.pop(vault, None)
        self._oversized.pop(vault, None)
        if resident is not None:
            self.bytes_in_memory -= resident.size_bytes

    @property
    def full(self) -> bool:
        """Whether the vaults in memory take more than the budget."""
        return self._excess_bytes > 0

    @property
    def _spared(self) -> VaultNumber | None:
        """The vault that takes no part in the budget: the last used one of those larger than it by themselves.

        Whatever else leaves makes no room for it, and loading it again takes minutes: under the budget it would be
        loaded, left and loaded again, and each of the others would wait for it to go.
        """
        return next(reversed(self._oversized), None)

    @property
    def _excess_bytes(self) -> int:
        spared = self._spared
        spared_bytes = 0 if spared is None else self._oversized[spared].size_bytes
        return self.bytes_in_memory - spared_bytes - self._memory_max_bytes

    def victims(self, now_s: float, *, idle: Callable[[VaultNumber], bool]) -> Iterator[tuple[VaultNumber, str]]:
        """Vaults to passivate now, with the reason: unused for `idle_timeout_s`, or over the budget, oldest first.

        `idle` says whether a vault could go without disturbing anybody. A vault that came in less than
        `residency_min_s` ago stays even when the budget is exceeded: otherwise more hot vaults than the budget holds
        would do nothing but load. One that is larger than the budget leaves only when unused; see `_spared`.
        """
        excess_bytes, spared = self._excess_bytes, self._spared
        for vault, resident in list(self._live.items()):
            expired = resident.used_s <= now_s - self._idle_timeout_s
            evictable = excess_bytes > 0 and vault != spared and resident.since_s <= now_s - self._residency_min_s
            if not expired and excess_bytes <= 0:
                return
            if (expired or evictable) and idle(vault):
                excess_bytes -= resident.size_bytes if vault != spared else 0
                yield vault, "idle" if expired else "memory"


class _Resident:
    __slots__ = ("since_s", "size_bytes", "used_s")

    def __init__(self, *, since_s: float) -> None:
        self.since_s = since_s
        self.used_s = since_s
        self.size_bytes = 0
