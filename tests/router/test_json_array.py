"""The array splitter finds the same elements whatever the chunking, and an array that was cut can be ended."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.providers.json_array import JsonArraySplitter, close_array
from router.sse import Event

ERROR = b'{"error":{"code":502}}'
OVERRIDE = b'"candidates":[]'

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('a"\\{}[], é\n🙂', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"\\]}', max_size=3), inner, max_size=3),
    max_leaves=8,
)
_OBJECTS = st.dictionaries(st.text('a"\\]}', max_size=3), _JSON, max_size=3)
_LAYOUTS = st.sampled_from([(None, "{}"), (1, "{}"), (None, "\r\n{}\r\n"), (2, " {}\n")])
_BROKEN = st.text('[]{},:"\\ \n1a', max_size=30).map(str.encode) | st.binary(max_size=30)
_PLACES = st.lists(st.integers(0, 10_000), max_size=20)


def write(elements: list[Any], layout: tuple[int | None, str]) -> bytes:
    indent, frame = layout
    return ("[" + ",".join(frame.format(json.dumps(one, indent=indent)) for one in elements) + "]\n").encode()


def cut_into(data: bytes, places: list[int]) -> list[bytes]:
    borders = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(borders)]


def split(chunks: list[bytes], *, event_bytes_max: int = 10_000) -> tuple[list[bytes], JsonArraySplitter]:
    splitter = JsonArraySplitter(event_bytes_max=event_bytes_max)
    return [event.data for chunk in chunks for event in splitter.feed(chunk)], splitter


def bytes_of(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


@given(st.lists(_JSON, max_size=5), _LAYOUTS, _PLACES)
def test_any_array_is_split_into_its_elements(elements: list[Any], layout: Any, places: list[int]) -> None:
    """Brackets, quotes and escapes inside strings mean nothing, wherever the chunks end."""
    stream = write(elements, layout)

    for chunks in ([stream], cut_into(stream, places), bytes_of(stream)):
        found, splitter = split(chunks)
        assert [json.loads(data) for data in found] == elements
        assert not splitter.overflowed
        assert splitter.open_line() == b"[{}]"


@given(_BROKEN, _PLACES, st.integers(0, 20))
def test_any_chunking_finds_and_refuses_the_same(stream: bytes, places: list[int], limit: int) -> None:
    """Arrays, broken arrays and noise: never a crash, and a bound on bytes is a bound on the stream."""
    found, whole = split([stream], event_bytes_max=limit)

    for chunks in (cut_into(stream, places), bytes_of(stream)):
        pieces_found, pieces = split(chunks, event_bytes_max=limit)
        assert (pieces_found, pieces.overflowed) == (found, whole.overflowed)
        assert pieces.open_line() == whole.open_line()
        assert (pieces.pending(), pieces.flush()) == (None, None)
    close_array(whole.open_line(), ERROR, override=OVERRIDE)


@given(st.lists(_OBJECTS, max_size=5), _LAYOUTS, _PLACES)
def test_ends_are_one_past_the_last_byte(elements: list[Any], layout: Any, places: list[int]) -> None:
    """Forwarding up to an end and from it on loses nothing, and each part holds one element."""
    stream = write(elements, layout)
    splitter = JsonArraySplitter(event_bytes_max=10_000)
    parts: list[bytes] = []
    rest = b""
    for chunk in cut_into(stream, places):
        start = 0
        for event in splitter.feed(chunk):
            assert start < event.end <= len(chunk)
            parts.append(rest + chunk[start : event.end])
            assert parts[-1].endswith(event.data)
            rest, start = b"", event.end
        rest += chunk[start:]

    assert b"".join(parts) + rest == stream
    assert [json.loads(part.lstrip(b"[, \r\n")) for part in parts] == elements


def test_elements_of_the_wire() -> None:
    """As Google writes them: pretty, with the comma on a line of its own."""
    splitter = JsonArraySplitter(event_bytes_max=100)

    assert splitter.feed(b'[{\n  "a": "]}"\n}\n,\r\n{"b"') == [Event(name="", data=b'{\n  "a": "]}"\n}', end=16)]
    assert splitter.feed(b":[{}]}") == [Event(name="", data=b'{"b":[{}]}', end=6)]
    assert splitter.feed(b"\n]\n") == []


def test_a_number_ends_with_the_byte_behind_it() -> None:
    """Which may come with the next chunk."""
    splitter = JsonArraySplitter(event_bytes_max=100)

    assert splitter.feed(b"[12") == []
    assert splitter.feed(b",3]") == [Event(name="", data=b"12", end=0), Event(name="", data=b"3", end=2)]


def test_an_object_instead_of_an_array_is_an_element() -> None:
    """Servers report errors so."""
    found, splitter = split([b' {"error":', b"{}}\n"])

    assert found == [b'{"error":{}}']
    assert not splitter.overflowed


@pytest.mark.parametrize("stream", [b"data: {}", b'"x"', b"[]]", b"[1] {}", b"{} {}", b"\xef\xbb\xbf[]"])
def test_what_is_no_array_has_no_meaning(stream: bytes) -> None:
    """The stream passes, but nobody pretends to know what it says."""
    splitter = split([stream])[1]

    assert splitter.overflowed
    assert splitter.open_line() is None


def test_an_element_that_is_too_large_ends_the_reading() -> None:
    """Elements before it are found; memory stays bounded."""
    found, splitter = split([b'[{"a":1},{"b":"' + b"x" * 50, b'"},{"c":1}]'], event_bytes_max=20)

    assert found == [b'{"a":1}']
    assert splitter.overflowed


@given(st.lists(_OBJECTS, max_size=4), _LAYOUTS, st.integers(0, 10_000))
def test_an_array_cut_anywhere_can_be_ended(elements: list[Any], layout: Any, place: int) -> None:
    """The result is an array: the whole elements, maybe a half one that says nothing, and the error."""
    stream = write(elements, layout)
    sent = stream[: place % (len(stream) + 1)]
    found, splitter = split([sent])
    ending = close_array(splitter.open_line(), ERROR, override=OVERRIDE)

    ended = json.loads(sent + ending)
    if "]" in sent.decode()[-2:] and not ending:
        assert ended == elements
        return
    assert ended[-1] == json.loads(ERROR)
    assert ended[: len(found)] == elements[: len(found)]
    assert len(ended) - len(found) <= 2
    for half in ended[len(found) : -1]:
        assert half["candidates"] == []


@pytest.mark.parametrize(
    ("sent", "ending"),
    [
        (b"", b"[" + ERROR + b"]"),
        (b" \n", b"[" + ERROR + b"]"),
        (b"[", ERROR + b"]"),
        (b"[{}", b"," + ERROR + b"]"),
        (b"[{}\n,\n", ERROR + b"]"),
        (b'[{},{"a":"b', b'","candidates":[]},' + ERROR + b"]"),
        (b"[{}]", b""),
        (b'{"a":', b'null,"error":{"code":502}}'),
        (b"{}", b"\n" + ERROR),
    ],
)
def test_how_an_array_is_ended_depends_on_where_it_broke(sent: bytes, ending: bytes) -> None:
    """Never a comma too many or too few; what is whole already gets nothing."""
    assert close_array(split([sent])[1].open_line(), ERROR, override=OVERRIDE) == ending
