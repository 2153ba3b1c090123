"""How long does a start take, and how much memory does an idle server hold?

A cold start makes the data directory and prepares the model's graph; a warm one finds both. Timed from the start of the
process to its first answered request.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

from bench._harness import report, running_server

WARM_STARTS = 5


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="memoryrouter-bench-") as temporary:
        data_dir = Path(temporary) / "data"
        with running_server(data_dir) as server:
            os.environ["MEMORYROUTER_ACCOUNT_KEY"] = server.account_key
            cold_s = server.started_s
        warm: list[float] = []
        rss: list[int] = []
        for _ in range(WARM_STARTS):
            with running_server(data_dir) as server:
                warm.append(server.started_s)
                rss.append(server.rss_bytes)
    report(
        "Start and memory",
        {
            "cold start": {"s": round(cold_s, 2)},
            f"warm start, median of {WARM_STARTS}": {
                "s": round(statistics.median(warm), 2),
                "rss_mb": round(statistics.median(rss) / 1e6),
            },
        },
    )


if __name__ == "__main__":
    main()
