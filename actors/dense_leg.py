"""Which chunks the dense leg scores, so that ranking sees what it would see if all were scored.

Owns the choice. Ranking adds up both legs and what stands beside a memory, so the best by meaning are not enough: with
1 000 of them out of 100 000, 8.3 of the first 10 memories were those of an exact search. With 300 by meaning, 300 by
words, and the two memories on both sides of each, all 10 were, for each of 100 questions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from actors.index import DenseMatch
from actors.ranking import VaultArrays
from actors.segmented_index import SegmentedIndex

Floats = NDArray[np.float32]
Chunks = NDArray[np.int64]

CANDIDATES = 300
"""By meaning, and as many by words."""

NEIGHBOURS = 2
"""On each side: as far as ranking looks."""

SCORED_MAX = 16_384
"""Chunks that are scored one by one, 0.2 ms per 1 000. A read of a scope that has no more needs no graph, and must not
use it: among the best of the whole vault there may be none of the scope."""


def dense_match(
    index: SegmentedIndex, query: Floats, *, lexical: Floats, eligible: NDArray[np.bool_], arrays: VaultArrays
) -> DenseMatch:
    """The dense leg of one question.

    Args:
        query: normalised, of shape (dims,).
        lexical: per chunk, the score by words.
        eligible: per memory, whether it may be returned.
    """
    if not index.segments:
        return index.match(query, candidates=CANDIDATES)
    in_scope = eligible[arrays.chunk_memory]
    if np.count_nonzero(in_scope) <= SCORED_MAX:
        return index.match_within(query, np.flatnonzero(in_scope))
    match = index.match(query, candidates=CANDIDATES)
    if match.background is not None:
        by_meaning = _best(match.scores, np.flatnonzero(match.scores > 0))
        by_words = _best(lexical, np.flatnonzero((lexical > 0) & in_scope))
        index.fill(match, query, surroundings(np.union1d(by_meaning, by_words), arrays)[:SCORED_MAX])
    return match


def _best(scores: Floats, chunks: Chunks) -> Chunks:
    """Those of the chunks with the highest scores."""
    if len(chunks) <= CANDIDATES:
        return chunks
    return chunks[np.argpartition(-scores[chunks], CANDIDATES)[:CANDIDATES]]


def surroundings(chunks: Chunks, arrays: VaultArrays) -> Chunks:
    """All chunks of the memories of these chunks and of their neighbours in the session, rising."""
    memories = [np.unique(arrays.chunk_memory[chunks])]
    for steps in (arrays.previous, arrays.next):
        at = memories[0]
        for _ in range(NEIGHBOURS):
            at = steps[at]
            at = at[at >= 0]
            memories.append(at)
    near = np.unique(np.concatenate(memories))
    starts = np.searchsorted(arrays.chunk_memory, near)
    counts = np.searchsorted(arrays.chunk_memory, near, side="right") - starts
    return np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
