"""Which shards each of several worker processes on one machine owns: fixed, for as long as the server runs.

The counterpart of `actors.cluster.ownership` and `actors.cluster.cluster` without leases: worker i of N owns the shards
s with s % N == i. A worker that dies keeps its shards, and is started again. Two processes that both believe to be the
same worker are kept apart by a lock in the data directory, not here. Must never move a shard.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec
import trio

from actors.cluster.ownership import Owned
from models.errors import NotOwner

EPOCH = 1
"""Of every shard, for ever: no shard changes its owner."""
LOOK_S = 0.25
"""Time between two looks at which workers live."""


class Share(msgspec.Struct, frozen=True):
    """What one worker has of a data directory.

    Attributes:
        index: of the worker, from 0.
        count: how many workers there are.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"there is no worker {self.index} of {self.count}")

    def owns(self, part: int) -> bool:
        """Whether this worker writes the shard."""
        return self.owner_of(part) == self.index

    def owner_of(self, part: int) -> int:
        """The worker that writes the shard."""
        return part % self.count


def _always(_worker: int) -> bool:
    return True


class WorkerOwnership:
    """Implements `actors.store.ownership.Ownership`, and `router.forwarding.Cluster`."""

    __slots__ = ("_address_of", "_alive", "_parts", "_share")

    def __init__(
        self,
        share: Share,
        parts: int,
        *,
        address_of: Callable[[int], str],
        alive: Callable[[int], bool] = _always,
    ) -> None:
        """Owns its share from now on.

        Args:
            share: of this worker.
            parts: how many shards there are.
            address_of: at which a worker is reached by the others, by its index.
            alive: whether a worker answers, as far as that is known, by its index.
        """
        self._share = share
        self._parts = parts
        self._address_of = address_of
        self._alive = alive

    @property
    def owner(self) -> str:
        """This worker's name."""
        return f"worker-{self._share.index}"

    @property
    def address(self) -> str:
        """At which the other workers reach this one."""
        return self._address_of(self._share.index)

    def epoch_nowait(self, part: int) -> int:
        """The epoch under which this worker owns the shard; any thread may ask.

        Raises:
            NotOwner: another one does.
        """
        if self._share.owns(part):
            return EPOCH
        owner_address = self.owner_of(part).address
        raise NotOwner(f"Shard {part} is another worker's.", owner_address=owner_address)

    def owned_nowait(self) -> Collection[int]:
        """All shards of this worker."""
        return range(self._share.index, self._parts, self._share.count)

    def lost_nowait(self, part: int, epoch: int) -> None:
        """Never so: no transaction of a shard asks who owns it, since no other process can write it."""

    def owner_of(self, part: int) -> Owned:
        """Where the shard's requests belong; without an address while that worker is being started again.

        Raises:
            ValueError: there is no such shard.
        """
        if not 0 <= part < self._parts:
            raise ValueError(f"there are {self._parts} shards")
        if self._share.owns(part):
            return Owned(here=True, address="", epoch=EPOCH)
        worker = self._share.owner_of(part)
        return Owned(here=False, address=self._address_of(worker) if self._alive(worker) else "", epoch=EPOCH)

    async def wait_here(self, part: int, *, timeout_s: float) -> Owned:
        """Where it belongs: none is ever about to come, so there is nothing to wait for."""
        return self.owner_of(part)

    async def hand_over(self) -> None:
        """Keep everything: the others answer 503 for these shards until this worker is back."""

    def is_gone(self, address: str) -> bool:
        """Whether no living worker is reached at this address."""
        workers = range(self._share.count)
        return not any(self._alive(worker) and self._address_of(worker) == address for worker in workers)

    async def wait_changed(self) -> None:
        """Wait for the time of another look."""
        await trio.sleep(LOOK_S)
