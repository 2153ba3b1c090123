"""Several workers' metrics on one page: valid as one worker's, each sample says whose it is, and no half page shows."""

from __future__ import annotations

import pytest

from router.metric_pages import merge, read_page, read_pages
from router.metrics import Counter, Gauge, Histogram, Page
from tests.router.exposition import parse, samples


def page(number: int) -> str:
    """What a worker shows that has done `number` things of each kind."""
    requests, vaults = Counter("test_requests_total", "Requests.", ("route",)), Gauge("test_vaults", "Vaults.")
    seconds = Histogram("test_seconds", 'A "time".', ("route",), bounds=(0.5, 1.0))
    for place in range(number):
        requests.increment('/v1/a{b}"c,d', by=2)
        seconds.observe(place, "/v1/x")
    vaults.value = number
    return Page(requests, seconds, vaults).render()


def merged(pages: dict[int, str], *, own: int = 1) -> str:
    return "\n".join([*merge(read_pages(pages), own=own, once=frozenset({"test_vaults"})), ""])


def test_every_sample_says_whose_it_is() -> None:
    text = merged({0: page(1), 1: page(2), 2: page(3)})

    assert parse(text).keys() == {"test_requests_total", "test_seconds", "test_vaults"}
    found = samples(text)
    assert all('{worker="' in name for name in found)
    for worker in range(3):
        assert found[f'test_requests_total{{worker="{worker}",route="/v1/a{{b}}\\"c,d"}}'] == 2 * (worker + 1)
        assert found[f'test_seconds_bucket{{worker="{worker}",route="/v1/x",le="+Inf"}}'] == worker + 1


@pytest.mark.parametrize("own", [0, 1, 2])
def test_what_the_workers_share_is_told_once_under_the_same_name_whoever_is_asked(own: int) -> None:
    """Sums over the workers are right, and the series is the same from scrape to scrape."""
    found = samples(merged({0: page(1), 1: page(2), 2: page(3)}, own=own))
    assert {name: value for name, value in found.items() if "vaults" in name} == {'test_vaults{worker="0"}': own + 1}


def test_a_worker_without_an_answer_is_left_out() -> None:
    found = samples(merged({1: page(2), 2: page(3)}))

    assert found['test_vaults{worker="1"}'] == 2
    assert not [name for name in found if 'worker="0"' in name]


def test_metrics_that_only_one_has_are_shown() -> None:
    other = Page(Counter("other_total", "Others.")).render()
    found = samples(merged({0: page(1), 1: other}))
    assert found['other_total{worker="1"}'] == 0
    assert 'test_requests_total{worker="0",route="/v1/a{b}\\"c,d"}' in found


def test_no_part_of_a_line_counts_and_nothing_but_a_page() -> None:
    """Cut between two lines, a page is told from a whole one by the length of its answer."""
    whole = page(2)
    assert read_page(whole) is not None
    for length in range(len(whole)):
        assert whole[:length].endswith("\n") or read_page(whole[:length]) is None
    for wrong in ("", "\n", "<html>\n", "# HELP a A.\n", "a 1\n", "# TYPE a gauge\na 1\n", whole + whole):
        assert read_page(wrong) is None
    assert read_pages({0: "<html>", 1: whole}).keys() == {1}
