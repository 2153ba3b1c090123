"""What a text shows at a glance."""

from __future__ import annotations

import pytest

from models.traits import (
    ASKS,
    ASKS_NUMBER,
    ASKS_WHEN,
    ENDS_ASKING,
    LOOKED_AT_CHARACTERS,
    TELLS_NUMBER,
    TELLS_TIME,
    speaker_of,
    traits_of,
    wants_of,
)


@pytest.mark.parametrize(
    ("text", "traits"),
    [
        ("I am a nurse.", 0),
        ("", 0),
        ("What do you do?", ASKS | ENDS_ASKING),
        ('She asked: "Why?"', ASKS | ENDS_ASKING),
        ("Really? I had no idea.", ASKS),
        ("你做什么工作？", ASKS | ENDS_ASKING),  # noqa: RUF001 - the full-width mark is meant
        ("ما هو عملك؟", ASKS | ENDS_ASKING),
        ("I went there yesterday.", TELLS_TIME),
        ("We moved in March 2022.", TELLS_TIME | TELLS_NUMBER),
        ("I have three cats.", TELLS_NUMBER),
        ("Maybe we will marchand.", 0),
    ],
)
def test_a_text_shows_what_it_asks_and_tells(text: str, traits: int) -> None:
    assert traits_of(text) == traits


def test_only_the_beginning_and_the_end_of_a_text_are_looked_at() -> None:
    filler = "a" * LOOKED_AT_CHARACTERS
    assert traits_of(f"{filler} yesterday 7") == 0
    assert traits_of(f"{filler} is it so?") == ASKS | ENDS_ASKING


@pytest.mark.parametrize(
    ("question", "wants"),
    [
        ("When did Ann move?", ASKS_WHEN),
        ("How long has she been there?", ASKS_WHEN | ASKS_NUMBER),
        ("How many cats does she have?", ASKS_NUMBER),
        ("What does she do?", 0),
    ],
)
def test_a_question_wants_a_time_or_a_number(question: str, wants: int) -> None:
    assert wants_of(question) == wants


@pytest.mark.parametrize(
    ("text", "speaker"),
    [
        ("Ann Smith: hello", "Ann Smith"),
        ("hello: there", ""),
        ("Hello there", ""),
        (": nothing", ""),
        ("A line\nAnn: hello", ""),
        ("A sentence that goes on for quite a while: and then", ""),
        ("", ""),
    ],
)
def test_the_speaker_is_the_name_before_the_first_colon(text: str, speaker: str) -> None:
    assert speaker_of(text) == speaker
