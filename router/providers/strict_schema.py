"""JSON schemas as Anthropic takes them where it enforces them: output formats and strict tools.

Owns what is different from OpenAI's rules. Must never loosen what a schema says of names, types and required members:
limits that Anthropic does not enforce are told to the model in the description instead, as Anthropic's own SDKs do.

The list is that of platform.claude.com, "Structured outputs", section "JSON Schema limitations", November 2026.
"""

from __future__ import annotations

from typing import Any

from router.providers.json_values import encode_value

_TOLD = frozenset(
    {
        "exclusiveMaximum",
        "exclusiveMinimum",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "uniqueItems",
    }
)
_NAMED = frozenset({"$defs", "definitions", "properties"})
"""Keywords whose members are schemas, by names that are no keywords."""

_NESTED = frozenset({"additionalProperties", "allOf", "anyOf", "items", "not", "oneOf", "prefixItems"})


def fit_schema(schema: Any) -> Any:
    """The schema with every object closed, unless it says otherwise, and unenforced limits moved to descriptions."""
    if isinstance(schema, list):
        return [fit_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    fitted: dict[str, Any] = {}
    told: dict[str, Any] = {}
    for name, value in schema.items():
        if _is_told(name, value):
            told[name] = value
        elif name in _NAMED and isinstance(value, dict):
            fitted[name] = {member: fit_schema(inner) for member, inner in value.items()}
        else:
            fitted[name] = fit_schema(value) if name in _NESTED else value
    if fitted.get("type") == "object":
        fitted.setdefault("additionalProperties", False)
    if told:
        limits = encode_value(told).decode()
        described = fitted.get("description")
        fitted["description"] = f"{described} {limits}" if isinstance(described, str) and described else limits
    return fitted


def _is_told(name: str, value: Any) -> bool:
    return name in _TOLD or (name == "minItems" and value not in (0, 1))
