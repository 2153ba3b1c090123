"""A node of a cluster: joins, takes the partitions that are its own by placement, hands over those that are not.

Every look at the tables (`actors.cluster.membership`) leads to a plan (`actors.cluster.view`), whose steps are claims
(`actors.cluster.claims`). There is no coordinator, and no step relies on what another node believes: each is decided by
the database. Owns the order of steps: vaults leave before their partition is given up, and what is lost is told before
what is new (`actors.cluster.steps`). Must never take a partition while it leaves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio

from actors.cluster.claims import Claims
from actors.cluster.identity import connecting, identified
from actors.cluster.membership import BEATS_PER_LEASE, Identity, Membership, Sighting, machine_clock
from actors.cluster.ownership import Held, LeasedOwnership, Owned
from actors.cluster.steps import Callbacks, Steps
from actors.cluster.view import Placement, View, placed, planned
from actors.store.postgres.connection import PostgresConnection
from models.cluster_settings import ClusterSettings
from models.distributions import STEP_SECONDS, Distribution
from models.errors import SetupError, StoreUnavailable

LEAVE_TIMEOUT_S = 60.0
OPEN_TIMEOUT_S = 30.0
"""How long joining may take beside the wait for an earlier lease of this name."""
REFUSED_LEASES = 3
"""A name that is still taken after so many leases belongs to a node that lives."""
EAGER_LOOK_S = 0.05
"""How often one looks, at first, for a partition that somebody is about to give up."""
PAIRS_IN_PLACE = 1_000_000
"""Nodes times partitions up to which placement is computed in Trio's thread: about 10 ms."""
STUCK_S = 10.0
"""How long a statement may hang before its connection is broken. Twice as long each time: the server may still wait
for a standby on behalf of those that were broken before."""
STUCK_S_MAX = 300.0


