"""Whether a vault answers a question at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from actors.index import DenseMatch
from actors.lexicon import LexicalMatch
from actors.ranking_inputs import RankQuery
from actors.relevance import LARGE_CHUNKS, WITNESSES, answerable_probability, chunk_evidence, witnessed

NAN = float("nan")


def query(
    dense: Sequence[float] | None, coverage: Sequence[float], background: tuple[float, float] | None = None
) -> RankQuery:
    zeros = np.zeros(len(coverage), np.float32)
    return RankQuery(
        lexical=LexicalMatch(scores=zeros, coverage=np.array(coverage, np.float32)),
        dense=None if dense is None else DenseMatch(np.array(dense, np.float32), background),
        eligible=np.ones(len(coverage), np.bool_),
        limit=1,
    )


def test_meaning_and_words_are_evidence() -> None:
    near, far, worded = chunk_evidence(query([0.6, 0.1, 0.1], [0, 0, 1]))
    assert near > worded > far


def test_without_a_vector_words_are_the_evidence() -> None:
    assert chunk_evidence(query([NAN], [1]))[0] == chunk_evidence(query(None, [1]))[0] > 0.6


def test_what_an_approximate_index_did_not_reach_is_as_near_as_usual() -> None:
    assert chunk_evidence(query([NAN], [0], background=(0.2, 0.1)))[0] == pytest.approx(0.2)


def test_in_a_small_vault_one_memory_is_enough() -> None:
    evidence = np.array([0.7, 0, 0, 0], np.float32)
    assert witnessed(evidence, 4) == pytest.approx(0.7, abs=0.02)
    assert witnessed(evidence[:1], 1) == pytest.approx(0.7)


def test_in_a_large_vault_others_must_bear_witness() -> None:
    alone = np.zeros(LARGE_CHUNKS, np.float32)
    alone[7] = 0.7
    agreed = alone.copy()
    agreed[8 : 7 + WITNESSES] = 0.6
    assert witnessed(alone, LARGE_CHUNKS) == pytest.approx(0.7 / WITNESSES)
    assert witnessed(agreed, LARGE_CHUNKS) > 0.6


def test_the_larger_a_vault_the_more_is_asked_of_the_evidence() -> None:
    small, large, larger = (answerable_probability(0.45, chunks) for chunks in (3, LARGE_CHUNKS, 100 * LARGE_CHUNKS))
    assert small > 0.5 > large == larger
    assert answerable_probability(0.7, LARGE_CHUNKS) > 0.9
