"""The store of the settings' kind, for the server and for commands without one.

Must never import PostgreSQL's driver where the store is SQLite.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from actors.store.data_directory import META_FILE, lock_data_directory
from actors.store.protocol import Store
from models.errors import NotOwner, SetupError
from models.settings import Settings

if TYPE_CHECKING:
    from actors.cluster.workers import Share
    from actors.store.ownership import Ownership


class LateOwnership:
    """Owns nothing until the node has joined. Implements `actors.store.ownership.Ownership`."""

    def __init__(self) -> None:
        self._joined: Ownership | None = None

    def join(self, ownership: Ownership) -> None:
        """From now on the cluster says what is owned."""
        self._joined = ownership

    @property
    def owner(self) -> str:
        """See `Ownership`."""
        return "" if self._joined is None else self._joined.owner

    def epoch_nowait(self, part: int) -> int:
        """See `Ownership`."""
        if self._joined is None:
            raise NotOwner("This node has not joined the cluster yet.")
        return self._joined.epoch_nowait(part)

    def owned_nowait(self) -> Collection[int]:
        """See `Ownership`."""
        return () if self._joined is None else self._joined.owned_nowait()

    def lost_nowait(self, part: int, epoch: int) -> None:
        """See `Ownership`."""
        if self._joined is not None:
            self._joined.lost_nowait(part, epoch)


@asynccontextmanager
async def open_configured_store(
    settings: Settings, data_dir: Path, ownership: LateOwnership | None = None, *, share: Share | None = None
) -> AsyncIterator[Store]:
    """The store that the settings name, for the length of the block.

    Args:
        ownership: of the partitions, on PostgreSQL. By default none is owned: that is enough for accounts and keys.
        share: what of the files is this worker's, where several processes use them.

    Raises:
        SetupError: the data directory, the database or the server key cannot be used.
    """
    key_file = settings.store.key_path
    if settings.store.kind == "sqlite":
        from actors.store.sqlite import open_store

        async with open_store(data_dir, settings=settings.store, server_key_file=key_file, share=share) as sqlite:
            yield sqlite
        return
    from actors.store.postgres.store import open_postgres_store

    lock = await trio.to_thread.run_sync(lock_data_directory, data_dir)
    try:
        async with open_postgres_store(
            data_dir, settings=settings.store, ownership=ownership or LateOwnership(), server_key_file=key_file
        ) as postgres:
            yield postgres
    finally:
        os.close(lock)


async def require_files(settings: Settings, data_dir: Path) -> None:
    """Whether the data directory is one, where the store is in it: a wrong one must not become one.

    Raises:
        SetupError: it is none.
    """
    if settings.store.kind == "sqlite" and not await trio.Path(data_dir / META_FILE).is_file():
        raise SetupError(f"there is no data directory {data_dir}; run `memoryrouter init`, or name it by --data-dir.")


def require_sqlite(settings: Settings, instead: str) -> None:
    """For what only files can do.

    Args:
        instead: what does it on PostgreSQL.

    Raises:
        SetupError: the store is PostgreSQL.
    """
    if settings.store.kind != "sqlite":
        raise SetupError(f"the store is PostgreSQL: {instead}.", hint="See docs/scale-out.md.")
