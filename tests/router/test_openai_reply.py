"""Replies of Chat Completions: what was said, when it is complete, and what is no reply at all."""

from __future__ import annotations

import msgspec
import pytest

from router.providers.base import Reply, Signal, Usage
from router.providers.openai_chat import OPENAI_CHAT
from router.providers.openai_reply import ChatCollector
from router.sse import Event
from tests.fakes.provider import chat_chunk, chat_events, chat_reply


def event(data: bytes, name: str = "") -> Event:
    return Event(name=name, data=data.removeprefix(b"data: ").strip(), end=0)


def collect(events: list[bytes], *, choices: int = 1, chars: int = 1000) -> tuple[list[Signal], Reply]:
    collector = ChatCollector(choices=choices, text_chars_max=chars)
    signals = []
    for data in events:
        foreseen = collector.classify(event(data))
        signals.append(collector.feed(event(data)))
        assert foreseen is signals[-1]
    return signals, collector.reply()


def test_a_whole_reply_is_read() -> None:
    """Choice 0's text, the usage, and that it is complete."""
    reply = OPENAI_CHAT.parse_reply(chat_reply("Hello."), text_chars_max=100)

    assert reply == Reply(text="Hello.", complete=True, usage=Usage(7, 3, 10))


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b'{"ok":1}', b'{"choices":[]}', b'{"choices":[{"index":0}]}', b"\xff", b'{"choices":7}'],
)
def test_what_is_no_chat_completion_is_none(body: bytes) -> None:
    """It is passed through as it came, and nothing is remembered of it."""
    assert OPENAI_CHAT.parse_reply(body, text_chars_max=100) is None


def test_refusals_errors_and_long_texts_are_told_apart() -> None:
    """A refusal is text; an error inside a 200 is a failure; a long text is cut and says so."""
    refusal = msgspec.json.encode({"choices": [{"message": {"content": None, "refusal": "No."}}]})
    failed = b'{"error":{"message":"overloaded"},"choices":[]}'

    assert OPENAI_CHAT.parse_reply(refusal, text_chars_max=100) == Reply(text="No.", complete=True)
    assert OPENAI_CHAT.parse_reply(failed, text_chars_max=100) == Reply(text="", complete=False)
    assert OPENAI_CHAT.parse_reply(chat_reply("12345"), text_chars_max=3) == Reply(
        text="123", complete=True, usage=Usage(7, 3, 10), truncated=True
    )


def test_a_stream_finishes_with_the_chunk_that_has_the_reason() -> None:
    """Not with `[DONE]`, which may come after a usage chunk."""
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n'
    *events, done = chat_events(["a", "b"])

    signals, reply = collect([*events, usage, done])

    assert signals == [Signal.NOTHING] * 2 + [Signal.FINISH] + [Signal.NOTHING] * 2
    assert reply == Reply(text="ab", complete=True, usage=Usage(1, 2, 3))


def test_with_several_choices_the_last_reason_finishes() -> None:
    """Choice 0 alone is collected."""
    events = [
        chat_chunk("a"),
        chat_chunk("x", index=1),
        chat_chunk(finish_reason="stop"),
        chat_chunk("y", index=1),
        chat_chunk(finish_reason="stop", index=1),
    ]

    assert collect(events, choices=2) == (
        [Signal.NOTHING] * 4 + [Signal.FINISH],
        Reply(text="a", complete=True),
    )


def test_a_terminator_without_a_reason_finishes_too() -> None:
    """Some servers never send a finish_reason."""
    assert collect([chat_chunk("a"), b"data: [DONE]\n\n"]) == (
        [Signal.NOTHING, Signal.FINISH],
        Reply(text="a", complete=True),
    )


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b'{"error":{"message":"overloaded"}}', ""),
        (b'{"error":"overloaded"}', ""),
        (b"overloaded", "error"),
        (b'{"choices":[{"delta":{},"finish_reason":"error"}]}', ""),
    ],
)
def test_an_error_in_the_stream_is_a_failure(data: bytes, name: str) -> None:
    """What came before it is not a complete reply, whatever follows."""
    collector = ChatCollector(text_chars_max=100)
    collector.feed(event(chat_chunk("par")))

    assert collector.feed(event(data, name)) is Signal.FAILURE
    collector.feed(event(b"[DONE]"))
    assert collector.reply() == Reply(text="par", complete=False)
    assert collector.ended


def test_odd_chunks_mean_nothing() -> None:
    """Empty reasons, missing deltas, foreign JSON and garbage are forwarded and ignored."""
    odd = [
        b'{"choices":[{"delta":{"content":"a"},"finish_reason":""}]}',
        b'{"choices":[{"index":0}]}',
        b'{"choices":[null,7]}',
        b'{"choices":null}',
        b"{}",
        b"{broken",
        b"7",
        b"",
        b'{"choices":[{"delta":{"content":["x"],"refusal":7}}]}',
        b'{"error":null,"choices":[{"delta":{"refusal":"b"}}]}',
    ]

    assert collect(odd) == ([Signal.NOTHING] * len(odd), Reply(text="ab", complete=False))


def test_a_character_split_over_two_chunks_is_joined() -> None:
    """Some providers escape each half of a surrogate pair in its own chunk."""
    halves = [b'{"choices":[{"delta":{"content":"\\ud83d"}}]}', b'{"choices":[{"delta":{"content":"\\ude42"}}]}']

    assert collect(halves)[1].text == "🙂"


def test_a_long_stream_keeps_its_first_part() -> None:
    """The collector's memory is bounded."""
    _, reply = collect([chat_chunk("abc"), chat_chunk("def"), chat_chunk("ghi")], chars=5)

    assert (reply.text, reply.truncated) == ("abcde", True)
