"""Whether what stands beside each other belongs together: a conversation, or notes in any order.

Owns this one measure. In a conversation, memories that are a step or two apart match a question alike; where notes were
uploaded in any order, without sessions and times, they do not, and what stands around a note says nothing about it.
Pure: arrays in, a number out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

PAIRS_MIN = 64
"""Fewer tell nothing yet: then neighbours count."""

LOOKED_AT_MAX = 1_024
"""Memories that are looked at, the newest: it bounds the time, and more would tell no more."""

NONE_BELOW, FULL_FROM = 0.06, 0.18
"""Correlations between which neighbours begin to count. The greatest of four is at least 0.25 for 95 % of questions on
LoCoMo and BEAM, 0.14 and 0.10 with the turns of one side alone, and at most 0.09 and 0.12 where turns are shuffled."""


def looked_at(eligible: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The memories whose matches are compared with those before them: the newest."""
    return np.flatnonzero(eligible)[-LOOKED_AT_MAX:].astype(np.int64)


def cohesion(legs: tuple[Floats, Floats], previous: NDArray[np.int32], eligible: NDArray[np.bool_]) -> float:
    """How much neighbours tell of each other, 0..1: by the greatest correlation, over a vault, of how well a memory
    matches with how well the one before it does, or the one before that (speakers take turns), for either leg.

    Args:
        legs: per memory, how well its words match, and its meaning.
        previous: per memory, the one before it in its session, or -1.
    """
    memories = looked_at(eligible)
    before = previous[memories]
    twice = np.where(before >= 0, previous[before], -1)
    pairs = [
        (places, steps[places])
        for steps in (before, twice)
        if len(places := np.flatnonzero((steps >= 0) & eligible[steps])) >= PAIRS_MIN
    ]
    if not pairs:
        return 1.0
    correlations = []
    for leg in legs:
        values = leg[memories]
        mean = values.mean()
        values -= mean
        variance = float(values @ values) / len(values)
        if variance > 0:
            correlations += [float(values[at] @ (leg[of] - mean)) / len(at) / variance for at, of in pairs]
    if not correlations:
        return 1.0
    return min(1.0, max(0.0, (max(correlations) - NONE_BELOW) / (FULL_FROM - NONE_BELOW)))
