"""A usage journal on a stage: made, asked, and killed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from actors.usage_files import UsageFiles
from actors.usage_journal import UsageJournal, open_usage
from actors.usage_records import Counted
from models.memory import Exchange, InboxRow, Message
from models.usage import UsageCount
from models.usage_settings import UsageSettings
from tests.fakes.usage import Book

MINUTE = 29_000_000
DAY = MINUTE // 1440
SETTINGS = UsageSettings(fold_interval_s=3_600)
"""Nothing is folded behind a test's back."""


def now_ms() -> int:
    return MINUTE * 60_000


def request(key: int = 1, *, account: int = 1, model: str = "", **numbers: Any) -> Counted:
    return Counted(key_number=key, account_number=account, minute=MINUTE, model=model, requests=1, **numbers)


def row(number: int, *, key: int = 1, model: str | None = None) -> InboxRow:
    message = Message(role="user", content="My dog is called Rex.")
    exchange = Exchange((message,), "ingest", MINUTE * 60_000, model=model, key_number=key, account_number=1)
    return InboxRow(number, exchange)


async def shown(journal: UsageJournal, *, key: int | None = None, account: int = 1) -> list[UsageCount]:
    return await journal.load(account, key_number=key, first_day=DAY, last_day=DAY, timeout_s=60)


async def total(journal: UsageJournal, name: str = "requests") -> int:
    return sum(getattr(count, name) for count in await shown(journal))


@asynccontextmanager
async def opened(
    book: Book, folder: Path, *, files: UsageFiles | None = None, options: UsageSettings = SETTINGS
) -> AsyncIterator[UsageJournal]:
    async with open_usage(book, files or UsageFiles(folder), options, now_ms=now_ms) as journal:
        assert journal is not None
        yield journal


async def killed(book: Book, folder: Path, *records: Counted, rows: tuple[InboxRow, ...] = ()) -> UsageJournal:
    """A journal that has counted these and then ends without a word, as its process does by kill -9."""
    journal = UsageJournal(book, UsageFiles(folder), SETTINGS, now_ms=now_ms)
    await journal.begin()
    for record in records:
        journal.count(record)
    for learned in rows:
        journal.learned(0, learned, 1)
    return journal
