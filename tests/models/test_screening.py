"""What looks planted, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.screening import FLAGS, flag_names, flags_of
from tests.models.screening_cases import CAUGHT, MISSED, ORDINARY


@pytest.mark.parametrize(("flag", "text"), CAUGHT)
def test_the_known_forms_of_poison_are_flagged(flag: str, text: str) -> None:
    assert flag in flag_names(flags_of(text))


@pytest.mark.parametrize("text", ORDINARY)
def test_what_people_say_is_not(text: str) -> None:
    assert flag_names(flags_of(text)) == ()


@pytest.mark.parametrize("text", MISSED)
def test_what_passes_is_known(text: str) -> None:
    """Who teaches the rules one of these moves it to the caught ones."""
    assert flags_of(text) == 0


def test_there_are_attacks_of_every_kind_and_enough_of_them() -> None:
    assert {flag for flag, _ in CAUGHT} == set(FLAGS)
    assert len(CAUGHT) >= 60


@given(st.sampled_from(CAUGHT), st.sampled_from(ORDINARY), st.sampled_from(ORDINARY))
def test_poison_is_found_between_ordinary_lines(attack: tuple[str, str], before: str, behind: str) -> None:
    flag, text = attack
    assert flag in flag_names(flags_of(f"{before}\n{text}\n{behind}"))


@given(st.integers(0, 2 ** len(FLAGS) - 1))
def test_the_number_of_flags_is_the_sum_of_their_places(flags: int) -> None:
    """As it stands on disks; flags of later releases are passed over."""
    names = flag_names(flags)
    assert sum(1 << FLAGS.index(name) for name in names) == flags
    assert flag_names(flags | 1 << len(FLAGS)) == names


def test_the_names_keep_their_places() -> None:
    assert FLAGS[:8] == (
        "override", "standing_order", "role_marker", "hidden_text", "encoded_text", "exfiltration", "promotion",
        "secrecy",
    )  # fmt: skip


@given(st.text())
def test_any_text_can_be_looked_at(text: str) -> None:
    assert 0 <= flags_of(text) < 2 ** len(FLAGS)


@pytest.mark.parametrize(
    "unit",
    ["ignore all previous ", "always ", "a", "A1b2", "\u200b", "![", "![](http://", "you are now ", "<", "指示"],
    ids=repr,
)
def test_half_a_million_characters_of_any_shape_take_one_pass(unit: str) -> None:
    assert flags_of(unit * (500_000 // len(unit))) >= 0
