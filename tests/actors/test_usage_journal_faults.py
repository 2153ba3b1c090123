"""Usage is counted exactly, whatever becomes of the process, the disk and the store."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from actors.usage_files import DAMAGED_SUFFIX, SUFFIX
from actors.usage_journal import SYNC_INTERVAL_S, UsageJournal
from actors.usage_records import HEADER_BYTES
from models.errors import StoreUnavailable
from tests.actors.usage_stage import SETTINGS, killed, now_ms, opened, request, shown, total
from tests.fakes.usage import Book, FaultyUsageFiles
from tests.patience import pass_time_until, wait_until


async def test_a_killed_run_is_counted_by_the_next_one_exactly_once(tmp_path: Path) -> None:
    book = Book()
    await killed(book, tmp_path, request(), request())
    async with opened(book, tmp_path) as journal:
        assert await total(journal) == 2
        assert [count.requests for count in book.counts] == [2]
    async with opened(book, tmp_path) as journal:
        assert await total(journal) == 2


async def test_a_kill_between_the_fold_and_the_removal_counts_nothing_twice(tmp_path: Path) -> None:
    book = Book()
    await killed(book, tmp_path, request())
    copies = {path: path.read_bytes() for path in tmp_path.iterdir()}
    async with opened(book, tmp_path):
        pass
    for path, data in copies.items():
        path.write_bytes(data)

    async with opened(book, tmp_path) as journal:
        assert await total(journal) == 1
    assert book.folds.most_common(1)[0][1] == 2


async def test_a_torn_last_record_is_no_record(tmp_path: Path) -> None:
    book = Book()
    await killed(book, tmp_path, request(), request())
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-3])

    async with opened(book, tmp_path) as journal:
        assert await total(journal) == 1


async def test_a_damaged_record_takes_no_other_with_it_and_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    book = Book()
    await killed(book, tmp_path, request(1), request(2), request(3))
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    record_bytes = (len(data) - HEADER_BYTES) // 3
    data[HEADER_BYTES + record_bytes + 10] ^= 0xFF
    path.write_bytes(data)

    async with opened(book, tmp_path) as journal:
        assert [count.key_number for count in await shown(journal)] == [1, 3]
        assert journal.statistics()["bytes_damaged"] == record_bytes
    assert "usage_records_damaged" in caplog.text


async def test_a_file_without_a_header_is_set_aside_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / f"abc{SUFFIX}").write_bytes(b"x" * 500)
    (tmp_path / f"made{SUFFIX}").write_bytes(b"")  # the power went while it was made

    async with opened(Book(), tmp_path) as journal:
        assert journal.statistics()["files_damaged"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [f"abc{DAMAGED_SUFFIX}"]
    assert "usage_file_damaged" in caplog.text


async def test_a_store_that_fails_is_asked_again_and_shows_nothing_twice(tmp_path: Path) -> None:
    book = Book()
    async with opened(book, tmp_path) as journal:
        journal.count(request())
        book.folds_to_fail = 1
        await journal.fold()
        journal.count(request())
        await journal.fold()

        assert await total(journal) == 2
        assert journal.statistics()["folds_failed"] == 1
        assert sum(count.requests for count in book.counts) == 2


async def test_a_fold_whose_answer_was_lost_counts_once(tmp_path: Path) -> None:
    book = Book()
    async with opened(book, tmp_path) as journal:
        journal.count(request())
        book.answers_to_lose = 1
        await journal.fold()
        await journal.fold()

        assert await total(journal) == 1


async def test_a_full_disk_fails_nobody_and_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    book, files = Book(), FaultyUsageFiles(tmp_path)
    async with opened(book, tmp_path, files=files) as journal:
        journal.count(request())
        files.full = True
        journal.count(request())
        journal.count(request())

        assert await total(journal) == 3
        assert journal.statistics()["records_unwritten"] == 2
        assert [record.message for record in caplog.records].count("usage_not_written") == 1
        await journal.fold()  # what the disk did not take goes to the store all the same
        journal.count(request())
        assert await total(journal) == 4
        files.full = False
        await journal.fold()
        journal.count(request())
        assert journal.statistics()["records_unwritten"] == 3
    assert sum(count.requests for count in book.counts) == 5
    assert list(tmp_path.iterdir()) == []


async def test_a_journal_opens_on_a_full_disk(tmp_path: Path) -> None:
    book, files = Book(), FaultyUsageFiles(tmp_path)
    files.full = True
    async with opened(book, tmp_path, files=files) as journal:
        journal.count(request())
        assert await total(journal) == 1
    assert [count.requests for count in book.counts] == [1]


async def test_a_half_done_write_is_taken_back(tmp_path: Path) -> None:
    book, files = Book(), FaultyUsageFiles(tmp_path)
    journal = UsageJournal(book, files, SETTINGS, now_ms=now_ms)
    await journal.begin()
    journal.count(request(1))
    files.short_writes = 1
    journal.count(request(2))
    journal.count(request(3))

    async with opened(book, tmp_path) as after:  # the process was killed: what the disk did not take is lost
        assert [count.key_number for count in await shown(after)] == [1, 3]
        assert after.statistics()["bytes_damaged"] == 0


async def test_what_was_appended_is_synced_within_a_second(tmp_path: Path, mock_clock: MockClock) -> None:
    files = FaultyUsageFiles(tmp_path)
    async with opened(Book(), tmp_path, files=files) as journal:
        before = files.syncs
        journal.count(request())
        began_s = trio.current_time()
        await pass_time_until(mock_clock, lambda: files.syncs > before, step_s=SYNC_INTERVAL_S)

        assert trio.current_time() - began_s <= 2 * SYNC_INTERVAL_S


async def test_a_sync_that_fails_is_reported(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    files = FaultyUsageFiles(tmp_path)
    async with opened(Book(), tmp_path, files=files) as journal:
        files.syncs_to_fail = 1
        journal.count(request())
        await pass_time_until(mock_clock, lambda: journal.statistics()["syncs_failed"] == 1, step_s=SYNC_INTERVAL_S)
    assert "usage_not_synced" in caplog.text


async def test_counts_that_cannot_be_read_in_time_are_an_error(tmp_path: Path) -> None:
    async with opened(Book(), tmp_path) as journal:
        with pytest.raises(StoreUnavailable):
            await journal.load(1, first_day=0, last_day=1, timeout_s=0)


async def test_a_file_that_cannot_be_removed_is_shown_once_and_tried_again(tmp_path: Path) -> None:
    book, files = Book(), FaultyUsageFiles(tmp_path)
    async with opened(book, tmp_path, files=files) as journal:
        journal.count(request())
        files.removals_to_fail = 1
        await journal.fold()
        assert await total(journal) == 1
    assert list(tmp_path.iterdir()) == []


async def test_who_reads_while_a_file_is_folded_sees_it_once(tmp_path: Path) -> None:
    """Also when it is in the store already and the journal has yet to hear of it."""
    book = Book()
    async with opened(book, tmp_path) as journal:
        journal.count(request())
        book.answering = trio.Event()
        seen: list[int] = []

        async def read() -> None:
            seen.append(await total(journal))

        async with trio.open_nursery() as working:
            working.start_soon(journal.fold)
            await wait_until(lambda: bool(book.counts))
            working.start_soon(read)
            await wait_until(lambda: bool(seen) or journal._folding.statistics().tasks_waiting == 1)
            book.answering.set()
        assert seen == [1]