class Cluster:
    """This node. Made by `open_cluster`; its methods run in Trio's thread.

    Attributes:
        address: at which the other nodes reach it.
    """

    def __init__(
        self,
        identity: Identity,
        tasks: trio.Nursery,
        callbacks: Callbacks,
        *,
        url: str,
        ttl_s: float,
        parts: int,
        clock: Callable[[], float],
        before_beat: Callable[[], None] | None,
        check_schema: Callable[[PostgresConnection], None],
    ) -> None:
        self._me = identity.node_id
        self.address = identity.address
        self._tasks = tasks
        self._ttl_s = ttl_s
        self._parts = parts
        self._clock = clock
        self._token = trio.lowlevel.current_trio_token()
        connect = partial(connecting, url)
        self.membership = Membership(
            identity, ttl_s=ttl_s, connect=connect, seen=self._seen_in_thread, clock=clock, before_beat=before_beat,
            check_schema=check_schema,
        )  # fmt: skip
        self._claims = Claims(identity.node_id, connect=connect, clock=clock)
        self.ownership = LeasedOwnership(
            identity.node_id, parts, lease=lambda: self.membership.lease, clock=clock, lost=self._lost_in_thread
        )
        self._steps = Steps(
            identity.node_id,
            tasks,
            callbacks,
            claims=self._claims,
            ownership=self.ownership,
            membership=self.membership,
        )
        self._sighting: Sighting | None = None
        self._sighted = trio.Event()
        self._placement = Placement((), ())
        self._incarnation = 0
        self._due_to_move_s: dict[int, float] = {}
        self._awaited: tuple[int, ...] = ()
        self._eager_look_s = EAGER_LOOK_S
        self._settled = False
        self._acted = False
        self._abandoned = False
        self._reachable = True
        self._interrupted = 0
        self._beat_seconds = Distribution(STEP_SECONDS)

    # What others use.

    @property
    def node_id(self) -> str:
        """This node's name."""
        return self._me

    def owner_of(self, part: int) -> Owned:
        """Where the partition's requests belong; see `LeasedOwnership.owner_of`."""
        return self.ownership.owner_of(part)

    async def wait_here(self, part: int, *, timeout_s: float) -> Owned:
        """Wait while the partition is about to come to this node; where it is then, or after the time."""
        with trio.move_on_after(timeout_s):
            while self.owner_of(part).coming:
                await self._steps.changed.wait()
        return self.owner_of(part)

    def is_gone(self, address: str) -> bool:
        """Whether the node at an address had let its lease end, or had left, at the last look."""
        nodes = self._sighting.view.nodes.values() if self._sighting else ()
        return bool(nodes) and not any(node.alive and node.address == address for node in nodes)

    async def wait_changed(self) -> None:
        """Wait for the next look at the tables, or a step of this node."""
        await self._steps.changed.wait()

    async def wait_settled(self) -> None:
        """Wait until this node has what placement gives it, and nothing else."""
        while not self.settled:
            await self._steps.changed.wait()

    @property
    def settled(self) -> bool:
        """Whether that was so at the last look, and the lease lasts since."""
        lease = self.membership.lease
        return self._settled and lease.incarnation == self._incarnation and self._clock() < lease.until_s

    @property
    def view(self) -> View | None:
        """The tables as they were seen last."""
        return self._sighting.view if self._sighting else None

    def statistics(self) -> dict[str, Any]:
        """What this node owns and what became of it, for metrics."""
        nodes = self._sighting.view.nodes.values() if self._sighting else ()
        return {
            "parts_owned": len(self.ownership.held()),
            "parts_awaited": len(self._awaited),
            "parts_moving": len(self._steps.busy),
            "nodes_alive": sum(node.alive for node in nodes),
            "incarnation": self._incarnation,
            "beat_seconds": self._beat_seconds,
            "interrupted": self._interrupted,
            **self._steps.counters,
            **self.membership.statistics(),
        }

    async def hand_over(self) -> None:
        """Give every partition to the others, in an orderly way, and take none. The server still answers meanwhile.

        The others are told first, so that each partition is without an owner only as long as its vaults need. When this
        returns they have also looked once more, and send nothing here any longer. Harmless to repeat.
        """
        told = False
        if self._steps.taking:
            self._steps.taking = self._settled = False
            self._steps.tell_changed()
            self._reachable = await self._announce()
            candidates = self._sighting.view.candidates() if self._sighting else ()
            told = any(candidate.node_id != self._me for candidate in candidates) and bool(self.ownership.held())
            if told:
                await trio.sleep(self._notice_s)
        await self._steps.move_all(reachable=self._reachable)
        if told and self._reachable:
            await trio.sleep(self._notice_s)

    def abandon(self) -> None:
        """Stop without a word to anybody, as a crash does: the lease ends by itself. For tests and measurements."""
        self._steps.taking = False
        self._abandoned = True
        self.membership.stop_nowait()
        self._claims.abandon_nowait()

    async def _announce(self) -> bool:
        """Tell the others that we leave; whether the database answers."""
        incarnation = self.membership.lease.incarnation
        if not incarnation:
            return False
        try:
            await self._claims.announce_leaving(incarnation)
        except StoreUnavailable:
            return False
        return True

    # From the other threads.

    def _seen_in_thread(self, sighting: Sighting) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._see, sighting)

    def _lost_in_thread(self, part: int, held: Held) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._steps.tell_lost, part, held.epoch)

    # Steering.

    @property
    def _notice_s(self) -> float:
        """After so long every other node has looked at the tables, and is eager for what will be its own."""
        return self._ttl_s / BEATS_PER_LEASE

    def _see(self, sighting: Sighting) -> None:
        self._sighting = sighting
        if sighting.beat_s is not None:
            self._beat_seconds.observe(sighting.beat_s)
        self._sighted.set()

    async def _steer(self) -> None:
        while True:
            await self._sighted.wait()
            self._sighted = trio.Event()
            assert self._sighting is not None
            await self._act_on(self._sighting)

    async def _act_on(self, sighting: Sighting) -> None:
        """Do what a look at the tables asks for. What takes long goes on in tasks of its own."""
        view = sighting.view
        if sighting.incarnation != self._incarnation:
            self._begin_incarnation(sighting.incarnation)
        await self._place(view)
        self.ownership.saw(view, self._placement)
        held = {part: held.epoch for part, held in self.ownership.held().items()}
        plan = planned(view, self._placement, self._me, self._incarnation, held, self._steps.busy)
        for part in plan.lost:
            self._steps.drop(part, held[part])
        if self._steps.taking:
            self._steps.take(plan.take, view, self._incarnation)
            self._steps.renounce(plan.renounce, self._incarnation)
            self._move_when_due(plan.move)
            self._look_eagerly(plan.awaited)
        self._settled = plan.settled and not self._steps.busy and self._steps.taking
        self._acted = True
        self._steps.tell_changed()

    def _begin_incarnation(self, incarnation: int) -> None:
        """We have joined anew: what an earlier incarnation held, anybody may have taken."""
        self._incarnation = incarnation
        self._due_to_move_s.clear()
        for part, held in self.ownership.held().items():
            if held.incarnation != incarnation:
                self._steps.drop(part, held.epoch)

    async def _place(self, view: View) -> None:
        candidates = view.candidates()
        if candidates != self._placement.candidates or not self._placement.choices:
            if len(candidates) * self._parts <= PAIRS_IN_PLACE:
                self._placement = placed(candidates, self._parts)
            else:
                self._placement = await trio.to_thread.run_sync(placed, candidates, self._parts)

    def _move_when_due(self, parts: tuple[int, ...]) -> None:
        """Hand over what has been somebody else's by placement for long enough that they know it, too."""
        now_s = self._clock()
        self._due_to_move_s = {part: self._due_to_move_s.get(part, now_s + self._notice_s) for part in parts}
        for part, due_s in self._due_to_move_s.items():
            if due_s <= now_s:
                self._steps.move(part)
        waiting = [due_s for due_s in self._due_to_move_s.values() if due_s > now_s]
        if waiting:
            self.membership.look_within(min(waiting) - now_s)

    def _look_eagerly(self, awaited: tuple[int, ...]) -> None:
        """Look again soon while somebody is to give up partitions for us; ever less often while nothing happens."""
        if awaited != self._awaited:
            self._eager_look_s = EAGER_LOOK_S
        self._awaited = awaited
        if awaited:
            self.membership.look_within(self._eager_look_s)
            self._eager_look_s = min(self._eager_look_s * 1.1, self._notice_s)

    # The beginning and the end.

    async def _join(self) -> None:
        """Join, and take what nobody owns.

        Raises:
            SetupError: the name is another living node's, or the database has not as many partitions.
            StoreUnavailable: the database does not answer.
        """
        self.membership.start()
        self._claims.start()
        gives_up_s = trio.current_time() + OPEN_TIMEOUT_S + REFUSED_LEASES * self._ttl_s
        while self._sighting is None:
            with trio.move_on_after(EAGER_LOOK_S):
                await self._sighted.wait()
            self._raise_if_refused()
            if self._sighting is None and trio.current_time() > gives_up_s:
                raise StoreUnavailable("The cluster's database does not answer.")
        if len(self._sighting.view.parts) != self._parts:
            raise SetupError(f"The database has {len(self._sighting.view.parts)} partitions, not {self._parts}.")
        self._tasks.start_soon(self._steer)
        self._tasks.start_soon(self._watch)
        with trio.move_on_after(OPEN_TIMEOUT_S):
            while not self._acted or self._steps.busy:
                await self._steps.changed.wait()

    def _raise_if_refused(self) -> None:
        if self.membership.failure is not None:
            raise self.membership.failure
        if self.membership.refused > REFUSED_LEASES * (BEATS_PER_LEASE + 1):
            raise SetupError(
                f"Another node of the cluster is called {self._me}.",
                hint="Was the data directory copied? Remove its file node_id, or set cluster.node_id.",
            )

    async def _watch(self) -> None:
        """Break connections on which nothing comes back."""
        patience_s = STUCK_S
        while True:
            await trio.sleep(self._notice_s)
            now_s = self._clock()
            for worker in (self.membership, self._claims):
                since_s = worker.working_since_s
                if since_s is not None and now_s - since_s > patience_s:
                    worker.interrupt()
                    self._interrupted += 1
                    patience_s = min(2 * patience_s, STUCK_S_MAX)

    async def _leave(self) -> None:
        """Hand over, and be no member any more."""
        await self.hand_over()
        incarnation = self.membership.lease.incarnation
        self.membership.stop_nowait()
        await trio.to_thread.run_sync(self.membership.wait_stopped)
        if self._reachable:
            with suppress(StoreUnavailable):
                await self._claims.remove(incarnation)

    async def _stop(self) -> None:
        self.membership.stop_nowait()
        self._claims.stop_nowait()
        await trio.to_thread.run_sync(self.membership.wait_stopped)
        await trio.to_thread.run_sync(self._claims.wait_stopped)


