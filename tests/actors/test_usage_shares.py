"""The usage journal of several workers: nothing is lost or counted twice when their number changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.cluster.workers import Share
from actors.usage_files import FOLDER
from actors.usage_journal import UsageJournal
from actors.usage_shares import hand_out, usage_files
from tests.actors.usage_stage import SETTINGS, now_ms, opened, request, row, total
from tests.fakes.usage import Book


def test_each_worker_has_a_folder_and_the_first_the_one_of_a_process_alone(tmp_path: Path) -> None:
    folders = [usage_files(tmp_path, share).folder for share in (None, Share(0, 3), Share(1, 3), Share(2, 3))]
    home = tmp_path / FOLDER
    assert folders == [home, home, home / "worker-1", home / "worker-2"]


async def killed_worker(book: Book, data_dir: Path, share: Share | None, *rows: tuple[int, int]) -> None:
    """A worker that has counted one request and these inbox rows, and then ends by kill -9."""
    journal = UsageJournal(book, usage_files(data_dir, share), SETTINGS, now_ms=now_ms)
    await journal.begin()
    journal.count(request())
    for shard, number in rows:
        journal.learned(shard, row(number), 1)


@pytest.mark.parametrize("before", [1, 2, 3, 4])
@pytest.mark.parametrize("after", [1, 2, 3])
async def test_counts_of_all_workers_are_folded_once_however_many_there_are_then(
    tmp_path: Path, before: int, after: int
) -> None:
    book = Book()
    for index in range(before):
        shards = filter(Share(index, before).owns, range(4))
        await killed_worker(book, tmp_path, Share(index, before) if before > 1 else None, *((s, 7) for s in shards))
    for _ in range(2):  # the second time as if the first had been killed at once
        hand_out(tmp_path, after)
    counted = 0
    for index in range(after):
        share = Share(index, after)
        async with opened(book, tmp_path, files=usage_files(tmp_path, share if after > 1 else None)) as journal:
            for shard in filter(share.owns, range(4)):
                journal.learned(shard, row(7), 1)  # it was still in the inbox, and is taken in again
            assert journal.statistics()["rows_watched"] == len(list(filter(share.owns, range(4))))
            counted = await total(journal)
    assert counted == before
    assert sum(count.memories_stored for count in book.counts) == 4
    folders = sorted(path.name for path in (tmp_path / FOLDER).iterdir() if path.is_dir())
    assert set(folders) <= {f"worker-{index}" for index in range(1, after)}


def test_nothing_is_made_where_nobody_shares(tmp_path: Path) -> None:
    hand_out(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_handed_out_keep_nobody_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FOLDER / "worker-1").mkdir(parents=True)
    (tmp_path / FOLDER / "worker-1" / "a" / "b").mkdir(parents=True)
    (tmp_path / FOLDER / "a").write_text("in the way")
    hand_out(tmp_path, 1)
    assert "usage_not_handed_out" in caplog.text
