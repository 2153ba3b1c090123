"""What a text shows at a glance: that it asks, names a time or a number, and who speaks.

Owns the patterns, which are English but for question marks: a text in another language shows less, never something
else. Must never look at more of a text than its beginning and its end: it bounds the time.
"""

from __future__ import annotations

import re

ASKS = 1
"""A question stands somewhere in the text."""

ENDS_ASKING = 2
"""The text ends with a question: what comes next answers it."""

TELLS_TIME = 4
"""A word that says when: "yesterday", "in May", "last week", "2022", "9:30"."""

TELLS_NUMBER = 8
"""A number, in digits or words."""

ASKS_WHEN = 1
"""Of a question: it wants a time."""

ASKS_NUMBER = 2
"""Of a question: it wants a number."""

LOOKED_AT_CHARACTERS = 1_000
"""Of a text; what is longer tells many things, and none of them by a single word."""

SPEAKER_CHARACTERS_MAX = 32

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
    """What a text shows, as the sum of `ASKS`, `ENDS_ASKING`, `TELLS_TIME` and `TELLS_NUMBER`."""
    start = text[:LOOKED_AT_CHARACTERS]
    traits = ASKS if _QUESTION_MARK.search(start) else 0
    if ends_asking(text):
        traits |= ASKS | ENDS_ASKING
    if _TIME.search(start):
        traits |= TELLS_TIME
    if _NUMBER.search(start):
        traits |= TELLS_NUMBER
    return traits


def ends_asking(text: str) -> bool:
    """Whether a text ends with a question: `ENDS_ASKING` alone, which is quicker."""
    return bool(_ENDING.search(text[-_ENDING_CHARACTERS:]))


def wants_of(question: str) -> int:
    """What a question wants, as the sum of `ASKS_WHEN` and `ASKS_NUMBER`."""
    start = question[:LOOKED_AT_CHARACTERS]
    return ASKS_WHEN * bool(_ASKS_WHEN.search(start)) + ASKS_NUMBER * bool(_ASKS_NUMBER.search(start))


def speaker_of(text: str) -> str:
    """The name before the first colon of a text such as "Ann Smith: hello", or "" where it begins otherwise."""
    end = text.find(": ", 0, SPEAKER_CHARACTERS_MAX)
    if end <= 0 or not text[0].isupper() or "\n" in text[:end]:
        return ""
    return text[:end]
