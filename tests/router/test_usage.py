"""One request's counts: written once before its answer, and then only what came later."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from actors.usage_files import UsageFiles
from actors.usage_journal import UsageJournal
from models.ids import Principal, VaultNumber, VaultRef
from models.usage import MINUTE_MS, UsageCount
from models.usage_settings import UsageSettings
from router.providers.base import Usage
from router.usage import TOKENS_MAX, Meter, RequestUsage
from tests.fakes.usage import Book

NOW_MS = 29_000_000 * MINUTE_MS
DAY = NOW_MS // 86_400_000
PRINCIPAL = Principal(key_number=7, account_number=3, kind="user", name="", vault=VaultRef(VaultNumber(1), 0))


@pytest.fixture
async def journal(tmp_path: Path) -> UsageJournal:
    """A journal with a file."""
    journal = UsageJournal(Book(), UsageFiles(tmp_path), UsageSettings(), now_ms=lambda: NOW_MS)
    await journal.begin()
    return journal


def meter_of(journal: UsageJournal | None) -> Meter:
    return Meter(journal, billing_multiplier=5, now_ms=lambda: NOW_MS)


def begun(journal: UsageJournal | None) -> RequestUsage:
    return meter_of(journal).begin(PRINCIPAL, began_s=time.perf_counter())


async def shown(journal: UsageJournal) -> UsageCount:
    (count,) = await journal.load(3, first_day=DAY, last_day=DAY, timeout_s=60)
    return count


async def test_a_request_is_written_with_its_answer_and_nothing_more_at_its_end(journal: UsageJournal) -> None:
    usage = begun(journal)
    usage.name_model("openai/m")
    usage.use_memory(retrieved=48, injected=40, billable=40)
    assert journal.statistics()["records"] == 0
    usage.answered(200)
    assert journal.statistics()["records"] == 1
    usage.close()
    usage.close()

    assert journal.statistics()["records"] == 1
    found = await shown(journal)
    assert (found.key_number, found.day, found.model, found.requests, found.errors) == (7, DAY, "openai/m", 1, 0)
    assert (found.tokens_retrieved, found.tokens_injected, found.tokens_billed) == (48, 40, 200)


async def test_what_comes_later_is_added_as_a_difference(journal: UsageJournal) -> None:
    usage = begun(journal)
    usage.hear(Usage(prompt_tokens=10, completion_tokens=0, total_tokens=10))
    usage.answered(200)
    usage.hear(Usage(prompt_tokens=10, completion_tokens=4, total_tokens=14))
    usage.write()
    usage.hear(Usage(prompt_tokens=10, completion_tokens=9, total_tokens=19))
    usage.fail()
    usage.close()

    found = await shown(journal)
    assert (found.requests, found.errors, found.input_tokens, found.output_tokens) == (1, 1, 10, 9)
    assert journal.statistics()["records"] == 3


async def test_a_request_that_never_got_an_answer_counts(journal: UsageJournal) -> None:
    begun(journal).close()

    found = await shown(journal)
    assert (found.requests, found.errors) == (1, 0)


async def test_a_failed_request_bills_nothing(journal: UsageJournal) -> None:
    usage = begun(journal)
    usage.use_memory(retrieved=48, billable=48)
    usage.answered(503)

    found = await shown(journal)
    assert (found.errors, found.tokens_retrieved, found.tokens_billed) == (1, 48, 0)


async def test_a_discarded_request_leaves_nothing(journal: UsageJournal) -> None:
    usage = begun(journal)
    usage.discard()
    usage.answered(200)
    usage.close()

    assert journal.statistics()["records"] == 0


async def test_the_providers_time_is_not_ours(journal: UsageJournal) -> None:
    usage = begun(journal)
    before_s = time.perf_counter()
    with usage.provider_time():
        inside_s = time.perf_counter()
        while time.perf_counter() < inside_s + 0.02:
            pass
        inside_s = time.perf_counter() - inside_s
    usage.answered(200)
    whole_s = time.perf_counter() - before_s

    assert (await shown(journal)).latency_ms_sum <= (whole_s - inside_s) * 1000 + 2


async def test_a_providers_nonsense_is_bounded(journal: UsageJournal) -> None:
    usage = begun(journal)
    usage.hear(Usage(prompt_tokens=-5, completion_tokens=2**70, total_tokens=0))
    usage.close()

    found = await shown(journal)
    assert (found.input_tokens, found.output_tokens) == (0, TOKENS_MAX)


def test_without_a_journal_everything_goes_its_way() -> None:
    usage = begun(None)
    usage.answered(200)
    usage.close()
