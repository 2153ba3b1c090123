"""Memories are counted once by their inbox row; and everything at once against a model."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.usage_journal import UsageJournal
from tests.actors.usage_stage import SETTINGS, killed, now_ms, opened, request, row, shown, total
from tests.fakes.usage import Book, FaultyUsageFiles


async def test_a_row_that_became_memories_counts_once_however_often_it_is_taken_in(tmp_path: Path) -> None:
    book = Book()
    async with opened(book, tmp_path) as journal:
        journal.learned(0, row(5, model="openai/m"), 2)
        journal.learned(0, row(5, model="openai/m"), 2)
        await journal.fold()
        journal.learned(0, row(5, model="openai/m"), 2)
        journal.learned(1, row(5), 1)

        assert [(count.model, count.memories_stored) for count in await shown(journal)] == [("", 1), ("openai/m", 2)]


async def test_rows_of_nobody_and_rows_without_anything_new_count_nothing(tmp_path: Path) -> None:
    async with opened(Book(), tmp_path) as journal:
        journal.learned(0, row(5, key=0), 2)
        journal.learned(0, row(6), 0)

        assert await shown(journal) == []


async def test_a_row_counts_once_across_kills_for_as_long_as_it_is_in_the_inbox(tmp_path: Path) -> None:
    book = Book()
    await killed(book, tmp_path, rows=(row(5),))
    for _ in range(3):  # each run takes it in again, and is killed before it is materialised
        journal = await killed(book, tmp_path, rows=(row(5),))
        await journal.fold()
    async with opened(book, tmp_path) as journal:
        journal.learned(0, row(5), 1)
        assert await total(journal, "memories_stored") == 1
    async with opened(book, tmp_path) as journal:
        journal.learned(0, row(5), 1)
        assert await total(journal, "memories_stored") == 1
        assert journal.statistics()["rows_watched"] == 1


async def test_a_row_that_left_the_inbox_is_forgotten(tmp_path: Path) -> None:
    book = Book()
    async with opened(book, tmp_path) as journal:
        journal.learned(0, row(5), 1)
        journal.gone(0, [5, 6])
        assert journal.statistics()["rows_watched"] == 0
    assert list(tmp_path.iterdir()) == []


async def test_files_stay_until_the_disk_takes_what_must_be_carried_over(tmp_path: Path) -> None:
    """Else a kill would let the next run count the row again."""
    book, files = Book(), FaultyUsageFiles(tmp_path)
    journal = UsageJournal(book, files, SETTINGS, now_ms=now_ms)
    await journal.begin()
    journal.learned(0, row(5), 1)
    files.full = True
    await journal.fold()
    assert book.counts == []
    assert await total(journal, "memories_stored") == 1

    async with opened(book, tmp_path) as after:
        after.learned(0, row(5), 1)
        assert await total(after, "memories_stored") == 1


async def test_a_strange_model_is_counted_under_another_name(tmp_path: Path) -> None:
    async with opened(Book(), tmp_path) as journal:
        journal.learned(0, row(5, model="my secret <b>text</b>"), 1)
        journal.learned(0, row(6, model="mk_0123456789"), 1)

        assert [(count.model, count.memories_stored) for count in await shown(journal)] == [("other", 2)]


# All of it at once.

Step = tuple[str, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["request", "request", "learn", "learn", "gone", "fold", "kill", "stop", "fail", "lose", "full", "heal"]
        ),
        st.integers(1, 4),
    ),
    max_size=40,
)


class World:
    """A journal over its lives, and what it must show. Only what the disk took outlives a kill."""

    def __init__(self, folder: Path) -> None:
        self.book, self.files = Book(), FaultyUsageFiles(folder)
        self.requests: dict[int, int] = {}
        self.inbox: set[int] = set()
        self.learned: set[int] = set()
        self.journal: UsageJournal | None = None

    async def live(self) -> UsageJournal:
        if self.journal is None:
            self.journal = UsageJournal(self.book, self.files, SETTINGS, now_ms=now_ms)
            await self.journal.begin()
            await self.journal.fold()
            for number in sorted(self.inbox):  # hydration takes in what the inbox holds
                self.journal.learned(0, row(number), 1)
        return self.journal

    async def take(self, step: Step) -> None:
        kind, number = step
        journal = await self.live()
        match kind:
            case "request":
                journal.count(request(number))
                self.requests[number] = self.requests.get(number, 0) + 1
            case "learn":
                fresh = max(self.learned, default=0) + 1
                self.inbox.add(fresh)
                self.learned.add(fresh)
                journal.learned(0, row(fresh), 1)
            case "gone":
                gone = set(sorted(self.inbox)[:number])
                self.inbox -= gone
                journal.gone(0, gone)
            case "fold":
                await journal.fold()
            case "kill" if not self.files.full and not journal.statistics()["records_unwritten"]:
                self.journal = None
            case "stop":
                await journal.finish()
                self.journal = None
            case "fail":
                self.book.folds_to_fail = number
            case "lose":
                self.book.answers_to_lose = number
            case "full":
                self.files.full = True
            case "heal":
                self.files.full = False
                self.book.folds_to_fail = self.book.answers_to_lose = 0

    async def check(self) -> None:
        """Whatever happened: the sums are those of the model."""
        self.files.full = False
        self.book.folds_to_fail = self.book.answers_to_lose = 0
        journal = await self.live()
        await journal.fold()
        counts = await shown(journal)
        assert {c.key_number: c.requests for c in counts if c.requests} == self.requests
        assert sum(c.memories_stored for c in counts) == len(self.learned)


@settings(max_examples=60)
@given(steps)
async def test_sums_equal_a_model_whatever_happens(tmp_path_factory: pytest.TempPathFactory, taken: list[Step]) -> None:
    logging.getLogger("actors.usage_journal").setLevel(logging.CRITICAL)
    world = World(tmp_path_factory.mktemp("usage"))
    for step in taken:
        if step[0] == "stop" and (world.files.full or world.book.folds_to_fail or world.book.answers_to_lose):
            continue  # what neither disk nor store takes is lost with its process
        await world.take(step)
    await world.check()
    logging.getLogger("actors.usage_journal").setLevel(logging.NOTSET)
