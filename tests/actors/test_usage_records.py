"""The usage journal's format: what is whole is read, in whatever company."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from actors.usage_records import (
    HEADER_BYTES,
    ROWS_A_RECORD,
    Carried,
    Counted,
    Header,
    Totals,
    encode_record,
    encode_rows,
    header_of,
    scan,
    seed_of,
)

HEADER = Header(journal="0123456789abcdef" * 2, number=7).encode()
SEED = seed_of(HEADER)
MINUTE = 29_000_000

records = st.builds(
    Counted,
    key_number=st.integers(1, 9),
    account_number=st.integers(1, 3),
    minute=st.integers(0, 2**31),
    model=st.sampled_from(["", "openai/gpt-5.1", "other"]),
    requests=st.integers(0, 2),
    tokens_retrieved=st.integers(0, 2**40),
    latency_us=st.integers(0, 2**40),
    row=st.none() | st.tuples(st.integers(0, 63), st.integers(1, 2**60)),
)


def file_of(listed: list[Counted]) -> bytes:
    return HEADER + b"".join(encode_record(record, SEED) for record in listed)


def counted(number: int) -> Counted:
    return Counted(key_number=number, account_number=1, minute=MINUTE, requests=1)


@given(st.lists(records))
def test_records_come_back_as_they_went_in(listed: list[Counted]) -> None:
    scanned = scan(file_of(listed))

    assert scanned.records == listed
    assert (scanned.damaged_bytes, scanned.torn_bytes) == (0, 0)


@given(st.lists(records, min_size=1), st.data())
def test_a_file_cut_anywhere_gives_every_whole_record(listed: list[Counted], data: st.DataObject) -> None:
    whole = file_of(listed)
    cut = data.draw(st.integers(HEADER_BYTES, len(whole) - 1))

    scanned = scan(whole[:cut])

    assert scanned.records == listed[: len(scanned.records)]
    assert len(file_of(listed[: len(scanned.records)])) + scanned.torn_bytes == cut
    assert len(file_of(listed[: len(scanned.records) + 1])) > cut


@given(st.lists(records, min_size=2, max_size=20), st.integers(0, 2**32))
def test_damage_takes_only_the_record_that_it_hits(listed: list[Counted], seed: int) -> None:
    whole = bytearray(file_of(listed))
    dice = random.Random(seed)
    victim = dice.randrange(len(listed))
    start = len(file_of(listed[:victim]))
    end = len(file_of(listed[: victim + 1]))
    at = dice.randrange(start, end)
    whole[at] ^= 1 << dice.randrange(8)

    scanned = scan(bytes(whole))

    assert scanned.records == listed[:victim] + listed[victim + 1 :]
    assert scanned.damaged_bytes + scanned.torn_bytes == end - start


def test_zeros_behind_the_last_record_are_torn_and_no_more() -> None:
    scanned = scan(file_of([counted(1)]) + bytes(512))

    assert scanned.records == [counted(1)]
    assert scanned.torn_bytes == 512


def test_a_record_does_not_pass_in_another_file() -> None:
    other = Header(journal="0123456789abcdef" * 2, number=8).encode()

    assert scan(other + file_of([counted(1)])[HEADER_BYTES:]).records == []


def test_a_header_says_which_file_it_is_and_a_damaged_one_says_nothing() -> None:
    damaged = bytearray(HEADER)
    damaged[12] ^= 1

    assert header_of(HEADER) == Header(journal="0123456789abcdef" * 2, number=7)
    assert header_of(bytes(damaged)) is None
    assert header_of(HEADER[:-1]) is None


def test_any_number_of_rows_can_be_carried() -> None:
    rows = [(63, 2**60 + number) for number in range(ROWS_A_RECORD * 2 + 1)]

    scanned = scan(HEADER + encode_rows(rows, SEED))

    assert [record for record in scanned.records if not isinstance(record, Carried)] == []
    assert Totals(scanned.records).rows == set(rows)


@given(st.lists(records))
def test_totals_are_sums_by_key_day_and_model(listed: list[Counted]) -> None:
    counts = Totals(listed).counts()

    assert sum(count.requests for count in counts) == sum(record.requests for record in listed)
    assert sum(count.tokens_retrieved for count in counts) == sum(record.tokens_retrieved for record in listed)
    assert {(count.key_number, count.account_number, count.day, count.model) for count in counts} == {
        (record.key_number, record.account_number, record.minute // 1440, record.model) for record in listed
    }


def test_a_key_was_last_used_at_its_latest_minute() -> None:
    listed = [Counted(key_number=1, account_number=1, minute=minute, requests=1) for minute in (5, 9, 7)]

    assert Totals(listed).last_used == {1: 9 * 60_000}
