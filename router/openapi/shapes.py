"""What the shapes in `/openapi.json` are made of: the words that every area describes its routes with.

An area's own shapes stand with its operations, in `router/openapi_<area>.py`. Must never know a route.
"""

from __future__ import annotations

from typing import Any

from models.screening import FLAGS
from router.uploads import EXTERNAL_ID_CHARACTERS_MAX, TIMESTAMP_MS_MAX

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
MILLISECONDS: Schema = {"type": "number", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
EPOCH_MS: Schema = {"type": "integer", "minimum": 0, "maximum": TIMESTAMP_MS_MAX, "description": "Epoch milliseconds."}
TIME: Schema = {"type": "string", "format": "date-time"}
FLAGGED: Schema = {
    "type": "array",
    "items": {"type": "string", "enum": list(FLAGS)},
    "minItems": 1,
    "description": 'Why this memory looks planted. With `screening.mode = "flag"` it stays out of contexts.',
}


def ref(name: str) -> Schema:
    """A reference to one of the schemas below."""
    return {"$ref": f"#/components/schemas/{name}"}


def const(value: str) -> Schema:
    """Exactly this text."""
    return {"type": "string", "const": value}


def maybe(schema: Schema) -> Schema:
    """The same, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def answer(properties: dict[str, Schema], *, optional: dict[str, Schema] | None = None) -> Schema:
    """A closed object: these fields, perhaps the optional ones, and no others."""
    return {
        "type": "object",
        "properties": {**properties, **(optional or {})},
        "required": list(properties),
        "additionalProperties": False,
    }


def request_body(properties: dict[str, Schema], *, required: list[str]) -> Schema:
    """An open object: clients may send more, which is ignored or passed on."""
    return {"type": "object", "properties": properties, "required": required}


def with_options(schema: Schema) -> Schema:
    """The same beside our own fields, which every body may carry."""
    return {"allOf": [ref("MemoryOptions"), schema]}


EXTERNAL_ID: Schema = {
    "type": ["string", "integer", "null"],
    "maxLength": EXTERNAL_ID_CHARACTERS_MAX,
    "description": "Your own id of the message; a second message with it changes nothing.",
}
METADATA: Schema = {
    "type": ["object", "null"],
    "description": "Comes back with the memory. At most 16 KiB, 32 levels, and integers of 64 bits.",
}
