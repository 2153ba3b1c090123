"""What do two worker processes bring over one, on the same files and port, and what does a hop between them cost?

Servers with `server.workers` 1 and 2 on copies of one data directory, asked in turns in one run: `prepare`, and chats
with memory off and on, each request for another of many vaults over all shards. Clients keep their connections and do
not know who owns a vault, so that about half of the requests to two workers come to the wrong one: the connection moves
(`handed_percent`), or the request is sent on (`hopped_percent`). Processor time is that of all processes of a server.
Generator, mock and server share the machine's cores: on two of them two workers cannot bring twice as much. The hop is
one client that asks in turns for vaults of the worker that has its connection, for the other's with the key in the
query, which are sent on, and for both alternately with the key in a header, so that the connection moves each time.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import msgspec
import trio

from bench._harness import Connection, Server, question, running_provider, running_server
from bench._load import Load, run_load
from bench._machine import cpu_between_s, cpu_times, rss_bytes
from bench._options import run_benchmark
from bench._percentiles import summary
from bench._results import Figure, Table
from bench._targets import KEPT, Target, chat_requests, wait_embedded, wait_loaded
from bench._vaults import write_vaults

PREPARE = "/v1/memory/prepare"
KINDS = ("prepare", "chat, memory off", "chat, memory on")
ASKED_ON_A_CONNECTION_MAX = 900
"""One connection may carry 1 000."""
TEXTS = 2_048 + 1
"""Different questions; odd, so that each vault is asked all of them."""
BATCH = 10
"""Requests of one kind before the other kind's turn."""

Request = Callable[[int], bytes]


class Crew(msgspec.Struct, frozen=True):
    """A server with so many workers, and the keys of its vaults."""

    workers: int
    server: Server
    keys: Sequence[str]

    @property
    def name(self) -> str:
        """Of its rows."""
        return f"{self.workers} worker{'s' if self.workers > 1 else ''}"

    def hopped(self) -> int:
        """How many requests its workers have sent on to each other so far."""
        return self._counted("memoryrouter_forwarded_requests_total")

    def handed(self) -> int:
        """How many connections its workers have handed over to each other so far."""
        return self._counted("memoryrouter_connections_handed_over_total")

    def _counted(self, name: str) -> int:
        lines = httpx.get(f"{self.server.url}/metrics", timeout=30).text.splitlines()
        return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(name))

    def settle(self) -> None:
        """Wait until all is embedded: its processor time counts."""
        for key in self.keys:
            wait_embedded(self.server.url, key)


@contextmanager
def running_crews(provider: int, options: Namespace) -> Iterator[list[Crew]]:
    """A server for each number of workers, all on copies of the same vaults."""
    environ = {**KEPT, "MEMORYROUTER_PROVIDERS__OPENAI__BASE_URL": f"http://127.0.0.1:{provider}/v1"}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memoryrouter-bench-")))
        sizes = [options.memories] * options.vaults
        os.environ["MEMORYROUTER_ACCOUNT_KEY"], keys = trio.run(write_vaults, folder / "vaults", sizes)
        crews = []
        for workers in options.workers:
            data_dir = folder / f"{workers}-workers"
            shutil.copytree(folder / "vaults", data_dir)
            environ["MEMORYROUTER_SERVER__WORKERS"] = str(workers)
            server = stack.enter_context(running_server(data_dir, environ))
            for key in keys:
                wait_loaded(server.url, key)
            crews.append(Crew(workers, server, keys))
        yield crews


def requests_of(kind: str, crew: Crew) -> Request:
    """The bytes of the n-th request, each for the next vault."""
    if kind == "prepare":
        return prepares(crew.keys)
    mode = kind.rpartition(" ")[2]
    made = [
        chat_requests(
            Target(
                name="",
                url=f"{crew.server.url}/v1",
                headers=(("Authorization", f"Bearer {key}"), ("X-Memory-Mode", mode)),
                model="openai/{model}",
            ),
            "mock",
            stream=False,
        )
        for key in crew.keys
    ]
    return lambda number: made[number % len(made)](number)


def prepares(keys: Sequence[str]) -> Request:
    """`prepare` for each of these keys in turn."""
    head = f"POST {PREPARE} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nAuthorization: Bearer "
    heads = [f"{head}{key}\r\n".encode() for key in keys]
    bodies = [prepare_body(number) for number in range(TEXTS)]
    ends = [b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies]
    return lambda number: heads[number % len(heads)] + ends[number % TEXTS]


def prepare_body(number: int) -> bytes:
    """The n-th question."""
    return json.dumps({"messages": [{"role": "user", "content": question(number)}]}).encode()


