"""Columns of numbers: they grow as lists do, and are read without one."""

from __future__ import annotations

import numpy as np
import pytest

from actors.columns import Column, items


@pytest.mark.parametrize("count", [0, 1, 16, 17, 1_000])
def test_a_column_holds_what_was_appended_or_given(count: int) -> None:
    appended = Column(np.int32)
    for value in range(count):
        appended.append(value)
    given = Column.of(range(count), np.int32)
    given.append(count)
    assert appended.view.tolist() == list(range(count))
    assert given.view.tolist() == list(range(count + 1))


@pytest.mark.parametrize("count", [0, 1, 4_096, 10_000])
def test_items_are_the_numbers_in_order(count: int) -> None:
    assert list(items(np.arange(count))) == list(range(count))
