"""What one operation of the HTTP API is in `/openapi.json`, and which statuses its kind answers with.

Must never know a route.
"""

from __future__ import annotations

from typing import Any

import msgspec

from router.openapi.errors import ErrorFormat
from router.openapi.shapes import Schema, ref

Content = dict[str, Schema]
"""Media types with their schemas."""

JSON = "application/json"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path.

    Attributes:
        speaks: the wire format of its errors.
        answers: contents by the status of a success, or of an answer with a shape of its own.
        errors: statuses in the wire format's error shape.
        takes: contents of the request's body; empty for none.
        needs_body: False where an empty body does too.
        parameters: names among the documented parameters.
        example: a request that is answered with a success.
        example_query: what its query says.
        is_open: it needs no key.
        is_proxied: a provider answers, whose status and body come through as they are.
    """

    method: str
    path: str
    name: str
    tag: str
    summary: str
    speaks: ErrorFormat = "own"
    answers: dict[int, Content]
    errors: tuple[int, ...]
    takes: Content = {}
    needs_body: bool = True
    parameters: tuple[str, ...] = ()
    example: Any = None
    example_query: dict[str, str] = {}
    is_open: bool = False
    is_proxied: bool = False


def json_content(name: str) -> Content:
    """A body of JSON with one of the named shapes."""
    return {JSON: ref(name)}


KEYED = (401, 429, 500, 503)
OPTIONED = (400, *KEYED)
READ = (400, 401, 413, 415, 429, 500, 503)
WRITTEN = (*READ, 507)
GUARDED = (*WRITTEN, 403)
PROXIED = (*READ, 404, 502, 504)
