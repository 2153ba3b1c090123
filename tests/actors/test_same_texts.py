"""Texts that differ only in case, punctuation and spacing share a number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.same_texts import SameTexts, text_digest

TEXTS = st.lists(st.sampled_from(["My dog.", "my  DOG", "My cat.", "a", "A!", ""]), max_size=20)


def filled(contents: list[str]) -> SameTexts:
    """One after the other."""
    texts = SameTexts()
    for content in contents:
        texts.add(content)
    return texts


@given(TEXTS, TEXTS)
def test_positions_are_found_by_what_their_texts_have_in_common(contents: list[str], asked: list[str]) -> None:
    """Also by texts that nobody has said."""
    texts, digests = filled(contents), [text_digest(content) for content in contents]
    wanted = {text_digest(content) for content in asked}

    assert texts.same_as_any(asked).tolist() == [digest in wanted for digest in digests]
    for content in asked:
        assert texts.same_as(content).tolist() == [digest == text_digest(content) for digest in digests]


@given(TEXTS)
def test_numbers_are_without_gaps_and_the_same_made_at_once(contents: list[str]) -> None:
    """As an imprint does it."""
    texts, digests = filled(contents), [text_digest(content) for content in contents]
    at_once = SameTexts.of(digests, count=len(digests))

    assert texts.view.tolist() == at_once.view.tolist()
    assert set(texts.view.tolist()) == set(range(len(texts.digests)))
    assert [texts.digests[number] for number in texts.view.tolist()] == digests
