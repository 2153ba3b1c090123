"""Every node computes the same placement; it is even, and a node that comes or goes moves only what it must."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.cluster.placement import NOBODY, Candidate, node_hash, part_hashes, place, weighted_scores
from bench.placement import balance, moved_by

NAMES = st.lists(st.text("abcdef0123456789", min_size=1, max_size=6), min_size=1, max_size=12, unique=True)


def named(names: list[str]) -> list[Candidate]:
    return [Candidate(name) for name in names]


def owners(names: list[str], parts: int) -> list[str]:
    return [names[place_] for place_ in place(named(names), parts)]


def test_placement_never_changes_between_versions() -> None:
    """Two versions that place differently would move partitions to and fro."""
    assert "".join(name[-1] for name in owners(["node-a", "node-b", "node-c"], 16)) == "aacabccbcaaaccaa"
    weighted = [Candidate("node-a", 3.0), Candidate("node-b"), Candidate("node-c")]
    assert "".join("abc"[place_] for place_ in place(weighted, 16)) == "aacaaacbcaaaccaa"


def test_nobody_owns_anything_where_nobody_is() -> None:
    assert place([], 4).tolist() == [NOBODY] * 4


@given(NAMES, st.randoms())
def test_the_order_of_nodes_does_not_matter(names: list[str], chance: Random) -> None:
    shuffled = chance.sample(names, len(names))
    assert owners(names, 64) == owners(shuffled, 64)


@given(NAMES, st.text("ghijk", min_size=1, max_size=4))
def test_a_node_that_comes_takes_from_others_and_moves_nothing_else(names: list[str], new: str) -> None:
    before, after = owners(names, 64), owners([*names, new], 64)
    assert all(now in (then, new) for then, now in zip(before, after, strict=True))


@given(NAMES)
def test_equal_weights_are_no_weights(names: list[str]) -> None:
    weighted = [Candidate(name, 2.5) for name in names]
    assert place(weighted, 64).tolist() == place(named(names), 64).tolist()
    hashes = part_hashes(64)
    by_weight = np.argmax([weighted_scores(node_hash(name), 2.5, hashes) for name in names], axis=0)
    assert by_weight.tolist() == place(named(names), 64).tolist()


def test_weights_are_shares() -> None:
    candidates = [Candidate("a", 1.0), Candidate("b", 1.0), Candidate("c", 2.0)]
    shares = np.bincount(place(candidates, 20_000), minlength=3) / 20_000
    assert shares.tolist() == pytest.approx([0.25, 0.25, 0.5], abs=0.02)


def test_more_weight_moves_partitions_only_to_the_heavier_node() -> None:
    before = place([Candidate("a"), Candidate("b"), Candidate("c", 1.0 + 1e-9)], 4_096)
    after = place([Candidate("a"), Candidate("b"), Candidate("c", 2.0)], 4_096)
    assert set(after[before != after].tolist()) == {2}


def test_two_hundred_nodes_share_evenly_and_move_little() -> None:
    """What `python -m bench.placement` does for 10 000 nodes and 65 536 partitions."""
    figures = balance(200, 16_384)
    assert figures["mean"] == pytest.approx(81.92)
    assert figures["deviation"] == pytest.approx(81.92**0.5, rel=0.25)  # as of independent draws
    assert isinstance(figures["times_of_mean_max"], float)
    assert figures["times_of_mean_max"] < 1.6
    for moved in moved_by(200, 16_384).values():
        assert moved["moved"] == moved["moved_least"]
        assert moved["moved"] == pytest.approx(81.92, abs=4 * 81.92**0.5)
