"""What a text shows at a glance."""

from __future__ import annotations

import pytest

from models.traits import (
    ASKS,
    ASKS_NUMBER,
    ASKS_PREFERENCE,
    ASKS_WHEN,
    ENDS_ASKING,
    EXACT_MAX,
    LOOKED_AT_CHARACTERS,
    PREFERS,
    TALKING,
    TELLS_NUMBER,
    TELLS_TIME,
    exact_of,
    speaker_of,
    traits_of,
    wants_of,
)
from models.words import terms


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


@pytest.mark.parametrize(
    "text", ["I prefer tea.", "My favourite is blue.", "I can\u2019t stand olives.", "She always walks."]
)
def test_a_text_shows_that_somebody_likes_something_or_does_not(text: str) -> None:
    assert traits_of(text) & PREFERS


@pytest.mark.parametrize(
    ("question", "asks"),
    [
        ("What do I like to drink?", True),
        ("Which herb do I dislike?", True),
        ("What should I avoid?", True),
        ("What does the house look like?", False),
        ("Where is the key?", False),
    ],
)
def test_a_question_asks_what_somebody_likes(question: str, asks: bool) -> None:
    assert bool(wants_of(question) & ASKS_PREFERENCE) == asks


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ('Who said "Time is a thief"?', ("time is a thief",)),
        ("Who said \u201ctime is a thief\u201d?", ("time is a thief",)),
        ("Where is order 4471-B?", ("4471-b",)),
        ("What does foo_bar() do with config.prod.yaml?", ("foo_bar", "config.prod.yaml")),
        ("Who is ann.lee@example.org at 10.0.3.17?", ("ann.lee@example.org", "10.0.3.17")),
        ("Is 2.4.1 out?", ("2.4.1",)),
        ("It's a well-known fact, e.g. on the 5th of May 2023 at 9:30 or 10am, isn't it?", ()),
        ("shoe-size", ("shoe-size",)),
        (" 'Cello'? ", ("cello",)),
        ("?!", ()),
        ("", ()),
    ],
)
def test_a_question_wants_quoted_phrases_and_identifiers_word_for_word(question: str, wanted: tuple[str, ...]) -> None:
    assert exact_of(question) == wanted


def test_not_much_is_wanted_word_for_word() -> None:
    assert len(exact_of(" ".join(f"item_{number}" for number in range(1_000)))) == EXACT_MAX


def test_terms_of_talking_are_stemmed_as_terms_are() -> None:
    assert TALKING.issuperset(terms("mentioned conversations reminded told"))
