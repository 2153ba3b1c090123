"""Errors in `/openapi.json`: one shape a wire format, and under every status the codes that come with it.

The codes are read off the error tree, so the document cannot lag behind it. `router.wire_errors` writes these shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from models.errors import (
    MemoryRouterError,
    ModelNotFound,
    QuotaExceeded,
    SetupError,
    StorageFull,
    UpstreamSuspended,
    UpstreamTimeout,
)
from router.openapi.shapes import COUNT, TEXT, Schema, answer, const, maybe, ref

ErrorFormat = Literal["own", "openai", "anthropic", "gemini"]
FORMATS: tuple[ErrorFormat, ...] = ("own", "openai", "anthropic", "gemini")

OVERLOADED = 503
RETRIED = (429, OVERLOADED)
"""Statuses that say when to come again."""

_COMMAND_LINE = ("router.admin_socket", "router.commands")

_MEANINGS = {
    400: "The request is malformed; the field to blame is named. Nothing was changed.",
    401: "No Memory Key, or one that is unknown, malformed or revoked.",
    402: "The vault may not hold that many memories (`limits.memories_max`, or its key's limit).",
    403: "The key is valid but may not do this.",
    404: "There is no such model, path or resource.",
    405: "The path exists, the method does not; `Allow` lists those that do.",
    409: "What the request names is in a state that forbids it. Nothing was changed.",
    413: "The body, its number of lines or messages, or a text is over its limit.",
    415: "Content-Encoding is not one that can be read: gzip, deflate and identity can.",
    429: "The key or the address does more than it may; retry after `Retry-After`.",
    500: "A bug, or a stored row that is damaged.",
    502: "The provider cannot be reached, or broke the protocol.",
    503: "Too much to do, starting again or shutting down. Nothing was accepted; retry after `Retry-After`.",
    504: "The provider did not answer in time.",
    507: "The disk is full. Nothing was stored.",
}
_EXAMPLES: dict[str, dict[str, Any]] = {
    "own": {"error": "query must be a non-empty string.", "code": "invalid_request", "field": "query"},
    "openai": {
        "error": {
            "message": "model is required and must be a non-empty string.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "invalid_request",
        }
    },
    "anthropic": {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "max_tokens is required and must be an integer."},
    },
    "gemini": {
        "error": {
            "code": 400,
            "message": "contents is required and must be a non-empty array.",
            "status": "INVALID_ARGUMENT",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "INVALID_REQUEST",
                    "domain": "memoryrouter",
                }
            ],
        }
    },
}

SCHEMAS: dict[str, Schema] = {
    "Error_own": answer(
        {"error": TEXT, "code": TEXT},
        optional={
            "hint": {**TEXT, "description": "What to do about it."},
            "field": {**TEXT, "description": "What is to blame."},
            "retry_after": {"type": "integer", "description": "With 429: seconds, as in the header."},
        },
    ),
    "Error_payment": answer(
        {
            "error": answer(
                {
                    "message": TEXT,
                    "type": TEXT,
                    "code": TEXT,
                    "details": answer(
                        {"memories": COUNT, "memories_wanted": COUNT, "memories_max": COUNT}, optional={"hint": TEXT}
                    ),
                }
            )
        }
    ),
    "Error_openai": answer(
        {
            "error": answer(
                {"message": TEXT, "type": TEXT, "param": maybe(TEXT), "code": maybe(TEXT)},
                optional={"retry_after": COUNT},
            )
        }
    ),
    "Error_anthropic": answer(
        {"type": const("error"), "error": answer({"type": TEXT, "message": TEXT})}, optional={"request_id": TEXT}
    ),
    "Error_gemini": answer(
        {
            "error": answer(
                {
                    "code": {"type": "integer"},
                    "message": TEXT,
                    "status": TEXT,
                    "details": {"type": "array", "items": {"type": "object", "required": ["@type"]}},
                }
            )
        }
    ),
}


def response_name(error_format: ErrorFormat, status: int) -> str:
    """What an error response is called among the components."""
    return f"{error_format}_{status}"


def responses() -> dict[str, Schema]:
    """Every error response, by name."""
    return {
        response_name(error_format, status): _response(error_format, status)
        for error_format in FORMATS
        for status in _MEANINGS
        if _codes(error_format, status)
    }


def _response(error_format: ErrorFormat, status: int) -> Schema:
    codes = _codes(error_format, status)
    names = ["X-Request-Id", "Request-Id", *(["Retry-After"] if status in RETRIED else [])]
    content: Schema = {"schema": {"allOf": [ref(f"Error_{error_format}"), _narrowed(error_format, status, codes)]}}
    if status == 402:
        content = {"schema": ref("Error_payment")}  # the hosted product's shape, also on our own routes
    if status == 400:
        content["example"] = _EXAMPLES[error_format]
    return {
        "description": f"{_MEANINGS[status]} Codes: {', '.join(codes)}.",
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        "content": {"application/json": content},
    }


def _narrowed(error_format: ErrorFormat, status: int, codes: list[str]) -> Schema:
    """What this status adds to the format's shape."""
    match error_format:
        case "own":
            return {"properties": {"code": {"enum": codes}}}
        case "openai":
            return {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}
        case "gemini":
            return {"properties": {"error": {"properties": {"code": {"const": status}}}}}
        case _:
            return {}  # Anthropic's shape has no place for a code


def _codes(error_format: ErrorFormat, status: int) -> list[str]:
    """The codes that come with a status in a format, in alphabetical order."""
    codes = set()
    for error in _errors(MemoryRouterError):
        if issubclass(error, QuotaExceeded) and error_format != "own":
            continue  # chats go on without being stored
        only_proxied = issubclass(error, UpstreamTimeout | UpstreamSuspended | ModelNotFound)
        given = OVERLOADED if issubclass(error, StorageFull) and error_format != "own" else error.status
        if given == status and not issubclass(error, SetupError) and not (error_format == "own" and only_proxied):
            codes.add(error.code)
    return sorted(codes)


def _errors(base: type[MemoryRouterError]) -> Iterator[type[MemoryRouterError]]:
    """Those of the command line are no answers of a route; whether they are loaded must not change the document."""
    yield base
    for error in base.__subclasses__():
        if not error.__module__.startswith(_COMMAND_LINE):
            yield from _errors(error)
