"""What of a vault's columns stays as it is while no memory comes: found once, not for each question.

Owns which chunks are whose, how brief texts are, and whether any text was said twice. All of that follows from columns
that are only ever appended to; a memory that is deleted or moved changes none of them. Pure: arrays in, arrays out.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SELF_CONTAINED_CHARACTERS = 400
"""Characters from which on a text says what it is about itself."""


class Layout(msgspec.Struct, frozen=True, eq=False):
    """The lasting part of what ranking reads.

    Attributes:
        chunks, memories: how many there are.
        with_chunks: the memories that have any, rising; for each, `first`, the number of its first chunk.
        several: places in `with_chunks` of those with more than one chunk.
        several_chunks: all chunks of those, and `several_first`, where in there each of them begins.
        brief: per memory, `briefness`.
        texts: how many different texts there are.
    """

    chunks: int
    memories: int
    with_chunks: NDArray[np.int32]
    first: NDArray[np.intp]
    several: NDArray[np.intp]
    several_chunks: NDArray[np.intp]
    several_first: NDArray[np.intp]
    brief: Floats
    texts: int

    @property
    def plain(self) -> bool:
        """Whether each memory has exactly one chunk, so that both have the same numbers."""
        return self.chunks == self.memories == len(self.first)

    @property
    def repeats(self) -> bool:
        """Whether a text stands in more than one memory, deleted ones included."""
        return self.memories > self.texts

    def best(self, values: NDArray[Any], reduce: np.ufunc = np.maximum) -> NDArray[Any]:
        """Of the chunks of each memory that has any: the greatest value, or what else `reduce` makes of them."""
        if self.plain:
            return values
        found: NDArray[Any] = values.take(self.first)
        if len(self.several):
            found[self.several] = reduce.reduceat(values[self.several_chunks], self.several_first)
        return found

    def of_memories(
        self,
        values: NDArray[Any],
        eligible: NDArray[np.bool_],
        *,
        otherwise: Any,
        reduce: np.ufunc = np.maximum,
        all_eligible: bool,
    ) -> NDArray[Any]:
        """`best` per memory of the vault, and `otherwise` for those that are not eligible or have no chunks."""
        if self.plain and all_eligible:
            return values
        result = self.best(values, reduce)
        if len(self.with_chunks) < self.memories:
            found, result = result, np.full(self.memories, otherwise, values.dtype)
            result[self.with_chunks] = found
        if not all_eligible:
            result = np.where(eligible, result, values.dtype.type(otherwise))
        return result


class LayoutCache:
    """The layout of one vault, found anew when a memory has come."""

    __slots__ = ("_layout", "found")

    def __init__(self) -> None:
        self._layout: Layout | None = None
        self.found = 0

    def of(
        self, chunk_memory: NDArray[np.int32], characters: NDArray[np.int32], text_number: NDArray[np.int32]
    ) -> Layout:
        """The layout of these columns, which are at least as long as they were the last time, and begin as they did."""
        known = self._layout
        if known is None or (known.chunks, known.memories) != (len(chunk_memory), len(characters)):
            known = self._layout = layout_of(chunk_memory, characters, text_number, begins=known)
            self.found += 1
        return known


def layout_of(
    chunk_memory: NDArray[np.int32],
    characters: NDArray[np.int32],
    text_number: NDArray[np.int32],
    *,
    begins: Layout | None = None,
) -> Layout:
    """The layout of a vault.

    Args:
        chunk_memory: per chunk, the number of its memory; never decreases.
        characters: per memory, the length of its text.
        text_number: per memory, a number that memories with the same text share; from 0 without gaps.
        begins: the layout of the first of these memories, so that only the others are looked at.
    """
    known = _EMPTY if begins is None else begins
    chunk_memory = chunk_memory[known.chunks :]
    first = np.flatnonzero(np.diff(chunk_memory, prepend=np.int32(-1)))
    counts = np.diff(first, append=len(chunk_memory))
    several = np.flatnonzero(counts > 1)
    of_several = counts[several]
    several_first = np.cumsum(of_several) - of_several
    shifts = np.repeat(first[several] - several_first, of_several)
    found = Layout(
        chunks=known.chunks + len(chunk_memory),
        memories=len(characters),
        with_chunks=chunk_memory[first],
        first=known.chunks + first,
        several=len(known.with_chunks) + several,
        several_chunks=known.chunks + np.arange(len(shifts)) + shifts,
        several_first=len(known.several_chunks) + several_first,
        brief=briefness(characters[known.memories :]),
        texts=max(known.texts, int(text_number[known.memories :].max(initial=-1)) + 1),
    )
    return found if begins is None else _joined(begins, found)


_LASTING = ("with_chunks", "first", "several", "several_chunks", "several_first", "brief")


def _joined(begins: Layout, others: Layout) -> Layout:
    """The columns of the first memories, and behind them those of the others."""
    columns = {name: np.concatenate([getattr(begins, name), getattr(others, name)]) for name in _LASTING}
    return msgspec.structs.replace(others, **columns)


def briefness(characters: NDArray[np.int32]) -> Floats:
    """1 for texts up to `SELF_CONTAINED_CHARACTERS`, less for longer ones."""
    return np.minimum(1, np.float32(SELF_CONTAINED_CHARACTERS) / np.maximum(characters, 1)).astype(np.float32)


_EMPTY = Layout(
    chunks=0,
    memories=0,
    with_chunks=np.zeros(0, np.int32),
    first=np.zeros(0, np.intp),
    several=np.zeros(0, np.intp),
    several_chunks=np.zeros(0, np.intp),
    several_first=np.zeros(0, np.intp),
    brief=np.zeros(0, np.float32),
    texts=0,
)
