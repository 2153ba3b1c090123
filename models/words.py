"""Words of a text for the lexical leg of recall: found, folded and stemmed.

Owns what counts as the same word. Must never look at anything but the text, and stays linear in its length.
Postings are rebuilt from the texts when a vault is loaded and this file is not the one that they were made by, so these
rules may change between versions.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator

import Stemmer

TERM_CHARACTERS_MAX = 64
"""A longer token is cut: nobody types it again, and it must not fill the memory of a vault."""

TOKENS_KNOWN_MAX = 32_768
"""Tokens whose terms are remembered, in at most 10 MB; then all are forgotten. Conversations know 90 % of their tokens
after a few hundred messages, and a text is read in a third of the time."""

_STOP_WORDS_TEXT = """
    a an and are as at be been being but by can could did do does doing for from had has have having he her
    hers him his how if in into is it its just of on or should so than that the their theirs them then there
    these they this those to too was were what when where which while who whom whose why will with would she
    s t d m ll re ve aren couldn didn doesn don hadn hasn haven isn shouldn wasn weren won wouldn
"""
STOP_WORDS = frozenset(_STOP_WORDS_TEXT.split())
"""English words without a topic: dropping them gives LoCoMo any@1 41.3 instead of 38.8. "I", "my", "you" and
their like are kept: who is meant tells a person's own statements from advice given to them (BEAM any@5 71.5
instead of 67.0, LoCoMo unchanged)."""

# Scripts written without spaces, and Hangul, which glues particles to its nouns: indexed in pairs.
_SYLLABIC = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U000323af"
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_SOUTH_EAST_ASIAN = "\u0e01-\u0e4e\u0e80-\u0ece\u1000-\u103f\u1050-\u109f\u1780-\u17dd"
# Vowel signs and accents within words; \w lacks some of them.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0dff"

# What a token is can be told from the token alone, so its terms can be remembered. In this order: pairs, a number with
# its thousands apart, a plain word (the most frequent by far, and the fastest to match), any other word.
_TOKEN = re.compile(
    rf"""
      [{_SYLLABIC}{_KANA}{_SOUTH_EAST_ASIAN}]++
    | \d{{1,3}}(?:,\d{{3}}(?!\d))++
    | [A-Za-z]++(?![\w{_MARKS}]|[.@'\u2019]\w)
    | (?:(?![{_SYLLABIC}{_KANA}{_SOUTH_EAST_ASIAN}])(?:\w|[{_MARKS}]|[.@'\u2019](?=\w)))++
    """,
    re.VERBOSE,
)
_PAIRS = re.compile(f"[{_SYLLABIC}{_KANA}{_SOUTH_EAST_ASIAN}]")
_PART = re.compile(rf"(?:[^\W_]|[{_MARKS}])+")
_SINGLE = re.compile(f"[{_SYLLABIC}]")
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)", re.ASCII)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_ACCENT = re.compile("[\u0300-\u036f]+")
_local = threading.local()


def terms(text: str) -> list[str]:
    """The terms of a text in their order, repeated as often as they occur.

    Words are case-folded, freed of accents, cut to `TERM_CHARACTERS_MAX` and reduced by Porter's stemmer (M.
    F. Porter, "An algorithm for suffix stripping", 1980). A compound gives its parts, and itself too where it
    looks like an
    identifier: `foo_bar`, `v1.2`, `ann@example.org`. Scripts without spaces give pairs of neighbouring
        characters;
    ideographs and Hangul also give single ones, which are often whole words.
    """
    found: list[str] = []
    for token in _TOKEN.findall(_folded(text)):
        found += _known[token]
    return found


class _Known(dict[str, tuple[str, ...]]):
    """The terms of tokens. Words come again and again, and are stemmed once; a long token is nobody's word."""

    def __missing__(self, token: str) -> tuple[str, ...]:
        stems = tuple(_stemmer().stemWords([term for term in _unstemmed(token) if term not in STOP_WORDS]))
        if len(token) <= TERM_CHARACTERS_MAX:
            if len(self) >= TOKENS_KNOWN_MAX:
                self.clear()
            self[token] = stems
        return stems


_known = _Known()  # shared by threads: each step on it is one of the interpreter's


def _unstemmed(token: str) -> Iterable[str]:
    if _PAIRS.match(token):
        return _pair_terms(token)
    if "," in token:
        return [token.replace(",", "")[:TERM_CHARACTERS_MAX]]
    if token.isascii() and token.isalpha() and (len(token) == 1 or token[1:].islower() or token.isupper()):
        return [token.lower()[:TERM_CHARACTERS_MAX]]
    return _word_terms(token)


def _folded(text: str) -> str:
    """Compatibility forms unified (full-width letters, ligatures), accents of letters dropped, case kept."""
    if text.isascii():
        return text
    decomposed = _ACCENT.sub("", unicodedata.normalize("NFKD", text))
    return unicodedata.normalize("NFC", decomposed)


def _word_terms(token: str) -> Iterator[str]:
    """The parts of a compound word, and the compound where it looks like an identifier."""
    parts = [part for run in _PART.findall(token) for part in _CAMEL.split(run)]
    for part in parts:
        ordinal = _ORDINAL.fullmatch(part)
        yield (ordinal[1] if ordinal else part).casefold()[:TERM_CHARACTERS_MAX]
    if len(parts) > 1 and "'" not in token and "\u2019" not in token and _is_identifier(token):
        yield token.casefold()[:TERM_CHARACTERS_MAX]


def _is_identifier(token: str) -> bool:
    """Whether a compound is one name rather than words that a missing space has joined."""
    return "." not in token or "@" in token or "_" in token or any(map(str.isdigit, token))


def _pair_terms(run: str) -> list[str]:
    """Neighbouring pairs of a run of one of the scripts without spaces, and its ideographs and syllables
    alone."""
    if len(run) == 1:
        return [run]
    return [run[start : start + 2] for start in range(len(run) - 1)] + _SINGLE.findall(run)


def _stemmer() -> Stemmer.Stemmer:
    """This thread's stemmer; its objects hold state and may not be shared between threads."""
    stemmer = getattr(_local, "stemmer", None)
    if stemmer is None:
        stemmer = _local.stemmer = Stemmer.Stemmer("porter")
    return stemmer
