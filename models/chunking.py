"""Cutting long texts into chunks that the embedding model can read whole.

Owns where a text is cut. Must never change the text: a chunk is a pair of offsets. Works in linear time.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from typing import Protocol

TOKENS_MAX = 200
"""Tokens of a chunk: the model reads 256, and short chunks are matched more sharply."""

CHARACTERS_PER_TOKEN_MAX = 8
"""Bounds a chunk's characters where the tokeniser folds a very long word into one unknown token."""

SHORT_TEXT_CHARACTERS_MAX = 200
"""A text this short is one chunk without asking the tokeniser: no token is shorter than one character."""

_LEAST_FILL = 0.3  # an earlier border than this share of a full chunk would leave a crumb behind

# A run of marks is entered at its first only, else a long one would be tried again from each: quadratic time.
_ENDS = ".!?\u2026\u061f\u06d4\u0964\u0965\u0589\u1362"  # Latin and its like, Arabic, Urdu, Hindi, Armenian, Amharic
_BORDER = re.compile(
    rf"""
      \n\s*+                                                             # a line or a paragraph ends
    | (?<![{_ENDS}])[{_ENDS}]++ ["'\u201d\u2019)\]*_]*+ (?=\s)           # a sentence ends before white space
    | [\u3002\uff01\uff1f]++ ["'\u201d\u2019\u300d\u300f\uff09]*+        # or, in Chinese and Japanese, without
    """,
    re.VERBOSE,
)
_NOT_SPACE = re.compile(r"\S")


class TokenOffsets(Protocol):
    """What chunking needs of a text encoder."""

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """The (start, end) character offsets of each token of the whole text, in order, without special
        tokens."""
        ...


def chunk_spans(text: str, encoder: TokenOffsets, tokens_max: int = TOKENS_MAX) -> tuple[tuple[int, int], ...]:
    """Cut a text into spans of at most `tokens_max` tokens, on sentence borders where there are any.

    Every character that is not white space lies in exactly one span; spans are ordered, do not overlap, and
    neither start nor end with white space. A sentence that is too long is cut between words, a word that is
    too long anywhere.

    Returns:
        (start, end) character offsets; empty for a text of nothing but white space.
    """
    start, stop = _skip_space(text, 0), len(text.rstrip())
    if start >= stop:
        return ()
    if stop - start <= min(SHORT_TEXT_CHARACTERS_MAX, tokens_max):
        return ((start, stop),)
    token_starts = [token_start for token_start, _ in encoder.token_offsets(text)]
    borders = [match.end() for match in _BORDER.finditer(text)]
    spans = []
    while start < stop:
        end = _chunk_end(text, start, stop, token_starts, borders, tokens_max)
        spans.append((start, start + len(text[start:end].rstrip())))
        start = _skip_space(text, end)
    return tuple(spans)


def _chunk_end(text: str, start: int, stop: int, token_starts: list[int], borders: list[int], tokens_max: int) -> int:
    """Where the chunk that begins at `start` ends: the last border of the best kind within reach."""
    over = bisect_left(token_starts, start) + tokens_max
    reach = token_starts[over] if over < len(token_starts) else stop
    reach = min(max(reach, start + 1), start + tokens_max * CHARACTERS_PER_TOKEN_MAX)
    if reach >= stop:
        return stop
    least = start + int((reach - start) * _LEAST_FILL)
    last = bisect_right(borders, reach) - 1
    if last >= 0 and borders[last] > least:
        return borders[last]
    for position in range(reach, least, -1):
        if text[position].isspace():
            return position
    return reach


def _skip_space(text: str, position: int) -> int:
    """The first position from here on that is not white space, or the text's length."""
    match = _NOT_SPACE.search(text, position)
    return match.start() if match else len(text)
