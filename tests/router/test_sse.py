"""The splitter finds the same events whatever the chunking, and only CR, LF and CRLF end a line."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.sse import Event, EventSplitter

Found = list[tuple[str, bytes]]

_LINES = st.sampled_from(
    [
        b"",
        b"",
        b"data: one",
        b"data:two",
        b"data",
        b"data:  two spaces",
        b"event: named",
        b"event",
        b": OPENROUTER PROCESSING",
        b":",
        b"id: 7",
        b"retry: 10",
        b"unknown: field",
        "data: é 你好 🙂".encode(),
        "data: a\u2028b\u2029c\u0085d\x0b\x0c\x1c".encode(),
        b"data: [DONE]",
        b"\xef\xbb\xbfdata: marked",
    ]
)
_STREAMS = st.lists(st.tuples(_LINES, st.sampled_from([b"\n", b"\r\n", b"\r"]))).map(
    lambda lines: b"".join(line + end for line, end in lines)
)
_ANY_STREAM = _STREAMS | st.binary() | st.text("da: \r\n[]", max_size=60).map(str.encode)


def split(chunks: list[bytes], *, event_bytes_max: int = 10_000) -> Found:
    splitter = EventSplitter(event_bytes_max=event_bytes_max)
    return [(event.name, event.data) for chunk in chunks for event in splitter.feed(chunk)]


def cut_into(data: bytes, places: list[int]) -> list[bytes]:
    borders = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(borders)]


@given(_ANY_STREAM, st.lists(st.integers(0, 10_000), max_size=30))
def test_any_chunking_gives_the_same_events(stream: bytes, places: list[int]) -> None:
    """Split line ends, split characters, single bytes: nothing changes what is found."""
    whole = split([stream])

    assert split(cut_into(stream, places)) == whole
    assert split([stream[at : at + 1] for at in range(len(stream))]) == whole


@given(_ANY_STREAM, st.lists(st.integers(0, 10_000), max_size=30), st.integers(0, 40))
def test_where_it_overflows_does_not_depend_on_the_chunking(stream: bytes, places: list[int], limit: int) -> None:
    """A bound on bytes is a bound on the stream, not on how it arrives."""
    whole = EventSplitter(event_bytes_max=limit)
    events = [(event.name, event.data) for event in whole.feed(stream)]
    pieces = EventSplitter(event_bytes_max=limit)
    found = [(event.name, event.data) for chunk in cut_into(stream, places) for event in pieces.feed(chunk)]

    assert (found, pieces.overflowed) == (events, whole.overflowed)


@given(_STREAMS, st.lists(st.integers(0, 10_000), max_size=30))
def test_ends_cut_the_stream_into_its_events(stream: bytes, places: list[int]) -> None:
    """Bytes before an event's end hold the event; forwarding up to it and from it on loses nothing."""
    splitter = EventSplitter(event_bytes_max=10_000)
    parts: list[bytes] = []
    pending = b""
    for chunk in cut_into(stream, places):
        start = 0
        for event in splitter.feed(chunk):
            assert start <= event.end <= len(chunk)
            parts.append(pending + chunk[start : event.end])
            pending, start = b"", event.end
        pending += chunk[start:]

    assert b"".join(parts) + pending == stream
    assert [bool(split([part.removeprefix(b"\n")])) for part in parts] == [True] * len(parts)


def test_separators_of_unicode_inside_json_do_not_split() -> None:
    """U+2028, U+2029 and U+0085 are characters of a JSON string, not line ends."""
    payload = json.dumps({"text": "a\u2028b\u2029c\u0085d"}, ensure_ascii=False).encode()

    assert split([b"data: " + payload + b"\n\n"]) == [("", payload)]


def test_comments_blank_lines_and_a_byte_order_mark_are_no_events() -> None:
    """Keep-alives of OpenRouter and DeepSeek pass through without meaning anything."""
    stream = b"\xef\xbb\xbfdata: x\n\n: OPENROUTER PROCESSING\n\n\n\r\n: keep-alive\n\ndata: y\n\n"

    assert split([stream]) == [("", b"x"), ("", b"y")]


def test_data_lines_are_joined_and_the_last_name_counts() -> None:
    """As the HTML standard says."""
    assert split([b"event: a\ndata: 1\nevent: b\ndata:2\ndata\n\ndata: 3\n\n"]) == [
        ("b", b"1\n2\n"),
        ("", b"3"),
    ]


def test_an_event_is_there_with_the_first_byte_that_ends_it() -> None:
    """A CR ends a line at once; the LF that may follow in the next chunk is nothing new."""
    splitter = EventSplitter(event_bytes_max=100)

    assert splitter.feed(b"data: x\r\n\r") == [Event(name="", data=b"x", end=10)]
    assert splitter.feed(b"\ndata: y\n\n") == [Event(name="", data=b"y", end=10)]


def test_a_large_event_stops_the_parsing_and_frees_its_bytes() -> None:
    """An endless line costs no more memory than the bound."""
    splitter = EventSplitter(event_bytes_max=50)
    assert splitter.feed(b"data: ok\n\ndata: " + b"x" * 100) == [Event(name="", data=b"ok", end=10)]

    assert splitter.overflowed
    assert splitter.feed(b"\n\ndata: later\n\n") == []
    assert splitter.open_line() is None


def test_comments_do_not_add_up() -> None:
    """A provider may send keep-alives for an hour before its first event."""
    splitter = EventSplitter(event_bytes_max=50)
    for _ in range(100):
        splitter.feed(b": keep-alive\n")

    assert [event.data for event in splitter.feed(b"data: x\n\n")] == [b"x"]


@pytest.mark.parametrize(
    ("sent", "pending", "open_line", "flushed"),
    [
        (b"", None, None, None),
        (b"data: x\n\n", None, None, None),
        (b"data: x\n", b"x", b"", b"x"),
        (b"data: x", None, b"data: x", b"x"),
        (b"data: x\ndat", None, b"dat", b"x"),
        (b"event: e\n", None, b"", None),
    ],
)
def test_what_is_unfinished_can_be_asked_for(
    sent: bytes, pending: bytes | None, open_line: bytes | None, flushed: bytes | None
) -> None:
    """The relay decides by these when a stream stops in the middle."""
    splitter = EventSplitter(event_bytes_max=100)
    splitter.feed(sent)
    waiting = splitter.pending()

    assert (waiting.data if waiting else None) == pending
    assert splitter.open_line() == open_line
    last = splitter.flush()
    assert (last.data if last else None) == flushed


def test_only_the_first_bytes_of_a_stream_can_be_a_byte_order_mark() -> None:
    """Also where each chunk is one event."""
    marked = b"\xef\xbb\xbfdata: marked\n\n"
    assert split([marked]) == [("", b"marked")]
    assert split([b"data: one\n\n", marked, b"data: two\n\n"]) == [("", b"one"), ("", b"two")]


@pytest.mark.parametrize("before", [b"event: named\n", b"data: begun\n", b"data: beg", b"data: begun\r"])
def test_a_chunk_that_looks_like_an_event_may_be_the_rest_of_one(before: bytes) -> None:
    after = b"data: one\n\n"
    assert split([before, after]) == split([before + after])
