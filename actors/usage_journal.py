"""Exact counts of what keys use: appended to a journal at once, folded into the database now and then.

Each record is one `write` to a file of its own folder, so a killed process loses none; a power cut takes at most what
came since the last sync, `SYNC_INTERVAL_S` before. Every few seconds a file is closed, and its sums go to the store in
one transaction that also notes the file's number: a crash between that and the file's removal counts nothing twice.

Owns the files and the sums that are not folded yet. Must never fail a request, and never hold a key or a text.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import trio

from actors.usage_files import OpenFile, UsageFiles
from actors.usage_leftovers import read_leftovers
from actors.usage_records import (
    JOURNAL_ID_BYTES,
    Counted,
    Header,
    Row,
    Totals,
    encode_record,
    encode_rows,
)
from models.errors import MemoryRouterError, StoreUnavailable
from models.memory import InboxRow
from models.usage import DAY_MINUTES, MINUTE_MS, ModelNames, UsageCount, sum_up
from models.usage_settings import UsageSettings

logger = logging.getLogger(__name__)

SYNC_INTERVAL_S = 1.0
FILE_BYTES_MAX = 4 * 1024 * 1024
"""About 100 000 requests; a larger file is folded before its time."""

FILES_MAX = 256
"""Files that may wait for a store that takes none; then the last one grows."""

FOLD_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 20.0
PRUNE_INTERVAL_S = 3_600.0


class UsageStore(Protocol):
    """What the journal needs of the directory; see `actors.store.directory_protocol`."""

    async def fold_usage(
        self, journal: str, number: int, counts: Sequence[UsageCount], last_used: Mapping[int, int]
    ) -> None:
        """Add counts, and note the file's number, in one transaction; a number that is known changes nothing."""

    async def load_usage(
        self, account_number: int, *, key_number: int | None = None, first_day: int, last_day: int
    ) -> list[UsageCount]:
        """What was folded, of an account or one of its keys."""

    async def prune_usage(self, *, before_day: int) -> None:
        """Delete the counts of all days before this one."""


class _File:
    """One file of the journal: its sums, and the descriptor while it is appended to."""

    __slots__ = ("header", "open", "path", "totals")

    def __init__(self, header: Header, *, path: Path | None, totals: Totals, opened: OpenFile | None = None) -> None:
        self.header = header
        self.path = path
        self.totals = totals
        self.open = opened


