"""Server processes on one PostgreSQL database, each of which may be struck, and an eye on their table of partitions."""

from __future__ import annotations

import base64
import signal
import statistics
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import psycopg
import trio

from tests.campaigns.cluster.line import Line, open_line
from tests.campaigns.moments import pass_time
from tests.patience import PATIENCE_S
from tests.postgres import PostgresServer
from tests.prepared_model import put_model
from tests.running import ServerProcess, open_process

PARTS = 12
NAMES = ("a", "b", "c")
"""With so many partitions each of any two of them, and each of all three, owns some."""
LOOK_S = 0.04
_SERVER_KEY = base64.b64encode(b"k" * 32).decode()


class Row(msgspec.Struct, frozen=True):
    """A partition, as the table has it."""

    owner: str | None
    epoch: int
    commits: int


class Node:
    """A name of the cluster, and the process that bears it now.

    Attributes:
        url: where it serves, or served last.
        frozen: whether it was stopped in the middle of whatever it did.
        gone: set once its process has ended.
    """

    def __init__(self, name: str, data_dir: Path, database: str) -> None:
        self.name = name
        self.data_dir = data_dir
        self.database = database
        self.server: ServerProcess | None = None
        self.url = ""
        self.frozen = False
        self.gone = trio.Event()

    def strike(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.server is not None
        self.frozen = number == signal.SIGSTOP
        self.server.signal(number)


class Watcher:
    """Looks at `part` again and again, and insists that it never goes back.

    Attributes:
        seen: the last look that came to something.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None
        self.seen: tuple[Row, ...] = ()
        self._changed_s: dict[tuple[int, str], float] = {}

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            rows = await trio.to_thread.run_sync(self._look)
            now_s = time.monotonic()
            for part, (before, row) in enumerate(zip(self.seen, rows, strict=False)):
                assert row.epoch >= before.epoch, f"epoch of partition {part}: {before} became {row}"
                assert row.commits >= before.commits, f"commits of partition {part}: {before} became {row}"
                assert row.owner in (before.owner, None) or row.epoch > before.epoch, f"{part}: {before} became {row}"
                if row.owner != before.owner and row.owner is not None:
                    self._changed_s[part, row.owner] = now_s
            self.seen = rows or self.seen
            await pass_time(LOOK_S)

    def owned_by(self, name: str) -> set[int]:
        """The partitions of a node."""
        return {part for part, row in enumerate(self.seen) if row.owner == name}

    def taken_s(self, parts: Collection[int], *, since_s: float, without: str) -> list[float]:
        """How long after a moment each of these partitions had another owner; those that had, the fastest first."""
        found = [
            at_s - since_s
            for (part, owner), at_s in self._changed_s.items()
            if part in parts and owner != without and at_s >= since_s
        ]
        return sorted(found)

    def _look(self) -> tuple[Row, ...]:
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self._url, autocommit=True, connect_timeout=2)
            rows = self._connection.execute("SELECT owner, epoch, commits FROM part ORDER BY part").fetchall()
        except psycopg.Error:
            self.close()
            return ()
        return tuple(
            msgspec.convert(row, Row) for row in (dict(zip(Row.__struct_fields__, r, strict=True)) for r in rows)
        )

    def close(self) -> None:
        """Close its connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Field:
    """The nodes, their database and the line of the last of them to it.

    Attributes:
        account_key: of the one account, which one of the nodes has made.
        servers: all processes that there were, with what they logged.
    """

    def __init__(
        self,
        folder: Path,
        postgres: PostgresServer,
        standby: PostgresServer | None,
        url: str,
        line: Line,
        tasks: trio.Nursery,
        environment: Mapping[str, str],
    ) -> None:
        self.postgres = postgres
        self.standby = standby
        self.database = url
        self.line = line
        self.watcher = Watcher(url)
        self.account_key = ""
        self.servers: list[ServerProcess] = []
        self._over = False
        self._tasks = tasks
        self._environment = dict(environment)
        direct = dict.fromkeys(NAMES, url)
        direct[NAMES[-1]] = url.replace(f":{postgres.port}", f":{line.port}", 1)
        self.nodes = {name: Node(name, folder / name, direct[name]) for name in NAMES}

    async def start(self, *names: str) -> None:
        """Start nodes, all at once, and wait until each serves."""
        async with trio.open_nursery() as starting:
            for name in names:
                starting.start_soon(self._tasks.start, self._live, self.nodes[name])

    async def _live(self, node: Node, *, task_status: trio.TaskStatus[None]) -> None:
        environment = self._environment | {
            "MEMORYROUTER_STORE__KIND": "postgres",
            "MEMORYROUTER_STORE__URL": node.database,
            "MEMORYROUTER_STORE__PARTS": str(PARTS),
            "MEMORYROUTER_STORE__SERVER_KEY": _SERVER_KEY,
            "MEMORYROUTER_CLUSTER__NODE_ID": node.name,
        }
        if not node.data_dir.exists():
            put_model(node.data_dir)
        with trio.CancelScope(shield=True):  # it ends with its process, whose output is read until then
            async with open_process(node.data_dir, environment=environment) as server:
                node.server, node.url, node.gone, node.frozen = server, server.url, trio.Event(), False
                self.servers.append(server)
                for line in server.stdout:
                    assert not self.account_key, "two accounts were made"
                    self.account_key = line.removeprefix("account key: ")
                task_status.started()
                if not self._over:
                    await server.process.wait()
            node.gone.set()

    def end_all_nowait(self) -> None:
        """Kill what is left."""
        self._over = True
        for node in self.nodes.values():
            if node.server is not None and node.server.process.returncode is None:
                node.server.process.kill()

    async def end(self, *names: str, how: signal.Signals) -> None:
        """Send nodes a signal that ends them, and wait until they are gone."""
        for name in names:
            self.nodes[name].strike(how)
        with trio.fail_after(PATIENCE_S):
            for name in names:
                await self.nodes[name].gone.wait()

    async def wait_owned(self, *names: str) -> None:
        """Wait until these nodes, each of them and nobody else, own all partitions."""
        with trio.fail_after(PATIENCE_S):
            while {row.owner for row in self.watcher.seen} != set(names):
                await pass_time(LOOK_S)

    async def wait_taken(self, name: str, what: str) -> None:
        """Wait until nothing is a struck node's any more, and say how long that took."""
        began_s, parts = time.monotonic(), self.watcher.owned_by(name)
        await self.wait_owned(*(other for other in NAMES if other != name))
        taken_s = self.watcher.taken_s(parts, since_s=began_s, without=name)
        if taken_s:
            print(f"{what}: {len(taken_s)} partitions, p50 {statistics.median(taken_s):.2f} s, max {taken_s[-1]:.2f} s")


@asynccontextmanager
async def open_field(
    folder: Path,
    postgres: PostgresServer,
    *,
    ttl_s: float,
    standby: PostgresServer | None = None,
    **environment: str,
) -> AsyncIterator[Field]:
    """All nodes, started at the same moment on an empty database.

    Args:
        standby: of that server; the nodes know of both.
        environment: further settings, by their names after `MEMORYROUTER_`.
    """
    url = await trio.to_thread.run_sync(postgres.create_database)
    if standby is not None:
        url = url.replace(f":{postgres.port}", f":{postgres.port},127.0.0.1:{standby.port}")
        url += "?target_session_attrs=read-write"
    own = {f"MEMORYROUTER_{name}": value for name, value in environment.items()}
    own["MEMORYROUTER_CLUSTER__TTL_S"] = str(ttl_s)
    async with open_line(postgres.port) as line, trio.open_nursery() as tasks:
        field = Field(folder, postgres, standby, url, line, tasks, own)
        try:
            await field.start(*NAMES)
            tasks.start_soon(field.watcher.watch)
            await field.wait_owned(*NAMES)
            yield field
        finally:
            field.end_all_nowait()
            tasks.cancel_scope.cancel(reason="the campaign is over")
    field.watcher.close()
