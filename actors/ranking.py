"""Which memories answer a question: one score per memory, and the probability that it does.

Owns the formula and its weights. Pure: arrays in, arrays out. Must never see text, a clock or a vault; what
is new is not better than what is old, so age does not count.

First all memories are scored cheaply (`_memory_scores`): the best chunk, plus the neighbours (a question is often
answered in the next turn), plus the session. The best few hundred are then compared by `actors.features`.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors.cohesion import cohesion
from actors.explaining import explained
from actors.features import FEATURES, Legs, features
from actors.layout import Layout
from actors.ranking_inputs import RankQuery, VaultArrays
from actors.relevance import (
    answer_probability,
    answerable_probability,
    chunk_evidence,
    log_shares,
    witnessed,
)
from models.messages import Explanation

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]

LEXICAL_WEIGHT = 1.0
DENSE_WEIGHT = 1.0
NEIGHBOUR_WEIGHTS = (0.5, 0.3)
"""Of the better neighbour at distance 1 and at distance 2. Adding both sides instead of taking the better one costs
about a point of MRR on both development sets. What a memory gets shrinks with its length, else long replies inherit
the rank of the short question before them."""

SESSION_WEIGHT = 0.3
"""Of the best memory of the session."""

CANDIDATES = 256
"""Memories that are compared by all features; by the score of all memories, 99 % of the answers are among them."""

CANDIDATES_FACTOR = 4
"""Times what is wanted, where that is more: repeats take places."""

# Log-odds per unit of each feature. Fitted by `bench/fit_ranking.py`, which see: a listwise softmax on LoCoMo
# conversations 1-5 and BEAM-100K chats 1-10, both weighing the same.
WEIGHTS = {
    "base": 0.263,
    "lexical": -0.059,
    "dense": 0.270,
    "place": 4.575,
    "before": -0.043,
    "answers": 0.250,
    "coverage": 2.352,
    "speaker": 0.508,
    "time": 1.846,
    "number": 1.101,
    "prefers": 1.332,
    "exact": 2.435,
    "asks": -0.464,
    "long": -0.524,
    "told": 4.339,
}

PREFERRED_SESSION_BONUS = 1.0
"""In standard deviations, and in log-odds: for the session that the request names while it reads the whole vault."""

RELEVANCE_LEAST = 0.25
"""The default cut-off: a question that the vault answers with less probability finds nothing."""

RELEVANCE_KEPT_LEAST = 0.003
"""Once something is relevant, memories that are this likely to be an answer, if there is one, go along."""

_DEVIATION_LEAST = 1e-6  # less is rounding: then no chunk stands out
_WEIGHTS = np.array([WEIGHTS[name] for name in FEATURES], np.float32)


class Ranked(msgspec.Struct, frozen=True, eq=False):
    """The best memories, best first; the arrays have one entry each.

    Attributes:
        memories: their numbers.
        chunks: the number of the chunk of each that matched best.
        scores: 0..1, falling: the probability that the memory answers the question.
        answerable: 0..1: the probability that any memory does. For the cut-off (`is_relevant`).
        explained: per memory, its features by name, if the query asked for that.
    """

    memories: NDArray[np.int32]
    chunks: NDArray[np.int32]
    scores: Floats
    answerable: float
    explained: tuple[dict[str, float], ...] = ()

    def __len__(self) -> int:
        """How many memories there are."""
        return len(self.memories)


class Candidates(msgspec.Struct, frozen=True, eq=False):
    """The memories that are compared by all features, best first by their base score.

    Attributes:
        memories: their numbers.
        features: float32 of shape (len(memories), len(FEATURES)).
        evidence: how much the witnesses of the vault have to do with the question, 0 to about 1.3.
        chunks: how many could be returned.
        base: per memory of the vault; -inf for what may not be returned.
        chunk_scores: per chunk of the vault.
        layout: of the vault.
    """

    memories: Numbers
    features: Floats
    evidence: float
    chunks: int
    base: Floats
    chunk_scores: Floats
    layout: Layout


def rank(query: RankQuery, arrays: VaultArrays) -> Ranked:
    """Rank the eligible memories of a vault that have at least one chunk.

    Of memories with the same normalised text the newest is returned, at the best score among them.
    """
    found = candidates(query, arrays)
    if found is None:
        return Ranked(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32), 0.0)
    compared = found.features @ _WEIGHTS
    if query.preferred_session is not None:
        compared += PREFERRED_SESSION_BONUS * (arrays.session[found.memories] == query.preferred_session)
    order, best = _best_of(found, compared, query, arrays)
    answerable = answerable_probability(found.evidence, found.chunks)
    return Ranked(
        memories=order,
        chunks=order if found.layout.plain else _best_chunks(order, found.chunk_scores, arrays.chunk_memory),
        scores=np.asarray(answerable * answer_probability(log_shares(best, compared)), np.float32),
        answerable=answerable,
        explained=explained(order, found, compared, query, arrays) if query.explain else (),
    )


def explanation(ranked: Ranked, place: int) -> Explanation:
    """What placed the memory at this place, from 0, of a ranking that was asked to explain."""
    features = ranked.explained[place]
    weights = {**WEIGHTS, "preferred_session": PREFERRED_SESSION_BONUS}
    return Explanation(
        features=features,
        weights={name: weights[name] for name in features},
        relevance=float(ranked.scores[place]),
        rank=place + 1,
    )


def candidates(query: RankQuery, arrays: VaultArrays) -> Candidates | None:
    """The memories worth comparing, with their features; None where there is nothing to return."""
    layout = arrays.layout()
    eligible_chunks = query.eligible if layout.plain else query.eligible[arrays.chunk_memory]
    chunks = int(np.count_nonzero(eligible_chunks))
    if query.limit < 1 or not chunks:
        return None
    legs, chunk_scores = _legs(query, arrays, layout, eligible_chunks)
    base = _memory_scores(legs, query, arrays, layout)
    count = min(int(np.count_nonzero(np.isfinite(base))), max(CANDIDATES, CANDIDATES_FACTOR * query.limit))
    memories = _best(base, count).astype(np.int64)
    return Candidates(
        memories=memories,
        features=features(query, arrays, layout, legs, base, memories),
        evidence=witnessed(legs.evidence, chunks),
        chunks=chunks,
        base=base,
        chunk_scores=chunk_scores,
        layout=layout,
    )


def is_relevant(ranked: Ranked, *, least: float = RELEVANCE_LEAST) -> NDArray[np.bool_]:
    """Which of the ranked memories may enter a context: none, if the vault is too unlikely to hold an answer.

    Args:
        least: the cut-off for that probability; of it, each memory needs the share `RELEVANCE_KEPT_LEAST`, or
            `least` where that is lower.
    """
    if not len(ranked) or ranked.answerable < least:
        return np.zeros(len(ranked), np.bool_)
    return np.asarray(ranked.scores >= min(least, RELEVANCE_KEPT_LEAST) * ranked.answerable, np.bool_)


def _legs(
    query: RankQuery, arrays: VaultArrays, layout: Layout, eligible_chunks: NDArray[np.bool_]
) -> tuple[Legs, Floats]:
    """What each memory has of its best chunk, and both legs together per chunk."""
    all_eligible = bool(query.eligible.all())
    lexical = _standardised(query.lexical.scores, eligible_chunks, query.lexical_background)
    chunk_scores = LEXICAL_WEIGHT * lexical
    dense = np.zeros_like(lexical)
    if query.dense is not None:
        dense = _standardised(query.dense.scores, eligible_chunks, query.dense.background)
        if query.dense.background is None:
            dense = _with_presumed(dense, np.isfinite(query.dense.scores), lexical, eligible_chunks)
        chunk_scores = chunk_scores + DENSE_WEIGHT * dense

    def best(values: Floats, otherwise: float) -> Floats:
        return layout.of_memories(values, query.eligible, otherwise=otherwise, all_eligible=all_eligible)

    held = query.lexical.held
    if held is None:
        held = np.zeros(len(query.eligible), np.uint64)
    else:
        held = layout.of_memories(held, query.eligible, otherwise=0, reduce=np.bitwise_or, all_eligible=all_eligible)
    words, meaning = best(lexical, 0.0), best(dense, 0.0)
    together = query.cohesion
    if together is None:
        by_meaning = query.dense is not None
        together = cohesion((words, meaning), arrays.previous, query.eligible) if by_meaning else 1.0
    legs = Legs(
        own=best(chunk_scores, -np.inf),
        lexical=words,
        dense=meaning,
        evidence=best(chunk_evidence(query), 0.0),
        held=held,
        cohesion=together,
    )
    return legs, chunk_scores


def _with_presumed(dense: Floats, known: NDArray[np.bool_], lexical: Floats, eligible: NDArray[np.bool_]) -> Floats:
    """The dense leg, with what is not embedded yet as near as its words say, and no nearer than the nearest known.

    Else what has just been said would lose to what stands beside it, although it holds the very word asked for.
    """
    if known.all():
        return dense
    nearest = float(dense[known & eligible].max(initial=0.0))
    return np.where(known, dense, np.clip(lexical, 0, nearest)).astype(np.float32)


def _standardised(values: Floats, eligible: NDArray[np.bool_], background: tuple[float, float] | None) -> Floats:
    """How many standard deviations each value lies above the mean of the eligible ones; 0 where it is
    unknown."""
    known = np.isfinite(values)
    if background is None:
        among = eligible & known
        population = values if among.all() else values[among]
        if not len(population):
            return np.zeros_like(values)
        background = float(population.mean()), float(population.std())
    mean, deviation = background
    if deviation < _DEVIATION_LEAST:
        return np.zeros_like(values)
    standing = (values - np.float32(mean)) / np.float32(deviation)
    return standing if known.all() else np.where(known, standing, np.float32(0))


def _memory_scores(legs: Legs, query: RankQuery, arrays: VaultArrays, layout: Layout) -> Floats:
    """A memory's own score with what its neighbours and its session add."""
    scores = legs.own
    if legs.cohesion != 0:
        giving = np.float32(legs.cohesion) * np.maximum(legs.own, 0)
        support = _support(giving, arrays)
        strength = np.zeros(int(arrays.session.max()) + 1, np.float32)
        np.maximum.at(strength, arrays.session, giving)
        scores = scores + support * layout.brief + SESSION_WEIGHT * strength[arrays.session]
    if query.preferred_session is not None:
        scores = scores + PREFERRED_SESSION_BONUS * (arrays.session == query.preferred_session)
    return np.asarray(scores, np.float32)


