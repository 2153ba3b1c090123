"""Where texts are cut."""

from __future__ import annotations

import re
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.chunking import CHARACTERS_PER_TOKEN_MAX, SHORT_TEXT_CHARACTERS_MAX, chunk_spans

TOKENS_MAX = 20


class WordTokens:
    """One token a word or mark, at most eight characters: a simple stand-in for the tokeniser."""

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Offsets of the tokens."""
        return [match.span() for match in re.finditer(r"\w{1,8}|[^\w\s]", text)]


class OneToken:
    """Everything is one unknown token, as a word of more than a hundred letters is to WordPiece."""

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """One token."""
        return [(0, len(text))]


class NoTokeniser:
    """Must not be asked."""

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Fail."""
        raise AssertionError(text)


PIECES = st.sampled_from(["word", " ", "\n", ". ", "! ", "longer-word", "。", "x" * 300, "\n\n", "?", "😀", '."', "\t"])


def chunks(text: str, tokens_max: int = TOKENS_MAX) -> list[str]:
    """The texts of the chunks."""
    return [text[start:end] for start, end in chunk_spans(text, WordTokens(), tokens_max)]


@given(st.lists(PIECES, max_size=120).map("".join) | st.text(), st.integers(1, 60))
def test_every_character_but_white_space_is_in_exactly_one_span(text: str, tokens_max: int) -> None:
    spans = chunk_spans(text, WordTokens(), tokens_max)
    assert "".join("".join(text[start:end].split()) for start, end in spans) == "".join(text.split())


@given(st.lists(PIECES, max_size=120).map("".join) | st.text())
def test_spans_are_ordered_apart_and_without_white_space_at_their_ends(text: str) -> None:
    end_before = 0
    for start, end in chunk_spans(text, WordTokens(), TOKENS_MAX):
        assert end_before <= start < end
        assert text[start:end] == text[start:end].strip()
        end_before = end


@given(st.lists(PIECES, max_size=120).map("".join))
def test_no_chunk_has_more_tokens_than_allowed(text: str) -> None:
    starts = [start for start, _ in WordTokens().token_offsets(text)]
    for start, end in chunk_spans(text, WordTokens(), TOKENS_MAX):
        assert bisect_left(starts, end) - bisect_left(starts, start) <= TOKENS_MAX


def test_a_short_text_is_one_chunk_without_asking_the_tokeniser() -> None:
    text = "  " + "a " * (SHORT_TEXT_CHARACTERS_MAX // 2)
    assert chunk_spans(text, NoTokeniser()) == ((2, len(text) - 1),)


def test_white_space_alone_has_no_chunk() -> None:
    assert chunk_spans(" \n\t" * 1000, NoTokeniser()) == ()


def test_cuts_fall_on_sentence_borders() -> None:
    text = "One two three four five six seven. " * 12
    assert all(chunk.endswith("seven.") for chunk in chunks(text))


def test_cuts_fall_on_chinese_sentence_borders() -> None:
    assert all(chunk.endswith("。") for chunk in chunks("今天天气很好我去公园散步。" * 40))


@pytest.mark.parametrize("end", ["\u061f", "\u06d4", "\u0964", "\u0589"])
def test_cuts_fall_on_sentence_borders_of_other_scripts(end: str) -> None:
    words = "\u0905\u0915 " * 13
    sentence = f"\u0905 {words}\u0905{end}"
    assert chunks(" ".join([sentence] * 3)) == [sentence] * 3


def test_a_sentence_that_is_too_long_is_cut_between_words() -> None:
    text = "word " * 200
    assert {word for chunk in chunks(text) for word in chunk.split()} == {"word"}


def test_an_early_border_does_not_leave_a_crumb() -> None:
    assert chunks("Hi. " + "word " * 60)[0].startswith("Hi. word")


def test_a_huge_unbroken_token_is_cut_hard() -> None:
    lengths = [end - start for start, end in chunk_spans("x" * 1_000_000, OneToken(), 200)]
    assert sum(lengths) == 1_000_000
    assert max(lengths) == 200 * CHARACTERS_PER_TOKEN_MAX


@pytest.mark.parametrize("shape", [".", '."', "!\n", "\n", " ", "a ", "Hi. ", "。", "\n \n"], ids=repr)
def test_awkward_shapes_are_cut_in_one_pass(shape: str) -> None:
    """A run of marks or blank lines that is tried again from each of its characters would take hours."""
    text = shape * (500_000 // len(shape)) + "x"
    spans = chunk_spans(text, WordTokens(), 200)
    assert spans[-1][1] == len(text)