class UsageJournal:
    """Takes counts in and shows them. Made by `open_usage`.

    Attributes:
        models: the names under which models are counted.
    """

    def __init__(
        self, store: UsageStore, files: UsageFiles, settings: UsageSettings, *, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._now_ms = now_ms
        self._files = files
        self._settings = settings
        self.models = ModelNames()
        self._journal = secrets.token_hex(JOURNAL_ID_BYTES)
        self._current = _File(Header(self._journal, 0), path=None, totals=Totals())
        self._waiting: list[_File] = []
        self._rows: set[Row] = set()
        self._rows_carried = True
        self._unsynced = False
        self._failing = False
        self._full = trio.Event()
        self._folding = trio.Lock()
        self._counters = Counter[str]()
        self._totals = Counter[str]()

    # What is counted.

    def count(self, record: Counted) -> None:
        """Count a request, or more of one. Never raises: what the disk does not take is kept in memory, loudly."""
        self._append(record)

    def learned(self, shard: int, row: InboxRow, stored: int) -> None:
        """An inbox row became so many new memories. It may be told again, after a crash of its vault or of all."""
        exchange, name = row.exchange, (shard, row.row_id)
        if not stored or not exchange.key_number or name in self._rows:
            return
        minute = exchange.accepted_ms // MINUTE_MS
        self._append(
            Counted(
                key_number=exchange.key_number,
                account_number=exchange.account_number,
                minute=minute,
                model=self.models.known(exchange.model, key_number=exchange.key_number, day=minute // DAY_MINUTES),
                memories_stored=stored,
                row=name,
            )
        )

    def gone(self, shard: int, row_ids: Iterable[int]) -> None:
        """These rows are in the inbox no more, so that nobody can learn them again."""
        self._rows.difference_update((shard, row_id) for row_id in row_ids)

    def _append(self, record: Counted) -> None:
        file = self._current
        file.totals.add(record)
        if record.row is not None:
            self._rows.add(record.row)
        for name in COUNTERS:
            if number := getattr(record, name):
                self._totals[name] += number
        self._counters["records"] += 1
        if file.open is None:
            self._counters["records_unwritten"] += 1
            return
        try:
            file.open.append(encode_record(record, file.open.seed))
        except OSError as error:
            self._counters["records_unwritten"] += 1
            if not self._failing:  # once, not for every request
                logger.error("usage_not_written", extra={"errno": error.errno})
            self._failing = True
            return
        self._failing = False
        self._unsynced = True
        if file.open.size_bytes >= FILE_BYTES_MAX:
            self._full.set()

    # What is shown.

    async def load(
        self,
        account_number: int,
        *,
        key_number: int | None = None,
        first_day: int,
        last_day: int,
        timeout_s: float,
    ) -> list[UsageCount]:
        """Everything counted so far, folded or not, by day, key and model.

        Raises:
            StoreUnavailable: not within `timeout_s`.
        """
        with trio.move_on_after(timeout_s):
            async with self._folding:  # a file is either in the store or still here
                folded = await self._store.load_usage(
                    account_number, key_number=key_number, first_day=first_day, last_day=last_day
                )
                unfolded = [
                    count
                    for file in (*self._waiting, self._current)
                    for count in file.totals.counts()
                    if count.account_number == account_number
                    and key_number in (None, count.key_number)
                    and first_day <= count.day <= last_day
                ]
                return sum_up([*folded, *unfolded])
        raise StoreUnavailable("The counts could not be read in time.", retry_after_s=1)

    def last_used_ms(self, key_number: int) -> int | None:
        """When a key was last used, as far as that is not folded yet; whole minutes."""
        return (
            max((file.totals.last_used.get(key_number, 0) for file in (*self._waiting, self._current)), default=0)
            or None
        )

    def statistics(self) -> dict[str, Any]:
        """Files and records, for metrics."""
        return {
            "files_waiting": len(self._waiting),
            "file_bytes": 0 if self._current.open is None else self._current.open.size_bytes,
            "rows_watched": len(self._rows),
            **{name: self._counters[name] for name in COUNTED_EVENTS},
        }

    def totals(self) -> dict[str, int]:
        """What this run has counted, over all keys."""
        return {name: self._totals[name] for name in COUNTERS}

    # Files.

    async def begin(self) -> None:
        """Take over what an earlier run left, and begin a file of this one's own."""
        for left in await trio.to_thread.run_sync(read_leftovers, self._files, self._counters):
            self._waiting.append(_File(left.header, path=left.path, totals=left.totals))
            self._rows |= {row for row in left.totals.rows if self._files.owns(row[0])}
        await self._next_file()

    async def _next_file(self) -> None:
        """Begin a new file; the one so far waits to be folded. On a full disk there is none, and counts stay here."""
        header = Header(self._journal, self._current.header.number + 1)
        opened: OpenFile | None = None
        try:
            opened = await trio.to_thread.run_sync(self._files.create, header)
        except OSError as error:
            self._counters["files_failed"] += 1
            logger.error("usage_file_failed", extra={"errno": error.errno})
        before = self._current
        self._current = _File(header, path=None if opened is None else opened.path, totals=Totals(), opened=opened)
        self._rows_carried = not self._rows
        if before.totals or before.path is not None:
            self._waiting.append(before)
        await self._close(before)
        await self._carry()

    async def _close(self, file: _File) -> None:
        """Nothing more is appended to it; it may have to wait for the store, so it is synced."""
        opened, file.open = file.open, None
        if opened is not None:
            try:
                await self._try_sync(opened)
            finally:
                opened.close()

    async def _carry(self) -> None:
        """Note in the new file which rows were counted before it; only then may the files before it go."""
        opened = self._current.open
        if self._rows_carried or opened is None:
            return
        try:
            opened.append(encode_rows(sorted(self._rows), opened.seed))
        except OSError as error:
            logger.error("usage_file_failed", extra={"errno": error.errno})
            return
        self._rows_carried = await self._try_sync(opened)

    async def _try_sync(self, opened: OpenFile) -> bool:
        descriptor = opened.duplicate()  # the file itself may be closed meanwhile
        try:
            await trio.to_thread.run_sync(self._files.sync, descriptor)
        except OSError as error:
            self._counters["syncs_failed"] += 1
            logger.error("usage_not_synced", extra={"errno": error.errno})
            return False
        finally:
            os.close(descriptor)
        return True

    # Folding.

    async def fold(self) -> None:
        """Close the file if it has anything, and hand all closed ones to the store, in their order."""
        async with self._folding:
            self._full = trio.Event()
            current = self._current
            if (current.totals or current.open is None) and len(self._waiting) < FILES_MAX:
                await self._next_file()
            await self._carry()
            if not self._rows_carried and self._rows:
                return
            while self._waiting and await self._fold(self._waiting[0]):
                del self._waiting[0]

    async def _fold(self, file: _File) -> bool:
        try:  # if it is not known whether the store took it, it is asked again: a known number changes nothing
            if file.totals:
                with trio.fail_after(FOLD_TIMEOUT_S):
                    await self._store.fold_usage(
                        file.header.journal, file.header.number, file.totals.counts(), file.totals.last_used
                    )
                file.totals = Totals()  # from here on the store shows them
            if file.path is not None:
                await trio.to_thread.run_sync(self._files.remove, file.path)
        except (MemoryRouterError, trio.TooSlowError, OSError) as error:
            self._counters["folds_failed"] += 1
            logger.error("usage_not_folded", extra={"error": type(error).__name__})
            return False
        self._counters["folds"] += 1
        return True

    async def run_folding(self) -> None:
        """Fold again and again."""
        while True:
            with trio.move_on_after(self._settings.fold_interval_s):
                await self._full.wait()
            await self.fold()

    async def run_pruning(self) -> None:
        """Delete what is older than the settings want it, again and again."""
        while self._settings.retention_days:
            today = self._now_ms() // (DAY_MINUTES * MINUTE_MS)
            try:
                with trio.fail_after(FOLD_TIMEOUT_S):
                    await self._store.prune_usage(before_day=today - self._settings.retention_days)
            except (MemoryRouterError, trio.TooSlowError) as error:
                logger.error("usage_not_pruned", extra={"error": type(error).__name__})
            await trio.sleep(PRUNE_INTERVAL_S)

    async def run_syncing(self) -> None:
        """Sync what was appended, again and again."""
        while True:
            await trio.sleep(SYNC_INTERVAL_S)
            opened = self._current.open
            if self._unsynced and opened is not None:
                self._unsynced = False
                await self._try_sync(opened)

    async def finish(self) -> None:
        """Fold everything; of the last file only what must be carried over to the next run stays."""
        await self.fold()
        current = self._current
        if current.open is not None:
            current.open.close()
            current.open = None
            if not current.totals and not self._rows and current.path is not None:
                await trio.to_thread.run_sync(self._files.remove, current.path)


COUNTERS = (
    "requests",
    "errors",
    "memories_stored",
    "tokens_retrieved",
    "tokens_injected",
    "tokens_billed",
    "input_tokens",
    "output_tokens",
)
COUNTED_EVENTS = (
    "records",
    "records_unwritten",
    "folds",
    "folds_failed",
    "files_failed",
    "files_damaged",
    "bytes_damaged",
    "syncs_failed",
)


@asynccontextmanager
async def open_usage(
    store: UsageStore, files: UsageFiles, settings: UsageSettings, *, now_ms: Callable[[], int]
) -> AsyncIterator[UsageJournal | None]:
    """Count for the length of the block. What an earlier run left is folded first; leaving folds the rest.

    Yields:
        The journal, or None where the settings say that nothing is counted.
    """
    if not settings.enabled:
        yield None
        return
    journal = UsageJournal(store, files, settings, now_ms=now_ms)
    await journal.begin()
    await journal.fold()
    try:
        async with trio.open_nursery() as services:
            services.start_soon(journal.run_folding)
            services.start_soon(journal.run_syncing)
            services.start_soon(journal.run_pruning)
            yield journal
            services.cancel_scope.cancel(reason="the journal closes")
    finally:
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            await journal.finish()
