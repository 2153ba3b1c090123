"""BM25 over chunks: exact at any time, whatever was removed."""

from __future__ import annotations

import gc
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import lexicon
from actors.lexicon import K1, QUERY_TERMS_MAX, B, Lexicon

WORDS = st.lists(st.sampled_from("abcde"), max_size=6)


def filled(*chunks: str) -> Lexicon:
    """A lexicon of chunks given as words with spaces."""
    result = Lexicon()
    for chunk in chunks:
        result.add(chunk.split())
    return result


def bm25(chunks: dict[int, list[str]], number: int, query: list[str]) -> tuple[float, float]:
    """Score and coverage by the book, for one of the living chunks."""
    average = sum(map(len, chunks.values())) / len(chunks) or 1.0
    score = covered = total = 0.0
    for term in dict.fromkeys(query):
        holding = sum(term in words for words in chunks.values())
        weight = math.log(1 + (len(chunks) - holding + 0.5) / (holding + 0.5))
        total += weight
        frequency = chunks[number].count(term)
        if frequency:
            norm = K1 * (1 - B + B * len(chunks[number]) / average)
            score += weight * frequency * (K1 + 1) / (frequency + norm)
            covered += weight
    return score, covered / total if total else 0.0


@given(st.lists(WORDS, max_size=100), st.sets(st.integers(0, 99)), WORDS, st.booleans())
def test_scores_are_those_of_the_formula_over_the_living_chunks(
    added: list[list[str]], removed: set[int], query: list[str], purged: bool
) -> None:
    subject = Lexicon()
    assert [subject.add(words) for words in added] == list(range(len(added)))
    for number in removed:
        if number < len(added):
            subject.remove(number)
    while purged and not subject.purge(2):
        pass
    living = {number: words for number, words in enumerate(added) if number not in removed}
    match = subject.match(query)
    assert len(match.scores) == len(match.coverage) == len(subject) == len(added)
    for number in range(len(added)):
        score, coverage = bm25(living, number, query) if number in living else (0.0, 0.0)
        assert match.scores[number] == pytest.approx(score, rel=1e-4)
        assert match.coverage[number] == pytest.approx(coverage, rel=1e-4)
    for term in "abcde":
        assert subject.document_frequency(term) == sum(term in words for words in living.values())


def test_a_chunk_added_after_a_query_is_found() -> None:
    subject = filled("tea", "coffee")
    assert subject.scores(["milk"]).tolist() == [0, 0]
    subject.add(["milk"])
    assert subject.scores(["milk"])[2] > 0


def test_a_rare_word_counts_more_than_a_common_one() -> None:
    scores = filled("dog cat", "dog fish", "dog bird").scores(["dog", "fish"])
    assert scores.argmax() == 1
    assert (scores > 0).all()


def test_words_about_the_talk_itself_need_not_be_held() -> None:
    """Whoever asks what they said about a dog wants the dog."""
    subject = filled("dog", "cat", "said")
    assert subject.match(["said", "dog"]).coverage.tolist() == [1, 0, 0]
    assert subject.match(["said"]).coverage.tolist() == [0, 0, 0]
    assert subject.match(["said"]).scores[2] > 0


def test_an_unknown_word_lowers_the_coverage() -> None:
    subject = filled("dog", "cat")
    assert subject.match(["dog"]).coverage[0] == 1
    assert subject.match(["dog", "unicorn"]).coverage[0] < 0.5


def test_a_repeated_word_of_a_question_counts_once() -> None:
    subject = filled("dog", "cat dog")
    assert subject.scores(["dog", "dog"]).tolist() == subject.scores(["dog"]).tolist()


def test_only_the_first_distinct_words_of_a_question_count() -> None:
    subject = filled("dog", "cat")
    many = [f"w{number}" for number in range(QUERY_TERMS_MAX)]
    assert subject.scores([*many, "dog"]).tolist() == [0, 0]
    assert subject.scores([*many[1:], "dog"])[0] > 0


def test_a_very_frequent_word_keeps_its_chunk() -> None:
    subject = filled("dog " * 1000, "cat")
    assert subject.scores(["dog"]).argmax() == 0


