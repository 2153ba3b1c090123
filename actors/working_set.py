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
        self.bytes_in_memory = 0

    def touch(self, vault: VaultNumber, now_s: float) -> None:
        """A request arrived for this vault."""
        resident = self._live.get(vault)
        if resident is None:
            resident = self._live[vault] = _Resident(since_s=now_s)
        resident.used_s = now_s
        self._live.move_to_end(vault)

    def resize(self, vault: VaultNumber, size_bytes: int) -> None:
        """The vault takes this much memory now."""
        resident = self._live.get(vault)
        if resident is None:
            return
        self.bytes_in_memory += size_bytes - resident.size_bytes
        if resident.size_bytes <= self._memory_max_bytes < size_bytes:
            facts = {"vault": vault, "bytes": size_bytes, "memory_max_bytes": self._memory_max_bytes}
            logger.warning("vault_larger_than_memory_max_bytes", extra=facts)  # it will be loaded again and again
        resident.size_bytes = size_bytes

    def remove(self, vault: VaultNumber) -> None:
        """The vault has left memory."""
        resident = self._live.pop(vault, None)
        if resident is not None:
            self.bytes_in_memory -= resident.size_bytes

    @property
    def full(self) -> bool:
        """Whether the vaults in memory take more than the budget."""
        return self.bytes_in_memory > self._memory_max_bytes

    def victims(self, now_s: float, *, idle: Callable[[VaultNumber], bool]) -> Iterator[tuple[VaultNumber, str]]:
        """Vaults to passivate now, with the reason: unused for `idle_timeout_s`, or over the budget, oldest first.

        `idle` says whether a vault could go without disturbing anybody. A vault that came in less than
        `residency_min_s` ago stays even when the budget is exceeded: otherwise more hot vaults than the budget holds
        would do nothing but load.
        """
        excess_bytes = self.bytes_in_memory - self._memory_max_bytes
        for vault, resident in list(self._live.items()):
            expired = resident.used_s <= now_s - self._idle_timeout_s
            evictable = excess_bytes > 0 and resident.since_s <= now_s - self._residency_min_s
            if not expired and excess_bytes <= 0:
                return
            if (expired or evictable) and idle(vault):
                excess_bytes -= resident.size_bytes
                yield vault, "idle" if expired else "memory"


class _Resident:
    __slots__ = ("since_s", "size_bytes", "used_s")

    def __init__(self, *, since_s: float) -> None:
        self.since_s = since_s
        self.used_s = since_s
        self.size_bytes = 0
