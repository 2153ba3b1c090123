"""How long does `prepare` take on vaults of 1 000, 10 000 and 100 000 memories?

Includes HTTP, authentication, embedding the question, scoring and ranking, rendering and counting. The vectors are
random and written straight through the store, so that 100 000 memories need no hour of embedding; since nothing would
be near enough to a question then, nothing is too far: each answer has a whole context of thirty memories. Each figure
is the median of rounds, with the load of the machine when it was measured: above the number of its cores it was not
quiet.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import trio

from bench._harness import posting, question, run_clients, running_server
from bench._options import run_benchmark
from bench._results import Table
from bench._targets import wait_loaded
from bench._vaults import write_vaults

KEPT = {"MEMORYROUTER_VAULTS__IDLE_TIMEOUT_S": "3600", "MEMORYROUTER_RECALL__RELEVANCE_MIN": "0"}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--memories", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--requests", type=int, default=200, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    rows = {}
    with tempfile.TemporaryDirectory(prefix="memoryrouter-bench-") as temporary:
        data_dir = Path(temporary) / "data"
        os.environ["MEMORYROUTER_ACCOUNT_KEY"], keys = trio.run(write_vaults, data_dir, chosen.memories)
        with running_server(data_dir, KEPT) as server:
            for memories, key in zip(chosen.memories, keys, strict=True):
                headers = {"Authorization": f"Bearer {key}"}
                wait_loaded(server.url, key)
                for clients in (1, 8):
                    rows[f"{memories} memories, {clients} clients"] = measured(server.port, headers, clients, chosen)
            rows["server"] = {"rss_mb": round(server.rss_bytes / 1e6)}
    yield Table("prepare", rows)


def measured(port: int, headers: dict[str, str], clients: int, chosen: argparse.Namespace) -> dict[str, float]:
    """The medians of the rounds."""

    def body(number: int) -> dict[str, object]:
        return {"messages": [{"role": "user", "content": question(number)}]}

    prepare = posting("/v1/memory/prepare", headers, body, expect=200)
    run_clients(port, prepare, clients=clients, requests=50)  # the vault is loaded, and the interpreter warm
    rounds = [
        run_clients(port, prepare, clients=clients, requests=chosen.requests, first=1_000 * (number + 1))
        for number in range(chosen.rounds)
    ]
    figures = {name: round(statistics.median(one[name] for one in rounds), 2) for name in rounds[0]}
    return {**figures, "load": round(os.getloadavg()[0], 1)}


if __name__ == "__main__":
    quick = {"memories": [1_000], "requests": 20, "rounds": 1}
    sys.exit(run_benchmark(measure, __doc__, options, quick=quick))
