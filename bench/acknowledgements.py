"""How many durable acknowledgements a second, from 1, 16 and 256 clients, at the store alone and over HTTP?

At the store a client is a task that waits for each of its commits; over HTTP it is a connection that ingests one
message after the other. Every acknowledgement stands for a synced transaction, which many of them share.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import trio

from actors.store.protocol import Store
from actors.store.sqlite import open_store
from bench._harness import Connection, Server, run_clients, running_server, sentence
from bench._options import run_benchmark
from bench._percentiles import summary
from bench._results import Table
from bench._vaults import AT_MS, append
from models.ids import hash_key
from models.memory import Exchange, Message
from models.store_settings import StoreSettings

CLIENTS = (1, 16, 256)
VAULTS = 16


async def store_run(data_dir: Path, clients: int, seconds: float) -> dict[str, float]:
    """Acknowledgements of a new store in files, closed loop."""
    async with open_store(data_dir, settings=StoreSettings()) as store:
        return await acknowledged(store, clients, seconds)


async def acknowledged(store: Store, clients: int, seconds: float) -> dict[str, float]:
    """Acknowledgements of a store that has no account yet, closed loop."""
    latencies_s: list[float] = []
    account = await store.create_account(key_hash=b"account", shown="", created_ms=AT_MS)
    vaults = [account.vault]
    for number in range(VAULTS):
        key_hash = hash_key(f"mk_{number}")
        user = await store.create_key(1, name="user", key_hash=key_hash, shown="", created_ms=AT_MS)
        vaults.append(user.vault)

    async def client(number: int) -> None:
        for count in itertools.count():
            message = Message(role="user", content=sentence(number * 1_000_000 + count))
            began_s = time.perf_counter()
            exchange = Exchange(messages=(message,), source="ingest", accepted_ms=AT_MS)
            await append(store, vaults[number % len(vaults)], [exchange])
            latencies_s.append(time.perf_counter() - began_s)

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for number in range(clients):
                nursery.start_soon(client, number)
    return {**summary(latencies_s), "acks_per_s": round(len(latencies_s) / seconds)}


def new_keys(server: Server) -> Iterator[dict[str, str]]:
    """Headers of a few users."""
    with httpx.Client(base_url=server.url, headers=server.headers) as client:
        for number in range(VAULTS):
            key = client.post("/v1/keys", json={"name": f"user {number}"}).json()["key"]
            yield {"Authorization": f"Bearer {key}"}


def http_runs(requests: int) -> dict[str, dict[str, float]]:
    """Acknowledgements over HTTP; texts are embedded meanwhile, as in life."""
    rows = {}
    with running_server() as server:
        users = list(new_keys(server))

        async def ingest(connection: Connection, number: int) -> float:
            body = json.dumps({"messages": [{"role": "user", "content": sentence(number)}]}).encode()
            began_s = time.perf_counter()
            status, _ = await connection.post("/v1/memory/ingest", users[number % VAULTS], body)
            if status != 202:
                raise RuntimeError(f"ingest answered {status}.")
            return time.perf_counter() - began_s

        run_clients(server.port, ingest, clients=1, requests=20)  # warm up
        for round_, clients in enumerate(CLIENTS, 1):
            count = requests * min(clients, 8)  # one connection may carry 1 000
            row = run_clients(server.port, ingest, clients=clients, requests=count, first=round_ * 1_000_000)
            row["acks_per_s"] = row.pop("requests_per_s")
            rows[f"HTTP, {clients} clients"] = row
    return rows


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=3.0, help="for each number of clients at the store")
    parser.add_argument(
        "--requests", type=int, default=500, help="over HTTP, by one client; eight times as many by more"
    )


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    rows = {}
    for clients in CLIENTS:
        with tempfile.TemporaryDirectory(prefix="memoryrouter-bench-") as temporary:
            row = trio.run(store_run, Path(temporary) / "data", clients, chosen.seconds)
            rows[f"store, {clients} clients"] = row
    yield Table("Durable acknowledgements", {**rows, **http_runs(chosen.requests)})


if __name__ == "__main__":
    sys.exit(run_benchmark(measure, __doc__, options, quick={"seconds": 0.5, "requests": 30}))
