"""Does one user notice that another one uploads ten thousand lines?

One client asks `prepare` on a vault of its own, first alone, then while another user's upload is stored, then while it
is embedded in the background. Beside it a probe asks `/livez` all the time: that needs neither a vault nor the model,
so its slowest answer bounds the longest stall of the event loop.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator

import httpx
import trio

from bench._harness import Connection, Server, fill_vault, question, running_server, sentence
from bench._options import run_benchmark
from bench._percentiles import summary
from bench._results import Table

PROBE_INTERVAL_S = 0.005
CONNECTION_REQUESTS = 500
"""The server closes a connection after 1 000."""


class Measured:
    """Latencies of one phase, in seconds."""

    def __init__(self) -> None:
        self.prepare_s: list[float] = []
        self.probe_s: list[float] = []

    def row(self) -> dict[str, float]:
        """As the report shows them."""
        return {
            **summary(self.prepare_s),
            "requests": len(self.prepare_s),
            "longest_stall_ms": round(max(self.probe_s) * 1000, 1),
        }


class Phases:
    """The two clients, and whose turn it is to be measured."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.measured = Measured()
        self._asked = 0

    def next(self) -> Measured:
        """End a phase and begin the next; what was measured in the one that ended."""
        ended, self.measured = self.measured, Measured()
        return ended

    async def ask(self) -> None:
        """Ask again and again."""
        while True:
            async with await trio.open_tcp_stream("127.0.0.1", self._server.port) as stream:
                connection = Connection(stream)
                for _ in range(CONNECTION_REQUESTS):
                    await self._ask_once(connection)

    async def _ask_once(self, connection: Connection) -> None:
        self._asked += 1
        body = json.dumps({"messages": [{"role": "user", "content": question(self._asked)}]}).encode()
        began_s = time.perf_counter()
        status, _ = await connection.post("/v1/memory/prepare", self._server.headers, body)
        if status != 200:
            raise RuntimeError(f"prepare answered {status}.")
        self.measured.prepare_s.append(time.perf_counter() - began_s)

    async def probe(self) -> None:
        """Ask for nothing, often."""
        async with httpx.AsyncClient(base_url=self._server.url, timeout=60) as client:
            while True:
                began_s = time.perf_counter()
                (await client.get("/livez")).raise_for_status()
                self.measured.probe_s.append(time.perf_counter() - began_s)
                await trio.sleep(PROBE_INTERVAL_S)


async def run(server: Server, lines: int, seconds: float) -> dict[str, dict[str, float]]:
    """The three phases."""
    phases = Phases(server)
    rows: dict[str, dict[str, float]] = {}
    async with httpx.AsyncClient(base_url=server.url, timeout=300) as client, trio.open_nursery() as asking:
        answer = await client.post("/v1/keys", headers=server.headers, json={"name": "neighbour"})
        neighbour = {"Authorization": f"Bearer {answer.json()['key']}"}
        upload = "\n".join(json.dumps({"content": sentence(1_000_000 + number)}) for number in range(lines)).encode()
        asking.start_soon(phases.ask)
        asking.start_soon(phases.probe)
        await trio.sleep(1)
        phases.next()
        await trio.sleep(seconds)
        rows["quiet"] = phases.next().row()
        began_s = time.perf_counter()
        (await client.post("/v1/memory/upload", headers=neighbour, content=upload)).raise_for_status()
        took_s = time.perf_counter() - began_s
        rows["while it is stored"] = phases.next().row() | {"upload_s": round(took_s, 1)}
        await trio.sleep(seconds)
        rows["while it is embedded"] = phases.next().row()
        asking.cancel_scope.cancel()
    return rows


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--memories", type=int, default=1_000, help="of the user who asks")
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of the quiet phase and of the last one")


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    with running_server() as server:
        fill_vault(server, chosen.memories)
        rows = trio.run(run, server, chosen.lines, chosen.seconds)
    for row in rows.values():
        row["times_quiet_p50"] = round(row["p50_ms"] / rows["quiet"]["p50_ms"], 1)
        row["times_quiet_p99"] = round(row["p99_ms"] / rows["quiet"]["p99_ms"], 1)
    yield Table(f"prepare beside an upload of {chosen.lines} lines", rows)


if __name__ == "__main__":
    quick = {"memories": 100, "lines": 300, "seconds": 1.0}
    sys.exit(run_benchmark(measure, __doc__, options, quick=quick))
