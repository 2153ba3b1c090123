"""Usage as data: sums, and the names under which models are counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.usage import MODELS_MAX, NUMBERS, OTHER_MODEL, ModelNames, UsageCount, countable_model, sum_up

DAY = 20_000

counts = st.builds(
    UsageCount,
    key_number=st.integers(1, 3),
    account_number=st.just(1),
    day=st.integers(DAY, DAY + 1),
    model=st.sampled_from(["", "a"]),
    **{name: st.integers(0, 9) for name in NUMBERS},
)


@given(st.lists(counts))
def test_sums_lose_nothing_and_name_each_key_day_and_model_once(listed: list[UsageCount]) -> None:
    summed = sum_up(listed)

    for name in NUMBERS:
        assert sum(getattr(count, name) for count in summed) == sum(getattr(count, name) for count in listed)
    places = [(count.day, count.key_number, count.account_number, count.model) for count in summed]
    assert places == sorted(set(places))


def test_all_numbers_are_summed() -> None:
    assert len(NUMBERS) == 9


@pytest.mark.parametrize("name", ["openai/gpt-5.1", "meta-llama/llama-4:free", "gemini-3-pro@001", "openai/ask-1", "m"])
def test_a_models_name_is_kept(name: str) -> None:
    assert countable_model(name) == name


@pytest.mark.parametrize(
    "name", ["", "my dog is called Rex", "openai/sk-0123456789", "mk_0123456789", "=cmd", "a,b", "m\n", "m" * 129, "é"]
)
def test_what_is_no_models_name_is_other(name: str) -> None:
    assert countable_model(name) == OTHER_MODEL


def test_models_beyond_the_limit_are_other_until_the_day_is_over() -> None:
    names = ModelNames()
    known = [names.known(f"openai/m{number}", key_number=1, day=DAY) for number in range(MODELS_MAX + 2)]

    assert known[-3:] == ["openai/m99", OTHER_MODEL, OTHER_MODEL]
    assert names.known("openai/m0", key_number=1, day=DAY) == "openai/m0"
    assert names.known("openai/new", key_number=2, day=DAY) == "openai/new"
    assert names.known("openai/new", key_number=1, day=DAY + 1) == "openai/new"


def test_no_name_is_no_model() -> None:
    assert ModelNames().known(None, key_number=1, day=DAY) == ""
