"""Which partitions this node owns now, and where the others are: what every write and every request asks.

Implements `actors.store.ownership.Ownership` by the lease. Reads two values and a clock; blocks nobody, and
may be asked in any thread. Owns what this node holds; `actors.cluster.cluster` decides what it should. Must never say
that a partition is ours after the lease is over: what is said a moment before is checked by the transaction itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

import msgspec

from actors.cluster.membership import Lease
from actors.cluster.view import Placement, View
from models.errors import NotOwner


class Held(msgspec.Struct, frozen=True):
    """A partition of ours.

    Attributes:
        moving: its vaults are leaving; the next owner waits for it.
    """

    epoch: int
    incarnation: int
    moving: bool = False


class Owned(msgspec.Struct, frozen=True):
    """Where a partition's requests belong.

    Attributes:
        here: whether this node answers them.
        address: of another node that owns it or will in a moment, or "".
        epoch: the owner's, as far as it is known.
        coming: not here yet, but by placement it will be in a moment: wait (`Cluster.wait_here`) before giving up.
        stale_s: for how long the lease of this node has been over, without anybody having been heard to be the owner:
            reads may be answered with that said, writes fail. 0 while the lease lasts.
    """

    here: bool
    address: str
    epoch: int
    coming: bool = False
    stale_s: float = 0.0


class LeasedOwnership:
    """What this node holds. Changed in Trio's thread, but for `lost_nowait`."""

    def __init__(
        self,
        node_id: str,
        parts: int,
        *,
        lease: Callable[[], Lease],
        clock: Callable[[], float],
        lost: Callable[[int, Held], None],
    ) -> None:
        """Holds nothing yet.

        Args:
            lease: as the node believes in it now.
            clock: the one that the lease goes by.
            lost: told by `lost_nowait`, in its thread.
        """
        self._node_id = node_id
        self._parts = parts
        self._lease = lease
        self._clock = clock
        self._lost = lost
        self._lock = threading.Lock()
        self._held: dict[int, Held] = {}
        self._seen: tuple[View, Placement] | None = None

    @property
    def owner(self) -> str:
        """This node's name, as in `part.owner`; its incarnations differ in their epochs."""
        return self._node_id

    def epoch_nowait(self, part: int) -> int:
        """The epoch under which this node owns the partition.

        Raises:
            NotOwner: it does not, or its lease is over.
        """
        held, lease = self._held.get(part), self._lease()
        if held is not None and held.incarnation == lease.incarnation and self._clock() < lease.until_s:
            return held.epoch
        raise NotOwner(f"Partition {part} is not owned by this node.", owner_address=self.owner_of(part).address)

    def owned_nowait(self) -> Collection[int]:
        """The partitions whose epochs it would tell: none when its lease is over."""
        lease = self._lease()
        if self._clock() >= lease.until_s:
            return ()
        return [part for part, held in self.held().items() if held.incarnation == lease.incarnation]

    def lost_nowait(self, part: int, epoch: int) -> None:
        """A transaction found that the partition has another owner or epoch. Later epochs are left as they are."""
        with self._lock:
            held = self._held.get(part)
            if held is None or held.epoch != epoch:
                return
            del self._held[part]
        self._lost(part, held)

    def owner_of(self, part: int) -> Owned:
        """Where the partition's requests belong now. A moment later it may be wrong: the owner itself decides.

        Raises:
            ValueError: there is no such partition.
        """
        if not 0 <= part < self._parts:
            raise ValueError(f"there are {self._parts} partitions")
        held, lease = self._held.get(part), self._lease()
        if held is not None and not held.moving and held.incarnation == lease.incarnation:
            return Owned(here=True, address="", epoch=held.epoch, stale_s=max(0.0, self._clock() - lease.until_s))
        return self._elsewhere(part, held)

    def _elsewhere(self, part: int, held: Held | None) -> Owned:
        """By what was seen last: the living owner, else who will be it."""
        if self._seen is None:
            return Owned(here=False, address="", epoch=0)
        view, placement = self._seen
        row = view.parts[part]
        owner = view.owner_alive(row)
        if owner is not None and owner.node_id != self._node_id:
            return Owned(here=False, address=owner.address, epoch=row.epoch, coming=self._is_ours(part, held))
        choice = view.nodes.get(placement.choice(part, row) or "")
        elsewhere = choice is not None and choice.node_id != self._node_id
        address = choice.address if choice is not None and elsewhere else ""
        return Owned(here=False, address=address, epoch=row.epoch, coming=self._is_ours(part, held))

    def _is_ours(self, part: int, held: Held | None) -> bool:
        """Whether placement gives it to this node, which does not have it yet."""
        if self._seen is None or held is not None:
            return False
        view, placement = self._seen
        return placement.choice(part, view.parts[part]) == self._node_id

    # For `actors.cluster.cluster`, in Trio's thread.

    def saw(self, view: View, placement: Placement) -> None:
        """What others own, from now on."""
        self._seen = (view, placement)

    def held(self) -> dict[int, Held]:
        """A copy of what is held."""
        with self._lock:
            return dict(self._held)

    def hold(self, part: int, held: Held) -> None:
        """The partition is ours under this epoch."""
        with self._lock:
            self._held[part] = held

    def begin_to_move(self, part: int) -> Held | None:
        """Requests belong to the next owner from now on; commits go on. None if it is not held; harmless to repeat."""
        with self._lock:
            held = self._held.get(part)
            if held is not None:
                self._held[part] = msgspec.structs.replace(held, moving=True)
            return held

    def drop(self, part: int, epoch: int) -> Held | None:
        """The partition is not ours any more; what it was, if it was held under this epoch."""
        with self._lock:
            held = self._held.get(part)
            if held is None or held.epoch != epoch:
                return None
            return self._held.pop(part)
