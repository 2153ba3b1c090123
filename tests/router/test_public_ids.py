"""Ids as clients see them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import NotFound
from router.public_ids import memory_number_of, number_of, public_id


@given(st.integers(1, 10**17))
def test_an_id_and_its_bare_number_are_the_same_thing(number: int) -> None:
    """People type numbers, programs send ids."""
    assert number_of(public_id("key", number), "key") == number_of(str(number), "key") == number


@pytest.mark.parametrize("text", ["", "key_", "key_0", "vault_3", "key_1x", "key_-1", "key_\u0661", "key_" + "9" * 19])
def test_what_is_no_id_names_nothing(text: str) -> None:
    """404, as for a number that nobody has."""
    with pytest.raises(NotFound):
        number_of(text, "key")


@pytest.mark.parametrize("text", ["", "7", "mem_", "mem_x", "mem_\u0667"])
def test_a_memory_is_named_by_its_whole_id(text: str) -> None:
    """No bare numbers."""
    assert memory_number_of("mem_7") == 7
    with pytest.raises(NotFound):
        memory_number_of(text)
