"""The stores that the conformance suites run on: SQLite, alone and as a worker's, PostgreSQL, the in-memory twin.

And a committer on its own.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest

from actors.cluster.workers import Share
from actors.store.committer import Committer
from actors.store.connections import open_writer
from actors.store.postgres.store import open_postgres_store
from actors.store.protocol import Store
from actors.store.sqlite import open_store
from actors.store.worker_files import prepare_shared
from models.ids import VaultRef
from models.provider_settings import Secret
from models.store_settings import StoreSettings
from tests.actors.store import jobs
from tests.actors.store.samples import new_account
from tests.fakes.store import open_memory_store
from tests.postgres import PARTS

SETTINGS = StoreSettings(shards=2, parts=PARTS, writer_threads=2, queue_rows_max=10, ballast_bytes=0)


class Clock:
    """The stores' clock, which stands still until a test moves it."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


def on_postgres(url: str, settings: StoreSettings = SETTINGS) -> StoreSettings:
    """The same settings for the store in this database."""
    return msgspec.structs.replace(settings, kind="postgres", url=Secret(url))


@contextmanager
def shared(data_dir: Path, *, workers: int = 2, settings: StoreSettings = SETTINGS) -> Iterator[None]:
    """A data directory that is ready for workers, as the process that starts them holds it."""
    lock = prepare_shared(data_dir, settings=settings, workers=workers)
    try:
        yield
    finally:
        os.close(lock)


@pytest.fixture(params=["sqlite", "worker", "postgres", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    if request.param == "sqlite":
        async with open_store(tmp_path, settings=SETTINGS, now_ms=clock) as sqlite_store:
            yield sqlite_store
    elif request.param == "worker":
        with shared(tmp_path, workers=1):
            async with open_store(tmp_path, settings=SETTINGS, now_ms=clock, share=Share(0, 1)) as worker_store:
                yield worker_store
    elif request.param == "postgres":
        settings = on_postgres(request.getfixturevalue("prepared_url"))
        async with open_postgres_store(tmp_path, settings=settings, now_ms=clock) as postgres_store:
            yield postgres_store
    else:
        async with open_memory_store(settings=SETTINGS, now_ms=clock) as memory_store:
            yield memory_store


@pytest.fixture
async def vault(store: Store) -> VaultRef:
    return (await new_account(store)).vault


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return jobs.new_file(tmp_path)


@pytest.fixture
async def committer(path: Path) -> AsyncIterator[Committer]:
    async with jobs.open_committer(partial(open_writer, path)) as opened:
        yield opened


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 4 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a tmpfs needs root and CAP_SYS_ADMIN")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)
