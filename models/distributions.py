"""How values spread over buckets: what a histogram counts, for whoever measures, in whatever layer.

Owns the counting and the bounds. Must never know who shows it: names and labels are the metrics' business.
"""

from __future__ import annotations

from bisect import bisect_left

REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Bounds for what a client waits for: from a read that is answered from memory to a long reply of a model."""

STEP_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Bounds for one step within the process: a turn of a vault, a batch of the model, a commit, a wait in a queue."""

BATCH_TEXTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
"""Bounds for the texts of one batch."""


class Distribution:
    """Counts of values by bucket, and their sum. For one thread only.

    Attributes:
        bounds: upper ends of the buckets, inclusive and growing; one more bucket is for all above.
        counts: values in each bucket, one more than there are bounds.
        total: their sum.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts)
