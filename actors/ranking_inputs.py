"""What ranking reads: a vault in columns, and a question as it meets them.

Owns these types only. Memories are numbered from 0 in the order of storing; no text passes here.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors.index import DenseMatch
from actors.layout import Layout, LayoutCache, layout_of
from actors.lexicon import LexicalMatch
from models.time_intervals import TimeInterval


class VaultArrays(msgspec.Struct, frozen=True, eq=False):
    """What ranking knows of a vault.

    Attributes:
        chunk_memory: per chunk, the number of its memory; never decreases.
        previous: per memory, the one before it in its session that still exists, or -1.
        next: per memory, the one after it in its session that still exists, or -1.
        session: per memory, the number of its session, from 0.
        characters: per memory, the length of its text.
        text_number: per memory, a number that memories with the same normalised text share; from 0 without gaps.
        timestamp_ms: per memory, when it was said.
        layouts: what knows the layout of these columns from earlier; None where nobody does.
    """

    chunk_memory: NDArray[np.int32]
    previous: NDArray[np.int32]
    next: NDArray[np.int32]
    session: NDArray[np.int32]
    characters: NDArray[np.int32]
    text_number: NDArray[np.int32]
    timestamp_ms: NDArray[np.int64]
    layouts: LayoutCache | None = None

    def layout(self) -> Layout:
        """What of these columns stays as it is while no memory comes."""
        find = layout_of if self.layouts is None else self.layouts.of
        return find(self.chunk_memory, self.characters, self.text_number)


class Described(msgspec.Struct, frozen=True, eq=False):
    """What the texts of some memories show.

    Attributes:
        traits: uint8 per memory, as `models.traits.traits_of`.
        speaker_terms: uint64 per memory: which of the question's terms name who speaks, as `LexicalMatch.held`.
        exact: float32 per memory, 0..1: the share of what the question wants word for word that is there; None where
            it wants nothing so.
    """

    traits: NDArray[np.uint8]
    speaker_terms: NDArray[np.uint64]
    exact: NDArray[np.float32] | None = None


Describe = Callable[[NDArray[np.integer]], Described]
"""Tells what the memories with these numbers show. Asked once a ranking, for a few hundred."""


class RankQuery(msgspec.Struct, frozen=True, eq=False):
    """What is asked.

    Attributes:
        lexical: per chunk, from the lexicon.
        dense: per chunk, from the index; None where the question could not be embedded in time.
        eligible: per memory, whether it may be returned: it exists, and its session is within the scope.
        limit: how many memories are wanted at most; below 1, none.
        preferred_session: its memories get a bonus.
        lexical_background: mean and standard deviation of the scores by words over all that is eligible; None where
            all of that is here and says so itself.
        wants: what the question wants, as `models.traits.wants_of`.
        describe: tells of texts; None where nobody can.
        intervals: times that the question speaks of: memories told then are preferred, never are others left out.
        cohesion: how much neighbours tell of each other, 0..1; None where all that is eligible is here and says so
            itself.
        explain: whether to say what placed each memory.
    """

    lexical: LexicalMatch
    dense: DenseMatch | None
    eligible: NDArray[np.bool_]
    limit: int
    preferred_session: int | None = None
    lexical_background: tuple[float, float] | None = None
    wants: int = 0
    describe: Describe | None = None
    intervals: tuple[TimeInterval, ...] = ()
    cohesion: float | None = None
    explain: bool = False
