"""What the usage journal stands on, with faults: a store that folds, and a folder whose disk fails when told to."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from actors.usage_files import OpenFile, UsageFiles
from actors.usage_records import Header
from models.errors import StoreUnavailable
from models.usage import UsageCount, sum_up


class Book:
    """What a database would keep of usage. Outlives the journals that write into it.

    Attributes:
        folds_to_fail: so many of the next folds fail without effect.
        answers_to_lose: so many of the next folds take effect and fail all the same.
        last_used: by key number.
        folds: how often each file was offered.
        answering: what a fold that took effect waits for before it says so.
    """

    def __init__(self) -> None:
        self.counts: list[UsageCount] = []
        self.last_used: dict[int, int] = {}
        self.folded: dict[str, int] = {}
        self.folds = Counter[tuple[str, int]]()
        self.answering = trio.Event()
        self.answering.set()
        self.folds_to_fail = 0
        self.answers_to_lose = 0

    async def fold_usage(
        self, journal: str, number: int, counts: Sequence[UsageCount], last_used: Mapping[int, int]
    ) -> None:
        await trio.lowlevel.checkpoint()
        self.folds[journal, number] += 1
        if self.folds_to_fail:
            self.folds_to_fail -= 1
            raise StoreUnavailable("It fails.")
        if number > self.folded.get(journal, -1):
            self.folded[journal] = number
            self.counts = sum_up([*self.counts, *counts])
            for key, used_ms in last_used.items():
                self.last_used[key] = max(used_ms, self.last_used.get(key, 0))
        await self.answering.wait()
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            raise StoreUnavailable("Nobody knows whether it took effect.")

    async def prune_usage(self, *, before_day: int) -> None:
        await trio.lowlevel.checkpoint()
        self.counts = [count for count in self.counts if count.day >= before_day]

    async def load_usage(
        self, account_number: int, *, key_number: int | None = None, first_day: int, last_day: int
    ) -> list[UsageCount]:
        await trio.lowlevel.checkpoint()
        return [
            count
            for count in self.counts
            if count.account_number == account_number
            and key_number in (None, count.key_number)
            and first_day <= count.day <= last_day
        ]


class FaultyUsageFiles(UsageFiles):
    """A folder on a disk that fails when told to.

    Attributes:
        full: nothing more can be written; files can still be removed.
        short_writes: so many of the next writes are half done.
        syncs_to_fail: so many of the next syncs fail.
        removals_to_fail: so many of the next removals fail.
        syncs: how many there were.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.full = False
        self.short_writes = 0
        self.syncs_to_fail = 0
        self.removals_to_fail = 0
        self.syncs = 0

    def create(self, header: Header) -> OpenFile:
        if self.full:
            raise OSError(errno.ENOSPC, "a full disk")
        return super().create(header)

    def remove(self, path: Path) -> None:
        if self.removals_to_fail:
            self.removals_to_fail -= 1
            raise OSError(errno.EIO, "a failing disk")
        super().remove(path)

    def write(self, descriptor: int, data: bytes) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "a full disk")
        if self.short_writes:
            self.short_writes -= 1
            return super().write(descriptor, data[: len(data) // 2])
        return super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        if self.syncs_to_fail:
            self.syncs_to_fail -= 1
            raise OSError(errno.EIO, "a failing disk")
        super().sync(descriptor)
