"""What every route does first: read the body within its limits, find the caller, resolve the options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from quart import Response, request

from router.auth import Caller, authenticate
from router.bodies import decode_object, decompress
from router.components import Components
from router.options import MemoryOptions, resolve_options


async def read_caller(components: Components) -> Caller:
    """The authenticated caller of the current request.

    Raises:
        Unauthenticated: no valid Memory Key.
    """
    return await authenticate(_headers(), request.args, components.store)


async def read_body(components: Components) -> bytes:
    """The current request's body, decompressed.

    Raises:
        TooLarge, UnsupportedEncoding, InvalidRequest: see `router.bodies.decompress`.
    """
    data = await request.get_data(cache=False, as_text=False, parse_form_data=False)
    bytes_max = components.settings.server.body_max_bytes
    return decompress(data, request.headers.get("content-encoding", ""), bytes_max=bytes_max)


async def read_object(components: Components) -> dict[str, Any]:
    """The current request's JSON object; an empty body counts as an empty one.

    Raises:
        InvalidRequest: not a JSON object.
    """
    body = await read_body(components)
    return decode_object(body) if body.strip() else {}


def read_options(components: Components, caller: Caller, body: Mapping[str, Any]) -> MemoryOptions:
    """The current request's memory options.

    Raises:
        InvalidRequest: an option is wrong; the message names it.
    """
    return resolve_options(
        headers=_headers(),
        query=request.args,
        body=body,
        bound=caller.access,
        settings=components.settings,
    )


def _headers() -> dict[str, str]:
    """The current request's headers by lower-case name."""
    return {name.lower(): value for name, value in request.headers.items()}


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(msgspec.json.encode(body), status, headers=dict(headers or {}), content_type="application/json")
