"""Nodes of a cluster on a real database, all in this process, each with the record of what it was told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import trio

from actors.cluster.cluster import Cluster, open_cluster
from actors.cluster.membership import machine_clock
from actors.cluster.tables import ADD_PARTS, CLUSTER_TABLES
from actors.store.postgres.connection import PostgresConnection, open_connection
from models.cluster_settings import ClusterSettings
from models.errors import NotOwner
from tests.patience import wait_until

PARTS = 12
TTL_S = 2.0


def prepare(url: str, parts: int = PARTS) -> None:
    """Make the tables of a cluster."""
    connection = open_connection(url)
    for statement in CLUSTER_TABLES:
        connection.execute(statement)
    connection.execute(ADD_PARTS, (parts,))
    connection.close()


class Gate:
    """Lets heartbeats through while it is open."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()

    def freeze(self) -> None:
        """No heartbeat from now on."""
        self._open.clear()

    def thaw(self) -> None:
        """Heartbeats go on."""
        self._open.set()

    def pass_through(self) -> None:
        """What the node calls before each heartbeat."""
        self._open.wait()


class NodeInTest:
    """One node, from `run` to `leave` or `kill`, and what it was told: ("acquired", part, epoch) and the like."""

    def __init__(
        self,
        name: str,
        url: str,
        folder: Path,
        *,
        ttl_s: float = TTL_S,
        weight: float = 1.0,
        clock: Callable[[], float] = machine_clock,
    ) -> None:
        self.name = name
        self.told: list[tuple[str, int, int]] = []
        self.gate = Gate()
        self.on_acquired: Callable[[int], None] = lambda part: None
        self.on_released: Callable[[int], None] = lambda part: None
        self.vaults_leave = True
        self._url = url
        self._folder = folder / name
        self._clock = clock
        self._settings = ClusterSettings(node_id=name, address=f"{name}:1", ttl_s=ttl_s, weight=weight)
        self._end = trio.Event()
        self.ended = trio.Event()
        self._cluster: Cluster | None = None

    @property
    def cluster(self) -> Cluster:
        """The node itself, once it runs."""
        assert self._cluster is not None
        return self._cluster

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be a node until it is told to end."""
        async with open_cluster(
            self._url,
            self._settings,
            data_dir=self._folder,
            parts=PARTS,
            released=self._released,
            acquired=self._acquired,
            lost=lambda part: self.told.append(("lost", part, 0)),
            clock=self._clock,
            before_beat=self.gate.pass_through,
        ) as self._cluster:
            task_status.started()
            await self._end.wait()
        self.ended.set()

    async def leave(self) -> None:
        """End in an orderly way."""
        self._end.set()
        await self.ended.wait()

    async def kill(self) -> None:
        """End without a word."""
        self.gate.thaw()
        self.cluster.abandon()
        await self.leave()

    def owns(self, part: int) -> int | None:
        """The epoch under which the node says that it owns the partition."""
        try:
            return self.cluster.ownership.epoch_nowait(part)
        except NotOwner:
            return None

    def owned(self) -> dict[int, int]:
        """Epochs of all partitions that it says it owns."""
        return {part: epoch for part in range(PARTS) if (epoch := self.owns(part)) is not None}

    async def _released(self, part: int) -> None:
        self.told.append(("released", part, self.owns(part) or 0))
        self.on_released(part)
        if not self.vaults_leave:
            await trio.sleep_forever()

    def _acquired(self, part: int, epoch: int) -> None:
        self.told.append(("acquired", part, epoch))
        self.on_acquired(part)


def settled(nodes: Iterable[NodeInTest]) -> bool:
    """Whether these nodes together own every partition exactly once, and are done with moving."""
    owned = sorted(part for node in nodes for part in node.owned())
    return owned == list(range(PARTS)) and all(node.cluster.settled for node in nodes)


async def wait_settled(*nodes: NodeInTest) -> None:
    """Wait until the nodes have shared all partitions."""
    await wait_until(lambda: settled(nodes))


def rows(url: str) -> list[tuple[int, str | None, int]]:
    """What the table says: partition, owner, epoch."""
    connection = open_connection(url)
    try:
        return connection.execute("SELECT part, owner, epoch FROM part ORDER BY part").fetchall()
    finally:
        connection.close()


def connected(url: str) -> PostgresConnection:
    """A connection as a writer has it."""
    return open_connection(url, idle_in_transaction_s=1.0)