def _support(giving: Floats, arrays: VaultArrays) -> Floats:
    """What the better neighbours at distance 1 and 2 give to each memory; 0 where there are none."""
    at_one, at_two = [], []
    for steps in (arrays.previous, arrays.next):
        there = steps >= 0
        near = giving.take(steps, mode="wrap") * there
        at_one.append(near)
        at_two.append(near.take(steps, mode="wrap") * there)
    return np.asarray(
        NEIGHBOUR_WEIGHTS[0] * np.maximum(*at_one) + NEIGHBOUR_WEIGHTS[1] * np.maximum(*at_two), np.float32
    )


def _best_of(
    found: Candidates, compared: Floats, query: RankQuery, arrays: VaultArrays
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The best memories in order, one for each normalised text, with their scores. Ties go to the later memory.

    Where no text was ever said twice, they are the best of those that were compared: nothing else can be above them.
    """
    wanted = query.limit
    if found.layout.repeats or len(compared) <= wanted:
        return _collapsed(_merged(found, compared), query, arrays)
    places = np.lexsort((found.memories, compared))[::-1]
    best = compared[places]
    if best[wanted - 1] <= best[-1]:  # as low as the memories that were not compared may be
        return _collapsed(_merged(found, compared), query, arrays)
    return found.memories[places[:wanted]].astype(np.int32), best[:wanted].astype(np.float64)


def _merged(found: Candidates, compared: Floats) -> Floats:
    """A score for every memory: that of the comparison, and for the others less than for the last of those."""
    lowest = found.base[found.memories[-1]]
    scores = found.base - lowest + compared.min()
    scores[found.memories] = compared
    return np.asarray(scores, np.float32)


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
    positions = (_greatest(scores, count) if count < len(scores) else np.arange(len(scores)))[::-1]
    ordered: NDArray[np.intp] = positions[np.argsort(-scores[positions], kind="stable")]
    return ordered


def _greatest(scores: Floats, count: int) -> NDArray[np.intp]:
    """The positions of the greatest `count` of more scores, rising. Of those that share the last place some."""
    least = np.partition(scores, len(scores) - count)[len(scores) - count] if count else np.inf
    positions = np.flatnonzero(scores >= least)
    if len(positions) == count:
        return positions
    return np.sort(np.argpartition(-scores, count)[:count])


def _best_chunks(
    memories: NDArray[np.int32], chunk_scores: Floats, chunk_memory: NDArray[np.int32]
) -> NDArray[np.int32]:
    """The chunk of each memory that scored best."""
    starts = np.searchsorted(chunk_memory, memories, side="left")
    stops = np.searchsorted(chunk_memory, memories, side="right")
    return np.array(
        [
            start if stop - start == 1 else start + int(np.argmax(chunk_scores[start:stop]))
            for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
        ],
        np.int32,
    )
