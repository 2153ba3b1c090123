"""From latencies to numbers: percentiles, curves, medians of repeats and their spread.

Owns these definitions, so that every benchmark means the same by p99. Pure; never reads a clock.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

SHARES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p999_ms": 0.999, "max_ms": 1.0}
SAMPLES_OF_P999 = 1_000
"""With fewer, the 99.9th percentile is only another name for the maximum, and is left out."""

CURVE_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 1.0)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share (0..1) of the sorted values do not exceed: the nearest rank.

    Raises:
        ValueError: there is no value.
    """
    if not ordered:
        raise ValueError("There is no percentile of nothing.")
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


def summary(latencies_s: Sequence[float], prefix: str = "") -> dict[str, float]:
    """Percentiles in milliseconds, by name; {} of nothing, and no `p999_ms` of fewer than `SAMPLES_OF_P999`.

    Args:
        prefix: of the names, such as `first_byte_`.
    """
    ordered = sorted(latencies_s)
    if not ordered:
        return {}
    shares = {name: share for name, share in SHARES.items() if name != "p999_ms" or len(ordered) >= SAMPLES_OF_P999}
    return {f"{prefix}{name}": round(percentile(ordered, share) * 1000, 3) for name, share in shares.items()}


def curve(latencies_s: Sequence[float]) -> list[list[float]]:
    """Points [percent, milliseconds] of the distribution, up to the last percentile that a sample stands for."""
    ordered = sorted(latencies_s)
    points = [[share * 100, percentile(ordered, share) * 1000] for share in CURVE_SHARES if ordered]
    return [
        [round(percent, 2), round(at_ms, 3)]
        for percent, at_ms in points
        if percent == 100 or (100 - percent) / 100 * len(ordered) >= 1
    ]


def spread(values: Sequence[float]) -> float:
    """How far repeats lie apart: (largest - smallest) / median; 0 of one value or around 0."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / abs(middle) if middle else 0.0
