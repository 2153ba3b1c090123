"""Metrics are what Prometheus reads: names, labels, buckets, and no more series than there is room for."""

from __future__ import annotations

import math

import pytest

from models.distributions import Distribution
from router.metrics import SERIES_MAX, Counter, Gauge, Group, Histogram, Page
from tests.router.exposition import parse, samples


def test_counters_count_by_label() -> None:
    requests = Counter("requests_total", "Requests.", ("route", "status"))

    requests.increment("/v1/models", 200)
    requests.increment("/v1/models", 200)
    requests.increment("/v1/models", 404)

    page = samples(Page(requests).render())
    assert page['requests_total{route="/v1/models",status="200"}'] == 2
    assert page['requests_total{route="/v1/models",status="404"}'] == 1
    assert (requests.value("/v1/models", 200), requests.total()) == (2, 3)


def test_a_gauge_is_where_it_was_put_last() -> None:
    gauge = Gauge("memories", "Memories.")
    page = Page(gauge)

    gauge.value = 5
    gauge.value -= 2

    assert samples(page.render()) == {"memories": 3}


def test_a_histogram_has_cumulative_buckets_a_sum_and_a_count() -> None:
    recall = Histogram("recall_seconds", "Recall.")

    for seconds in (0.001, 0.003, 0.2, 1000.0):
        recall.observe(seconds)

    page = samples(Page(recall).render())
    assert page['recall_seconds_bucket{le="0.001"}'] == 1
    assert page['recall_seconds_bucket{le="0.005"}'] == 2
    assert page['recall_seconds_bucket{le="300"}'] == 3
    assert page['recall_seconds_bucket{le="+Inf"}'] == page["recall_seconds_count"] == 4
    assert page["recall_seconds_sum"] == pytest.approx(1000.204)


def test_what_a_part_counts_is_read_at_each_scrape() -> None:
    waited = Distribution((1.0, 2.0))
    numbers: dict[str, object] = {"rows": 1, "full": True, "waited": waited, "name": "text"}
    group = Group(
        ("file",),
        ("rows", "rows", "gauge", "Rows."),
        ("full", "full", "gauge", "Full."),
        ("waited", "waited_seconds", "histogram", "Waited."),
        ("missing", "missing", "gauge", "What the part does not tell."),
    )
    page = Page()
    page.watch(group, lambda: [(("meta",), numbers)])

    assert samples(page.render())['rows{file="meta"}'] == 1
    numbers["rows"] = 5
    waited.observe(1.5)

    found = samples(page.render())
    assert (found['rows{file="meta"}'], found['full{file="meta"}']) == (5, 1)
    assert found['waited_seconds_bucket{file="meta",le="2"}'] == found['waited_seconds_count{file="meta"}'] == 1
    assert parse(page.render())["missing"].samples == {}
    assert [family.name for family in page.families()] == ["rows", "full", "waited_seconds", "missing"]


def test_label_values_and_descriptions_are_escaped() -> None:
    counter = Counter("test_total", "A\\B\nC.", ("route",))

    counter.increment('a"b\\c\nd')

    assert list(counter.lines()) == [
        "# HELP test_total A\\\\B\\nC.",
        "# TYPE test_total counter",
        'test_total{route="a\\"b\\\\c\\nd"} 1',
    ]


def test_odd_numbers_are_written_as_prometheus_reads_them() -> None:
    gauge, page = Gauge("odd", "Odd."), {}

    for value in (math.inf, -math.inf, math.nan, 1e21, 0.25):
        gauge.value = value
        page[value] = list(gauge.lines())[-1]

    assert list(page.values()) == ["odd +Inf", "odd -Inf", "odd NaN", "odd 1000000000000000000000", "odd 0.25"]


def test_series_beyond_the_limit_are_counted_together() -> None:
    counter = Counter("test_total", "Test.", ("route",))
    histogram = Histogram("test_seconds", "Test.", ("route",))
    group, page = Group(("route",), ("rows", "rows", "gauge", "Rows.")), Page()
    page.watch(group, lambda: [((str(number),), {"rows": 1}) for number in range(SERIES_MAX + 50)])

    for number in range(SERIES_MAX + 50):
        counter.increment(number)
        histogram.observe(0.1, number)

    assert counter.value("other") == 50
    assert histogram.count("other") == 50
    assert counter.value(0) == 1
    assert len(parse(page.render())["rows"].samples) == SERIES_MAX


def test_a_metric_wants_all_its_labels() -> None:
    with pytest.raises(ValueError, match="route"):
        Histogram("test_seconds", "Test.", ("route",)).observe(0.1)


@pytest.mark.parametrize(
    "page",
    [
        "# HELP a A.\n# TYPE a gauge\na 1",  # no end of line
        "a 1\n",
        "# HELP a A.\na 1\n",
        "# TYPE a gauge\na 1\n",
        "# HELP a A.\n# TYPE a gauge\na 1\na 1\n",
        "# HELP a A.\n# TYPE a gauge\nb 1\n",
        "# HELP a A.\n# TYPE a counter\na 1\n",
        "# HELP a_total A.\n# TYPE a_total gauge\na_total 1\n",
        "# HELP a_total A.\n# TYPE a_total counter\na_total -1\n",
        "# HELP a A.\n# TYPE a gauge\na{b=1} 1\n",
        '# HELP a A.\n# TYPE a gauge\na{b="x"y"} 1\n',
        "# HELP a A.\n# TYPE a gauge\na inf\n",
        "# HELP 1a A.\n# TYPE 1a gauge\n",
        '# HELP a A.\n# TYPE a histogram\na_bucket{le="1"} 2\na_bucket{le="+Inf"} 1\na_sum 1\na_count 1\n',
        '# HELP a A.\n# TYPE a histogram\na_bucket{le="1"} 1\na_sum 1\na_count 1\n',
        '# HELP a A.\n# TYPE a histogram\na_bucket{le="+Inf"} 1\na_count 1\n',
    ],
)
def test_the_reader_is_strict(page: str) -> None:
    """What these tests rely on refuses what Prometheus would, and a bit more."""
    with pytest.raises((AssertionError, KeyError, ValueError)):
        parse(page)
