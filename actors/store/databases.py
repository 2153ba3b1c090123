"""The files of an open SQLite store: each with the thread that writes it and the connections that read it.

Owns how one is opened: alone, as one worker's own shard, as meta.db that several workers write, or as another worker's
shard, which is only read here. Must never open a writing connection to a shard of another worker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import trio

from actors.store.ballast import DiskSpace
from actors.store.committer import Committer, running
from actors.store.connections import Readers, open_reader, open_writer
from actors.store.counter import CommitCounter, counter_path
from actors.store.keyring import KeyRing
from actors.store.scrub import Scrub
from actors.store.shared_writer import SharedWriter
from actors.store.writer import Writer
from models.errors import NotOwner, ShardDamaged
from models.store_settings import StoreSettings


class Database(msgspec.Struct, frozen=True):
    """One file: who reads it and who writes it.

    Attributes:
        own_committer: None if another worker writes it.
    """

    readers: Readers
    own_committer: Committer | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is written here."""
        return self.own_committer is not None

    @property
    def committer(self) -> Committer:
        """Who writes it.

        Raises:
            NotOwner: another worker does.
        """
        if self.own_committer is None:
            raise NotOwner("Another worker owns this vault.")
        return self.own_committer

    @property
    def damage(self) -> ShardDamaged | None:
        """Why it must not be served, if so. Of another worker's nothing is known here."""
        return None if self.own_committer is None else self.own_committer.damage


class Opener(msgspec.Struct, frozen=True):
    """What is common to the files of one store.

    Attributes:
        limiter: bounds the threads that read.
        space: the room of their disk.
        worker: this process's name among those that write meta.db; "" if it is alone.
    """

    limiter: trio.CapacityLimiter
    space: DiskSpace
    settings: StoreSettings
    worker: str = ""

    @asynccontextmanager
    async def open_meta(self, path: Path) -> AsyncIterator[Database]:
        """meta.db, which every worker writes."""
        opening, counter = partial(open_writer, path, may_create=False), CommitCounter(counter_path(path))
        if self.worker:
            writer: Writer = SharedWriter(
                path.stem, opening, writer_name=self.worker, counter=counter, space=self.space
            )
        else:
            writer = Writer(path.stem, opening, counter=counter, space=self.space)
        async with self._opened(path, writer, None) as database:
            yield database

    @asynccontextmanager
    async def open_shard(
        self, path: Path, keyring: KeyRing, *, damage: ShardDamaged | None = None
    ) -> AsyncIterator[Database]:
        """A shard that this process alone writes.

        Args:
            damage: why it must not be opened at all, if so.
        """
        counter = None if damage is not None else CommitCounter(counter_path(path))
        opening = partial(open_writer, path, may_create=False)
        # Of a worker's shard the WAL may still hold what a predecessor erased; alone, the start has emptied it.
        owed = bool(self.worker) and damage is None
        writer = Writer(path.stem, opening, counter=counter, space=self.space, damage=damage, truncate_owed=owed)
        scrub = None if damage is not None else self._scrub(path, keyring)
        async with self._opened(path, writer, scrub) as database:
            yield database

    @asynccontextmanager
    async def open_foreign_shard(self, path: Path) -> AsyncIterator[Database]:
        """A shard of another worker, to be read."""
        readers = Readers(path, self.limiter)
        try:
            yield Database(readers=readers)
        finally:
            readers.close()

    def _scrub(self, path: Path, keyring: KeyRing) -> Scrub | None:
        interval_s = self.settings.scrub_interval_s
        if not interval_s:
            return None
        return Scrub(path.stem, partial(open_reader, path), keyring.peek, interval_s=interval_s)

    @asynccontextmanager
    async def _opened(self, path: Path, writer: Writer, scrub: Scrub | None) -> AsyncIterator[Database]:
        readers = Readers(path, self.limiter)
        committer = Committer(path.stem, writer, settings=self.settings, space=self.space, idle_work=scrub)
        async with running(committer):
            try:
                yield Database(readers=readers, own_committer=committer)
            finally:
                readers.close()  # first, so that the committer can empty the WAL
