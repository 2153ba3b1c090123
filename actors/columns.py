"""Columns of numbers, one per memory or chunk: arrays that grow, and reading one without a list of all its numbers.

Pure; knows nothing of what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FIRST_CAPACITY = 16
_PIECE_ITEMS = 4_096


def items(numbers: NDArray[np.integer]) -> Iterator[int]:
    """The numbers of an array one by one, without a list of them all."""
    for start in range(0, len(numbers), _PIECE_ITEMS):
        yield from numbers[start : start + _PIECE_ITEMS].tolist()


class Column:
    """A numpy array that grows by doubling."""

    __slots__ = ("_array", "_length")

    def __init__(self, dtype: type) -> None:
        self._array: NDArray[Any] = np.zeros(_FIRST_CAPACITY, dtype=dtype)
        self._length = 0

    @classmethod
    def of(cls, values: Any, dtype: type) -> Column:
        """A column that begins with these."""
        column = cls(dtype)
        column._length = len(values)
        column._array = np.zeros(max(len(values), _FIRST_CAPACITY), dtype)
        column._array[: len(values)] = values
        return column

    def append(self, value: int) -> None:
        """One more."""
        if self._length == len(self._array):
            self._array = np.concatenate([self._array, np.zeros_like(self._array)])
        self._array[self._length] = value
        self._length += 1

    def __setitem__(self, position: int, value: int) -> None:
        self._array[position] = value

    @property
    def view(self) -> NDArray[Any]:
        """All of them, as a view that is valid until the next `append`."""
        return self._array[: self._length]
