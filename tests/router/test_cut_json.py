"""Any beginning of a JSON object can be completed, with an error as its last member."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.providers.cut_json import close_object

_MEMBER = b'"error":{"code":"cut"}'
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
_OBJECTS = st.dictionaries(st.text(max_size=5), _VALUES, max_size=5)


@given(_OBJECTS, st.floats(0, 1, exclude_max=True), st.booleans(), st.sampled_from([None, 1]))
def test_every_prefix_becomes_an_object_with_the_member(
    value: dict[str, object], place: float, ascii_only: bool, indent: int | None
) -> None:
    """Cut in a name, a string, an escape, a character, a number or between tokens."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    partial = text[: int(place * len(text))]

    rest = close_object(partial, _MEMBER)

    assert rest is not None
    assert json.loads((partial + rest).decode())["error"] == {"code": "cut"}


@pytest.mark.parametrize("partial", [b"[1", b'"text', b"[DO", b'{"a":1}', b"12", b"true"])
def test_what_is_not_the_beginning_of_an_object_is_left_alone(partial: bytes) -> None:
    """The caller then ends the line and sends the error as an event of its own."""
    assert close_object(partial, _MEMBER) is None
