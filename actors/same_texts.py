"""Which memories of a vault have the same text, but for case, punctuation and spacing.

Owns a number for each text, by position of the memory; numbers are from 0 without gaps and outlive their last memory.
Texts are known by their digests only. Must never look at who said them, or when.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from actors.columns import Column
from actors.holdings import Holding
from models.text import content_hash, normalised

_NONE = -1


def text_digest(content: str) -> bytes:
    """16 bytes that texts share which differ only in case, punctuation and spacing."""
    return content_hash(normalised(content))


class SameTexts:
    """A number for the text at each position."""

    __slots__ = ("_number", "_numbers")

    def __init__(self) -> None:
        self._number = Column(np.int32)
        self._numbers: dict[bytes, int] = {}  # by digest

    @classmethod
    def of(cls, digests: Iterable[bytes], *, count: int) -> SameTexts:
        """Of so many texts by their `text_digest`, as if they had been added one after the other."""
        texts = cls()
        numbers = texts._numbers
        given = (numbers.setdefault(digest, len(numbers)) for digest in digests)
        texts._number = Column.of(np.fromiter(given, np.int32, count), np.int32)
        return texts

    def add(self, content: str) -> None:
        """The text at the next position."""
        self._number.append(self._numbers.setdefault(text_digest(content), len(self._numbers)))

    @property
    def view(self) -> NDArray[np.int32]:
        """The numbers by position, valid until the next change."""
        numbers: NDArray[np.int32] = self._number.view
        return numbers

    @property
    def digests(self) -> list[bytes]:
        """The digest of each number."""
        return list(self._numbers)

    def same_as(self, content: str) -> NDArray[np.bool_]:
        """By position, whether the text there is this one."""
        same: NDArray[np.bool_] = self.view == self._numbers.get(text_digest(content), _NONE)
        return same

    def same_as_any(self, contents: Iterable[str]) -> NDArray[np.bool_]:
        """By position, whether the text there is one of these."""
        wanted = np.zeros(len(self._numbers) + 1, np.bool_)
        wanted[[self._numbers.get(text_digest(content), _NONE) for content in contents]] = True
        wanted[_NONE] = False
        same: NDArray[np.bool_] = wanted[self.view]
        return same

    def holdings(self) -> list[Holding]:
        """What takes time to be freed."""
        return [self._numbers]
