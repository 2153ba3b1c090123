"""Whether a vault answers a question at all, and which of its memories do: the probabilities behind cut-off and score.

Owns both formulas and their weights. Pure: arrays in, numbers out. Must never change the order of a ranking.

Scores compare the memories of one vault, and the best of a vault that knows nothing is still its best. So another
measure decides, on an absolute scale: how near the nearest memories are, and what share of the question's words they
hold.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from actors.ranking_inputs import RankQuery

Floats = NDArray[np.float32]

# Evidence that a memory has to do with the question, on an absolute scale, other than the score: the cosine
# of its best chunk plus this much of the share of the question's words that the chunk holds.
COVERAGE_EVIDENCE = 0.3
COVERAGE_EVIDENCE_ALONE = 0.85  # where a chunk has no vector yet

WITNESSES = 3
"""Memories whose evidence counts for a vault. In a large one, one of many matches by chance, and others tell of what
was talked of; in a small one, a fact was told once."""

LARGE_CHUNKS = 400
"""From here on a vault is large: all witnesses count alike, and chance no longer raises what is asked of them."""

# Log-odds that the vault holds an answer, by the evidence of its witnesses and the log of its size, in chunks up to
# `LARGE_CHUNKS`. Fitted by `bench/fit_relevance.py` on questions asked of the right and of wrong vaults, whole and cut
# into parts of 4 to 150 turns.
ANSWERABLE = {
    "constant": -6.884,
    "evidence": 20.144,
    "size": -0.627,
}

# Log-odds that a memory is an answer if there is one, per log of its share of the scores: fitted likewise.
ANSWER = {
    "constant": 1.016,
    "share": 0.956,
}


def chunk_evidence(query: RankQuery) -> Floats:
    """Evidence per chunk that it has to do with the question, 0 to about 1.3."""
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


def greatest(values: Floats, count: int) -> Floats:
    """The greatest values, greatest first. For a few, to look for each in turn is 10 times as fast as to partition."""
    left = values.copy()
    found = np.empty(min(count, len(values)), np.float32)
    for place in range(len(found)):
        at = left.argmax()
        found[place] = left[at]
        left[at] = -np.inf
    return found


def witnessed(evidence: Floats, chunks: int) -> float:
    """The mean evidence of the best memories, of which others than the first count as far as the vault is large.

    Args:
        evidence: per memory.
        chunks: how many could be returned.
    """
    best = greatest(evidence, WITNESSES)
    weights = np.full(len(best), min(1.0, chunks / LARGE_CHUNKS))
    weights[0] = 1
    return float(best @ weights / weights.sum())


def answerable_probability(evidence: float, chunks: int) -> float:
    """The probability that a vault holds an answer.

    Args:
        evidence: of its witnesses, as `witnessed`.
        chunks: how many could be returned.
    """
    size = math.log(min(chunks, LARGE_CHUNKS))
    odds = ANSWERABLE["constant"] + ANSWERABLE["evidence"] * evidence + ANSWERABLE["size"] * size
    return 1 / (1 + math.exp(-odds))


def log_shares(scores: NDArray[np.floating], compared: Floats) -> NDArray[np.float64]:
    """The log of each score's share among all that were compared."""
    highest = float(compared.max())
    return np.asarray(scores - highest - np.log(np.exp(compared - highest).sum()), np.float64)


def answer_probability(log_share: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability that memories with these shares are answers, if there is one."""
    return np.asarray(1 / (1 + np.exp(-(ANSWER["constant"] + ANSWER["share"] * log_share))), np.float64)
