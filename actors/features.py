"""What speaks for a memory as an answer: a row of numbers for each of the best few hundred candidates.

Owns the features; `actors.ranking` owns their weights and which memories are candidates. Pure: arrays in, arrays out,
so that the script that fits the weights (`bench/fit_ranking.py`) computes exactly what the product computes.

A text of more than `SELF_CONTAINED_CHARACTERS` says what it is about itself, and holds most words by chance: whatever
is told by what stands beside it, or by a single word in it, counts less the longer it is. Without that, weights fitted
on talk between people break on the long replies of assistants.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors.layout import SELF_CONTAINED_CHARACTERS, Layout
from actors.ranking_inputs import Described, RankQuery, VaultArrays
from models.time_intervals import TimeInterval
from models.times import DAY_MS
from models.traits import (
    ASKS,
    ASKS_NUMBER,
    ASKS_PREFERENCE,
    ASKS_WHEN,
    ENDS_ASKING,
    PREFERS,
    TELLS_NUMBER,
    TELLS_TIME,
)

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]

LENGTH_MAX = 10_000
"""Characters beyond which a text counts as no longer: the weights were fitted on few that are (1 in 270), and drawn on
to a million characters they would push a text below neighbours that have none of the question's words."""

WINDOW = 2
"""Memories on each side that may hold the words of the question for a memory between them."""

WINDOW_CHARACTERS_MAX = 4 * SELF_CONTAINED_CHARACTERS
"""Of a memory that lends its words: what is longer has most words of most questions somewhere."""

SPEAKERS_SHARE = 1 / 32
"""Of the candidates that begin with the same name before the name counts as a speaker's: then the word is on every
other memory, and says who, not what."""

TOLD_WITHIN_MS = 14 * DAY_MS
"""After a time, within which people still tell of it; such a memory counts half."""

FEATURES = (
    "base",  # both legs, neighbours and session, in standard deviations: by what candidates are chosen
    "lexical",  # the best chunk's words, in standard deviations
    "dense",  # the best chunk's meaning, likewise
    "place",  # 1 / (3 + how many candidates match better by themselves)
    "before",  # the words of the memory before
    "answers",  # the memory before ends with a question that matches
    "coverage",  # the share of the question's words within two memories on each side, names of speakers left out
    "speaker",  # the question names who speaks, and it is no question
    "time",  # the question asks when, and the text names a time
    "number",  # the question asks how many, and the text has a number
    "prefers",  # the question asks what somebody likes, and the text says that somebody does
    "exact",  # the share of quoted phrases and identifiers of the question that stand in it
    "asks",  # it asks something
    "long",  # the logarithm of its length, up to `LENGTH_MAX`
    "told",  # it was told in the time that the question speaks of
)


class Legs(msgspec.Struct, frozen=True, eq=False):
    """Per memory of the vault, the best of its chunks; 0 for memories that are not eligible or have none.

    Attributes:
        own: both legs of the best chunk together, in standard deviations; -inf for those.
        lexical, dense: each leg alone.
        evidence: absolute, 0 to about 1.4.
        held: the bits of `LexicalMatch.held` of all chunks together.
        cohesion: how much neighbours tell of each other in this vault, 0..1.
    """

    own: Floats
    lexical: Floats
    dense: Floats
    evidence: Floats
    held: NDArray[np.uint64]
    cohesion: float


