"""Schemas for output formats and strict tools: closed, and without what Anthropic does not enforce."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.providers.strict_schema import fit_schema


def test_schemas_are_closed_at_every_depth() -> None:
    """Unless they say otherwise; constants that look like schemas are left alone."""
    inner = {"type": "object"}
    schema: dict[str, Any] = {"$defs": {"d": {"type": "object", "additionalProperties": inner}}, "anyOf": [inner]}
    schema |= {"properties": {"type": inner, "minimum": inner}, "items": inner, "const": inner, "enum": [inner]}
    closed = {"type": "object", "additionalProperties": False}

    assert fit_schema(schema) == {
        "$defs": {"d": {"type": "object", "additionalProperties": closed}},
        "anyOf": [closed],
        "properties": {"type": closed, "minimum": closed},
        "items": closed,
        "const": inner,
        "enum": [inner],
    }


@pytest.mark.parametrize(
    ("schema", "fitted"),
    [
        ({"type": "integer", "minimum": 1}, {"type": "integer", "description": '{"minimum":1}'}),
        (
            {"type": "string", "description": "A name.", "minLength": 1, "maxLength": 5},
            {"type": "string", "description": 'A name. {"minLength":1,"maxLength":5}'},
        ),
        ({"type": "array", "minItems": 1}, {"type": "array", "minItems": 1}),
        ({"type": "array", "minItems": 2}, {"type": "array", "description": '{"minItems":2}'}),
        ({"type": "string", "pattern": "a+", "format": "date"}, {"type": "string", "pattern": "a+", "format": "date"}),
    ],
)
def test_limits_that_are_not_enforced_are_told(schema: Any, fitted: Any) -> None:
    """A schema that holds them is refused."""
    assert fit_schema(schema) == fitted


_JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "items", "x"]), inner, max_size=3)
    ),
    max_leaves=4,
)


@given(_JSON)
def test_what_is_no_schema_is_left_to_the_provider(value: Any) -> None:
    """Never a crash; and what fits stays as it is."""
    assert fit_schema(fit_schema(value)) == fit_schema(value)
