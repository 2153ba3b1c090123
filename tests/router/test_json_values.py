"""JSON from decoded values: everything that can be decoded can be encoded."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from router.providers.json_bytes import decode_value
from router.providers.json_values import encode_value

_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(_JSON)
def test_what_was_decoded_can_be_encoded(value: Any) -> None:
    """Lone surrogates aside, it comes back as it was."""
    decoded = decode_value(json.dumps(value).encode())
    again = decode_value(encode_value(decoded))

    assert "\\ud" in json.dumps(value) or again == value


def test_large_integers_keep_their_digits() -> None:
    """As do bytes that were not decoded at all."""
    value = {"a\ud800": [10**40, -(10**40), True, 1.5], "raw": msgspec.Raw(b'{"b":1.50}')}

    assert (
        encode_value(value) == ('{"a\ufffd":[1' + "0" * 40 + ",-1" + "0" * 40 + ',true,1.5],"raw":{"b":1.50}}').encode()
    )
