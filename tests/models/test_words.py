"""Terms of the lexical leg."""

# ruff: noqa: RUF001 - letters and marks that look alike are the point

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.lexicon import Lexicon
from models import words
from models.words import TERM_CHARACTERS_MAX, terms
from tests.models.multilingual import FACTS

FUNCTION_WORD_TERMS = {
    stem for known in words._FUNCTION_WORDS.values() for word in known for stem in words._stems([word])
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Caroline's dogs were running", ["carolin", "dog", "run"]),
        ("I don't", ["i"]),
        ("foo_bar", ["foo", "bar", "foo_bar"]),
        ("getUserName", ["get", "user", "name", "getusernam"]),
        ("v1.2", ["v1", "2", "v1.2"]),
        ("bob@example.org", ["bob", "exampl", "org", "bob@example.org"]),
        ("https://example.org/x-y", ["http", "exampl", "org", "x", "y"]),
        ("end.Next", ["end", "next"]),
        ("1,000 and 3.14", ["1000", "3", "14", "3.14"]),
        ("on 7th May 2023", ["7", "mai", "2023"]),
        ("Café naïve Straße", ["cafe", "naiv", "strass"]),
        ("ＡＢＣ", ["abc"]),
        ("Привет", ["привет"]),
        ("नमस्ते", ["नमस्त"]),
        ("😀 !", ["😀"]),
        ("👩🏽‍🚀 🇯🇵", ["👩", "🚀", "🇯🇵"]),
        ("HTTPServerError in C++", ["http", "server", "error", "httpservererror", "c++", "c"]),
        ("Sind das Häuser?", ["hauser", "haus"]),
        ("Häuser", ["hauser"]),
        ("синий ёж", ["син", "еж"]),
        ("הכלב", ["הכלב", "כלב"]),
        ("والكِتَاب", ["والكتاب", "كتاب"]),
        ("بالكتاب", ["كتاب"]),
    ],
)
def test_terms_of(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("我的猫叫咪咪", "猫"),
        ("我的猫叫咪咪", "咪咪"),
        ("東京タワーに行きました", "東京タワー"),
        ("ฉันรักแมว", "แมว"),
        ("한국어 집에서", "집"),
    ],
)
def test_scripts_without_spaces_are_searchable(text: str, query: str) -> None:
    assert set(terms(query)) <= set(terms(text))


def test_one_character_of_ordinary_text_is_a_term() -> None:
    assert terms("x y") == ["x", "y"]


def test_terms_are_cut_to_a_length() -> None:
    assert [len(term) for term in terms("b" * 1000)] == [TERM_CHARACTERS_MAX]


@given(st.text())
def test_every_term_is_short_and_not_empty(text: str) -> None:
    assert all(0 < len(term) <= TERM_CHARACTERS_MAX for term in terms(text))


@given(st.lists(st.sampled_from(["dog", "42", "Paris", "v1.2", "猫犬"])))
def test_terms_of_words_are_the_terms_of_each(words: list[str]) -> None:
    assert terms(" ".join(words)) == [term for word in words for term in terms(word)]


@given(st.text(alphabet="abcXYZ0129 .,'@_-"))
def test_case_of_plain_words_does_not_matter(text: str) -> None:
    assert terms(text.lower()) == terms(text.lower().upper().lower())


def test_a_guess_at_the_language_only_adds_terms() -> None:
    """What is found without a guess is found with it, but for function words."""
    for fact, question in (pair for pairs in FACTS.values() for pair in pairs):
        for text in (fact, question):
            tokens = words._TOKEN.findall(words._folded(text))
            without_a_guess = {term for token in tokens for term in words._known[token]}
            assert without_a_guess - set(terms(text)) <= FUNCTION_WORD_TERMS


@pytest.mark.parametrize("language", FACTS)
def test_a_question_finds_its_fact_among_those_of_all_languages(language: str) -> None:
    """By words alone, in a vault where people speak more than twenty languages."""
    facts = [fact for pairs in FACTS.values() for fact, _ in pairs]
    lexicon = Lexicon()
    for fact in facts:
        lexicon.add(terms(fact))
    for fact, question in FACTS[language]:
        scores = lexicon.scores(terms(question))
        own = float(scores[facts.index(fact)])
        assert own > 0, question
        assert int((scores > own).sum()) < 3, question


@pytest.mark.parametrize(
    ("text", "languages"),
    [
        ("What did I say about the cafe de Flore?", ()),
        ("Take care! Talk soon, amigo.", ()),
        ("Und wo wohnt sie jetzt?", ("german",)),
        ("¿Dónde está la estación?", ("spanish",)),
        ("Où est la gare ?", ("french",)),
        ("def de_la(x): return x", ()),
    ],
)
def test_the_language_of_a_text_shows_in_its_function_words(text: str, languages: tuple[str, ...]) -> None:
    assert words._languages(words._TOKEN.findall(words._folded(text))) == languages


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_plain_text_has_the_same_tokens_the_fast_way(text: str) -> None:
    assert words._TOKEN_ASCII.findall(text) == words._TOKEN.findall(text)


def test_threads_do_not_share_a_stemmer() -> None:
    words = [f"running{number} dogs cities" for number in range(200)]
    expected = [terms(word) for word in words]
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: [terms(word) for word in words], range(32)):
            assert found == expected


@pytest.mark.parametrize(
    "shape", ["a", "aB", "a.", "x ", "1,111", ",111", "'", "猫", "é", "a'", "@", "_", "1 "], ids=repr
)
def test_a_million_characters_of_any_shape_are_done_in_one_pass(shape: str) -> None:
    """A backtracking expression would need minutes for some of these."""
    assert all(len(term) <= TERM_CHARACTERS_MAX for term in terms("1" + shape * (300_000 // len(shape)) + "1"))


def test_terms_are_the_same_however_many_tokens_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of tokens is bounded, and no long one is."""
    texts = [f"running shoes{number} v{number}.2 {number},000 \u6771\u4eac{number} {'x' * 99}" for number in range(40)]
    first = [terms(text) for text in texts]
    monkeypatch.setattr(words, "TOKENS_KNOWN_MAX", 7)
    words._known.clear()
    for _ in range(2):
        assert [terms(text) for text in texts] == first
        assert 0 < len(words._known) <= 7
        assert max(map(len, words._known)) <= words.TERM_CHARACTERS_MAX
