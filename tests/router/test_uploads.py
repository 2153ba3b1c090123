"""Uploads: JSON lines, read all or none."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRequest, TooLarge
from models.memory import Message
from models.memory_settings import MemorySettings
from router.uploads import METADATA_DEPTH_MAX, ROW_MESSAGES_MAX, exchanges_of, parse_lines

LIMITS = MemorySettings()
BLOCK = "<memory_context>\n[MEMORY - just now (Wed, Jun 3, 9:14 AM)] Rex\n</memory_context>"


def parse(*lines: Any, session_id: str | None = None, limits: MemorySettings = LIMITS) -> list[Message]:
    """Parse lines; what is not bytes is written as JSON."""
    body = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    return parse_lines(body, session_id=session_id, limits=limits)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def test_a_line_needs_nothing_but_content() -> None:
    """It is the user's then, and said now."""
    assert parse({"content": " My dog is Rex. "}) == [Message(role="user", content="My dog is Rex.")]


def test_every_field_of_a_line_is_kept() -> None:
    """Unknown ones are passed over; `system` counts as the user."""
    line = {
        "content": "Rex", "role": "assistant", "timestamp": 1_700_000_000_000, "id": 7, "session_id": 42,
        "metadata": {"file": "a.txt", "tags": [1, 2.5, None]}, "x_unknown": True,
    }  # fmt: skip

    assert parse(line, {"content": "b", "role": "system", "timestamp": 1e12}) == [
        Message(
            role="assistant", content="Rex", timestamp_ms=1_700_000_000_000, external_id="7", session_id="42",
            metadata={"file": "a.txt", "tags": [1, 2.5, None]},
        ),
        Message(role="user", content="b", timestamp_ms=10**12),
    ]  # fmt: skip


def test_a_lines_session_beats_that_of_the_request() -> None:
    """An empty one does not."""
    messages = parse({"content": "a", "session_id": "s"}, {"content": "b", "session_id": ""}, session_id="header")
    assert [message.session_id for message in messages] == ["s", "header"]


def test_blank_lines_line_ends_and_a_byte_order_mark_are_skipped() -> None:
    """LF and CRLF, leading, between and trailing; U+2028 is text and ends no line."""
    body = b'\xef\xbb\xbf\r\n  \n{"content":"a\xe2\x80\xa8b"}\r\n\t\n{"content":"c"}\n\n'
    assert [message.content for message in parse_lines(body, session_id=None, limits=LIMITS)] == ["a\u2028b", "c"]


def test_a_byte_order_mark_may_stand_right_before_the_first_line() -> None:
    """As Windows tools write it."""
    assert parse(b'\xef\xbb\xbf{"content":"a"}')[0].content == "a"


def test_strange_text_is_stored_with_replacement_characters() -> None:
    """NUL and lone surrogates."""
    assert parse(rb'{"content":"a\u0000b\ud800c"}')[0].content == "a\ufffdb\ufffdc"


def test_our_own_context_blocks_are_no_memories() -> None:
    """Inside a text they are cut out; a line of nothing else gives no memory and no error."""
    messages = parse({"content": f"{BLOCK} And my cat is Tom."}, {"content": BLOCK})
    assert [message.content for message in messages] == ["And my cat is Tom."]
    with pytest.raises(InvalidRequest):
        parse({"content": BLOCK})


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"nope",
        b"[]",
        b'"text"',
        b'{"content": "\xff"}',
        {},
        {"content": ""},
        {"content": "  \n"},
        {"content": None},
        {"content": 5},
        {"content": ["a"]},
        {"content": "a", "role": "tool"},
        {"content": "a", "role": 1},
        {"content": "a", "role": ["user"]},
        {"content": "a", "timestamp": "2026-01-01"},
        {"content": "a", "timestamp": -1},
        {"content": "a", "timestamp": 1.5},
        {"content": "a", "timestamp": True},
        {"content": "a", "timestamp": 10**15},
        b'{"content": "a", "timestamp": 1e999}',
        {"content": "a", "id": {}},
        {"content": "a", "id": 1.5},
        {"content": "a", "id": True},
        {"content": "a", "id": "x" * 257},
        {"content": "a", "session_id": []},
        {"content": "a", "session_id": "x" * 513},
        {"content": "a", "metadata": "text"},
        {"content": "a", "metadata": {"a": "x" * 20_000}},
        {"content": "a", "metadata": {"a": 2**64}},
        {"content": "a", "metadata": nested(METADATA_DEPTH_MAX + 2)},
        {"content": "a", "metadata": nested(900)},
    ],
    ids=lambda line: str(line)[:40],
)
def test_one_bad_line_refuses_the_upload_and_is_named(line: Any) -> None:
    """By its number in the body, blank lines counted."""
    with pytest.raises(InvalidRequest) as caught:
        parse({"content": "good"}, b"", line, {"content": "good"})
    assert caught.value.message.startswith("Line 3: ")


def test_metadata_that_is_accepted_can_be_stored_and_read_again() -> None:
    """At the limits of depth, size and numbers."""
    for metadata in (nested(METADATA_DEPTH_MAX), {"a": "x" * 16_000}, {"a": 2**64 - 1, "b": -(2**63)}, {}):
        (message,) = parse({"content": "a", "metadata": metadata})
        row = msgspec.msgpack.encode(message)
        assert msgspec.msgpack.decode(row, type=Message).metadata == metadata


def test_too_many_lines_are_too_large() -> None:
    """Blank ones do not count."""
    limits = MemorySettings(upload_lines_max=3)
    assert len(parse(b"", {"content": "a"}, b"", {"content": "b"}, {"content": "c"}, b"", limits=limits)) == 3
    with pytest.raises(TooLarge, match="at most 3 lines"):
        parse(*({"content": str(number)} for number in range(4)), limits=limits)


def test_a_text_over_the_limit_is_too_large_and_its_line_is_named() -> None:
    """The limit itself is fine."""
    limits = MemorySettings(content_max_chars=10)
    assert parse({"content": "x" * 10}, limits=limits)
    with pytest.raises(TooLarge, match=r"^Line 2: "):
        parse({"content": "a"}, {"content": "x" * 11}, limits=limits)


@pytest.mark.parametrize("body", [b"", b"\n\n", b" \r\n", b"\xef\xbb\xbf"])
def test_an_upload_of_nothing_is_refused(body: bytes) -> None:
    """Rather than reported as a success."""
    with pytest.raises(InvalidRequest):
        parse_lines(body, session_id=None, limits=LIMITS)


def test_a_long_upload_becomes_rows_that_keep_the_order() -> None:
    """All with the same time and request."""
    messages = [Message(role="user", content=str(number)) for number in range(2 * ROW_MESSAGES_MAX + 1)]
    exchanges = exchanges_of(messages, now_ms=5, request_id="req_1")

    assert [len(exchange.messages) for exchange in exchanges] == [ROW_MESSAGES_MAX, ROW_MESSAGES_MAX, 1]
    assert [message for exchange in exchanges for message in exchange.messages] == messages
    assert {(exchange.accepted_ms, exchange.request_id, exchange.source) for exchange in exchanges} == {
        (5, "req_1", "upload")
    }


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_give_messages_or_a_refusal(body: bytes) -> None:
    """Never another error."""
    try:
        messages = parse_lines(body, session_id=None, limits=LIMITS)
    except (InvalidRequest, TooLarge):
        return
    assert all(message.content for message in messages)
