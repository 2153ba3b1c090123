"""A strict reader of Prometheus' text format 0.0.4, by its own rules: what it takes, Prometheus takes.

Names and labels as the data model allows them, one HELP and one TYPE before a metric's samples, all lines of a metric
together, no series twice, counters that end in `_total` and are not negative, histograms whose buckets grow up to
`+Inf`, which is their count.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import msgspec

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
SAMPLE = re.compile(r"(?P<name>[^ {]+)(?:\{(?P<labels>.*)\})? (?P<value>[^ ]+)\Z")
PAIR = re.compile(r'(?P<label>[^=,"]+)="(?P<value>(?:[^"\\]|\\\\|\\"|\\n)*)"(?:,|\Z)')
NUMBER = re.compile(r"([+-]?Inf|NaN|-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?)\Z")

Labels = tuple[tuple[str, str], ...]


class Metric(msgspec.Struct):
    """A metric as the page shows it.

    Attributes:
        samples: by the sample's name and its labels.
    """

    name: str
    kind: str
    description: str
    samples: dict[tuple[str, Labels], float]

    @property
    def labels(self) -> set[str]:
        """Names of its labels, without the one of buckets."""
        return {label for _, labels in self.samples for label, _ in labels} - {"le"}


def parse(text: str) -> dict[str, Metric]:
    """Every metric of a page by name. A page that breaks a rule is an AssertionError."""
    assert text.endswith("\n")
    metrics: dict[str, Metric] = {}
    current = Metric("", "", "", {})
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, _, description = line.removeprefix("# HELP ").partition(" ")
            assert NAME.match(name), line
            assert name not in metrics, f"{name} comes twice"
            assert description.endswith("."), line
            metrics[name] = current = Metric(name, "", description, {})
        elif line.startswith("# TYPE "):
            name, kind = line.removeprefix("# TYPE ").split(" ")
            assert name == current.name, f"{line} does not follow its HELP"
            assert not current.kind
            assert not current.samples
            assert kind in ("counter", "gauge", "histogram"), line
            current.kind = kind
        else:
            _add_sample(current, line)
    for metric in metrics.values():
        _check(metric)
    return metrics


def samples(text: str) -> dict[str, float]:
    """Every sample of a page by its name and labels as they stand, the page being well-formed."""
    parse(text)
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def _add_sample(metric: Metric, line: str) -> None:
    found = SAMPLE.match(line)
    assert found, line
    names = {metric.name}
    if metric.kind == "histogram":
        names = {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
    assert metric.kind, f"{line} has no TYPE"
    assert found["name"] in names, f"{line} stands among the samples of {metric.name}"
    assert NUMBER.match(found["value"]), line
    labels = _labels(found["labels"] or "", line)
    key = (found["name"], tuple(sorted(labels.items())))
    assert key not in metric.samples, f"{line} comes twice"
    metric.samples[key] = float(found["value"])


def _labels(text: str, line: str) -> Mapping[str, str]:
    labels: dict[str, str] = {}
    place = 0
    while place < len(text):
        pair = PAIR.match(text, place)
        assert pair, line
        assert LABEL.match(pair["label"]), line
        assert pair["label"] not in labels, line
        labels[pair["label"]] = pair["value"]
        place = pair.end()
    return labels


def _check(metric: Metric) -> None:
    assert metric.kind, f"{metric.name} has no TYPE"
    assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name
    for reserved in ("_bucket", "_sum", "_count"):
        assert not metric.name.endswith(reserved), metric.name
    if metric.kind == "counter":
        assert all(value >= 0 for value in metric.samples.values()), metric.name
    if metric.kind == "histogram":
        for labels in {tuple(pair for pair in labels if pair[0] != "le") for _, labels in metric.samples}:
            _check_histogram(metric, labels)


def _check_histogram(metric: Metric, labels: Labels) -> None:
    buckets = []
    for (name, given), value in metric.samples.items():
        others = tuple(pair for pair in given if pair[0] != "le")
        if name.endswith("_bucket") and others == labels:
            buckets.append((float(dict(given)["le"]), value))
    assert buckets == sorted(buckets), metric.name
    assert [count for _, count in buckets] == sorted(count for _, count in buckets), metric.name
    assert buckets[-1] == (math.inf, metric.samples[f"{metric.name}_count", labels]), metric.name
    assert (f"{metric.name}_sum", labels) in metric.samples, metric.name