@asynccontextmanager
async def open_cluster(
    url: str,
    settings: ClusterSettings,
    *,
    data_dir: Path,
    parts: int,
    released: Callable[[int], Awaitable[None]],
    acquired: Callable[[int, int], None],
    lost: Callable[[int], None],
    clock: Callable[[], float] = machine_clock,
    before_beat: Callable[[], None] | None = None,
    check_schema: Callable[[PostgresConnection], None] = lambda _: None,
) -> AsyncIterator[Cluster]:
    """Be a node for the length of the block; leaving it hands everything over within `LEAVE_TIMEOUT_S`.

    When the block begins, the node has joined and owns what was nobody's and is its own by placement; what others have
    to give up for it comes later.

    Args:
        data_dir: of this node alone, locked by the caller; it holds the node's name.
        parts: as many as the database has.
        released, acquired, lost: see `Callbacks`.
        clock, before_beat, check_schema: see `Membership`.

    Raises:
        SetupError: the settings do not fit, or another living node has this name.
        StoreUnavailable: the database does not answer.
    """
    identity = await trio.to_thread.run_sync(identified, settings, data_dir)
    callbacks = Callbacks(released, acquired, lost)
    async with trio.open_nursery() as tasks:
        cluster = Cluster(
            identity,
            tasks,
            callbacks,
            url=url,
            ttl_s=settings.ttl_s,
            parts=parts,
            clock=clock,
            before_beat=before_beat,
            check_schema=check_schema,
        )
        try:
            await cluster._join()
            yield cluster
        finally:
            with trio.move_on_after(LEAVE_TIMEOUT_S, shield=True):
                if not cluster._abandoned:
                    await cluster._leave()
                await cluster._stop()
            tasks.cancel_scope.cancel(reason="the node has left")
