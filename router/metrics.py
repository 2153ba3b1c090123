"""Metrics in Prometheus' text format 0.0.4: counters, gauges, histograms, and what other parts count themselves.

Owns how a metric is written and how many series it may have; which metrics there are stands in `router.server_metrics`.
Must never have a label whose values a client can choose without bound: `SERIES_MAX` bounds them all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from models.distributions import REQUEST_SECONDS, Distribution

METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SERIES_MAX = 512
"""Label combinations of one metric; later ones count as `other`, so that no client can fill the memory."""

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]
Rows = Iterable[tuple[Labels, Mapping[str, Any]]]
"""What a part counts: label values, and numbers or distributions by name."""


class Family(msgspec.Struct, frozen=True):
    """A metric as it is described: everything but its values."""

    name: str
    kind: Kind
    description: str
    labels: Labels = ()

    def head(self) -> Iterator[str]:
        """The lines that come before its samples."""
        yield f"# HELP {self.name} {_escape_help(self.description)}"
        yield f"# TYPE {self.name} {self.kind}"

    def sample(self, labels: Labels, value: float | Distribution) -> Iterator[str]:
        """The lines of one series."""
        pairs = list(zip(self.labels, labels, strict=True))
        if isinstance(value, Distribution):
            yield from _histogram_lines(self.name, pairs, value)
        else:
            yield _line(self.name, pairs, value)


class Counter:
    """A number that only grows, one for each combination of label values. For Trio's thread only."""

    def __init__(self, name: str, description: str, labels: Labels = ()) -> None:
        self.family = Family(name, "counter", description, labels)
        self._values: dict[Labels, float] = {} if labels else {(): 0}

    def increment(self, *values: object, by: float = 1) -> None:
        """Add `by` to the series of these label values, which come in the order of the labels."""
        key = _series(self._values, values, self.family.labels)
        self._values[key] = self._values.get(key, 0) + by

    def value(self, *values: object) -> float:
        """Where the series stands."""
        return self._values.get(tuple(str(value) for value in values), 0)

    def total(self) -> float:
        """Over all series."""
        return sum(self._values.values())

    def lines(self) -> Iterator[str]:
        """The metric in Prometheus' text format."""
        yield from self.family.head()
        for key, value in sorted(self._values.items()):
            yield from self.family.sample(key, value)


class Gauge:
    """A number that goes up and down. For Trio's thread only.

    Attributes:
        value: where it stands.
    """

    def __init__(self, name: str, description: str) -> None:
        self.family = Family(name, "gauge", description)
        self.value: float = 0

    def lines(self) -> Iterator[str]:
        """The metric in Prometheus' text format."""
        yield from self.family.head()
        yield from self.family.sample((), self.value)


class Histogram:
    """How values spread over buckets, by combination of label values. For Trio's thread only."""

    def __init__(
        self, name: str, description: str, labels: Labels = (), *, bounds: tuple[float, ...] = REQUEST_SECONDS
    ) -> None:
        self.family = Family(name, "histogram", description, labels)
        self._bounds = bounds
        self._distributions: dict[Labels, Distribution] = {} if labels else {(): Distribution(bounds)}

    def observe(self, value: float, *values: object) -> None:
        """Count one value in the series of these label values."""
        key = _series(self._distributions, values, self.family.labels)
        distribution = self._distributions.get(key)
        if distribution is None:
            distribution = self._distributions[key] = Distribution(self._bounds)
        distribution.observe(value)

    def count(self, *values: object) -> int:
        """How many values the series has."""
        distribution = self._distributions.get(tuple(str(value) for value in values))
        return 0 if distribution is None else distribution.count

    def lines(self) -> Iterator[str]:
        """The metric in Prometheus' text format, with cumulative buckets."""
        yield from self.family.head()
        for key, distribution in sorted(self._distributions.items()):
            yield from self.family.sample(key, distribution)


class Group:
    """Metrics of one part, which counts by itself: read at each scrape.

    Attributes:
        families: by the name that the part has for the number.
    """

    def __init__(self, labels: Labels, *shown: tuple[str, str, Kind, str]) -> None:
        """Make a group.

        Args:
            labels: of each of its metrics.
            shown: what the part calls the number, the metric's name, its kind, what it means.
        """
        self.families = {key: Family(name, kind, description, labels) for key, name, kind, description in shown}

    def lines(self, rows: Rows) -> Iterator[str]:
        """All of them in Prometheus' text format. A number that a row lacks has no sample."""
        known = list(rows)[:SERIES_MAX]
        for key, family in self.families.items():
            yield from family.head()
            for labels, numbers in known:
                if key in numbers:
                    yield from family.sample(labels, numbers[key])


class Page:
    """Everything that `/metrics` shows."""

    def __init__(self, *metrics: Counter | Gauge | Histogram) -> None:
        self._metrics = list(metrics)
        self._watched: list[tuple[Group, Callable[[], Rows]]] = []

    def watch(self, group: Group, read: Callable[[], Rows]) -> None:
        """Show what a part counts, as it stands at each scrape."""
        self._watched.append((group, read))

    def families(self) -> list[Family]:
        """What there is."""
        watched = [family for group, _ in self._watched for family in group.families.values()]
        return [*(metric.family for metric in self._metrics), *watched]

    def render(self) -> str:
        """The page."""
        lines = [line for metric in self._metrics for line in metric.lines()]
        for group, read in self._watched:
            lines += group.lines(read())
        return "\n".join(lines) + "\n"


def _series(known: Mapping[Labels, object], values: tuple[object, ...], labels: Labels) -> Labels:
    if len(values) != len(labels):
        raise ValueError(f"expected values of {labels}")
    key = tuple(str(value) for value in values)
    return key if key in known or len(known) < SERIES_MAX else ("other",) * len(labels)


def _histogram_lines(name: str, labels: list[tuple[str, str]], distribution: Distribution) -> Iterator[str]:
    below = 0
    for bound, count in zip([*distribution.bounds, math.inf], distribution.counts, strict=True):
        below += count
        yield _line(f"{name}_bucket", [*labels, ("le", "+Inf" if bound == math.inf else f"{bound:g}")], below)
    yield _line(f"{name}_sum", labels, distribution.total)
    yield _line(f"{name}_count", labels, below)


def _line(name: str, labels: Iterable[tuple[str, str]], value: float) -> str:
    inside = ",".join(f'{label}="{_escape(text)}"' for label, text in labels)
    return f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}"


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