def test_removing_twice_changes_nothing() -> None:
    subject = filled("dog", "dog cat", "fish")
    subject.remove(0)
    once = subject.scores(["dog", "fish"]).tolist()
    subject.remove(0)
    assert subject.scores(["dog", "fish"]).tolist() == once


@pytest.mark.parametrize("number", [-1, 2])
def test_a_chunk_that_never_was_cannot_be_removed(number: int) -> None:
    with pytest.raises(IndexError):
        filled("dog", "cat").remove(number)


def test_a_step_of_a_purge_ends_with_the_word_that_is_in_very_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexicon, "PURGE_POSTINGS_MAX", 100)
    subject = filled("rare", *["often"] * 120, "seldom")
    subject.remove(0)
    subject.remove(1)
    steps = 1
    while not subject.purge(1_000):
        steps += 1
    assert steps == 2


def test_a_large_lexicon_is_not_purged_for_the_sake_of_a_few_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexicon, "PURGE_POSTINGS_MAX", 100)
    subject = filled(*["often"] * 128)
    subject.remove(0)
    assert subject.purge(1)
    subject.remove(1)
    subject.remove(2)
    assert subject._postings_count == 128
    assert subject.purge(1)
    assert subject._postings_count == 125


def test_a_purge_gives_the_memory_back_in_bounded_steps() -> None:
    subject = filled(*(f"only{number}" for number in range(1000)))
    full = subject.nbytes
    for number in range(500):
        subject.remove(number)
    steps = 1
    while not subject.purge(100):
        steps += 1
    assert steps == 10
    assert subject.nbytes < full * 0.6
    assert subject.document_frequency("only3") == 0
    assert subject.purge()


def test_the_garbage_collector_does_not_look_at_words_of_one_chunk() -> None:
    """Most words of a vault stand in one chunk only: an array for each would be most of its objects."""
    subject = filled("dog", "cat", "cat dog", "bird")
    tracked = [term for term, held in subject._postings.items() if gc.is_tracked(held)]
    assert tracked == ["dog", "cat"]


def test_what_a_word_takes_follows_its_chunks() -> None:
    """Whichever way it came to have one, two, one and none of them."""
    one, two = filled("dog", "cat"), filled("dog", "cat dog")
    removed = filled("dog", "cat dog", "cat")
    for subject, number in ((two, 0), (removed, 1)):
        before = subject.nbytes
        subject.remove(number)
        assert subject.purge()
        assert subject.nbytes < before
        assert Lexicon.of(subject.copy().postings()).nbytes == subject.nbytes
    assert removed.nbytes == one.nbytes
    removed.remove(0)
    removed.remove(2)
    assert removed.purge()
    assert removed.nbytes == Lexicon().nbytes


def test_an_empty_lexicon_answers() -> None:
    assert len(Lexicon().match(["dog"]).scores) == 0
    assert filled("").scores(["dog"]).tolist() == [0]


def test_more_chunks_than_a_posting_can_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexicon, "CHUNKS_MAX", 2)
    subject = filled("dog", "cat")
    with pytest.raises(OverflowError):
        subject.add(["fish"])


def test_scores_are_float32() -> None:
    match = filled("dog").match(["dog"])
    assert match.scores.dtype == match.coverage.dtype == np.float32


@given(st.lists(WORDS, max_size=60), st.sets(st.integers(0, 59)), st.booleans(), WORDS)
def test_a_lexicon_of_postings_is_that_of_its_living_chunks(
    added: list[list[str]], removed: set[int], purged: bool, query: list[str]
) -> None:
    subject = Lexicon()
    for words in added:
        subject.add(words)
    for number in removed & set(range(len(added))):
        subject.remove(number)
    while purged and not subject.purge(2):
        pass
    copied = subject.copy()
    subject.add(["a", "new"])  # a thread may read the copy later
    again = Lexicon.of(copied.postings())
    expected = Lexicon()
    for number, words in enumerate(added):
        if number not in removed:
            expected.add(words)
    for _ in range(70):  # beyond the room of either
        assert again.add(["a", "b"]) == expected.add(["a", "b"])
    again.remove(0)
    expected.remove(0)
    assert again.scores(query).tolist() == expected.scores(query).tolist()
    assert (len(again), again.nbytes) == (len(expected), expected.nbytes)
