"""Texts that instruct the model instead of telling something: what of a memory looks planted.

Owns the names of what is found. The rules (`models.screening_rules`) look for the forms that memory poisoning takes:
orders to forget one's rules, orders for all times, marks of other roles, text that nobody sees or that is encoded, data
carried out in URLs, sources to be trusted from now on, silence towards the user. They know the usual words in a dozen
languages, and no paraphrase: whoever words it another way passes. Must stay linear in the length of the text.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator

from models.look_alikes import without_invisible
from models.screening_rules import RULES_OF_ASCII, RULES_OF_TEXTS, folded, word_starts

FLAGS = (
    "override",
    "standing_order",
    "role_marker",
    "hidden_text",
    "encoded_text",
    "exfiltration",
    "promotion",
    "secrecy",
)
"""What a memory may be flagged as. A stored memory has the sum of 2**place: names keep their places for ever."""

ENCODED_RUNS_MAX = 32
"""Runs that may be encoded text are looked into as often; a text with more is data."""

ENCODED_CHARACTERS_MAX = 4_096
"""Of one such run."""

_FLAG_OF_A_REGION = re.compile("\U0001f3f4[\U000e0061-\U000e007a\U000e0030-\U000e0039]{2,6}\U000e007f")
_HIDDEN = re.compile(
    "[\U000e0000-\U000e007f]"  # tags: ASCII that nobody sees
    "|[\U000e0100-\U000e01ef\ufe00-\ufe0d]{2,}"  # selectors: bytes that nobody sees
    "|[\u202d\u202e]"  # the order of what is read is not that of what is seen
    "|[\u200b\u200c\u200d\u2060-\u2064\ufeff]{6,}"
)
_INSIDE_A_WORD = re.compile("[a-z][\u200b\u2060-\u2064\ufeff\u200c\u200d]+(?=[a-z])", re.IGNORECASE)
_INSIDE_WORDS_MAX = 3  # copied web pages have a few

_RUN = re.compile(r"(?<![a-zA-Z0-9+/_-])[a-zA-Z0-9+/_-]{32,}={0,2}")
_HEX = re.compile(r"[0-9a-f]+\Z", re.IGNORECASE)
_READABLE = re.compile(rb"[\x20-\x7e\n]+\Z")
_WORDS_LEAST = 4


def flags_of(text: str) -> int:
    """What a text is flagged as: the sum of 2**place in `FLAGS`, 0 for nothing."""
    found = {"hidden_text"} if _hides(text) else set()
    seen = folded(without_invisible(text))
    starts = word_starts(seen)
    for rule in RULES_OF_ASCII if seen.isascii() else RULES_OF_TEXTS:
        if rule.flag in found or (rule.starts and rule.starts.isdisjoint(starts)):
            continue
        if _has_any(seen, rule.needs) and rule.pattern.search(seen):
            found.add(rule.flag)
    if _is_encoded(text):
        found.add("encoded_text")
    return sum(1 << FLAGS.index(flag) for flag in found)


def flag_names(flags: int) -> tuple[str, ...]:
    """The names of flags; those that a later release may have stored are passed over."""
    return tuple(name for place, name in enumerate(FLAGS) if flags >> place & 1)


def _has_any(text: str, words: tuple[str, ...]) -> bool:
    for word in words:  # noqa: SIM110 - a generator takes eight times as long, and this is most of the time
        if word in text:
            return True
    return False


def _hides(text: str) -> bool:
    """Whether there is text in it that nobody sees."""
    if text.isascii():
        return False
    text = _FLAG_OF_A_REGION.sub("", text)
    return bool(_HIDDEN.search(text)) or sum(1 for _ in _INSIDE_A_WORD.finditer(text)) > _INSIDE_WORDS_MAX


def _is_encoded(text: str) -> bool:
    """Whether there is English, or the like, in it in base64 or hexadecimal."""
    return any(_reads(decoded) for run in _runs(text) for decoded in _decoded(run))


def _runs(text: str) -> Iterator[str]:
    for count, match in enumerate(_RUN.finditer(text)):
        if count == ENCODED_RUNS_MAX:
            return
        yield match[0][:ENCODED_CHARACTERS_MAX]


def _decoded(run: str) -> Iterable[bytes]:
    """A run of characters as the bytes that it may stand for."""
    digits = run.removeprefix("0x")
    if _HEX.match(digits):
        yield bytes.fromhex(digits[: len(digits) // 2 * 2])
    letters = run.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        yield base64.b64decode(letters[: len(letters) // 4 * 4], validate=True)
    except binascii.Error:
        return


def _reads(data: bytes) -> bool:
    return len(data.split()) >= _WORDS_LEAST and bool(_READABLE.match(data))
