"""Cleaning, small talk, near-duplicates, hashes."""

# ruff: noqa: RUF001 - letters and marks that look alike are the point

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rendering import CLOSING_SENTENCE, CONTEXT_CLOSE, CONTEXT_OPEN, ContextItem, render_context
from models.text import clean, content_hash, embedding_text, is_small_talk, normalised
from models.times import parse_time_zone

UTC = parse_time_zone("UTC")


def a_block(*texts: str) -> str:
    """A block as a client gets it."""
    return render_context([ContextItem("user", text, 0) for text in texts], 0, UTC)


def test_nul_and_lone_surrogates_become_replacement_characters() -> None:
    assert clean("a\0b\ud800c😀") == "a\ufffdb\ufffdc😀"


def test_surrounding_white_space_is_stripped() -> None:
    assert clean(" \n\u3000 hello \t\n") == "hello"


def test_a_block_and_its_closing_sentence_are_taken_out() -> None:
    assert clean(f"{a_block('I like tea')}\n\nWhat do I like?") == "What do I like?"


def test_several_blocks_are_taken_out() -> None:
    assert clean(f"one {a_block('x')} two {a_block('y', 'z')} three") == "one two three"


def test_a_block_without_our_closing_sentence_is_taken_out() -> None:
    assert clean(f"before {CONTEXT_OPEN}anything{CONTEXT_CLOSE} after") == "before  after"


def test_an_unterminated_block_loses_its_memories_but_not_the_text_after_them() -> None:
    block = f"{CONTEXT_OPEN}\n[MEMORY - just now (Thu, Jan 1, 12:00 AM)] a\n  b\n\n[MEMORY - x] c\n"
    assert clean(f"{block}My question") == "My question"


def test_an_unterminated_tag_alone_is_taken_out() -> None:
    assert clean(f"what does {CONTEXT_OPEN} mean?") == "what does  mean?"


def test_the_closing_sentence_alone_is_ordinary_text() -> None:
    assert clean(CLOSING_SENTENCE) == CLOSING_SENTENCE


@given(st.lists(st.text(), max_size=3), st.text(alphabet="abc ?"))
def test_cleaning_undoes_injection_whatever_the_memories_say(memories: list[str], question: str) -> None:
    assert clean(f"{a_block(*memories)}\n\n{question}") == question.strip()


@given(st.lists(st.sampled_from([CONTEXT_OPEN, CONTEXT_CLOSE, "\n", " ", "x", "[MEMORY - ", "  ", CLOSING_SENTENCE])))
def test_no_opening_tag_survives(pieces: list[str]) -> None:
    assert CONTEXT_OPEN not in clean("".join(pieces))


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        " " * 1_000_000,
        CONTEXT_OPEN * 60_000,
        f"{CONTEXT_OPEN}\n" * 60_000,
        (CONTEXT_OPEN + CONTEXT_CLOSE) * 30_000,
        f"{CONTEXT_OPEN}" + "\n" * 1_000_000,
        f"{CONTEXT_OPEN}\n[MEMORY - x] y\n\n\n" * 20_000,
        "\0" * 1_000_000,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_huge_texts_of_awkward_shapes_pass_through_every_function(text: str) -> None:
    """Each shape made an earlier or a careless version quadratic: then this would take minutes."""
    cleaned = clean(text)
    assert len(cleaned) in {0, 1_000_000}
    assert is_small_talk(cleaned) == (not cleaned)
    assert len(normalised(cleaned)) <= len(cleaned)


@pytest.mark.parametrize(
    "text",
    ["ok", "Ok!!", "thanks!", "Yes please.", "lol", "😀👍", "...", "Thank you so much, that’s great!", "Danke schön",
     "merci beaucoup", "¡Muchas gracias!", "Спасибо", "谢谢", "ありがとう！", "네", "I don't know"],
)  # fmt: skip
def test_small_talk_is_recognised(text: str) -> None:
    assert is_small_talk(text)


@pytest.mark.parametrize(
    "text",
    [
        "ok 5",
        "7",
        "Bob",
        "Thanks, Bob",
        "Will",
        "Nice",
        "yes, I am allergic to nuts",
        "no meat",
        "ok " * 40,
        "³",
        "Paris?",
    ],
)
def test_a_number_a_name_or_an_unknown_word_is_never_small_talk(text: str) -> None:
    assert not is_small_talk(text)


@given(st.text(max_size=30), st.integers())
def test_no_text_with_a_number_is_small_talk(text: str, number: int) -> None:
    assert not is_small_talk(f"{text} {number}")


def test_near_duplicates_have_the_same_normalised_text() -> None:
    assert normalised("I live in  Lisbon!") == normalised("i live in lisbon") == normalised("Ｉ live in\nLisbon.")


def test_different_texts_differ_when_normalised() -> None:
    assert len({normalised(text) for text in ("a b", "ab", "😀", "👍", "x 1", "x 2")}) == 6


@pytest.mark.parametrize(("one", "other"), [("वह गया", "वह गयी"), ("กิน", "กัน"), ("I feel 😀", "I feel 😢")])
def test_vowel_signs_and_pictographs_tell_texts_apart(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


def test_the_hash_is_of_the_exact_text() -> None:
    assert content_hash("a") == content_hash("a") != content_hash("A")
    assert len(content_hash("\ud800")) == 16


def test_the_model_reads_the_chunk_as_it_is() -> None:
    assert embedding_text("assistant", "hello") == "hello"
