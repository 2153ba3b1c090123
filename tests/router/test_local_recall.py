"""The built-in model quotes the best memory first, word for word, in shapes that the OpenAI SDK reads."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from router.local_recall import (
    ITEMS_MAX,
    NOTHING_FOUND,
    RecalledItem,
    completion,
    completion_events,
    reply_text,
    split_pieces,
)

_DOG = RecalledItem(text="My dog is called Rex.", role="user", when="Wed, Jun 3", timestamp_ms=3)
_CAT = RecalledItem(text="I also have\na cat.", role="user", when="Fri, Jun 5", timestamp_ms=5)
_TIP = RecalledItem(text="Walk Rex twice a day.", role="assistant", when="Mon, Jun 1", timestamp_ms=1)
_OPTIONS: Any = {"prompt": "What is my dog called?", "completion_id": "chatcmpl-1", "created_s": 7}


def test_one_memory_is_one_sentence() -> None:
    """Who said it, when, and the words."""
    assert reply_text([_DOG]) == 'You told me on Wed, Jun 3: "My dog is called Rex."'
    assert reply_text([_TIP]) == 'I told you on Mon, Jun 1: "Walk Rex twice a day."'


def test_no_memory_is_said_honestly() -> None:
    """No invention."""
    assert reply_text([]) == NOTHING_FOUND


def test_the_best_comes_first_and_the_newest_is_marked() -> None:
    """Others follow in the given order."""
    assert reply_text([_DOG, _TIP, _CAT]).split("\n") == [
        'You told me on Wed, Jun 3: "My dog is called Rex."',
        "",
        "Also in your memories:",
        '- Mon, Jun 1, I said: "Walk Rex twice a day."',
        '- Fri, Jun 5, the newest, you said: "I also have a cat."',
    ]
    assert reply_text([_CAT, _TIP]).startswith(
        'You told me on Fri, Jun 5: "I also have\na cat." (the newest on this)\n'
    )


def test_repeated_and_endless_memories_do_not_fill_the_reply() -> None:
    """Equal texts count once, others are shortened, and the list ends."""
    repeated = RecalledItem(text=" my DOG is called Rex. ", role="user", when="Tue", timestamp_ms=2)
    many = [RecalledItem(text=f"{n} " + "x" * 5000, role="user", when="Tue", timestamp_ms=n) for n in range(20)]

    assert reply_text([_DOG, repeated]) == reply_text([_DOG])
    assert reply_text([_DOG, *many]).count("\n- ") == ITEMS_MAX - 1
    assert len(reply_text([_DOG, *many])) < 2000


@given(st.text())
def test_the_best_memory_is_verbatim(text: str) -> None:
    """Whatever it holds."""
    item = RecalledItem(text=text, role="user", when="Tue", timestamp_ms=1)

    assert reply_text([item, _DOG]).startswith(f'You told me on Tue: "{text}"')


def test_a_whole_completion_is_one_for_the_sdk() -> None:
    """Validated by the SDK's own model."""
    parsed = ChatCompletion.model_validate(json.loads(completion("Rex.", **_OPTIONS)), strict=True)

    assert parsed.choices[0].message.content == "Rex."
    assert parsed.choices[0].finish_reason == "stop"
    assert parsed.usage is not None
    assert (parsed.usage.prompt_tokens, parsed.usage.completion_tokens, parsed.usage.total_tokens) == (6, 1, 7)


def test_events_are_chunks_for_the_sdk() -> None:
    """Role first, the text in pieces, a finish reason, the terminator."""
    text = reply_text([_DOG, _TIP, _CAT])
    *events, done = completion_events(text, **_OPTIONS, include_usage=False)
    chunks = [ChatCompletionChunk.model_validate_json(event.removeprefix(b"data: ")) for event in events]

    assert done == b"data: [DONE]\n\n"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len(chunks) > 5
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert all(b'"usage"' not in event for event in events)


def test_usage_comes_in_a_chunk_of_its_own_when_asked_for() -> None:
    """Without choices, after the finish reason, and null before."""
    *events, last, _ = completion_events("Rex.", **_OPTIONS, include_usage=True)
    usage = json.loads(last.removeprefix(b"data: "))

    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 7)
    assert all(json.loads(event.removeprefix(b"data: "))["usage"] is None for event in events)


@given(st.text())
@example(" \n")
def test_pieces_join_to_the_text(text: str) -> None:
    """Also when it is only space, or empty."""
    assert "".join(split_pieces(text)) == text
