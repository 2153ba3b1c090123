"""How long does `prepare` take on vaults of 1 000, 10 000 and 100 000 memories?

Includes HTTP, authentication, embedding the question, scoring and ranking, rendering and counting. The vectors are
random and written straight through the store, so that 100 000 memories need no hour of embedding. Each figure is the
median of rounds, with the load of the machine when it was measured: above the number of its cores it was not quiet.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import httpx
import trio

from bench._harness import posting, question, report, run_clients, running_server
from bench._vaults import write_vaults

LOAD_TIMEOUT_S = 120.0
KEPT = {"MEMORYROUTER_VAULTS__IDLE_TIMEOUT_S": "3600"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memories", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--requests", type=int, default=200, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory(prefix="memoryrouter-bench-") as temporary:
        data_dir = Path(temporary) / "data"
        os.environ["MEMORYROUTER_ACCOUNT_KEY"], keys = trio.run(write_vaults, data_dir, arguments.memories)
        with running_server(data_dir, KEPT) as server:
            for memories, key in zip(arguments.memories, keys, strict=True):
                headers = {"Authorization": f"Bearer {key}"}
                wait_loaded(server.url, headers)
                for clients in (1, 8):
                    rows[f"{memories} memories, {clients} clients"] = measured(server.port, headers, clients, arguments)
            rows["server"] = {"rss_mb": round(server.rss_bytes / 1e6)}
    report("prepare", rows)


def wait_loaded(url: str, headers: dict[str, str]) -> None:
    """A cold vault of 100 000 memories may take longer to come than a question waits."""
    deadline = time.monotonic() + LOAD_TIMEOUT_S
    with httpx.Client(base_url=url, headers=headers, timeout=LOAD_TIMEOUT_S) as client:
        while not client.post("/v1/memory/search", json={"query": question(0)}).is_success:
            if time.monotonic() > deadline:
                raise RuntimeError("The vault did not come.")
            time.sleep(0.5)


def measured(port: int, headers: dict[str, str], clients: int, arguments: argparse.Namespace) -> dict[str, float]:
    """The medians of the rounds."""

    def body(number: int) -> dict[str, object]:
        return {"messages": [{"role": "user", "content": question(number)}]}

    prepare = posting("/v1/memory/prepare", headers, body, expect=200)
    run_clients(port, prepare, clients=clients, requests=50)  # the vault is loaded, and the interpreter warm
    rounds = [
        run_clients(port, prepare, clients=clients, requests=arguments.requests, first=1_000 * (number + 1))
        for number in range(arguments.rounds)
    ]
    figures = {name: round(statistics.median(one[name] for one in rounds), 2) for name in rounds[0]}
    return {**figures, "load": round(os.getloadavg()[0], 1)}


if __name__ == "__main__":
    main()
