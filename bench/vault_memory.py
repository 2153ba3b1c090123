"""How much memory does a loaded vault take?

The server starts on vaults of one size, written straight through the store, and loads them one after the other. The
growth of its resident memory over the number of vaults is what one costs, data keys and caches included.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import trio

from bench._harness import running_server
from bench._options import run_benchmark
from bench._results import Table
from bench._vaults import write_vaults

KEPT = {"MEMORYROUTER_VAULTS__IDLE_TIMEOUT_S": "3600"}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vaults", type=int, default=400)
    parser.add_argument("--memories", type=int, default=100, help="in each vault")


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    with tempfile.TemporaryDirectory(prefix="memoryrouter-bench-") as temporary:
        data_dir = Path(temporary) / "data"
        os.environ["MEMORYROUTER_ACCOUNT_KEY"], keys = trio.run(
            write_vaults, data_dir, [chosen.memories] * chosen.vaults
        )
        with running_server(data_dir, KEPT) as server, httpx.Client(base_url=server.url, timeout=60) as client:

            def ask(key: str) -> int:
                answer = client.get("/v1/memory/stats", headers={"Authorization": f"Bearer {key}"})
                return int(answer.raise_for_status().json()["memories"])

            def search(key: str) -> None:
                headers = {"Authorization": f"Bearer {key}"}
                client.post("/v1/memory/search", headers=headers, json={"query": "pond"}).raise_for_status()

            warm, cold = keys[: len(keys) // 4], keys[len(keys) // 4 :]
            for key in warm:  # what the first requests of a process cost is not the vaults'
                search(key)
            idle = server.rss_bytes
            assert all(ask(key) == chosen.memories for key in cold)
            loaded = server.rss_bytes
            for key in cold:
                search(key)
            searched = server.rss_bytes
    rows = {
        name: {"kb_per_vault": round((size - idle) / len(cold) / 1e3, 1), "mb": round(size / 1e6)}
        for name, size in {"idle": idle, "loaded": loaded, "searched": searched}.items()
    }
    yield Table(f"Memory of {len(cold)} vaults of {chosen.memories} memories", rows)


if __name__ == "__main__":
    sys.exit(run_benchmark(measure, __doc__, options, quick={"vaults": 40}))