def point(kind: str, crew: Crew, options: Namespace, *, first: int) -> tuple[dict[str, Figure], int]:
    """One load; its figures, and how many requests were sent."""
    load = Load(
        url=crew.server.url,
        request=requests_of(kind, crew),
        connections=options.connections,
        seconds=options.seconds,
        warm_up_s=options.seconds / 4,
        first=first,
    )
    hopped, handed, before = crew.hopped(), crew.handed(), cpu_times(crew.server.process.pid)
    outcome = run_load(load)
    hopped, handed = crew.hopped() - hopped, crew.handed() - handed
    if kind.endswith("on"):
        crew.settle()
    used_s = cpu_between_s(before, cpu_times(crew.server.process.pid))
    row: dict[str, Figure] = {**outcome.row()}
    row["cpu_s_per_1000_requests"] = round(used_s / max(1, outcome.attempts) * 1_000, 3)
    row["hopped_percent"] = round(100 * hopped / max(1, outcome.attempts), 1)
    row["handed_percent"] = round(100 * handed / max(1, outcome.attempts), 1)
    row["rss_mb"] = round(rss_bytes(crew.server.process.pid) / 1e6)
    return row, outcome.attempts


def hop(crew: Crew, options: Namespace) -> Table:
    """`prepare` on one connection: where the vault is, sent on to there, and with the connection moving there."""
    seconds: dict[str, list[float]] = {"local": [], "sent on": [], "handed over": []}
    numbers = itertools.count(10_000_000)
    while len(seconds["sent on"]) < options.requests:
        trio.run(_in_turns, crew, numbers, options.requests, seconds)
    rows: dict[str, dict[str, Figure]] = {}
    for name, found in seconds.items():
        rows[name] = {**summary(found)}
        rows[name]["added_p50_ms"] = round(summary(found)["p50_ms"] - summary(seconds["local"])["p50_ms"], 3)
    return Table(f"prepare at {crew.name}, one client", rows)


async def _in_turns(crew: Crew, numbers: Iterator[int], count: int, seconds: dict[str, list[float]]) -> None:
    """All kinds on one connection, until there are so many of each or the connection has carried enough."""
    async with await trio.open_tcp_stream("127.0.0.1", crew.server.port) as stream:
        connection = _Prepares(Connection(stream), numbers)
        kept: list[str] = []
        others: list[str] = []
        for key in crew.keys:
            before = crew.hopped()
            await connection.prepare(key, stays=True)
            (others if crew.hopped() > before else kept).append(key)
        if not kept or not others:
            raise RuntimeError("All vaults are one worker's: take more of them.")
        own, foreign = itertools.cycle(kept), itertools.cycle(others)
        both = itertools.cycle([foreign, own])
        while connection.sent + 3 * BATCH <= ASKED_ON_A_CONNECTION_MAX and len(seconds["sent on"]) < count:
            seconds["local"] += [await connection.prepare(next(own), stays=True) for _ in range(BATCH)]
            seconds["sent on"] += [await connection.prepare(next(foreign), stays=True) for _ in range(BATCH)]
            seconds["handed over"] += [await connection.prepare(next(next(both))) for _ in range(BATCH)]


class _Prepares:
    """`prepare` after `prepare` on one connection."""

    def __init__(self, connection: Connection, numbers: Iterator[int]) -> None:
        self._connection = connection
        self._numbers = numbers
        self.sent = 0

    async def prepare(self, key: str, *, stays: bool = False) -> float:
        """One, with this key; the seconds that it took. `stays`: the connection does, wherever the vault is."""
        self.sent += 1
        body = prepare_body(next(self._numbers))
        path, headers = (f"{PREPARE}?key={key}", {}) if stays else (PREPARE, {"Authorization": f"Bearer {key}"})
        began_s = trio.current_time()
        status, _ = await self._connection.post(path, headers, body)
        if status != 200:
            raise RuntimeError(f"{PREPARE} answered {status}.")
        return trio.current_time() - began_s


def measure(options: Namespace) -> Iterator[Table]:
    """All questions; the servers in turns, so that whatever slows the machine slows all."""
    with running_provider() as provider, running_crews(provider, options) as crews:
        sent = 0
        for number in range(options.repeat):
            for kind in options.kinds:
                rows: dict[str, dict[str, Figure]] = {}
                for crew in crews if number % 2 == 0 else reversed(crews):
                    rows[crew.name], attempts = point(kind, crew, options, first=sent)
                    sent += attempts
                title = f"{kind}, {options.connections} connections, {options.vaults} vaults of {options.memories}"
                yield Table(title, dict(sorted(rows.items())))
            yield from (hop(crew, options) for crew in crews if crew.workers > 1)


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers (%(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of requests")
    parser.add_argument("--vaults", type=int, default=32, help="over all shards (%(default)s)")
    parser.add_argument("--memories", type=int, default=500, help="in each (%(default)s)")
    parser.add_argument("--connections", type=int, default=16, help="of closed loop (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each point (%(default)s)")
    parser.add_argument("--requests", type=int, default=400, help="of each kind, for the hop (%(default)s)")


if __name__ == "__main__":
    quick = {"vaults": 8, "memories": 20, "connections": 4, "seconds": 0.4, "requests": 20}
    sys.exit(run_benchmark(measure, __doc__, _add_options, quick=quick, repeats_itself=True))
