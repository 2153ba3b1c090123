"""The latest questions, and the memories that say the same."""

from __future__ import annotations

import numpy as np
import pytest

from actors.recent_questions import CHARACTERS_MAX, QUESTIONS_MAX, RecentQuestions
from models.memory import Memory
from models.messages import Recall, Scope

DIMS = 4


def vector(number: int) -> bytes:
    return np.full(DIMS, number, "<f4").tobytes()


def question(text: str, number: int | None = None, *, model_id: str = "m", meaning: bool = True) -> Recall:
    """A question with a vector of this number, or without one."""
    return Recall(
        text=text, vector=b"" if number is None else vector(number), scope=Scope(), chunks_max=1, now_ms=0,
        model_id=model_id, meaning=text if meaning else None,
    )  # fmt: skip


def memory(content: str, *spans: tuple[int, int]) -> Memory:
    return Memory(seq=1, role="user", content=content, timestamp_ms=0, stored_ms=0, source="proxy", spans=spans)


def whole(content: str) -> Memory:
    return memory(content, (0, len(content)))


def test_a_memory_of_the_same_words_has_the_vector_of_the_question_once() -> None:
    asked = RecentQuestions()
    asked.note(question("Where is it?", 1), model_id="m")
    assert asked.take(whole("Where is it")) is None
    vectors = asked.take(whole("Where is it?"))
    assert vectors is not None
    assert vectors.dtype == np.float16
    assert vectors.tolist() == [[1.0] * DIMS]
    assert asked.take(whole("Where is it?")) is None


def test_a_memory_of_several_chunks_or_of_none_has_vectors_of_its_own() -> None:
    asked = RecentQuestions()
    asked.note(question("Where? There.", 1), model_id="m")
    assert asked.take(memory("Where? There.", (0, 6), (7, 13))) is None
    assert asked.take(memory("Where? There.")) is None
    assert asked.take(whole("Where? There.")) is not None


@pytest.mark.parametrize(
    "passed_over",
    [
        question("Why?"),
        question("Why?", 1, model_id="other"),
        question("Why?", 1, meaning=False),
        question("y" * (CHARACTERS_MAX + 1), 1),
    ],
    ids=["not embedded", "of another model", "with another prefix", "too long for one chunk"],
)
def test_what_was_not_embedded_as_a_memory_would_be_is_passed_over(passed_over: Recall) -> None:
    asked = RecentQuestions()
    asked.note(passed_over, model_id="m")
    assert asked.take(whole(passed_over.text)) is None


def test_a_question_may_be_as_long_as_a_chunk() -> None:
    asked = RecentQuestions()
    asked.note(question("y" * CHARACTERS_MAX, 1), model_id="m")
    assert asked.take(whole("y" * CHARACTERS_MAX)) is not None


def test_only_the_latest_are_kept() -> None:
    asked = RecentQuestions()
    for number in range(QUESTIONS_MAX):
        asked.note(question(f"{number}?", number), model_id="m")
    asked.note(question("0?", 0), model_id="m")
    asked.note(question("new?", 1), model_id="m")
    assert asked.take(whole("1?")) is None
    assert all(asked.take(whole(f"{text}?")) is not None for text in ("0", "2", "new"))
