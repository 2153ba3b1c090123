"""How does one server carry very many vaults: bytes on disk, start, memory, and requests with random keys?

The vaults are written straight through the store (`bench/_vaults.py`). Nothing of a vault is loaded before it is asked
for, so a start does the same work for ten vaults as for a hundred thousand, and nearly every request here meets a cold
vault.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import trio

from bench._harness import Connection, question, run_clients, running_server
from bench._options import run_benchmark
from bench._results import Table
from bench._vaults import disk_bytes, write_vaults

CLIENTS = (1, 16)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vaults", type=int, default=10_000)
    parser.add_argument("--memories", type=int, default=10, help="in each vault")
    parser.add_argument("--requests", type=int, default=1_000, help="for each number of clients")


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    memories = chosen.vaults * chosen.memories
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="memoryrouter-bench-") as temporary:
        data_dir = Path(temporary) / "data"
        began_s = time.perf_counter()
        os.environ["MEMORYROUTER_ACCOUNT_KEY"], keys = trio.run(
            write_vaults, data_dir, [chosen.memories] * chosen.vaults
        )
        rows["written"] = {"s": round(time.perf_counter() - began_s, 1)}
        size_bytes = disk_bytes(data_dir)
        rows["disk"] = {"mb": round(size_bytes / 1e6), "bytes_per_memory": round(size_bytes / memories)}
        pick = random.Random(1)

        async def prepare(connection: Connection, number: int) -> float:
            body = json.dumps({"messages": [{"role": "user", "content": question(number)}]}).encode()
            headers = {"Authorization": f"Bearer {pick.choice(keys)}"}
            began_s = time.perf_counter()
            status, _ = await connection.post("/v1/memory/prepare", headers, body)
            if status != 200:
                raise RuntimeError(f"prepare answered {status}.")
            return time.perf_counter() - began_s

        with running_server(data_dir) as server:
            # The processor's seconds say on a busy machine, too, that a start does not depend on the number of vaults.
            seconds = {"s": round(server.started_s, 2), "cpu_s": round(server.cpu_s, 2)}
            rows["start to ready"] = {**seconds, "mb": round(server.rss_bytes / 1e6)}
            for clients in CLIENTS:
                name = f"prepare with random keys, {clients} clients"
                rows[name] = run_clients(server.port, prepare, clients=clients, requests=chosen.requests)
                rows[name]["mb"] = round(server.rss_bytes / 1e6)
    yield Table(f"{chosen.vaults} vaults of {chosen.memories} memories of 500 bytes", rows)


if __name__ == "__main__":
    sys.exit(run_benchmark(measure, __doc__, options, quick={"vaults": 100, "requests": 50}))
