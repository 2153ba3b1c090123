"""What every route does first: read the body within its limits, find the caller, resolve the options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec
import trio
from quart import Response, request

from router.auth import Caller, authenticate
from router.bodies import decode_object, decompress
from router.components import Components
from router.options import MemoryOptions, resolve_options

T = TypeVar("T")

OFFLOAD_BYTES_MIN = 128 * 1024
"""Input of this size takes a millisecond or more to read; a hop into a thread takes 0.1 ms."""


async def offload(components: Components, size_bytes: int, function: Callable[..., T], *args: Any, **named: Any) -> T:
    """Call a pure function, in a thread if its input is large: other requests must not wait for it."""
    if size_bytes < OFFLOAD_BYTES_MIN:
        return function(*args, **named)
    return await trio.to_thread.run_sync(partial(function, *args, **named), limiter=components.offload_limiter)


async def read_caller(components: Components) -> Caller:
    """The authenticated caller of the current request.

    Raises:
        Unauthenticated: no valid Memory Key.
        StoreUnavailable: the key could not be looked up in time.
    """
    return await authenticate(_headers(), request.args, components.store)


async def read_body(components: Components) -> bytes:
    """The current request's body, decompressed.

    Raises:
        TooLarge, UnsupportedEncoding, InvalidRequest: see `router.bodies.decompress`.
    """
    data = await request.get_data(cache=False, as_text=False, parse_form_data=False)
    bytes_max = components.settings.server.body_max_bytes
    encoding = request.headers.get("content-encoding", "")
    size_bytes = OFFLOAD_BYTES_MIN if encoding else 0  # how much it unpacks to is not known before
    return await offload(components, size_bytes, decompress, data, encoding, bytes_max=bytes_max)


async def read_object(components: Components) -> dict[str, Any]:
    """The current request's JSON object; an empty body counts as an empty one.

    Raises:
        InvalidRequest: not a JSON object.
    """
    body = await read_body(components)
    return await offload(components, len(body), decode_object, body) if body.strip() else {}


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
    return {name.lower(): header_text(value) for name, value in request.headers.items()}


def header_text(value: str) -> str:
    """A header's value as its sender meant it: servers read Latin-1, most clients write UTF-8."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(msgspec.json.encode(body), status, headers=dict(headers or {}), content_type="application/json")
