"""Which memories answer a question: one score per memory from both legs and the memories around it.

Owns the formula and its weights. Pure: arrays in, arrays out. Must never see text, a clock or a vault; what
is new is not better than what is old, so no time enters either.

A memory's score is that of its best chunk, plus its neighbours' (a question is often answered in the next
turn), plus its session's. Weights were chosen on LoCoMo conversations 1-5 and BEAM-100K chats 1-10 together.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors.index import DenseMatch
from actors.lexicon import LexicalMatch

Floats = NDArray[np.float32]

LEXICAL_WEIGHT = 1.0
DENSE_WEIGHT = 1.0
NEIGHBOUR_WEIGHTS = (0.5, 0.3)
"""Of the better neighbour at distance 1 and at distance 2: LoCoMo any@10 85.9 instead of 79.8, BEAM 80.4 instead
of 73.2. Adding both sides instead of taking the better one costs about a point of MRR on both sets."""

SELF_CONTAINED_CHARACTERS = 400
"""A memory longer than this says what it is about itself: what it gets from neighbours shrinks with its length.
Else long replies inherit the rank of the short question before them (BEAM any@10 80.4 instead of 73.7)."""

SESSION_WEIGHT = 0.3
"""Of the best memory of the session: LoCoMo any@5 75.8 instead of 74.6, BEAM 71.5 with both."""

PREFERRED_SESSION_BONUS = 1.0
"""In standard deviations: for the session that the request names while it reads the whole vault."""

# Evidence that a memory has to do with the question, on an absolute scale, other than the score: the cosine
# of its best chunk plus this much of the share of the question's words that the chunk holds.
COVERAGE_EVIDENCE = 0.4
COVERAGE_EVIDENCE_ALONE = 0.85  # where a chunk has no vector yet
NEIGHBOUR_EVIDENCE_DISCOUNT = 0.06  # a neighbour's evidence counts a little less

# A logistic fit of the best evidence in the right vault against that in wrong ones, both sets weighing the
# same.
_EVIDENCE_SLOPE = 19.0
_EVIDENCE_MIDDLE = 0.56

RELEVANCE_LEAST = 0.18
"""The default cut-off (evidence 0.48): a question whose best memory stays below it finds nothing."""

RELEVANCE_KEPT_LEAST = 0.02
"""Once something is relevant, memories from here on (evidence 0.36) may go along: gold turns are often less
obvious than the best one."""

_DEVIATION_LEAST = 1e-6  # less is rounding: then no chunk stands out


class VaultArrays(msgspec.Struct, frozen=True, eq=False):
    """What ranking knows of a vault. Memories are numbered from 0 in the order of storing.

    Attributes:
        chunk_memory: per chunk, the number of its memory; never decreases.
        previous: per memory, the one before it in its session that still exists, or -1.
        next: per memory, the one after it in its session that still exists, or -1.
        session: per memory, the number of its session, from 0.
        characters: per memory, the length of its text.
        text_number: per memory, a number that memories with the same normalised text share; from 0 without gaps.
        timestamp_ms: per memory, when it was said.
    """

    chunk_memory: NDArray[np.int32]
    previous: NDArray[np.int32]
    next: NDArray[np.int32]
    session: NDArray[np.int32]
    characters: NDArray[np.int32]
    text_number: NDArray[np.int32]
    timestamp_ms: NDArray[np.int64]


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
    """

    lexical: LexicalMatch
    dense: DenseMatch | None
    eligible: NDArray[np.bool_]
    limit: int
    preferred_session: int | None = None
    lexical_background: tuple[float, float] | None = None


class Ranked(msgspec.Struct, frozen=True, eq=False):
    """The best memories, best first; the arrays have one entry each.

    Attributes:
        memories: their numbers.
        chunks: the number of the chunk of each that matched best.
        scores: 0..1, falling: the relevance of the most relevant memory, scaled down by rank. For clients.
        relevance: 0..1, absolute: the probability, by the fit above, that a vault whose best evidence is this
            much is the right one. Not falling: the order is the ranking's. For cut-offs (`is_relevant`).
    """

    memories: NDArray[np.int32]
    chunks: NDArray[np.int32]
    scores: Floats
    relevance: Floats

    def __len__(self) -> int:
        """How many memories there are."""
        return len(self.memories)


