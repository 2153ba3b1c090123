"""A distribution counts what it is given, each value once, in the first bucket that it fits."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.distributions import BATCH_TEXTS, REQUEST_SECONDS, STEP_SECONDS, Distribution


@pytest.mark.parametrize("bounds", [REQUEST_SECONDS, STEP_SECONDS, BATCH_TEXTS])
def test_bounds_grow(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


@given(st.lists(st.floats(0, 1_000)))
def test_every_value_is_in_one_bucket(values: list[float]) -> None:
    distribution = Distribution(STEP_SECONDS)

    for value in values:
        distribution.observe(value)

    assert distribution.count == len(values)
    assert distribution.total == pytest.approx(sum(values))
    for place, count in enumerate(distribution.counts):
        assert count == sum(bisect_left(STEP_SECONDS, value) == place for value in values)


def test_a_bound_belongs_to_its_bucket() -> None:
    """Prometheus' `le` means less or equal."""
    distribution = Distribution((1.0, 2.0))

    for value in (1.0, 2.0, 2.5):
        distribution.observe(value)

    assert distribution.counts == [1, 1, 1]
