"""The steps by which partitions come to this node and go: each one is a task, and ends in a claim.

Owns what is being done about which partition, so that nothing is done twice at a time, and what the owner of the vaults
is told. Must never give a partition up before its vaults have left, or say that one came before it is held.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

import msgspec
import trio

from actors.cluster.claims import Claims
from actors.cluster.membership import Membership
from actors.cluster.ownership import Held, LeasedOwnership
from actors.cluster.view import View
from models.errors import StoreUnavailable

MOVES_MAX = 16
"""Partitions whose vaults leave at the same time."""
MOVE_TIMEOUT_S = 30.0
"""How long the vaults of a partition get to leave; then it goes without them, and their commits find it gone."""
FAILED_CLAIM_S = 0.1
"""A claim that came to nothing leads to another look after so long."""

_log = logging.getLogger(__name__)


class Callbacks(msgspec.Struct, frozen=True):
    """What the owner of the vaults is told, in Trio's thread.

    Attributes:
        released: let the vaults of a partition leave, with all that they have to commit; it is still ours. It may be
            called again for a partition if it was cancelled.
        acquired: a partition is ours from now on, under this epoch.
        lost: a partition is not ours any more, and was not handed over: what is in memory of it is worth nothing.
    """

    released: Callable[[int], Awaitable[None]]
    acquired: Callable[[int, int], None]
    lost: Callable[[int], None]


class Steps:
    """What one node does about partitions. In Trio's thread.

    Attributes:
        busy: partitions that something is being done about.
        counters: what became of them since the start.
        changed: set, and replaced by a new one, whenever anything may have changed.
        taking: whether partitions are taken; not while the node leaves.
    """

    def __init__(
        self,
        node_id: str,
        tasks: trio.Nursery,
        callbacks: Callbacks,
        *,
        claims: Claims,
        ownership: LeasedOwnership,
        membership: Membership,
    ) -> None:
        self._me = node_id
        self._tasks = tasks
        self._callbacks = callbacks
        self._claims = claims
        self._ownership = ownership
        self._membership = membership
        self._moves = trio.CapacityLimiter(MOVES_MAX)
        self.busy: set[int] = set()
        self.counters = {"takeovers": 0, "acquisitions": 0, "hand_overs": 0, "losses": 0}
        self.changed = trio.Event()
        self.taking = True

    def take(self, parts: Iterable[tuple[int, int]], view: View, incarnation: int) -> None:
        """Begin to take partitions of these epochs."""
        for part, epoch in parts:
            self.busy.add(part)
            takes_over = view.parts[part].owner not in (None, self._me)
            self._tasks.start_soon(self._take, part, epoch, incarnation, takes_over)

    def move(self, part: int) -> None:
        """Begin to hand a partition over."""
        self.busy.add(part)
        self._tasks.start_soon(self._move, part)

    def renounce(self, parts: Iterable[tuple[int, int]], incarnation: int) -> None:
        """Begin to give up what is ours by the table alone: the answer to an earlier statement was lost."""
        for part, epoch in parts:
            self.busy.add(part)
            self._tasks.start_soon(self._renounce, part, epoch, incarnation)

    def drop(self, part: int, epoch: int) -> None:
        """A partition of ours was lost."""
        if self._ownership.drop(part, epoch) is not None:
            self.tell_lost(part, epoch)

    def tell_lost(self, part: int, epoch: int) -> None:
        """The same, where it was dropped already."""
        _log.warning("%s: partition %d is lost, epoch %d", self._me, part, epoch)
        self.counters["losses"] += 1
        _guarded(self._callbacks.lost, part)
        self.tell_changed()
        self._membership.look_within(0.0)

    async def move_all(self, *, reachable: bool) -> None:
        """Hand over everything that is held, and wait for that.

        Args:
            reachable: whether the database answers; without it partitions are not given up, only left.
        """
        async with trio.open_nursery() as moves:
            for part in self._ownership.held():
                moves.start_soon(self._move_after_others, part, reachable)

    def tell_changed(self) -> None:
        """Wake whoever waits for a change."""
        self.changed.set()
        self.changed = trio.Event()

    async def _take(self, part: int, epoch: int, incarnation: int, takes_over: bool) -> None:
        """Take one partition; whatever is uncertain afterwards, the next look shows."""
        taken = None
        try:
            with suppress(StoreUnavailable):
                taken = await self._claims.take(part, epoch=epoch, incarnation=incarnation)
        finally:
            self.busy.discard(part)
        if taken is None or incarnation != self._membership.lease.incarnation or not self.taking:
            self._membership.look_within(FAILED_CLAIM_S)
            return
        self._ownership.hold(part, Held(epoch=taken, incarnation=incarnation))
        self.counters["acquisitions"] += 1
        self.counters["takeovers"] += takes_over
        _guarded(self._callbacks.acquired, part, taken)
        self._after_a_step()

    async def _move_after_others(self, part: int, reachable: bool) -> None:
        while part in self.busy:
            await self.changed.wait()
        self.busy.add(part)
        await self._move(part, reachable)

    async def _move(self, part: int, reachable: bool = True) -> None:
        """Let a partition's vaults leave, and give it up."""
        try:
            async with self._moves:
                held = self._ownership.begin_to_move(part)
                if held is not None:
                    with trio.move_on_after(MOVE_TIMEOUT_S) as leaving:
                        await self._release(part)
                    if leaving.cancelled_caught:
                        _log.error("%s: the vaults of partition %d did not leave in time", self._me, part)
                    await self._give_up(part, held, reachable)
        finally:
            self.busy.discard(part)
            self._after_a_step()

    async def _release(self, part: int) -> None:
        try:
            await self._callbacks.released(part)
        except Exception as error:  # the edge: a partition whose vaults fail to leave goes all the same
            _log.error("the vaults of partition %d failed to leave: %s", part, type(error).__name__)

    async def _give_up(self, part: int, held: Held, reachable: bool) -> None:
        if self._ownership.drop(part, held.epoch) is None:
            return  # it was lost meanwhile
        self.counters["hand_overs"] += 1
        if reachable:
            with suppress(StoreUnavailable):
                await self._claims.give_up(part, epoch=held.epoch, incarnation=held.incarnation)

    async def _renounce(self, part: int, epoch: int, incarnation: int) -> None:
        try:
            with suppress(StoreUnavailable):
                await self._claims.give_up(part, epoch=epoch, incarnation=incarnation)
        finally:
            self.busy.discard(part)
            self._after_a_step()

    def _after_a_step(self) -> None:
        if not self.busy:
            self._membership.look_within(0.0)
        self.tell_changed()


def _guarded(callback: Callable[..., object], *arguments: Any) -> None:
    """Call a callback whose failure must not end the cluster."""
    try:
        callback(*arguments)
    except Exception as error:  # the edge: what is owned is owned whatever the callback does
        _log.error("a callback of the cluster failed: %s", type(error).__name__)
