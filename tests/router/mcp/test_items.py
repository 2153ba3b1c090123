"""Dates as models give them: the whole day of the user's zone."""

from __future__ import annotations

from datetime import UTC
from zoneinfo import ZoneInfo

import pytest

from models.errors import InvalidRequest
from models.memory import Memory
from router.mcp.items import TITLE_CHARACTERS_MAX, end_of, local_iso, memory_result, start_of, title_of
from router.uploads import TIMESTAMP_MS_MAX

HOUR_MS = 3_600_000
BERLIN, LIMA = ZoneInfo("Europe/Berlin"), ZoneInfo("America/Lima")


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-06-03", 24), ("2026-03-29", 23), ("2026-10-25", 25), ("2026-12-31", 24)]
)
def test_a_date_is_a_day_of_its_zone_however_long_it_is(day: str, hours: int) -> None:
    start, end = start_of(day, BERLIN), end_of(day, BERLIN)
    assert start is not None
    assert end is not None
    assert end - start == hours * HOUR_MS
    assert local_iso(start, BERLIN).startswith(f"{day}T00:00:00")


def test_the_same_date_begins_at_another_time_elsewhere() -> None:
    east, west = start_of("2026-06-03", BERLIN), start_of("2026-06-03", LIMA)
    assert east is not None
    assert west is not None
    assert west - east == 7 * HOUR_MS


def test_times_mean_themselves() -> None:
    """With an offset whatever the zone; without one in the zone; as milliseconds."""
    noon = 1_780_488_000_000
    for text in ("2026-06-03T12:00:00Z", "2026-06-03T14:00:00+02:00", "2026-06-03 07:00:00-05:00", str(noon)):
        assert end_of(text, LIMA) == start_of(text, LIMA) == noon
    assert end_of("2026-06-03T14:00", BERLIN) == noon
    assert local_iso(noon, BERLIN) == "2026-06-03T14:00:00+02:00"


@pytest.mark.parametrize("text", ["soon", "2026-02-30", "2026-13-01", "-1", "9" * 30])
def test_what_is_no_time_is_refused(text: str) -> None:
    for read in (start_of, end_of):
        with pytest.raises(InvalidRequest):
            read(text, UTC)


def test_the_last_day_of_all_ends_with_time_itself() -> None:
    assert end_of("9999-12-31", UTC) == TIMESTAMP_MS_MAX


def test_titles_are_one_short_line() -> None:
    assert title_of("  One.\nTwo.") == "One."
    assert len(title_of("long " * 100)) <= TITLE_CHARACTERS_MAX


def test_metadata_of_others_is_shown_as_it_is() -> None:
    """Only what has the shape of our own labels is taken for them."""
    fields = {"seq": 1, "role": "user", "content": "x", "timestamp_ms": 0, "stored_ms": 0, "source": "ingest"}
    plain = Memory(**fields, metadata={"tags": "a", "source_context": 3})  # type: ignore[arg-type]
    shown = memory_result(plain, 0, UTC)
    assert shown.metadata == {"tags": "a", "source_context": 3}
    labelled = memory_result(Memory(**fields, metadata={"tags": ["a"], "k": 1}), 0, UTC)  # type: ignore[arg-type]
    assert (labelled.tags, labelled.metadata) == (["a"], {"k": 1})
