"""How fast is the first question to a vault that is not in memory, and how fast does a store open after a crash?

The vaults are written straight through the store; each is asked once and then leaves memory before it is asked again.
The store's part of that is timed without a server. A crash is a kill -9 of a process that appends without pause, so
that a write-ahead log waits to be read.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import trio

from actors.store.sqlite import open_store
from bench._harness import ROOT, Server, question, report, running_server, sentence, summary
from bench._vaults import AT_MS, append, open_model, write_vaults
from models.ids import hash_key
from models.memory import Exchange, Message
from models.store_settings import StoreSettings

LEAVES_MEMORY = {
    "MEMORYROUTER_VAULTS__IDLE_TIMEOUT_S": "1",
    "MEMORYROUTER_VAULTS__RESIDENCY_MIN_S": "0",
    "MEMORYROUTER_VAULTS__ASK_TIMEOUT_MS": "60000",
}
CRASH_BYTES = 32 * 1024 * 1024
CRASH_WRITERS = 64


async def load_times_s(data_dir: Path, keys: list[str], rounds: int) -> list[float]:
    """The store's part: the median seconds of reading each vault."""
    model_id = open_model(data_dir).id
    medians = []
    async with open_store(data_dir, settings=StoreSettings()) as store:
        for key in keys:
            principal = await store.find_key(hash_key(key))
            assert principal is not None
            times_s = []
            for _ in range(rounds):
                began_s = time.perf_counter()
                await store.load_vault(principal.vault, model_id=model_id)
                times_s.append(time.perf_counter() - began_s)
            medians.append(statistics.median(times_s))
    return medians


def prepare_times_s(server: Server, key: str, rounds: int) -> tuple[list[float], list[float]]:
    """Cold and warm questions over HTTP, in turn."""
    cold_s: list[float] = []
    warm_s: list[float] = []
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=120) as client:
        for round_ in range(rounds):
            wait_until(lambda: live_vaults(client) == 0)
            for times_s in (cold_s, warm_s):
                began_s = time.perf_counter()
                body = {"messages": [{"role": "user", "content": question(round_)}]}
                client.post("/v1/memory/prepare", json=body).raise_for_status()
                times_s.append(time.perf_counter() - began_s)
    return cold_s, warm_s


def live_vaults(client: httpx.Client) -> int:
    """How many vaults the server holds in memory."""
    lines = client.get("/metrics").text.splitlines()
    return int(float(next(line for line in lines if line.startswith("memoryrouter_vaults_live ")).split()[1]))


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll until it holds."""
    deadline_s = time.perf_counter() + 60
    while not condition():
        if time.perf_counter() > deadline_s:
            raise RuntimeError("The vault did not leave memory.")
        time.sleep(0.05)


# The crash.


async def append_for_ever(data_dir: Path) -> None:
    """What the process that is killed does: append, and let the log grow."""
    settings = StoreSettings(checkpoint_wal_bytes=2 * CRASH_BYTES, shards=1)
    async with open_store(data_dir, settings=settings) as store:
        found = await store.find_key(b"account")
        if found is None:
            found = await store.create_account(key_hash=b"account", shown="", created_ms=AT_MS)
        vault = found.vault

        async def write(number: int) -> None:
            while True:
                message = Message(role="user", content=sentence(number))
                await append(store, vault, [Exchange(messages=(message,), source="ingest", accepted_ms=AT_MS)])

        async with trio.open_nursery() as nursery:
            for number in range(CRASH_WRITERS):
                nursery.start_soon(write, number)


async def reopen_time_s(data_dir: Path) -> float:
    """Open the store until it could serve, and close it."""
    began_s = time.perf_counter()
    async with open_store(data_dir, settings=StoreSettings(shards=1)) as store:
        await store.has_account()
        return time.perf_counter() - began_s


def crash(data_dir: Path, seconds: float) -> float:
    """Let a process append, kill it, and return the bytes of the log that it left, in MB."""
    command = [sys.executable, "-m", "bench.cold_start", "--append-for-ever", str(data_dir)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        log = data_dir / "shard-00.db-wal"
        deadline_s = time.perf_counter() + 60
        while not (log.exists() and log.stat().st_size > CRASH_BYTES * seconds):
            if time.perf_counter() > deadline_s or process.poll() is not None:
                raise RuntimeError("The log does not grow.")
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    return log.stat().st_size / 1e6


def crashes(count: int) -> dict[str, float]:
    """Several crashes with logs of different lengths, each followed by a start."""
    times_s, logs_mb = [], []
    with tempfile.TemporaryDirectory(prefix="memoryrouter-bench-") as temporary:
        for number in range(count):
            data_dir = Path(temporary) / f"data-{number}"
            logs_mb.append(crash(data_dir, (number + 1) / count))
            times_s.append(trio.run(reopen_time_s, data_dir))
    return {**summary(times_s), "largest_log_mb": round(max(logs_mb), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 10_000], help="memories; 100000 takes minutes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crashes", type=int, default=10)
    parser.add_argument("--append-for-ever", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.append_for_ever is not None:
        trio.run(append_for_ever, arguments.append_for_ever)
        return
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="memoryrouter-bench-") as temporary:
        data_dir = Path(temporary) / "data"
        os.environ["MEMORYROUTER_ACCOUNT_KEY"], keys = trio.run(write_vaults, data_dir, arguments.sizes)
        store_s = trio.run(load_times_s, data_dir, keys, arguments.rounds)
        with running_server(data_dir, LEAVES_MEMORY) as server:
            for size, key, load_s in zip(arguments.sizes, keys, store_s, strict=True):
                cold_s, warm_s = prepare_times_s(server, key, arguments.rounds)
                rows[f"{size} memories"] = {
                    "store_ms": round(load_s * 1000, 1),
                    "cold_p50_ms": summary(cold_s)["p50_ms"],
                    "cold_max_ms": summary(cold_s)["max_ms"],
                    "warm_p50_ms": summary(warm_s)["p50_ms"],
                }
    report("Cold prepare", rows)
    report("Opening the store after a crash", {f"{arguments.crashes} crashes": crashes(arguments.crashes)})


if __name__ == "__main__":
    main()
