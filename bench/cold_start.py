"""How fast is the first question to a vault that is not in memory, and how fast does a store open after a crash?

The vaults are written straight through the store. The first question to each finds neither an imprint nor segments of
an index on the disk: all is read anew. Then the vault leaves memory, which writes them, and comes back again and again.
The store's part, reading the rows, is timed without a server, and what is made of them beside it, as the actor does it;
there a task ticks, and the latest of its ticks is what another vault would have waited. CPU times are what a machine of
its own would take. A crash is a kill -9 of a process that appends without pause, so that a write-ahead log waits.
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
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import trio

from actors.hydration import load_index, load_memories
from actors.imprint_keeper import ImprintKeeper
from actors.index_keeper import IndexKeeper
from actors.mailbox import Mailbox
from actors.segmented_index import THRESHOLD
from actors.store.sqlite import SqliteStore, open_store
from actors.vault import Vault
from bench._harness import Server, question, running_server, sentence
from bench._machine import ROOT
from bench._options import run_benchmark
from bench._percentiles import summary
from bench._results import Table
from bench._vaults import AT_MS, append, open_model, write_vaults
from models.embedding import TextEncoder
from models.ids import VaultRef, hash_key
from models.memory import Exchange, Message
from models.store_settings import StoreSettings

LEAVES_MEMORY = {
    "MEMORYROUTER_VAULTS__IDLE_TIMEOUT_S": "1",
    "MEMORYROUTER_VAULTS__RESIDENCY_MIN_S": "0",
    "MEMORYROUTER_VAULTS__ASK_TIMEOUT_MS": "60000",
}
TICK_S = 0.001
CRASH_BYTES = 32 * 1024 * 1024
CRASH_WRITERS = 64


class Hydration(msgspec.Struct):
    """Seconds of one hydration: reading the rows, making the memories and filling the index of them, all on the clock;
    then the seconds of CPU that the rows and the whole took, and the longest pause of the loop."""

    store_s: float
    memories_s: float
    index_s: float
    store_cpu_s: float
    cpu_s: float
    stall_s: float = 0.0


async def hydrate(store: SqliteStore, vault: VaultRef, encoder: TextEncoder) -> tuple[Hydration, Vault]:
    """What an actor does before its first turn."""
    keeper, mailbox = ImprintKeeper(vault, store), Mailbox(messages_max=1, reserved_max=1)
    indexes = IndexKeeper(vault, store, mailbox, trio.CapacityLimiter(1), model_id=encoder.id, dims=encoder.dims)
    new = Vault(dims=encoder.dims, repeat_window_ms=600_000, relevance_min=0.2, model_id=encoder.id)
    clocks = [(time.perf_counter(), time.process_time())]
    image = await store.load_vault(vault, model_id=encoder.id)
    clocks.append((time.perf_counter(), time.process_time()))
    new.begin(created_ms=image.created_ms, next_seq=image.next_seq)
    await load_memories(new, image, keeper, repeat_window_ms=600_000)
    clocks.append((time.perf_counter(), time.process_time()))
    await load_index(new, image.vectors, indexes, threshold=THRESHOLD)
    clocks.append((time.perf_counter(), time.process_time()))
    walls, cpus = zip(*clocks, strict=True)
    return (
        Hydration(
            store_s=walls[1] - walls[0],
            memories_s=walls[2] - walls[1],
            index_s=walls[3] - walls[2],
            store_cpu_s=cpus[1] - cpus[0],
            cpu_s=cpus[3] - cpus[0],
        ),
        new,
    )


async def tick(latest_s: list[float]) -> None:
    """Note how late the latest tick comes."""
    while True:
        began_s = time.perf_counter()
        await trio.sleep(TICK_S)
        latest_s[0] = max(latest_s[0], time.perf_counter() - began_s - TICK_S)


async def hydrations(data_dir: Path, keys: list[str], rounds: int) -> list[list[Hydration]]:
    """Each vault hydrated a few times, as what the disk holds lets it."""
    encoder = open_model(data_dir)
    measured = []
    async with open_store(data_dir, settings=StoreSettings()) as store:
        for key in keys:
            principal = await store.find_key(hash_key(key))
            assert principal is not None
            times = []
            for _ in range(rounds):
                latest_s = [0.0]
                async with trio.open_nursery() as ticking:
                    ticking.start_soon(tick, latest_s)
                    hydration, vault = await hydrate(store, principal.vault, encoder)
                    ticking.cancel_scope.cancel()
                hydration.stall_s = latest_s[0]
                times.append(hydration)
                del vault  # freeing it is not a part of the next
            measured.append(times)
    return measured


def hydration_row(times: list[Hydration]) -> dict[str, float]:
    """Medians in milliseconds, and the longest stall."""
    names = [name for name in Hydration.__struct_fields__ if name != "stall_s"]
    medians = {name: statistics.median(getattr(one, name) for one in times) for name in names}
    medians["stall_max_s"] = max(one.stall_s for one in times)
    return {name.removesuffix("_s") + "_ms": round(value * 1000, 1) for name, value in medians.items()}


def prepare_times_s(server: Server, key: str, rounds: int) -> tuple[list[float], list[float]]:
    """Cold and warm questions over HTTP, in turn. The first cold one finds nothing on the disk but the rows."""
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
            if not round_:
                wait_until(lambda: not unbuilt(client), timeout_s=600)
    return cold_s, warm_s


def unbuilt(client: httpx.Client) -> bool:
    """Whether the index of the vault is still being built, or should be; asking keeps it in memory."""
    index = client.get("/v1/memory/stats").json()["index"]
    return bool(index["building"]) or index["tail"] > THRESHOLD


def live_vaults(client: httpx.Client) -> int:
    """How many vaults the server holds in memory."""
    lines = client.get("/metrics").text.splitlines()
    return int(float(next(line for line in lines if line.startswith("memoryrouter_vaults_live ")).split()[1]))


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    """Poll until it holds."""
    deadline_s = time.perf_counter() + timeout_s
    while not condition():
        if time.perf_counter() > deadline_s:
            raise RuntimeError("The vault did not leave memory, or its index was not built.")
        time.sleep(0.05)


# The crash.


async def append_for_ever(data_dir: Path) -> None:
    """What the process that is killed does: append, and let the log grow."""
    settings = StoreSettings(checkpoint_wal_bytes=2 * CRASH_BYTES, ballast_bytes=0, shards=1)
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


def crash(data_dir: Path, share: float) -> float:
    """Let a process append a share of `CRASH_BYTES`, kill it, and return the size of the log that it left, in MB."""
    command = [sys.executable, "-m", "bench.cold_start", "--append-for-ever", str(data_dir)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            log = data_dir / "shard-00.db-wal"
            deadline_s = time.perf_counter() + 120
            while not (log.exists() and log.stat().st_size > CRASH_BYTES * share):
                if time.perf_counter() > deadline_s or process.poll() is not None:
                    raise RuntimeError("The log does not grow.")
                time.sleep(0.01)
        finally:
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


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 10_000], help="memories; 100000 takes minutes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crashes", type=int, default=10)
    parser.add_argument("--append-for-ever", type=Path, help=argparse.SUPPRESS)


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    if chosen.append_for_ever is not None:
        trio.run(append_for_ever, chosen.append_for_ever)
        return
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="memoryrouter-bench-") as temporary:
        data_dir = Path(temporary) / "data"
        os.environ["MEMORYROUTER_ACCOUNT_KEY"], keys = trio.run(write_vaults, data_dir, chosen.sizes)
        anew = trio.run(hydrations, data_dir, keys, 1)
        with running_server(data_dir, LEAVES_MEMORY) as server:
            for size, key in zip(chosen.sizes, keys, strict=True):
                cold_s, warm_s = prepare_times_s(server, key, chosen.rounds + 1)
                rows[f"{size} memories"] = {
                    "first_ms": round(cold_s[0] * 1000, 1),
                    "cold_p50_ms": summary(cold_s[1:])["p50_ms"],
                    "cold_max_ms": summary(cold_s[1:])["max_ms"],
                    "warm_p50_ms": summary(warm_s)["p50_ms"],
                }
        back = trio.run(hydrations, data_dir, keys, chosen.rounds)
    yield Table("Cold prepare over HTTP", rows)
    parts = {}
    for size, one, other in zip(chosen.sizes, anew, back, strict=True):
        parts[f"{size} memories, read anew"] = hydration_row(one)
        parts[f"{size} memories, by the imprint"] = hydration_row(other)
    yield Table("Hydration and its parts", parts)
    if chosen.crashes:
        yield Table("Opening the store after a crash", {f"{chosen.crashes} crashes": crashes(chosen.crashes)})


if __name__ == "__main__":
    quick = {"sizes": [100], "rounds": 1, "crashes": 1}
    sys.exit(run_benchmark(measure, __doc__, options, quick=quick))
