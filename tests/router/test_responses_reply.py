"""Replies of Responses: complete when the provider says so, failed when it says so, and never a crash."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.providers.base import Reply, Signal, Usage
from router.providers.openai_responses import OPENAI_RESPONSES
from router.providers.responses_reply import OpenEvent, ResponsesCollector, ResponsesSplitter
from router.sse import Event

USAGE = {"input_tokens": 7, "input_tokens_details": {}, "output_tokens": 3, "total_tokens": 10}


def event(kind: str | None, name: str = "", **members: Any) -> Event:
    return Event(name=name, data=json.dumps({"type": kind, **members} if kind else members).encode(), end=0)


def delta(text: str, output_index: int = 0, content_index: int = 0) -> Event:
    return event("response.output_text.delta", output_index=output_index, content_index=content_index, delta=text)


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "status": "completed", "content": list(parts)}


def text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def response(status: str | None = "completed", *output: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "status": status, "output": list(output), "error": None, **members}


def heard(*events: Event, text_chars_max: int = 1000) -> tuple[list[Signal], ResponsesCollector]:
    collector = OPENAI_RESPONSES.parse_request(b'{"model":"m","input":"x"}').collector(text_chars_max=text_chars_max)
    signals: list[Signal] = []
    for one in events:
        assert collector.classify(one) is collector.classify(one)
        expected = collector.classify(one)
        signals.append(collector.feed(one))
        assert signals[-1] is expected
    return signals, collector


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_completed_stream_is_its_deltas() -> None:
    """The finishing event is `response.completed`; names are not needed, since the type is in the data."""
    signals, collector = heard(
        event("response.created", response=response("in_progress")),
        event("response.reasoning_summary_text.delta", output_index=0, delta="hm"),
        event("response.function_call_arguments.delta", output_index=1, delta="{}"),
        delta("Hel", 2),
        delta("lo.", 2),
        event("response.output_text.done", output_index=2, content_index=0, text="Hello."),
        event("response.completed", response=response(usage=USAGE)),
    )

    assert signals == [Signal.NOTHING] * 6 + [Signal.FINISH]
    assert collector.reply() == Reply(text="Hello.", complete=True, usage=Usage(7, 3, 10))
    assert collector.ended


def test_parts_and_messages_stand_on_lines_of_their_own() -> None:
    """In the order of the output, as in the whole reply and as in the history that a client sends back."""
    done = event("response.output_text.done", output_index=2, content_index=0, text="four")
    _, collector = heard(
        delta("thr", 1, 0), delta("one", 0, 0), delta("two", 0, 1), delta("ee", 1, 0), done,
        event("response.completed", response=response()),
    )  # fmt: skip
    whole = response(
        "completed", message(text_part("one"), text_part("two")), message(text_part("three"), text_part("four"))
    )

    assert collector.reply().text == "one\ntwo\nthree\nfour"
    assert collector.reply() == OPENAI_RESPONSES.parse_reply(json.dumps(whole).encode(), text_chars_max=100)


def test_a_refusal_is_what_was_said() -> None:
    """By deltas, or by the `done` event where there were none."""
    by_delta = heard(event("response.refusal.delta", delta="No"), event("response.refusal.done", refusal="No"))
    by_done = heard(event("response.refusal.done", output_index=0, content_index=0, refusal="No"))

    assert by_delta[1].reply().text == by_done[1].reply().text == "No"


def test_without_deltas_the_finished_response_tells() -> None:
    """Some servers send nothing in between."""
    _, collector = heard(event("response.completed", response=response("completed", message(text_part("Hi.")))))

    assert collector.reply() == Reply(text="Hi.", complete=True)


def test_an_incomplete_response_is_all_there_will_be() -> None:
    """It ran into its token limit, as a chat completion with finish_reason `length`."""
    signals, collector = heard(
        delta("Once"), event("response.incomplete", response=response("incomplete", usage=USAGE))
    )

    assert signals[-1] is Signal.FINISH
    assert collector.reply() == Reply(text="Once", complete=True, usage=Usage(7, 3, 10))
    assert collector.ended


@pytest.mark.parametrize(
    "failure",
    [
        event("response.failed", response=response("failed")),
        event("response.cancelled", response=response("cancelled")),
        event("error", code="server_error", message="No.", param=None),
        event("error", "error", error={"message": "No."}),
        event(None, "error", message="No."),
        event(None, error={"message": "No."}),
        Event(name="error", data=b"gone", end=0),
    ],
)
def test_a_failed_stream_is_not_complete(failure: Event) -> None:
    """Not even if a finishing event follows."""
    signals, collector = heard(delta("Hel"), failure, event("response.completed", response=response()))

    assert signals == [Signal.NOTHING, Signal.FAILURE, Signal.NOTHING]
    assert not collector.reply().complete


def test_only_the_first_finish_counts_and_a_terminator_is_harmless() -> None:
    """The format has no `[DONE]`, but some servers send one; without a finishing event it finishes nothing."""
    done = Event(name="", data=b"[DONE]", end=0)
    completed = event("response.completed", response=response())

    assert heard(delta("a"), done)[0] == [Signal.NOTHING] * 2
    assert heard(delta("a"), completed, done, completed)[0] == [
        Signal.NOTHING, Signal.FINISH, Signal.NOTHING, Signal.NOTHING,
    ]  # fmt: skip


def test_long_texts_are_cut_and_marked() -> None:
    """The collector keeps a bounded part."""
    _, collector = heard(delta("abc"), delta("def"), delta("g", 1), text_chars_max=5)

    assert (collector.reply().text, collector.reply().truncated) == ("abcde", True)


def test_surrogate_halves_that_meet_become_one_character() -> None:
    """A provider may cut an emoji in two deltas."""
    halves = [
        b'{"type":"response.output_text.delta","delta":"\\ud83d"}',
        b'{"type":"response.output_text.delta","delta":"\\ude42"}',
    ]
    _, collector = heard(*[Event(name="", data=half, end=0) for half in halves])

    assert collector.reply().text == "🙂"


# --- whole replies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reply"),
    [
        (response("completed", message(text_part("Hi.")), usage=USAGE), Reply("Hi.", True, Usage(7, 3, 10))),
        (response("incomplete", message(text_part("Hi"))), Reply("Hi", True)),
        (response("completed", message({"type": "refusal", "refusal": "No"})), Reply("No", True)),
        (response("completed", {"type": "reasoning"}, {"type": "function_call"}), Reply("", True)),
        ({"output": [message(text_part("Hi."))]}, Reply("Hi.", True)),
        (response("queued"), Reply("", False)),
        (response("in_progress", message(text_part("H"))), Reply("H", False)),
        (response("cancelled"), Reply("", False)),
        (response("failed", error={"code": "server_error", "message": "No."}), Reply("", False)),
        (response("failed", message(text_part("H"))), Reply("H", False)),
        (response("completed", message(text_part("a" * 101))), Reply("a" * 100, True, truncated=True)),
        ({"object": "list", "data": []}, None),
        ([], None),
    ],
)
def test_whole_replies(value: Any, reply: Reply | None) -> None:
    """Complete when the status says that no more is to come."""
    assert OPENAI_RESPONSES.parse_reply(json.dumps(value).encode(), text_chars_max=100) == reply


_NAMES = st.sampled_from(["type", "response", "output", "content", "text", "usage", "status", "error", "delta", "n"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=10,
)
_KINDS = st.sampled_from(["response.completed", "response.output_text.delta", "response.refusal.done", "message", "x"])
_EVENTS = st.dictionaries(_NAMES, _JSON, max_size=5).flatmap(
    lambda value: st.just(value) | _KINDS.map(lambda kind: {**value, "type": kind})
)


@given(st.lists(_EVENTS.map(json.dumps).map(str.encode) | st.binary(max_size=20), max_size=5))
def test_any_json_is_heard_without_a_crash(events: list[bytes]) -> None:
    """Streams and whole replies alike."""
    heard(*[Event(name="", data=data, end=0) for data in events], text_chars_max=3)[1].reply()
    for data in events:
        OPENAI_RESPONSES.parse_reply(data, text_chars_max=3)


# --- where a stream stands --------------------------------------------------------------------------------------------


def test_the_splitter_finds_what_any_splitter_finds() -> None:
    """And tells on the way where the stream stands."""
    splitter = ResponsesSplitter(event_bytes_max=100)
    stands = [OpenEvent.read(splitter.open_line())]
    for chunk in (b'data: {"sequence_number": 4}\n\n', b"event: x", b"\n", b"data: {}", b"\n", b"\n"):
        splitter.feed(chunk)
        stands.append(OpenEvent.read(splitter.open_line()))

    assert stands == [
        OpenEvent(),
        OpenEvent(next_number=5),
        OpenEvent(next_number=5, line=b"event: x"),
        OpenEvent(next_number=5),
        OpenEvent(next_number=5, line=b"data: {}"),
        OpenEvent(next_number=5, has_data=True),
        OpenEvent(),
    ]


def test_an_overflowed_splitter_knows_nothing() -> None:
    """Neither where the stream stands nor its number."""
    splitter = ResponsesSplitter(event_bytes_max=10)
    splitter.feed(b"data: " + b"x" * 20)

    assert splitter.overflowed
    assert splitter.open_line() is None


@pytest.mark.parametrize("number", ["null", "-1", '"7"', "1e400", "9" * 30, "9" * 5000])
def test_odd_numbers_are_no_numbers(number: str) -> None:
    """The error event must be writable whatever came before."""
    splitter = ResponsesSplitter(event_bytes_max=10_000)
    splitter.feed(b'data: {"sequence_number":' + number.encode() + b"}\n\n")
    sent = OPENAI_RESPONSES.error_event("No.", status=502, code="cut", open_line=splitter.open_line())

    assert b'"sequence_number":0,' in sent
