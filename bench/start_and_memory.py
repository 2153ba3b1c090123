"""How long does a start take, and how much memory does an idle server hold?

A cold start makes the data directory and prepares the model's graph; a warm one finds both. Timed from the start of the
process to its first answered request.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench._harness import running_server
from bench._options import run_benchmark
from bench._results import Table


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--starts", type=int, default=5, help="warm ones, whose medians are shown")


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    with tempfile.TemporaryDirectory(prefix="memoryrouter-bench-") as temporary:
        data_dir = Path(temporary) / "data"
        with running_server(data_dir) as server:
            os.environ["MEMORYROUTER_ACCOUNT_KEY"] = server.account_key
            cold_s = server.started_s
        warm: list[float] = []
        rss: list[int] = []
        for _ in range(chosen.starts):
            with running_server(data_dir) as server:
                warm.append(server.started_s)
                rss.append(server.rss_bytes)
    yield Table(
        "Start and memory",
        {
            "cold start": {"s": round(cold_s, 2)},
            "warm start": {"s": round(statistics.median(warm), 2), "rss_mb": round(statistics.median(rss) / 1e6)},
        },
    )


if __name__ == "__main__":
    sys.exit(run_benchmark(measure, __doc__, options, quick={"starts": 1}))
