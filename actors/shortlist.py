"""Ranking a large vault by a shortlist: what ranking would say if it looked at every memory, at a fraction of the time.

Owns which memories are looked at once the index has segments. Ranking adds up both legs and what stands beside a
memory, so the best by meaning are not enough: with 1 000 of them out of 100 000, 8.3 of the first 10 memories were
those of an exact search. With 300 by meaning, 300 by words, and the two memories on both sides of each, all 10 were,
for each of 100 questions; where hundreds of texts hold the same words, 9.7 of 10, and with 600 each 9.9.

Must never decide anything for a vault without segments: there all are ranked.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors.cohesion import cohesion, looked_at
from actors.index import DenseMatch
from actors.ranking import Ranked, rank
from actors.ranking_inputs import Described, RankQuery, VaultArrays
from actors.segmented_index import SegmentedIndex

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]

CANDIDATES = 600
"""By meaning, and as many by words, where no more memories are wanted than a context takes."""

CANDIDATES_FACTOR = 4
"""Times what is wanted: neighbours and repeats take places."""

NEIGHBOURS = 2
"""On each side: as far as ranking looks."""

SCORED_MAX = 16_384
"""Chunks that are scored one by one, 0.2 ms per 1 000. A read of a scope that has no more needs no graph, and must not
use it: among the best of the whole vault there may be none of the scope."""

SCORED_SHARE = 1 / 16
"""Of a vault, likewise: one by one is then still faster than through all of its graphs."""


def rank_vault(query: RankQuery, arrays: VaultArrays, index: SegmentedIndex, vector: Floats) -> Ranked:
    """Rank the eligible memories of a vault of any size.

    Args:
        query: without its dense leg.
        vector: the question's, normalised, of shape (dims,); of length 0 to search by words alone.
    """
    if not index.segments:
        dense = index.match(vector, candidates=CANDIDATES) if len(vector) else None
        return rank(msgspec.structs.replace(query, dense=dense), arrays)
    in_scope: NDArray[np.bool_] = query.eligible[arrays.chunk_memory]
    chunks = int(np.count_nonzero(in_scope))
    if chunks <= max(SCORED_MAX, int(SCORED_SHARE * len(in_scope))):
        return _ranked_scope(query, arrays, index, vector, np.flatnonzero(in_scope))
    return _ranked_candidates(query, arrays, index, vector, in_scope, chunks)


def _ranked_scope(
    query: RankQuery, arrays: VaultArrays, index: SegmentedIndex, vector: Floats, chunks: Numbers
) -> Ranked:
    """All memories of a small scope, scored one by one: exactly what a ranking of all would say."""
    dense = index.match_within(vector, chunks) if len(vector) else None
    memories = with_neighbours(np.unique(arrays.chunk_memory[chunks]), arrays)
    return rank_among(msgspec.structs.replace(query, dense=dense), arrays, memories)


def _ranked_candidates(
    query: RankQuery,
    arrays: VaultArrays,
    index: SegmentedIndex,
    vector: Floats,
    in_scope: NDArray[np.bool_],
    chunks: int,
) -> Ranked:
    wanted = max(CANDIDATES, CANDIDATES_FACTOR * query.limit)
    scores = query.lexical.scores
    hits = np.flatnonzero(scores)
    hits = hits[in_scope[hits]]
    found = [_best(scores, hits, wanted)]
    dense = index.match(vector, candidates=wanted) if len(vector) else None
    if dense is not None:
        if dense.background is None:  # every chunk was reached
            return rank(msgspec.structs.replace(query, dense=dense), arrays)
        found.append(_best(dense.scores, np.flatnonzero((dense.scores > 0) & in_scope), wanted))
    likely = arrays.chunk_memory[np.concatenate(found)]
    memories = with_neighbours(np.union1d(likely, _always(query, arrays)), arrays)
    memories = _with_newest_twins(memories, query.eligible, arrays)
    if dense is not None:
        index.fill(dense, vector, chunks_of_memories(memories, arrays)[0])
        query = msgspec.structs.replace(query, cohesion=_cohesion(query, arrays, index, dense, vector))
    query = msgspec.structs.replace(query, dense=dense, lexical_background=_background(scores[hits], chunks))
    result = rank_among(query, arrays, memories)
    if len(result) < query.limit:  # repeats have used it up: rare, and as slow as the vault is large
        return rank(query, arrays)
    return result


def _best(scores: Floats, chunks: Numbers, count: int) -> Numbers:
    """Those of the chunks with the highest scores."""
    if len(chunks) <= count:
        return chunks
    return chunks[np.argpartition(-scores[chunks], count)[:count]]


def _background(found: Floats, chunks: int) -> tuple[float, float]:
    """Mean and standard deviation of the scores by words over so many chunks; those not found have 0."""
    values = found.astype(np.float64)
    mean = float(values.sum()) / chunks
    return mean, max(float(values @ values) / chunks - mean * mean, 0.0) ** 0.5


def _cohesion(query: RankQuery, arrays: VaultArrays, index: SegmentedIndex, dense: DenseMatch, vector: Floats) -> float:
    """How much neighbours tell, by the same memories as where all are ranked."""
    memories = looked_at(query.eligible)
    for _ in range(NEIGHBOURS):
        memories = np.union1d(memories, arrays.previous[memories])
    memories = memories[memories >= 0]
    chunks, counts = chunks_of_memories(memories, arrays)
    if not len(chunks):
        return 1.0
    index.fill(dense, vector, chunks)
    known = np.isfinite(dense.scores[chunks])
    usual = dense.scores[chunks][known].mean() if known.any() else 0.0
    first = (np.cumsum(counts) - counts)[counts > 0]
    legs = np.zeros((2, len(arrays.session)), np.float32)
    for leg, scores in zip(legs, (query.lexical.scores[chunks], dense.scores[chunks]), strict=True):
        leg[memories[counts > 0]] = np.maximum.reduceat(np.where(np.isfinite(scores), scores, usual), first)
    return cohesion((legs[0], legs[1]), arrays.previous, query.eligible)


def _always(query: RankQuery, arrays: VaultArrays) -> Numbers:
    """Memories that need no score to be looked at: the newest, which win where nothing else decides, and those of the
    session that gets a bonus."""
    first = max(0, len(query.eligible) - CANDIDATES_FACTOR * max(query.limit, 1))
    newest = np.flatnonzero(query.eligible[first:]) + first
    if query.preferred_session is None:
        return newest
    preferred = np.flatnonzero(arrays.session == query.preferred_session)
    return np.union1d(newest, preferred[-SCORED_MAX:])


def with_neighbours(memories: NDArray[np.integer], arrays: VaultArrays) -> Numbers:
    """These memories and their neighbours in the session, rising."""
    known = [memories.astype(np.int64)]
    for steps in (arrays.previous, arrays.next):
        at = memories
        for _ in range(NEIGHBOURS):
            at = steps[at]
            at = at[at >= 0]
            known.append(at.astype(np.int64))
    return np.unique(np.concatenate(known))


def _with_newest_twins(memories: Numbers, eligible: NDArray[np.bool_], arrays: VaultArrays) -> Numbers:
    """These memories, and of each of their texts the newest memory that says it: the one that ranking returns."""
    texts = int(arrays.text_number.max()) + 1
    if texts == len(arrays.text_number):
        return memories  # no text was ever said twice
    listed = np.zeros(texts, np.bool_)
    listed[arrays.text_number[memories]] = True
    twins = np.flatnonzero(listed[arrays.text_number] & eligible)
    twins = twins[np.lexsort((twins, arrays.timestamp_ms[twins], arrays.text_number[twins]))]
    numbers = arrays.text_number[twins]
    return np.union1d(memories, twins[np.append(numbers[1:] != numbers[:-1], True)[: len(twins)]])


def chunks_of_memories(memories: NDArray[np.integer], arrays: VaultArrays) -> tuple[Numbers, Numbers]:
    """All chunks of memories (rising), rising, and how many each memory has."""
    starts = np.searchsorted(arrays.chunk_memory, memories.astype(np.int32))
    counts = np.searchsorted(arrays.chunk_memory, memories.astype(np.int32), side="right") - starts
    first = np.repeat(starts - (np.cumsum(counts) - counts), counts)
    return first + np.arange(len(first)), counts


def rank_among(query: RankQuery, arrays: VaultArrays, memories: Numbers) -> Ranked:
    """Rank as if the vault held only these memories (rising), but for the backgrounds that the query brings."""
    chunks, counts = chunks_of_memories(memories, arrays)
    sessions, session = np.unique(arrays.session[memories], return_inverse=True)
    part = VaultArrays(
        chunk_memory=np.repeat(np.arange(len(memories), dtype=np.int32), counts),
        previous=_renumbered(arrays.previous[memories], memories),
        next=_renumbered(arrays.next[memories], memories),
        session=session.astype(np.int32),
        characters=arrays.characters[memories],
        text_number=np.unique(arrays.text_number[memories], return_inverse=True)[1].astype(np.int32),
        timestamp_ms=arrays.timestamp_ms[memories],
    )
    dense, preferred = query.dense, query.preferred_session
    if dense is not None:
        dense = DenseMatch(scores=dense.scores[chunks], background=dense.background)
    if preferred is not None:
        place = int(np.searchsorted(sessions, preferred))
        preferred = place if place < len(sessions) and sessions[place] == preferred else None
    describe = query.describe

    def described(places: NDArray[np.integer]) -> Described:
        assert describe is not None, "only asked where there is somebody to ask"
        return describe(memories[places])

    found = rank(
        msgspec.structs.replace(
            query,
            lexical=query.lexical.among(chunks),
            dense=dense,
            eligible=query.eligible[memories],
            preferred_session=preferred,
            describe=None if describe is None else described,
        ),
        part,
    )
    return Ranked(
        memories=memories[found.memories].astype(np.int32),
        chunks=chunks[found.chunks].astype(np.int32),
        scores=found.scores,
        answerable=found.answerable,
        explained=found.explained,
    )


def _renumbered(neighbours: NDArray[np.int32], memories: Numbers) -> NDArray[np.int32]:
    """The places of neighbours among the memories, -1 for those that are not among them."""
    places = np.minimum(np.searchsorted(memories, neighbours), len(memories) - 1)
    return np.where(memories[places] == neighbours, places, -1).astype(np.int32)
