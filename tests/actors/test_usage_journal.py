"""What is counted is shown at once, folded now and then, and the same before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from actors.usage_files import UsageFiles
from actors.usage_journal import FILE_BYTES_MAX, open_usage
from models.usage import UsageCount
from models.usage_settings import UsageSettings
from tests.actors.usage_stage import DAY, MINUTE, now_ms, opened, request, shown
from tests.fakes.usage import Book
from tests.patience import wait_until


async def test_what_is_counted_is_shown_at_once_before_it_is_folded(tmp_path: Path) -> None:
    book = Book()
    async with opened(book, tmp_path) as journal:
        journal.count(request(tokens_retrieved=48, tokens_billed=240, latency_us=1_600))
        journal.count(request(tokens_retrieved=2, latency_us=1_000))

        assert await shown(journal) == [
            UsageCount(
                key_number=1, account_number=1, day=DAY, requests=2,
                tokens_retrieved=50, tokens_billed=240, latency_ms_sum=3,
            )
        ]  # fmt: skip
        assert book.counts == []


async def test_folding_moves_counts_and_changes_nothing_that_is_shown(tmp_path: Path) -> None:
    book = Book()
    async with opened(book, tmp_path) as journal:
        for round_ in range(3):
            journal.count(request(round_ % 2 + 1, model="openai/m"))
            before = await shown(journal)
            await journal.fold()

            assert await shown(journal) == before
            assert sum(count.requests for count in book.counts) == round_ + 1
            assert len(list(tmp_path.iterdir())) == 1


async def test_a_key_sees_its_own_counts_and_an_account_its_own(tmp_path: Path) -> None:
    async with opened(Book(), tmp_path) as journal:
        journal.count(request(1))
        journal.count(request(2))
        journal.count(request(3, account=2))
        await journal.fold()
        journal.count(request(2))

        assert [(count.key_number, count.requests) for count in await shown(journal)] == [(1, 1), (2, 2)]
        assert [count.requests for count in await shown(journal, key=2)] == [2]
        assert [count.key_number for count in await shown(journal, account=2)] == [3]
        assert await journal.load(1, first_day=DAY + 1, last_day=DAY + 9, timeout_s=60) == []


async def test_leaving_folds_everything_and_leaves_no_file(tmp_path: Path) -> None:
    book = Book()
    async with opened(book, tmp_path) as journal:
        journal.count(request())

    assert [count.requests for count in book.counts] == [1]
    assert book.last_used == {1: MINUTE * 60_000}
    assert list(tmp_path.iterdir()) == []


async def test_counts_are_folded_now_and_then_without_being_asked(tmp_path: Path) -> None:
    book = Book()
    async with opened(book, tmp_path, options=UsageSettings(fold_interval_s=0.1)) as journal:
        journal.count(request())
        await wait_until(lambda: bool(book.counts))


async def test_a_large_file_is_folded_before_its_time(tmp_path: Path) -> None:
    book = Book()
    async with opened(book, tmp_path) as journal:
        record = request(model="m" * 128)
        for _ in range(FILE_BYTES_MAX // 128):
            journal.count(record)
        await wait_until(lambda: bool(book.counts))


async def test_old_counts_are_deleted_and_younger_ones_stay(tmp_path: Path) -> None:
    book = Book()
    days = (DAY - 31, DAY - 30, DAY)
    book.counts = [UsageCount(key_number=1, account_number=1, day=day, requests=1) for day in days]
    async with opened(book, tmp_path, options=UsageSettings(retention_days=30)):
        await wait_until(lambda: len(book.counts) == 2)
    assert [count.day for count in book.counts] == [DAY - 30, DAY]


async def test_nothing_is_counted_where_the_settings_say_so(tmp_path: Path) -> None:
    async with open_usage(
        Book(), UsageFiles(tmp_path / "usage"), UsageSettings(enabled=False), now_ms=now_ms
    ) as journal:
        assert journal is None
    assert not (tmp_path / "usage").exists()


async def test_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "usage"
    async with opened(Book(), folder):
        (path,) = folder.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_mode & 0o777 == 0o600


def test_statistics_are_numbers(tmp_path: Path) -> None:
    async def read() -> dict[str, Any]:
        async with opened(Book(), tmp_path) as journal:
            journal.count(request(tokens_retrieved=3))
            return {**journal.statistics(), **journal.totals()}

    found = trio.run(read)
    assert found["records"] == 1
    assert found["requests"] == 1
    assert found["tokens_retrieved"] == 3
    assert all(isinstance(value, int) for value in found.values())
