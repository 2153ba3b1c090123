"""What a text shows at a glance: that it asks, names a time, a number or a liking, who speaks; what a question wants.

Owns the patterns, which are English but for question marks, quotes and identifiers: a text in another language shows
less, never something else. Must never look at more of a text than its beginning and its end: it bounds the time.
"""

from __future__ import annotations

import re

from models.words import terms

ASKS = 1
"""A question stands somewhere in the text."""

ENDS_ASKING = 2
"""The text ends with a question: what comes next answers it."""

TELLS_TIME = 4
"""A word that says when: "yesterday", "in May", "last week", "2022", "9:30"."""

TELLS_NUMBER = 8
"""A number, in digits or words."""

PREFERS = 16
"""What somebody likes, does not, or always does."""

ASKS_WHEN = 1
"""Of a question: it wants a time."""

ASKS_NUMBER = 2
"""Of a question: it wants a number."""

ASKS_PREFERENCE = 4
"""Of a question: what somebody likes, or does not."""

LOOKED_AT_CHARACTERS = 1_000
"""Of a text; what is longer tells many things, and none of them by a single word."""

SPEAKER_CHARACTERS_MAX = 32

ONE_WORD_CHARACTERS_MAX = 120
"""A longer text without a space is no word: of Chinese, or of code."""

EXACT_MAX = 8
"""Phrases and identifiers of one question that count: each is looked for in a few hundred texts."""

TALKING = frozenset(terms("mention say said tell told talk discuss conversation chat remind remember recall ask"))
"""Terms of a question that speak of the talk, not of what it was about: a memory need not hold them."""

_QUESTION_MARK = re.compile("[?\uff1f\u061f]")
_ENDING = re.compile("[?\uff1f\u061f]\\W*$")
_ENDING_CHARACTERS = 16
_TIME = re.compile(
    r"""\b(?: yesterday | today | tonight | tomorrow | last | ago | next | this | recently | since
    | (?:mon|tues|wednes|thurs|fri|satur|sun)day
    | january | february | march | april | may | june | july | august | september | october | november | december
    | week(?:end|s)? | months? | years? | days? | \d{4} | \d+(?:st|nd|rd|th) | \d+:\d+ )\b""",
    re.IGNORECASE | re.VERBOSE,
)
_NUMBER = re.compile(
    r"""\d | \b(?: one | two | three | four | five | six | seven | eight | nine | ten | once | twice | few | several
    | dozen | couple | hundred | thousand )\b""",
    re.IGNORECASE | re.VERBOSE,
)
_PREFERENCE = re.compile(
    r"""\b(?: prefer(?:s|red|ence|ences)? | favou?rites? | likes? | dislikes? | loves? | loved | hates? | enjoys?
    | always | never | rather | usually | can(?:\ ?not|['\u2019]t)\ stand )\b""",
    re.IGNORECASE | re.VERBOSE,
)
_ASKS_PREFERENCE = re.compile(
    r"""\b(?: prefer(?:s|ence|ences)? | favou?rites? | (?<!look\ )(?<!feel\ )likes? | dislikes? | loves? | hates?
    | enjoys? | avoid | recommend | suggest )\b""",
    re.IGNORECASE | re.VERBOSE,
)
_EXACT = re.compile(
    r"""["\u201c\u201e\u00ab]\ ?([^"\u201c\u201d\u201e\u00ab\u00bb]{2,120}?)\ ?["\u201d\u201c\u00bb]
    | (?<![\w@.:-]) (?!\d+(?:st|nd|rd|th|am|pm)\b) (?=[\w.@:-]*[^\W\d_]) (?=[\w.@:-]*[\d_@] | \w+\.\w)
        (\w[\w.@:-]{2,}\w)
    | (\d+(?:[.:-]\d+){2,})""",
    re.VERBOSE,
)
_EDGES = re.compile(r"\A[\W_]+|[\W_]+\Z")
_ASKS_WHEN = re.compile(
    r"""\b(?: (?:since\ )?when | what\ (?:date|day|month|year|time) | which\ (?:month|year|day)
    | how\ long | how\ (?:many|much)\ (?:days|weeks|months|years|time) )\b""",
    re.IGNORECASE | re.VERBOSE,
)
_ASKS_NUMBER = re.compile(
    r"""\b(?: how\ (?:many|much|often|old|long|far|big|large|fast)
    | what\ (?:number|percentage|price|score|version|amount|average) )\b""",
    re.IGNORECASE | re.VERBOSE,
)


def traits_of(text: str) -> int:
    """What a text shows, as the sum of `ASKS`, `ENDS_ASKING`, `TELLS_TIME`, `TELLS_NUMBER` and `PREFERS`."""
    start = text[:LOOKED_AT_CHARACTERS]
    traits = ASKS if _QUESTION_MARK.search(start) else 0
    if ends_asking(text):
        traits |= ASKS | ENDS_ASKING
    if _TIME.search(start):
        traits |= TELLS_TIME
    if _NUMBER.search(start):
        traits |= TELLS_NUMBER
    if _PREFERENCE.search(start):
        traits |= PREFERS
    return traits


def ends_asking(text: str) -> bool:
    """Whether a text ends with a question: `ENDS_ASKING` alone, which is quicker."""
    return bool(_ENDING.search(text[-_ENDING_CHARACTERS:]))


def wants_of(question: str) -> int:
    """What a question wants, as the sum of `ASKS_WHEN`, `ASKS_NUMBER` and `ASKS_PREFERENCE`."""
    start = question[:LOOKED_AT_CHARACTERS]
    wants = ASKS_WHEN * bool(_ASKS_WHEN.search(start)) + ASKS_NUMBER * bool(_ASKS_NUMBER.search(start))
    return wants + ASKS_PREFERENCE * bool(_ASKS_PREFERENCE.search(start))


def exact_of(question: str) -> tuple[str, ...]:
    """What a question wants word for word, casefolded: quoted phrases, and identifiers such as `4471-B`, `foo_bar`,
    `ann@example.org`, `2.4.1`. A question of one word is a look-up: stores that keep values by keys ask like that."""
    words = question.split(maxsplit=1)
    if len(words) == 1 and len(words[0]) <= ONE_WORD_CHARACTERS_MAX:
        return tuple(filter(None, (_EDGES.sub("", words[0]).casefold(),)))
    found = ("".join(groups).casefold() for groups in _EXACT.findall(question[:LOOKED_AT_CHARACTERS]))
    return tuple(dict.fromkeys(found))[:EXACT_MAX]


def speaker_of(text: str) -> str:
    """The name before the first colon of a text such as "Ann Smith: hello", or "" where it begins otherwise."""
    end = text.find(": ", 0, SPEAKER_CHARACTERS_MAX)
    if end <= 0 or not text[0].isupper() or "\n" in text[:end]:
        return ""
    return text[:end]
