"""Texts as a reader sees them: without what nobody sees, and with look-alikes of ASCII characters told apart.

Owns which characters are invisible and which resemble others. Whoever looks for marks and tags looks through this: a
tag with a letter of another alphabet, or with a space of no width inside, is the same tag to a language model. Must
stay linear in the length of the text, whatever it contains.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import chain

# Control characters but for tabs and what ends lines; then, of Unicode's default-ignorable characters, all but the
# joiners and the selectors of emoji: soft hyphens, fillers, spaces of no width, marks and overrides of direction, tags,
# selectors of variants.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]+"
)
_JOINERS = "\u200c\u200d"
_SELECTORS = "\ufe0e\ufe0f"
_JOINING = re.compile(f"[{_JOINERS}{_SELECTORS}]")
# Joiners belong between letters of scripts that join, and between pictographs; selectors behind pictographs and before
# key caps. Beside ASCII letters and spaces, and in runs, they
# hide something.
_MISPLACED = re.compile(
    rf"(?<![^\x00-\x7f\s])[{_JOINERS}]+ | [{_JOINERS}]+(?![^\x00-\x7f\s]) | [{_JOINERS}]{{2,}}"
    rf"| (?<![^\x00-\x7f\s])[{_SELECTORS}]+(?!\u20e3) | [{_SELECTORS}]{{2,}}",
    re.VERBOSE,
)

# Blocks of characters that Unicode's compatibility forms turn into one ASCII character each: tokenisers that normalise
# (NFKC) do so, too. Raised and small letters, letter-like and circled ones, small and full-width forms, mathematical.
_COMPATIBLE_BLOCKS = (
    range(0x02B0, 0x02E5),
    range(0x1D2C, 0x1D6B),
    range(0x2070, 0x209D),
    range(0x2100, 0x2150),
    range(0x2160, 0x2180),
    range(0x24B6, 0x24EA),
    range(0xFE10, 0xFE20),
    range(0xFE50, 0xFE70),
    range(0xFF01, 0xFF5F),
    range(0x1D400, 0x1D800),
)
_RESEMBLING = {
    "a": "\u0430\u0251\u03b1\u1d00", "b": "\u0432\u0184\u13cf\u0299", "c": "\u0441\u03f2\u1d04",
    "d": "\u0501\u217e\u1d05", "e": "\u0435\u04bd\u212e\u1d07", "f": "\u03dd\ua799", "g": "\u0581\u0261\u0262",
    "h": "\u04bb\u043d\u029c", "i": "\u0456\u03b9\u0131\u04cf\u026a", "j": "\u0458\u03f3\u1d0a",
    "k": "\u043a\u03ba\u1d0b", "l": "\u04c0\u217c\u029f", "m": "\u043c\u1d0d", "n": "\u0578\u03b7\u0274",
    "o": "\u043e\u03bf\u0585\u1d0f", "p": "\u0440\u03c1\u1d18", "q": "\u051b\u0566", "r": "\u0433\u0280",
    "s": "\u0455\ua731", "t": "\u0442\u03c4\u1d1b", "u": "\u057d\u03c5\u1d1c", "v": "\u0475\u03bd\u1d20",
    "w": "\u051d\u0461\u1d21", "x": "\u0445\u03c7", "y": "\u0443\u04af\u03b3\u028f", "z": "\u1d22",
    "A": "\u0410\u0391", "B": "\u0412\u0392", "C": "\u0421\u03f9", "E": "\u0415\u0395", "H": "\u041d\u0397",
    "I": "\u0406\u0399", "J": "\u0408", "K": "\u041a\u039a", "M": "\u041c\u039c", "N": "\u039d", "O": "\u041e\u039f",
    "P": "\u0420\u03a1", "S": "\u0405", "T": "\u0422\u03a4", "X": "\u0425\u03a7", "Y": "\u0423\u03a5", "Z": "\u0396",
    "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u207b\u30fc", "/": "\u2044\u2215", "|": "\u2223\u01c0",
    "_": "\u203f",
}  # fmt: skip


def _table() -> dict[int, str]:
    """By code point, the ASCII character that a character is a form of, or resembles."""
    table = {}
    for code in chain.from_iterable(_COMPATIBLE_BLOCKS):
        form = unicodedata.normalize("NFKC", chr(code))
        if len(form) == 1 and " " < form <= "~":
            table[code] = form
    return table | {ord(one): letter for letter, others in _RESEMBLING.items() for one in others}


_SHADOWS = _table()
# Most texts have none: then nothing is translated. Beyond the basic plane single characters would make the search slow.
_SHADOWED = re.compile(f"[{''.join(chr(code) for code in _SHADOWS if code < 0x10000)}\U0001d400-\U0001d7ff]+")


def shadow(text: str) -> str:
    """The text with ASCII characters in place of what looks like them; character for character, so places agree."""
    return text if text.isascii() else _SHADOWED.sub(lambda run: run[0].translate(_SHADOWS), text)


def without_invisible(text: str) -> str:
    """The text without characters that nobody sees.

    Joiners stay between letters that join and between pictographs, as do the selectors of pictographs.
    """
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    text = _INVISIBLE.sub("", text)
    if text.isascii() or not _JOINING.search(text):
        return text
    kept, position = [], 0
    for match in _MISPLACED.finditer(shadow(text)):
        kept.append(text[position : match.start()])
        position = match.end()
    return "".join([*kept, text[position:]]) if position else text
