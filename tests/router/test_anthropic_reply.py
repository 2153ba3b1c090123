"""Replies of Anthropic Messages: what was said, when it is complete, and what is no reply at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.providers.anthropic_messages import ANTHROPIC_MESSAGES
from router.providers.anthropic_reply import MessagesCollector
from router.providers.base import Reply, Signal, Usage
from router.sse import Event, EventSplitter
from tests.fakes.claude import (
    PING,
    claude_block,
    claude_end,
    claude_error,
    claude_event,
    claude_events,
    claude_reply,
    claude_start,
    claude_text,
    claude_thinking,
    claude_tool,
)


def collect(events: list[bytes], *, chars: int = 1000) -> tuple[list[Signal], MessagesCollector]:
    collector = MessagesCollector(text_chars_max=chars)
    signals = []
    for event in EventSplitter(event_bytes_max=100_000).feed(b"".join(events)):
        foreseen = collector.classify(event)
        signals.append(collector.feed(event))
        assert foreseen is signals[-1]
    return signals, collector


def test_a_whole_reply_is_read() -> None:
    """Its text, what it cost, and that it is complete; tokens read from the cache count as prompt."""
    reply = ANTHROPIC_MESSAGES.parse_reply(claude_reply(), text_chars_max=100)

    assert reply == Reply(text="Hello.", complete=True, usage=Usage(127, 5, 132))


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"ok":1}', b'{"content":"x"}', b"\xff", b'{"type":"message","content":7}']
)
def test_what_is_no_message_is_none(body: bytes) -> None:
    """It is passed on as it came, and not remembered."""
    assert ANTHROPIC_MESSAGES.parse_reply(body, text_chars_max=100) is None


def test_an_error_with_a_good_status_is_a_failed_reply() -> None:
    """It must not be remembered."""
    body = b'{"type":"error","error":{"type":"api_error","message":"x"}}'

    assert ANTHROPIC_MESSAGES.parse_reply(body, text_chars_max=100) == Reply(text="", complete=False)


def test_only_text_is_said() -> None:
    """Thinking and tools are not; text blocks are joined as they are when the client sends them back."""
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "one"},
        {"type": "tool_use", "id": "1", "name": "f", "input": {"text": "x"}},
        {"type": "text", "text": ""},
        {"type": "text", "text": "two"},
        "odd",
        {"type": "text", "text": 7},
    ]
    reply = ANTHROPIC_MESSAGES.parse_reply(claude_reply(*blocks, stop_reason="tool_use"), text_chars_max=100)  # type: ignore[arg-type]  # one of them is odd

    assert reply is not None
    assert (reply.text, reply.complete) == ("one\ntwo", True)


def test_a_long_reply_keeps_its_first_part() -> None:
    """The store takes no endless texts."""
    reply = ANTHROPIC_MESSAGES.parse_reply(claude_reply(), text_chars_max=4)

    assert reply is not None
    assert (reply.text, reply.truncated) == ("Hell", True)


def test_the_finishing_event_is_the_delta_with_a_stop_reason() -> None:
    """Only the terminator comes after it."""
    signals, collector = collect(claude_events())

    assert signals == [Signal.NOTHING] * (len(signals) - 2) + [Signal.FINISH, Signal.NOTHING]
    assert collector.reply() == Reply(text="Hello there.", complete=True, usage=Usage(127, 5, 132))
    assert collector.ended


@pytest.mark.parametrize("reason", ["max_tokens", "tool_use", "refusal", "pause_turn", "x_new"])
def test_every_stop_reason_finishes(reason: str) -> None:
    """A refusal is a reply, and what the model will say next is another one."""
    _, collector = collect([claude_start(), *claude_text(0, "No."), *claude_end(reason)])

    assert collector.reply().complete


def test_a_terminator_without_a_reason_finishes() -> None:
    """A server that crashed does not say goodbye."""
    signals, collector = collect([claude_start(), *claude_end(None)])

    assert signals[-2:] == [Signal.NOTHING, Signal.FINISH]
    assert collector.ended


def test_a_stream_that_stops_short_is_not_complete() -> None:
    """Neither finished nor ended."""
    _, collector = collect(claude_events()[:-2])

    assert collector.reply().text == "Hello there."
    assert not collector.reply().complete
    assert not collector.ended


@pytest.mark.parametrize(
    "error",
    [claude_error(), b"event: error\ndata: overloaded\n\n", b'data: {"type":"error","error":{"type":"x"}}\n\n'],
)
def test_an_error_in_the_stream_is_a_failure(error: bytes) -> None:
    """What came before it is not a complete reply, whatever follows."""
    signals, collector = collect([claude_start(), *claude_text(0, "par"), error, *claude_end()])

    assert Signal.FAILURE in signals
    assert Signal.FINISH not in signals
    assert collector.reply().text == "par"
    assert not collector.reply().complete


def test_thinking_tools_and_unknown_events_say_nothing() -> None:
    """They are forwarded, and the texts around them are joined as the client will send them back."""
    events = [
        claude_start(),
        *claude_thinking(0, "hm"),
        *claude_text(1, "o", "ne"),
        PING,
        *claude_tool(2, "f", '{"text":', '"x"}'),
        claude_event("x_new", delta={"type": "text_delta", "text": "x"}),
        *claude_block(3, {"type": "text", "text": "two"}),
        *claude_text(4),
        *claude_text(5, " ", "three"),
        *claude_end("tool_use"),
    ]

    assert collect(events)[1].reply().text == "one\ntwo\n three"


def test_a_long_stream_keeps_its_first_part() -> None:
    """The collector's memory is bounded."""
    _, collector = collect([claude_start(), *claude_text(0, "abc"), *claude_text(1, "def"), *claude_end()], chars=5)

    assert (collector.reply().text, collector.reply().truncated) == ("abc\nd", True)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=3,
)
_ODD = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["message_start", "content_block_start", "content_block_delta", "message_delta", "x"])
        | _JSON
    },
    optional=dict.fromkeys(["message", "delta", "content_block", "usage", "error", "index"], _JSON),
)


@settings(max_examples=40)
@given(st.lists(_ODD | _JSON, max_size=5))
def test_odd_events_never_break_it(values: list[Any]) -> None:
    """What cannot be read means nothing."""
    import msgspec

    collector = MessagesCollector(text_chars_max=10)
    for value in values:
        event = Event(name="x", data=msgspec.json.encode(value), end=0)
        assert collector.classify(event) is collector.feed(event)
    assert isinstance(collector.reply(), Reply)
