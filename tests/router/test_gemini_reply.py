"""Replies of Gemini: complete with their finish reason, failed with an error, and never a crash."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.providers.base import Reply, Signal, Usage
from router.providers.gemini import GeminiFormat
from router.providers.gemini_reply import GeminiCollector
from router.sse import Event

FORMAT = GeminiFormat(model="m", stream=True, sse=True)
COUNTS = {"promptTokenCount": 7, "candidatesTokenCount": 2, "thoughtsTokenCount": 1, "totalTokenCount": 10}


def event(value: Any) -> Event:
    return Event(name="", data=json.dumps(value).encode(), end=0)


def candidate(*texts: str, reason: str | None = None, **members: Any) -> dict[str, Any]:
    value = {"content": {"role": "model", "parts": [{"text": text} for text in texts]}, **members}
    return value if reason is None else {**value, "finishReason": reason}


def said(*texts: str, reason: str | None = None, **members: Any) -> Event:
    return event({"candidates": [candidate(*texts, reason=reason)], **members})


def heard(*events: Event, choices: int = 1, text_chars_max: int = 1000) -> tuple[list[Signal], Reply]:
    collector = GeminiCollector(choices=choices, text_chars_max=text_chars_max)
    signals: list[Signal] = []
    for one in events:
        expected = collector.classify(one)
        assert collector.classify(one) is expected
        signals.append(collector.feed(one))
        assert signals[-1] is expected
    assert not collector.ended
    return signals, collector.reply()


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_finished_stream_is_its_texts() -> None:
    """Thoughts, calls and images say nothing; the last counts are the reply's."""
    silent = [{"text": "hm", "thought": True}, {"functionCall": {"name": "f"}}, {"inlineData": {"data": ""}}]
    signals, reply = heard(
        event({"candidates": [{"content": {"parts": silent}}], "usageMetadata": {"promptTokenCount": 7}}),
        said("Hel"),
        said("lo", "."),
        said("", reason="STOP", usageMetadata=COUNTS),
    )

    assert signals == [Signal.NOTHING] * 3 + [Signal.FINISH]
    assert reply == Reply(text="Hello.", complete=True, usage=Usage(7, 3, 10))


@pytest.mark.parametrize("reason", ["MAX_TOKENS", "SAFETY", "MALFORMED_FUNCTION_CALL", "A_NEW_ONE"])
def test_any_reason_finishes(reason: str) -> None:
    """No more is to come, whatever it is; the value that says nothing does not."""
    assert heard(said("a", reason=reason))[0] == [Signal.FINISH]
    assert heard(said("a", reason="FINISH_REASON_UNSPECIFIED"), said("a", reason=""))[0] == [Signal.NOTHING] * 2


def test_a_blocked_prompt_is_a_complete_reply_without_words() -> None:
    """There are no candidates then."""
    signals, reply = heard(event({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": COUNTS}))

    assert signals == [Signal.FINISH]
    assert reply == Reply(text="", complete=True, usage=Usage(7, 3, 10))
    assert heard(event({"promptFeedback": {"safetyRatings": []}}))[0] == [Signal.NOTHING]


def test_only_candidate_0_is_collected_and_all_must_finish() -> None:
    """With several candidates the stream is complete with the last of them; a missing index is the place."""
    signals, reply = heard(
        event({"candidates": [candidate("a"), candidate("x", index=1)]}),
        event({"candidates": [candidate("b", reason="STOP")]}),
        event({"candidates": [candidate("y", reason="STOP", index=1)]}),
        choices=2,
    )

    assert signals == [Signal.NOTHING, Signal.NOTHING, Signal.FINISH]
    assert (reply.text, reply.complete) == ("ab", True)


@pytest.mark.parametrize("failure", [{"error": {"code": 503}}, [{"error": {"code": 503}}]])
def test_an_error_is_a_failure(failure: Any) -> None:
    """Bare, or in the list that Google wraps errors in; a finish after it does not mend it."""
    signals, reply = heard(said("a"), event(failure), said("b", reason="STOP"))

    assert signals == [Signal.NOTHING, Signal.FAILURE, Signal.NOTHING]
    assert not reply.complete


def test_only_the_first_finish_counts() -> None:
    """What follows it is no part of the reply that was handed over."""
    signals, reply = heard(said("a", reason="STOP"), said("b", reason="STOP"))

    assert signals == [Signal.FINISH, Signal.NOTHING]
    assert reply.text == "a"


def test_long_texts_are_cut_and_marked() -> None:
    """The collector keeps a bounded part."""
    reply = heard(said("abc"), said("def"), said("g"), text_chars_max=5)[1]

    assert (reply.text, reply.truncated) == ("abcde", True)


# --- whole replies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reply"),
    [
        (
            {"candidates": [candidate("Hi", ".", reason="STOP")], "usageMetadata": COUNTS},
            Reply("Hi.", True, Usage(7, 3, 10)),
        ),
        ({"candidates": [candidate("Hi.")]}, Reply("Hi.", True)),
        ({"candidates": [candidate("x", index=1), candidate("Hi.", index=0)]}, Reply("Hi.", True)),
        ({"candidates": [{"finishReason": "SAFETY"}]}, Reply("", True)),
        ({"promptFeedback": {"blockReason": "OTHER"}}, Reply("", True)),
        ([{"candidates": [candidate("Hi")]}, {"candidates": [candidate(".", reason="STOP")]}], Reply("Hi.", True)),
        ({"error": {"code": 503}}, Reply("", False)),
        ([{"candidates": [candidate("Hi")]}, {"error": {"code": 503}}], Reply("", False)),
        ({"candidates": [candidate("a" * 101)]}, Reply("a" * 100, True, truncated=True)),
        ({"candidates": []}, None),
        ({"models": []}, None),
        ([], None),
        (["x"], None),
        ("x", None),
    ],
)
def test_whole_replies(value: Any, reply: Reply | None) -> None:
    """One object, or the array of a stream that was read to its end."""
    assert FORMAT.parse_reply(json.dumps(value).encode(), text_chars_max=100) == reply


def test_a_request_makes_its_collector() -> None:
    """It knows how many candidates are to finish."""
    request = FORMAT.parse_request(b'{"contents":[{}],"generationConfig":{"candidateCount":2}}')

    assert request.collector(text_chars_max=10).feed(said("a", reason="STOP")) is Signal.NOTHING


_NAMES = st.sampled_from(
    ["candidates", "content", "parts", "text", "thought", "index", "finishReason", "usageMetadata", "error"]
) | st.sampled_from(["promptFeedback", "blockReason", "promptTokenCount"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(_JSON.map(json.dumps).map(str.encode) | st.binary(max_size=20), max_size=5))
def test_any_json_is_heard_without_a_crash(events: list[bytes]) -> None:
    """Streams and whole replies alike."""
    heard(*[Event(name="", data=data, end=0) for data in events], text_chars_max=3)
    for data in events:
        FORMAT.parse_reply(data, text_chars_max=3)
