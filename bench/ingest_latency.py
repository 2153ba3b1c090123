"""How long until an ingested exchange is acknowledged, that is, durable and findable by its words?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from bench._harness import posting, run_clients, running_server, sentence
from bench._options import run_benchmark
from bench._results import Table


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--requests", type=int, default=400)


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    rows = {}
    with running_server() as server:

        def body(number: int) -> dict[str, object]:
            user = {"role": "user", "content": sentence(number)}
            return {"messages": [user, {"role": "assistant", "content": sentence(-number - 1)}]}

        ingest = posting("/v1/memory/ingest", server.headers, body, expect=202)
        run_clients(server.port, ingest, clients=1, requests=20, first=1_000_000)  # warm up
        for round_, clients in enumerate((1, 8)):
            first = round_ * chosen.requests
            rows[f"{clients} clients"] = run_clients(
                server.port, ingest, clients=clients, requests=chosen.requests, first=first
            )
    yield Table("ingest acknowledgement", rows)


if __name__ == "__main__":
    sys.exit(run_benchmark(measure, __doc__, options, quick={"requests": 40}))
