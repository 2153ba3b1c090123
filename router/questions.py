"""What a conversation asks of memory: the words to search by, and the text whose meaning to search by.

Owns how earlier turns help a last turn that leans on them. English rules for pronouns and openings; in other languages
only very short turns lean. Must never let earlier turns outweigh the last one: taking over the whole of them costs more
than it brings wherever the last turn says something itself (`bench/follow_ups.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from models.text import clean
from models.words import terms
from router.providers.base import Turn

QUESTION_CHARACTERS_MAX = 2_000
"""Longer questions are cut from the front: the model reads 256 tokens, and what is asked usually comes last."""

TERSE_TERMS_MAX = 2
"""A last turn with so few words ("And in Vienna?") is about what the turn before asked, but for its own words."""

EARLIER_TURNS_MAX = 3
"""Of the user, in which a name is looked for."""

_LEANING = re.compile(
    r"""^\W*(?: and | but | or | so | then | also | (?:what|how)\ about | why | (?:what|who|where)\ else )\b
    | \b(?: it | its | that | this | those | these | they | them | their | theirs | he | him | his | she | her | hers
    | there | then | ones? )\b""",
    re.IGNORECASE | re.VERBOSE,
)
_WORD = re.compile(r"[^\W_][\w'\u2019-]*")
_SENTENCE_END = re.compile(r"[.!?\u2026:\n]")
_PERSONS = frozenset(terms("I me my mine we us our you your I'm I've I'd I'll"))


class Asked(msgspec.Struct, frozen=True):
    """A question.

    Attributes:
        text: what was asked, as it was said; "" for nothing.
        words: what to search by words.
        meaning: what to embed.
    """

    text: str
    words: str
    meaning: str


def plainly(text: str) -> Asked:
    """A question that leans on nothing."""
    return Asked(text=text, words=text, meaning=text)


def asked_of(turns: Sequence[Turn]) -> Asked:
    """What the last user turn asks, with what it needs of the user's turns before it.

    A turn without a word of its own is asked together with the one before it. A terse one takes over the words of that
    one, and one with a pronoun the names in it, to be searched by words; its meaning stays its own.
    """
    said = [text for turn in turns if turn.role == "user" and (text := clean(turn.text))]
    if not said:
        return plainly("")
    last, earlier = said[-1][-QUESTION_CHARACTERS_MAX:], [text[-QUESTION_CHARACTERS_MAX:] for text in said[:-1]]
    own = terms(last)
    before = next((text for text in reversed(earlier) if terms(text)), "")
    if not before:
        return plainly(last)
    if not own:
        both = f"{before}\n{last}"
        return Asked(text=last, words=both, meaning=both)
    if len(own) <= TERSE_TERMS_MAX:
        return Asked(text=last, words=f"{last}\n{before}", meaning=last)
    if not _LEANING.search(last):
        return plainly(last)
    recent = reversed(earlier[-EARLIER_TURNS_MAX:])
    found = next((names for text in recent if (names := names_in(text))), [])
    return Asked(text=last, words=" ".join([last, *found]), meaning=last)


def names_in(text: str) -> list[str]:
    """The capitalised words of a text that do not begin a sentence, each once."""
    found: dict[str, None] = {}
    end = 0
    for match in _WORD.finditer(text):
        begins_sentence = end == 0 or bool(_SENTENCE_END.search(text, end, match.start()))
        end = match.end()
        if match[0][0].isupper() and not begins_sentence and set(terms(match[0])) - _PERSONS:
            found[match[0]] = None
    return list(found)
