"""Errors in the caller's wire format: the one place where an error becomes HTTP.

Routes that speak a provider's format answer in that provider's error shape, for every status; our own routes answer
`{"error", "code", "hint"}` (design section 12). Nothing but the error's own text goes out.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from models.errors import InvalidRequest, MemoryRouterError, QuotaExceeded, RateLimited
from router.providers.anthropic_messages import ANTHROPIC_MESSAGES
from router.providers.base import WireFormat
from router.providers.gemini import GeminiFormat
from router.providers.json_bytes import whole_text
from router.providers.openai_chat import OPENAI_CHAT

_FORMATS: tuple[tuple[re.Pattern[str], WireFormat], ...] = (
    (re.compile(r"/v1/messages(/count_tokens)?"), ANTHROPIC_MESSAGES),
    (re.compile(r"/v1beta/.*|/v1/models/.*:[A-Za-z]+"), GeminiFormat(model="")),
    (
        re.compile(r"/v1/(chat/completions|completions|responses|embeddings|(audio|images)/[a-z]+|models(/.*)?)"),
        OPENAI_CHAT,
    ),
)
"""Paths that speak a provider's format; every other path speaks our own."""

_RETRY_DETAIL = "type.googleapis.com/google.rpc.RetryInfo"


def error_status(error: MemoryRouterError, path: str) -> int:
    """The HTTP status; 507 belongs to our own routes only, SDKs know 503."""
    return 503 if error.status == 507 and _format_of(path) else error.status


def error_body(error: MemoryRouterError, path: str) -> bytes:
    """The JSON body of an error on this path."""
    field = error.field if isinstance(error, InvalidRequest) else None
    wire_format = _format_of(path)
    if wire_format is not None:
        message = whole_text(f"{error.message} {error.hint}".strip())
        told = wire_format.error_body(message, status=error_status(error, path), code=error.code, field=field)
        return _with_retry(told, error, wire_format) if isinstance(error, RateLimited) else told
    if isinstance(error, QuotaExceeded):
        return _payment_required(error)
    body: dict[str, Any] = {"error": whole_text(error.message), "code": error.code}
    if error.hint:
        body["hint"] = error.hint
    if field:
        body["field"] = field
    if isinstance(error, RateLimited):
        body["retry_after"] = error.retry_after_s
    return msgspec.json.encode(body)


def _with_retry(body: bytes, error: RateLimited, wire_format: WireFormat) -> bytes:
    """The same with the seconds to wait, where the format has a place for them; the header has them in any case."""
    value = msgspec.json.decode(body)
    if wire_format is OPENAI_CHAT:
        value["error"]["retry_after"] = error.retry_after_s  # as the hosted product says it (contract section 6)
    elif isinstance(wire_format, GeminiFormat):
        value["error"]["details"].append({"@type": _RETRY_DETAIL, "retryDelay": f"{error.retry_after_s}s"})
    return msgspec.json.encode(value)


def _payment_required(error: QuotaExceeded) -> bytes:
    """The hosted product's shape of a 402, which is an object also on its own routes (contract section 6)."""
    details = {**error.details, "hint": error.hint}
    value = {"message": error.message, "type": error.code, "code": error.code, "details": details}
    return msgspec.json.encode({"error": value})


def error_headers(error: MemoryRouterError) -> dict[str, str]:
    """Headers that belong to an error."""
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if error.status == 401:  # RFC 9110, section 15.5.2, demands it
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RateLimited) and not error.retry_helps:
        headers["X-Should-Retry"] = "false"  # SDKs would try the same wrong key again
    return headers


def _format_of(path: str) -> WireFormat | None:
    path = path.rstrip("/")
    return next((wire_format for pattern, wire_format in _FORMATS if pattern.fullmatch(path)), None)
