"""How evenly do nodes share partitions, and how many partitions move when a node comes or goes?

Placement alone, without a server: rendezvous hashing as `actors.cluster.placement` does it. What moves must be what the
node itself gets or had, and nothing else. With few partitions for each node shares differ by chance: about the square
root of the mean.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence

import numpy as np

from actors.cluster.placement import Candidate, place
from bench._options import run_benchmark
from bench._results import Figure, Table

SIZES = ((3, 64), (10, 256), (50, 4_096), (1_000, 65_536), (10_000, 65_536))
QUICK_SIZES = SIZES[:3]


def measure(options: Namespace) -> Iterator[Table]:
    """Balance and movement for each size."""
    sizes = QUICK_SIZES if options.quick else SIZES
    yield Table("Balance", {_name(*size): balance(*size) for size in sizes})
    rows: dict[str, dict[str, Figure]] = {}
    for size in sizes:
        for what, figures in moved_by(*size).items():
            rows[f"{_name(*size)}: {what}"] = figures
    yield Table("Movement", rows)


def balance(nodes: int, parts: int) -> dict[str, Figure]:
    """Partitions of a node: mean, standard deviation, extremes; and the time that it takes to compute."""
    began_s = time.process_time()
    choices = place(_candidates(nodes), parts)
    took_s = time.process_time() - began_s
    shares = np.bincount(choices, minlength=nodes)
    mean = parts / nodes
    return {
        "mean": round(mean, 2),
        "deviation": round(float(shares.std()), 2),
        "least": int(shares.min()),
        "most": int(shares.max()),
        "times_of_mean_max": round(float(shares.max()) / mean, 2),
        "cpu_s": round(took_s, 3),
    }


def moved_by(nodes: int, parts: int) -> dict[str, dict[str, Figure]]:
    """What moves when one more node comes, and when one of them goes, beside what must."""
    candidates = _candidates(nodes + 1)
    more, before = candidates, candidates[:-1]
    without_first = candidates[1:-1]
    now, came, went = _names(before, parts), _names(more, parts), _names(without_first, parts)
    return {
        "one comes": _movement(now, came, int((came == nodes).sum())),
        "one goes": _movement(now, went, int((now == 0).sum())),
    }


def _movement(before: np.ndarray, after: np.ndarray, least: int) -> dict[str, Figure]:
    moved = int((before != after).sum())
    return {"moved": moved, "moved_least": least, "percent": round(100 * moved / len(before), 3)}


def _candidates(nodes: int) -> list[Candidate]:
    return [Candidate(f"node-{number}") for number in range(nodes)]


def _names(candidates: Sequence[Candidate], parts: int) -> np.ndarray:
    """The owner's number, which is its own whoever else is there."""
    numbers = np.array([int(candidate.node_id.removeprefix("node-")) for candidate in candidates])
    owners: np.ndarray = numbers[place(candidates, parts)]
    return owners


def _name(nodes: int, parts: int) -> str:
    return f"{nodes} nodes, {parts} partitions"


if __name__ == "__main__":
    sys.exit(run_benchmark(measure, __doc__))
