"""Percentiles are nearest ranks, and say no more than the samples know."""

from __future__ import annotations

import pytest

from bench._percentiles import SAMPLES_OF_P999, curve, percentile, spread, summary


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.0, 1), (0.01, 1), (0.5, 50), (0.501, 51), (0.9, 90), (0.99, 99), (0.999, 100), (1.0, 100)],
)
def test_a_percentile_is_the_smallest_value_that_covers_its_share(share: float, expected: int) -> None:
    assert percentile(range(1, 101), share) == expected


def test_a_percentile_of_one_value_is_that_value() -> None:
    assert [percentile([7.0], share) for share in (0.0, 0.5, 0.999, 1.0)] == [7.0] * 4


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)
    assert summary([]) == {}
    assert curve([]) == []


def test_a_summary_is_in_milliseconds_whatever_the_order() -> None:
    assert summary([0.003, 0.001, 0.002]) == {"p50_ms": 2, "p90_ms": 3, "p99_ms": 3, "max_ms": 3}
    assert set(summary([0.001], "first_byte_")) == {
        "first_byte_p50_ms", "first_byte_p90_ms", "first_byte_p99_ms", "first_byte_max_ms",
    }  # fmt: skip


def test_the_999th_thousandth_needs_a_thousand_samples() -> None:
    assert "p999_ms" not in summary([0.001] * (SAMPLES_OF_P999 - 1))
    figures = summary([0.001] * (SAMPLES_OF_P999 - 1) + [1.0])
    assert (figures["p999_ms"], figures["max_ms"]) == (1.0, 1000.0)


def test_a_curve_ends_where_no_sample_stands_for_more() -> None:
    points = curve([number / 1000 for number in range(1, 101)])
    assert points[-2:] == [[99.0, 99.0], [100.0, 100.0]]
    assert [at_ms for _, at_ms in points] == sorted(at_ms for _, at_ms in points)


def test_the_spread_is_relative_to_the_median() -> None:
    assert spread([9.0, 10.0, 12.0]) == pytest.approx(0.3)
    assert spread([5.0]) == spread([0.0, 0.0]) == 0.0