def rank(query: RankQuery, arrays: VaultArrays) -> Ranked:
    """Rank the eligible memories of a vault that have at least one chunk.

    Of memories with the same normalised text the newest is returned, at the best score among them.
    """
    memories = len(query.eligible)
    first_chunks, with_chunks = _chunk_starts(arrays.chunk_memory)
    eligible_chunks = query.eligible[arrays.chunk_memory]
    if query.limit < 1 or not eligible_chunks.any():
        return _ranked(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0), np.zeros(0))
    chunk_scores = _chunk_scores(query, eligible_chunks)
    chunk_evidence = _chunk_evidence(query)
    own = np.full(memories, -np.inf, np.float32)
    own[with_chunks] = np.maximum.reduceat(chunk_scores, first_chunks)
    own[~query.eligible] = -np.inf
    evidence = np.zeros(memories, np.float32)
    evidence[with_chunks] = np.maximum.reduceat(chunk_evidence, first_chunks)
    evidence[~query.eligible] = 0.0

    order, best = _collapsed(_memory_scores(own, query, arrays), query, arrays)
    relevance = _relevance(_supported_evidence(evidence, arrays)[order])
    return _ranked(order, _best_chunks(order, chunk_scores, arrays.chunk_memory), best, relevance)


def is_relevant(ranked: Ranked, *, least: float = RELEVANCE_LEAST) -> NDArray[np.bool_]:
    """Which of the ranked memories may enter a context: none, unless one of them reaches `least`.

    Args:
        least: the cut-off for the best one; the others need `RELEVANCE_KEPT_LEAST`, or `least` where that is
            lower.
    """
    if not len(ranked) or float(ranked.relevance.max()) < least:
        return np.zeros(len(ranked), np.bool_)
    return np.asarray(ranked.relevance >= min(least, RELEVANCE_KEPT_LEAST), np.bool_)