def features(
    query: RankQuery, arrays: VaultArrays, layout: Layout, legs: Legs, base: Floats, memories: Numbers
) -> Floats:
    """The features of some memories, float32 of shape (len(memories), len(FEATURES)).

    Args:
        base: per memory of the vault, its score with neighbours and session.
        memories: the candidates; all that `place` compares.
    """
    before = arrays.previous[memories]
    described = _described(query, np.concatenate([memories, np.where(before >= 0, before, memories)]))
    count = len(memories)
    traits, before_traits = described.traits[:count], described.traits[count:]
    brief = layout.brief[memories]
    asked_before = (before >= 0) & ((before_traits & ENDS_ASKING) > 0)
    giving = np.maximum(legs.own[before], 0) * layout.brief[before] * asked_before
    own = legs.own[memories]
    named = described.speaker_terms[:count]
    rows = {
        "base": base[memories],
        "lexical": legs.lexical[memories],
        "dense": legs.dense[memories],
        "place": 1 / (3 + count - np.searchsorted(np.sort(own), own, side="right")),
        "before": legs.cohesion * np.where(before >= 0, legs.lexical[before], 0),
        "answers": legs.cohesion * giving * brief,
        "coverage": brief * _covered(query, arrays, legs, memories, _speakers(named)),
        "speaker": (named > 0) & ((traits & ENDS_ASKING) == 0),
        "time": brief * bool(query.wants & ASKS_WHEN) * ((traits & TELLS_TIME) > 0),
        "number": brief * bool(query.wants & ASKS_NUMBER) * ((traits & TELLS_NUMBER) > 0),
        "prefers": brief * bool(query.wants & ASKS_PREFERENCE) * ((traits & PREFERS) > 0),
        "exact": np.zeros(count) if described.exact is None else described.exact[:count],
        "asks": brief * ((traits & ASKS) > 0),
        "long": np.log1p(np.minimum(arrays.characters[memories], LENGTH_MAX) / SELF_CONTAINED_CHARACTERS),
        "told": _told(arrays.timestamp_ms[memories], query.intervals),
    }
    table = np.empty((count, len(FEATURES)), np.float32)
    for column, name in enumerate(FEATURES):
        table[:, column] = rows[name]
    return table


def _described(query: RankQuery, memories: Numbers) -> Described:
    if query.describe is None:
        return Described(traits=np.zeros(len(memories), np.uint8), speaker_terms=np.zeros(len(memories), np.uint64))
    return query.describe(memories)


def _speakers(named: NDArray[np.uint64]) -> np.uint64:
    """The terms of the question that name speakers."""
    if not named.any():
        return np.uint64(0)
    terms, counts = np.unique(named, return_counts=True)
    common = terms[counts >= max(2, SPEAKERS_SHARE * len(named))]
    return np.uint64(np.bitwise_or.reduce(common, initial=np.uint64(0)))


def _window(arrays: VaultArrays, held: NDArray[np.uint64], memories: Numbers) -> NDArray[np.uint64]:
    """Which terms are held by each memory, and by the brief ones within `WINDOW` of it."""
    found = held[memories]
    for steps in (arrays.previous, arrays.next):
        at: NDArray[np.integer] = memories
        inside = np.ones(len(memories), np.bool_)
        for _ in range(WINDOW):
            at = steps[at]
            inside &= at >= 0
            brief = arrays.characters[at] <= WINDOW_CHARACTERS_MAX
            found = found | np.where(inside & brief, held[at], np.uint64(0))
    return found


def _covered(query: RankQuery, arrays: VaultArrays, legs: Legs, memories: Numbers, left_out: np.uint64) -> Floats:
    """The share of the question's words that stand in or around each memory, as far as neighbours tell."""
    if legs.cohesion == 0:
        return _coverage(query, legs.held[memories], left_out)
    around = _coverage(query, _window(arrays, legs.held, memories), left_out)
    if legs.cohesion == 1:
        return around
    itself = _coverage(query, legs.held[memories], left_out)
    return np.asarray(itself + legs.cohesion * (around - itself), np.float32)


def _coverage(query: RankQuery, held: NDArray[np.uint64], left_out: np.uint64) -> Floats:
    """The weight of the terms held, as a share of those that are not left out."""
    weights = query.lexical.weights
    bits = np.arange(len(weights), dtype=np.uint64)
    weights = np.where((left_out >> bits) & np.uint64(1), np.float32(0), weights)
    total = float(weights.sum())
    if total <= 0:
        return np.zeros(len(held), np.float32)
    return np.asarray(((held[:, None] >> bits) & np.uint64(1)).astype(np.float32) @ (weights / total), np.float32)


def _told(timestamp_ms: NDArray[np.int64], intervals: tuple[TimeInterval, ...]) -> Floats:
    """How much each moment belongs to the times that the question speaks of, 0..1."""
    told = np.zeros(len(timestamp_ms), np.float32)
    for interval in intervals:
        inside = (interval.start_ms <= timestamp_ms) & (timestamp_ms < interval.end_ms)
        after = (interval.end_ms <= timestamp_ms) & (timestamp_ms < interval.end_ms + TOLD_WITHIN_MS)
        told = np.maximum(told, np.float32(interval.weight) * (inside + np.float32(0.5) * after))
    return told
