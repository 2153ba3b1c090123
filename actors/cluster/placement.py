"""Which node should own which partition: rendezvous hashing, the same on every node without asking anybody.

Pure. For each partition every node has a score, and the highest owns it: a node that comes takes partitions from all
others evenly and moves no other, and those of a node that goes spread over all that are left (Thaler and Ravishankar,
"Using name-based mappings to increase hit rates", 1998; weights by -w / ln(u), as in Schindelhauer and Schomaker,
"Weighted distributed hash tables", 2005). Must never depend on anything but names, weights and numbers: two versions
that disagree would move partitions to and fro for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]
Choices = npt.NDArray[np.int32]
Nodes = Sequence[tuple[int, np.uint64, float]]
"""Place in the sequence, hash, weight."""

NOBODY = -1
BLOCK = 8_192
"""Partitions that are placed together."""


class Candidate(msgspec.Struct, frozen=True, order=True):
    """A node that may own partitions.

    Attributes:
        weight: its share, relative to the others'.
    """

    node_id: str
    weight: float = 1.0


def part_hashes(parts: int) -> Hashes:
    """One hash for each partition from 0 on."""
    return _mixed(np.arange(1, parts + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def place(candidates: Sequence[Candidate], parts: int) -> Choices:
    """For each partition the candidate's place in the sequence, or `NOBODY` if there is none.

    One vector of partitions for each node, in blocks that stay in a core's cache: 10 000 nodes and 65 536 partitions
    take seconds and a few megabytes. Equal scores, which 64 bits make rare, go to the smaller name.
    """
    choices = np.full(parts, NOBODY, dtype=np.int32)
    hashes = part_hashes(parts)
    by_name = sorted(range(len(candidates)), key=lambda place: candidates[place].node_id)
    nodes = [(place, node_hash(candidates[place].node_id), candidates[place].weight) for place in by_name]
    equal = len({weight for _, _, weight in nodes}) <= 1
    for begin in range(0, parts, BLOCK):
        block = slice(begin, begin + BLOCK)
        if equal:
            _place_equals(nodes, hashes[block], choices[block])
        else:
            _place_weighted(nodes, hashes[block], choices[block])
    return choices


def _place_equals(nodes: Nodes, hashes: Hashes, choices: Choices) -> None:
    best = np.zeros(len(hashes), dtype=np.uint64)
    for place, node, _ in nodes:
        of_node = scores(node, hashes)
        better = of_node > best
        np.copyto(best, of_node, where=better)
        np.copyto(choices, np.int32(place), where=better)


def _place_weighted(nodes: Nodes, hashes: Hashes, choices: Choices) -> None:
    best = np.zeros(len(hashes), dtype=np.float64)
    for place, node, weight in nodes:
        of_node = weighted_scores(node, weight, hashes)
        better = of_node > best
        np.copyto(best, of_node, where=better)
        np.copyto(choices, np.int32(place), where=better)


def node_hash(node_id: str) -> np.uint64:
    """A node's hash."""
    return np.uint64(xxhash.xxh3_64_intdigest(node_id.encode()))


def scores(node: np.uint64, hashes: Hashes) -> Hashes:
    """The score of the node with this hash for each partition; at least 1."""
    return _mixed(hashes ^ node) | np.uint64(1)


def weighted_scores(node: np.uint64, weight: float, hashes: Hashes) -> npt.NDArray[np.float64]:
    """The same with the weight: in the order of `scores` among nodes of one weight."""
    uniform = ((scores(node, hashes) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    weighted: npt.NDArray[np.float64] = -weight / np.log(uniform)
    return weighted


def _mixed(values: Hashes) -> Hashes:
    """Each number's bits spread over all 64: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values
