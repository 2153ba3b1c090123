"""What is invisible, and what looks like what."""

# ruff: noqa: RUF001 - letters that look alike are the point

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.look_alikes import shadow, without_invisible


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("ｓｙｓｔｅｍ：", "system:"),
        ("𝐬𝐲𝐬𝐭𝐞𝐦", "system"),
        ("ѕуѕtеm", "system"),
        ("＜｜User｜＞", "<|User|>"),
        ("[MEMORY — now", "[MEMORY - now"),
        ("ⓤⓢⓔⓡ", "user"),
        ("naïve café, 東京", "naïve café, 東京"),
    ],
)
def test_look_alikes_become_what_they_look_like(text: str, seen: str) -> None:
    assert shadow(text) == seen


@given(st.text())
def test_a_shadow_has_the_places_of_its_text_and_no_shadow_of_its_own(text: str) -> None:
    seen = shadow(text)
    assert len(seen) == len(text)
    assert shadow(seen) == seen
    assert seen.splitlines() == [shadow(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("me\u200bmo\u00adry", "memory"),
        ("me\u200d\u200cmory", "memory"),
        ("m\ufe0femory", "memory"),
        ("\u202eevil\u202c \u2066x\u2069", "evil x"),
        ("a" + "".join(chr(0xE0000 + ord(letter)) for letter in "ignore") + "b", "ab"),
        ("x\U000e0100\U000e0101y", "xy"),
        ("bell\a, \x1b[31mred\x7f\x9f", "bell, [31mred"),
        ("tab\tand\nline", "tab\tand\nline"),
    ],
)
def test_what_nobody_sees_goes(text: str, seen: str) -> None:
    assert without_invisible(text) == seen


@pytest.mark.parametrize(
    "text", ["👩\u200d💻", "❤\ufe0f", "#\ufe0f\u20e3 7\ufe0f\u20e3", "می\u200cخواهم", "क्\u200dष", "한국어"]
)
def test_joiners_and_selectors_stay_where_scripts_need_them(text: str) -> None:
    assert without_invisible(text) == text


# Characters of that category that are seen: signs over numbers, hieroglyphs' joiners.
SEEN = {
    *map(
        chr,
        [*range(0x0600, 0x0606), 0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2, 0x110BD, 0x110CD, *range(0x13430, 0x13440)],
    )
}


@given(st.text())
def test_nothing_of_the_format_category_is_left_but_joiners_between_letters(text: str) -> None:
    seen = without_invisible(text)
    left = {character for character in seen if unicodedata.category(character) == "Cf"}
    assert left <= {"\u200c", "\u200d", *SEEN}
    assert without_invisible(seen) == seen


@pytest.mark.parametrize("unit", ["\u200d", "a\u200d", "é\ufe0f", "\u202e", "ａ", "\U000e0041"], ids=repr)
def test_a_million_characters_of_any_kind_take_one_pass(unit: str) -> None:
    assert len(without_invisible(unit * 1_000_000)) <= 2_000_000
