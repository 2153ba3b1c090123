"""What a conversation asks of memory."""

from __future__ import annotations

import pytest

from router.providers.base import Turn
from router.questions import QUESTION_CHARACTERS_MAX, Asked, asked_of, names_in, plainly


def turns(*texts: str) -> list[Turn]:
    """A conversation that begins with the user."""
    return [Turn(role="user" if at % 2 == 0 else "assistant", text=text) for at, text in enumerate(texts)]


def test_the_question_is_the_last_thing_the_user_said() -> None:
    """Not the history, not a prefilled reply."""
    question = "Which museums in town are open on Mondays?"
    assert asked_of(turns("I live in Graz.", "Nice!", question, "Let me see: ")) == plainly(question)


def test_a_terse_question_takes_over_the_words_before_it() -> None:
    """ "And in Vienna?" alone does not say what is asked; what the assistant said is not what the user asks."""
    asked = asked_of(turns("When is the museum in Graz open?", "From ten to six.", "And in Vienna?"))
    assert asked.words == "And in Vienna?\nWhen is the museum in Graz open?"
    assert asked.text == asked.meaning == "And in Vienna?"


def test_a_question_without_a_word_is_asked_with_the_one_before_it() -> None:
    """There is nothing else to search by; turns that say nothing are passed over."""
    before = "Which museum did I like in Graz?"
    both = f"{before}\nWhy there?"
    expected = Asked(text="Why there?", words=both, meaning=both)
    assert asked_of(turns(before, "The Kunsthaus.", "There?", "Yes.", "Why there?")) == expected


def test_a_pronoun_brings_the_names_before_it() -> None:
    """To the words alone, from the nearest turn that has some."""
    question = "When did she start her pottery class with the neighbours?"
    asked = asked_of(turns("What does Caroline do in Lisbon?", "Pottery.", "I see, sounds lovely.", "Yes.", question))
    assert asked.words == f"{question} Caroline Lisbon"
    assert asked.meaning == question


def test_a_question_that_stands_alone_takes_nothing_over() -> None:
    """A change of subject must not be searched by the old one."""
    question = "Which documents do I need for my tax return?"
    assert asked_of(turns("What does Caroline do in Lisbon?", "Pottery.", question)) == plainly(question)


def test_blocks_of_ours_and_the_beginning_of_long_questions_do_not_count() -> None:
    """What is asked usually comes last."""
    block = "<memory_context>\n[MEMORY - just now (x)] old\n</memory_context>"
    assert asked_of(turns(block)) == asked_of([]) == plainly("")
    assert asked_of([Turn(role="assistant", text="Hello")]) == plainly("")
    asked = asked_of(turns("x " * 5_000 + "Where is my passport?"))
    assert len(asked.words) == QUESTION_CHARACTERS_MAX
    assert asked.words.endswith("Where is my passport?")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Did Anna meet Bob in New York? Anna did.", ["Anna", "Bob", "New", "York"]),
        ("What do I like? Coffee. I'm sure I do.", []),
        ("", []),
        ("\u6211\u559c\u6b22\u732b", []),
    ],
)
def test_names_are_capitalised_words_inside_sentences(text: str, names: list[str]) -> None:
    """Each once; "I" is none."""
    assert names_in(text) == names
