"""Does a user notice that somebody else tries wrong keys as fast as the server answers?

One user searches at a steady pace, first alone, then while another process sends well-formed wrong keys over many
connections, each the moment it has its answer. Both come from one address, and failed authentication is limited. The
user's latency counts from when a request was due, so that none is left out because the one before it was slow.
"""

from __future__ import annotations

import argparse
import multiprocessing
import secrets
import sys
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from typing import Any

import msgspec
import trio

from bench._harness import Connection, Server, fill_vault, question, running_server
from bench._options import run_benchmark
from bench._percentiles import summary
from bench._results import Table

WARM_UP_S = 2.0
CONNECTION_REQUESTS = 500
"""The server closes a connection after 1 000."""

LIMITS = {"MEMORYROUTER_LIMITS__FAILED_AUTH_PER_MINUTE": "60"}
BODY = b'{"query":"x"}'


def flood(port: int, connections: int, stop: Event, answers: Any) -> None:
    """Send wrong keys until told to stop; puts how many answers there were of each status, and the seconds."""
    statuses: dict[int, int] = {}

    async def attack() -> None:
        while not stop.is_set():
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                connection = Connection(stream)
                for _ in range(CONNECTION_REQUESTS):
                    headers = {"Authorization": f"Bearer mk_{secrets.token_urlsafe(24)}"}
                    status, _ = await connection.post("/v1/memory/search", headers, BODY)
                    statuses[status] = statuses.get(status, 0) + 1
                    if stop.is_set():
                        return

    async def run() -> None:
        async with trio.open_nursery() as attacking:
            for _ in range(connections):
                attacking.start_soon(attack)

    began_s = time.perf_counter()
    trio.run(run)
    answers.put((statuses, time.perf_counter() - began_s))


async def ask_steadily(server: Server, *, seconds: float, per_second: float) -> list[float]:
    """Search at a pace; seconds from when each search was due to its whole answer."""
    latencies_s: list[float] = []
    connections: list[Connection] = []

    async def ask(number: int, due_s: float, connection: Connection) -> None:
        body = msgspec.json.encode({"query": question(number)})
        status, _ = await connection.post("/v1/memory/search", server.headers, body)
        if status != 200:
            raise RuntimeError(f"search answered {status}.")
        latencies_s.append(time.perf_counter() - due_s)
        connections.append(connection)

    async with trio.open_nursery() as asking:
        began_s = time.perf_counter()
        for number in range(int(seconds * per_second)):
            due_s = began_s + number / per_second
            await trio.sleep(max(0.0, due_s - time.perf_counter()))
            connection = (
                connections.pop() if connections else Connection(await trio.open_tcp_stream("127.0.0.1", server.port))
            )
            asking.start_soon(ask, number, due_s, connection)
    return latencies_s


def measure(server: Server, *, seconds: float, per_second: float) -> dict[str, Any]:
    """One phase of the user's."""
    latencies_s = trio.run(lambda: ask_steadily(server, seconds=seconds, per_second=per_second))
    return {**summary(latencies_s), "searches": len(latencies_s)}


def run(server: Server, *, connections: int, seconds: float, per_second: float) -> dict[str, dict[str, Any]]:
    """The phases: alone, beside the flood, alone again."""
    measure(server, seconds=WARM_UP_S, per_second=per_second)
    rows = {"alone": measure(server, seconds=seconds, per_second=per_second)}
    context = multiprocessing.get_context("spawn")
    stop, answers = context.Event(), context.Queue()
    attacker = context.Process(target=flood, args=(server.port, connections, stop, answers))
    attacker.start()
    trio.run(trio.sleep, WARM_UP_S)
    cpu_s, began_s = server.cpu_s, time.perf_counter()
    beside = measure(server, seconds=seconds, per_second=per_second)
    cpu = (server.cpu_s - cpu_s) / (time.perf_counter() - began_s)
    stop.set()
    statuses, took_s = answers.get(timeout=60)
    attacker.join()
    refused = {f"status_{status}": count for status, count in sorted(statuses.items())}
    per_s = round(sum(statuses.values()) / took_s)
    rows["beside the flood"] = {**beside, "refusals_per_s": per_s, "server_cpu": round(cpu, 2), **refused}
    rows["alone again"] = measure(server, seconds=seconds, per_second=per_second)
    return rows


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--connections", type=int, default=32, help="of the flood")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each phase")
    parser.add_argument("--per-second", type=float, default=20.0, help="searches of the user")
    parser.add_argument("--memories", type=int, default=1_000, help="of the user")
    parser.add_argument("--unlimited", action="store_true", help="without a limit of failed authentication")


def measure_all(chosen: argparse.Namespace) -> Iterator[Table]:
    with running_server(environ={} if chosen.unlimited else LIMITS) as server:
        fill_vault(server, chosen.memories)
        rows = run(
            server,
            connections=chosen.connections,
            seconds=chosen.seconds,
            per_second=chosen.per_second,
        )
    for row in rows.values():
        row["times_alone_p99"] = round(row["p99_ms"] / rows["alone"]["p99_ms"], 1)
    yield Table(f"search beside {chosen.connections} connections that try wrong keys", rows)


if __name__ == "__main__":
    quick = {"seconds": 2.0, "memories": 100}
    sys.exit(run_benchmark(measure_all, __doc__, options, quick=quick))
