"""Readiness in `/openapi.json`: what `/readyz` takes and says."""

from __future__ import annotations

from router.openapi.options import parameter
from router.openapi.shapes import TEXT, Schema, answer, const

_SWITCH: Schema = {"type": "string", "enum": ["", "true", "false", "1", "0"]}
_REASONS: Schema = {"type": "object", "additionalProperties": TEXT, "description": "Why, by part."}
_PARTS: Schema = {
    "type": "object",
    "description": "Each part; only with `verbose`.",
    "additionalProperties": answer(
        {"status": {"type": "string", "enum": ["ready", "degraded", "not ready"]}}, optional={"reason": TEXT}
    ),
}

PARAMETERS: dict[str, Schema] = {
    "Verbose": parameter("verbose", "query", _SWITCH, "Name each part, also those that are ready.", "true"),
    "Writes": parameter("writes", "query", _SWITCH, "Whether a full disk counts as not ready.", "true"),
}

SCHEMAS: dict[str, Schema] = {
    "Ready": answer(
        {"status": const("ready"), "missing": {"type": "object", "maxProperties": 0}, "degraded": _REASONS},
        optional={"parts": _PARTS},
    ),
    "NotReady": answer(
        {"status": const("not ready"), "missing": {**_REASONS, "minProperties": 1}, "degraded": _REASONS},
        optional={"parts": _PARTS},
    ),
}
