"""The event with the token counts is taken out of a reply, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import UpstreamError
from router.usage_chunks import USAGE_EVENT_BYTES_MAX, UsageFilter, WithoutUsage
from tests.fakes.provider import DONE, chat_chunk, rechunk

USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"total_tokens":9},"x":"\xc3\xa4"}\n\n'
COUNTS = {"prompt_tokens": 7, "total_tokens": 9}

# Events that look alike, or may stand around it.
KEPT = [
    chat_chunk("Hel"),
    chat_chunk(finish_reason="stop"),
    DONE,
    b": OPENROUTER PROCESSING\n\n",
    b"\n",
    b'data: {"choices":[],"usage":null}\n\n',
    b'data: {"choices":[],"prompt_filter_results":[]}\n\n',
    b'data: {"choices" : [ {"delta":{"content":"\\"choices\\":[],\\"usage\\":{}"}}],"usage":{"total_tokens":1}}\n\n',
    b'data:{"choices":null,"usage":{}}\n\n',
    b'event: chunk\nid: 4\ndata: {"choices":[{}]}\n\n',
    b'event: note\n: in between\ndata: {"usage":{}}\n\n',
    b"event: nothing\n\n",
    b"retry: 3\n\n",
    b"strange line\ndata: [\n\n",
    b"data: not JSON\ndata: at all\n\n",
    b'data: {"choices":[],"usage":\n\n',
]
TAKEN = [
    USAGE,
    USAGE.replace(b"data: ", b"data:"),
    b"event: chunk\nid: 5\n: comment\n" + USAGE,
    b'data: { "usage" : {"prompt_tokens":7,"total_tokens":9}, "choices" : [ ] }\n\n',
]


def filtered(chunks: list[bytes]) -> tuple[bytes, UsageFilter]:
    usage_filter = UsageFilter()
    passed = b"".join([usage_filter.feed(chunk) for chunk in chunks])
    return passed + usage_filter.end(), usage_filter


def test_the_event_is_taken_out_and_its_counts_are_kept() -> None:
    passed, usage_filter = filtered([chat_chunk("Hi."), chat_chunk(finish_reason="stop"), USAGE, DONE])

    assert passed == chat_chunk("Hi.") + chat_chunk(finish_reason="stop") + DONE
    assert usage_filter.usage == COUNTS


@given(
    events=st.lists(st.sampled_from([*KEPT, *TAKEN]), max_size=8),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    sizes=st.lists(st.integers(1, 40), max_size=200),
)
def test_whatever_the_chunks_the_rest_is_byte_exact(events: list[bytes], line_end: bytes, sizes: list[int]) -> None:
    stream = b"".join(events).replace(b"\n", line_end)
    kept = b"".join([event for event in events if event in KEPT]).replace(b"\n", line_end)

    passed, usage_filter = filtered(rechunk(stream, sizes))

    assert passed == kept
    assert usage_filter.usage == (COUNTS if any(event in TAKEN for event in events) else None)


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_any_bytes_without_that_event_pass(chunks: list[bytes]) -> None:
    passed, _ = filtered(chunks)

    assert passed == b"".join(chunks)


@pytest.mark.parametrize("event", [*KEPT, USAGE])
def test_nothing_waits_for_what_comes_after_its_event(event: bytes) -> None:
    """Nor for the blank line, which clients that read line by line do not wait for either."""
    usage_filter = UsageFilter()

    passed = usage_filter.feed(event.removesuffix(b"\n")) + usage_filter.feed(b"\n")
    assert passed == (b"" if event == USAGE else event)

    if event in {chat_chunk("Hel"), DONE}:
        assert UsageFilter().feed(event.removesuffix(b"\n")) == event.removesuffix(b"\n")


def test_a_chunk_of_the_reply_passes_from_its_first_choice_on() -> None:
    """Large pieces (images in base64) do not wait for their end."""
    usage_filter = UsageFilter()

    assert usage_filter.feed(b'data: {"id":"c","choi') == b""
    assert usage_filter.feed(b'ces":[') == b""
    assert usage_filter.feed(b"{") == b'data: {"id":"c","choices":[{'
    assert usage_filter.feed(b'"delta"') == b'"delta"'


def test_what_is_held_back_is_bounded() -> None:
    usage_filter = UsageFilter()
    passed = usage_filter.feed(b"event: x\n") + usage_filter.feed(b'data: {"x":"')
    assert passed == b""

    passed = usage_filter.feed(b"x" * USAGE_EVENT_BYTES_MAX)

    assert passed == b'event: x\ndata: {"x":"' + b"x" * USAGE_EVENT_BYTES_MAX


def test_an_event_too_large_for_counts_is_not_taken_out() -> None:
    event = msgspec.json.encode({"choices": [], "usage": {"x": "x" * USAGE_EVENT_BYTES_MAX}})
    stream = b"data: " + event + b"\n\n"

    assert filtered([stream])[0] == stream


def test_counts_that_end_the_stream_without_a_line_end_are_taken_out() -> None:
    passed, usage_filter = filtered([DONE, USAGE.rstrip(b"\n")])

    assert (passed, usage_filter.usage) == (DONE, COUNTS)


async def _source(*steps: bytes | Exception) -> AsyncIterator[bytes]:
    for step in steps:
        if isinstance(step, Exception):
            raise step
        yield step


async def test_the_iterator_gives_no_empty_chunks_and_ends_with_its_source() -> None:
    chunks = WithoutUsage(_source(chat_chunk("Hi."), USAGE, DONE, b"data: la", b"st"))

    assert [chunk async for chunk in chunks] == [chat_chunk("Hi."), DONE, b"data: la", b"st"]
    assert chunks.filter.usage == COUNTS


async def test_the_iterator_breaks_with_its_source() -> None:
    chunks = WithoutUsage(_source(chat_chunk("Hi."), UpstreamError("It broke.")))

    assert await anext(chunks) == chat_chunk("Hi.")
    with pytest.raises(UpstreamError):
        await anext(chunks)