def _chunk_starts(chunk_memory: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """The first chunk of each memory that has chunks, and those memories."""
    if not len(chunk_memory):
        return np.zeros(0, np.intp), np.zeros(0, np.int32)
    first = np.flatnonzero(np.diff(chunk_memory, prepend=np.int32(-1)))
    return first, chunk_memory[first]


def _chunk_scores(query: RankQuery, eligible: NDArray[np.bool_]) -> Floats:
    """The sum of both legs in standard deviations, per chunk."""
    lexical = _standardised(query.lexical.scores, eligible, query.lexical_background)
    if query.dense is None:
        return LEXICAL_WEIGHT * lexical
    dense = _standardised(query.dense.scores, eligible, query.dense.background)
    return LEXICAL_WEIGHT * lexical + DENSE_WEIGHT * dense


def _standardised(values: Floats, eligible: NDArray[np.bool_], background: tuple[float, float] | None) -> Floats:
    """How many standard deviations each value lies above the mean of the eligible ones; 0 where it is
    unknown."""
    known = np.isfinite(values)
    if background is None:
        population = values[eligible & known]
        if not len(population):
            return np.zeros_like(values)
        background = float(population.mean()), float(population.std())
    mean, deviation = background
    if deviation < _DEVIATION_LEAST:
        return np.zeros_like(values)
    return np.where(known, (values - np.float32(mean)) / np.float32(deviation), np.float32(0))


def _chunk_evidence(query: RankQuery) -> Floats:
    """Evidence per chunk that it has to do with the question."""
    coverage = query.lexical.coverage
    if query.dense is None:
        return COVERAGE_EVIDENCE_ALONE * coverage
    dense = query.dense.scores
    both = dense + COVERAGE_EVIDENCE * coverage
    if query.dense.background is None:
        otherwise = COVERAGE_EVIDENCE_ALONE * coverage  # no vector yet
    else:
        otherwise = query.dense.background[0] + COVERAGE_EVIDENCE * coverage  # not among the candidates
    return np.where(np.isfinite(dense), both, otherwise).astype(np.float32)


def _memory_scores(own: Floats, query: RankQuery, arrays: VaultArrays) -> Floats:
    """A memory's own score with what its neighbours and its session add."""
    giving = np.maximum(own, 0)
    at_one = _neighbours(giving, arrays)
    at_two = (
        at_one[0][arrays.previous] * (arrays.previous >= 0),
        at_one[1][arrays.next] * (arrays.next >= 0),
    )
    support = NEIGHBOUR_WEIGHTS[0] * np.maximum(*at_one) + NEIGHBOUR_WEIGHTS[1] * np.maximum(*at_two)
    needed = np.minimum(1.0, SELF_CONTAINED_CHARACTERS / np.maximum(arrays.characters, 1))
    strength = np.zeros(int(arrays.session.max()) + 1, np.float32)
    np.maximum.at(strength, arrays.session, giving)
    scores = own + support * needed + SESSION_WEIGHT * strength[arrays.session]
    if query.preferred_session is not None:
        scores += PREFERRED_SESSION_BONUS * (arrays.session == query.preferred_session)
    return np.asarray(scores, np.float32)


def _neighbours(values: Floats, arrays: VaultArrays) -> tuple[Floats, Floats]:
    """The value of the memory before and of the one after each memory in its session; 0 where there is
    none."""
    return (
        np.where(arrays.previous >= 0, values[arrays.previous], np.float32(0)),
        np.where(arrays.next >= 0, values[arrays.next], np.float32(0)),
    )


def _supported_evidence(evidence: Floats, arrays: VaultArrays) -> Floats:
    """A memory's own evidence, or a neighbour's a little discounted."""
    around = np.maximum(*_neighbours(evidence, arrays)) - NEIGHBOUR_EVIDENCE_DISCOUNT
    return np.maximum(evidence, around)


def _relevance(evidence: Floats) -> Floats:
    """Evidence squashed to 0..1."""
    return np.asarray(1 / (1 + np.exp(-_EVIDENCE_SLOPE * (evidence - _EVIDENCE_MIDDLE))), np.float32)


def _collapsed(scores: Floats, query: RankQuery, arrays: VaultArrays) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The best memories in order, one for each normalised text, with their scores. Ties go to the later
    memory."""
    eligible = np.isfinite(scores)
    count = int(np.count_nonzero(eligible))
    shared = np.bincount(arrays.text_number[eligible]) > 1
    chosen: dict[int, float] = {}
    for candidates in (
        min(count, 4 * query.limit),
        count,
    ):  # all of them only where repeats have used up the first
        seen: set[int] = set()
        chosen.clear()
        for position in _best(scores, candidates):
            text_number = int(arrays.text_number[position])
            if text_number in seen:
                continue
            seen.add(text_number)
            memory = int(position)
            if shared[text_number]:
                same = np.flatnonzero(eligible & (arrays.text_number == text_number))
                memory = int(same[np.lexsort((same, arrays.timestamp_ms[same]))[-1]])
            chosen[memory] = float(scores[position])
            if len(chosen) >= query.limit:
                break
        if len(chosen) >= query.limit or candidates == count:
            break
    return np.fromiter(chosen.keys(), np.int32), np.fromiter(chosen.values(), np.float64)


def _best(scores: Floats, count: int) -> NDArray[np.intp]:
    """The positions of the best `count` scores, best first, later before earlier among equals."""
    if count < len(scores):
        positions = np.sort(np.argpartition(-scores, count)[:count])[::-1]
    else:
        positions = np.arange(len(scores))[::-1]
    ordered: NDArray[np.intp] = positions[np.argsort(-scores[positions], kind="stable")]
    return ordered


def _best_chunks(
    memories: NDArray[np.int32], chunk_scores: Floats, chunk_memory: NDArray[np.int32]
) -> NDArray[np.int32]:
    """The chunk of each memory that scored best."""
    starts = np.searchsorted(chunk_memory, memories, side="left")
    stops = np.searchsorted(chunk_memory, memories, side="right")
    return np.array(
        [start + int(np.argmax(chunk_scores[start:stop])) for start, stop in zip(starts, stops, strict=True)],
        np.int32,
    )


def _ranked(
    memories: NDArray[np.int32],
    chunks: NDArray[np.int32],
    best: NDArray[np.float64],
    relevance: NDArray[np.floating],
) -> Ranked:
    """The result, with scores that fall from the highest relevance in the ratio of the fused ones."""
    scores = np.zeros(len(memories))
    if len(memories):
        # The fused score is relative to this vault and may be negative; e^x of the distance to the best is a
        # ratio.
        scores = float(relevance.max()) * np.exp((best - best[0]) / 4)
    return Ranked(
        memories=memories,
        chunks=chunks,
        scores=np.asarray(scores, np.float32),
        relevance=np.asarray(relevance, np.float32),
    )
