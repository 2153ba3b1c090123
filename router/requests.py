"""What every route does first: read the body within its limits, find the caller, resolve the options.

Owns the caller of a request, who is looked for once, whoever asks again. Must never know what a route does.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec
import trio
from quart import Response, g, request

from models.errors import Overloaded, RateLimited, Unauthenticated
from models.ids import Principal, VaultRef
from models.limit_settings import JSON_DEPTH_MAX
from router.addresses import client_group
from router.auth import Caller, authenticate
from router.bodies import decode_object, decompress
from router.body_budget import claim_of
from router.components import Components
from router.dashboard.callers import caller_of_session
from router.dashboard.chats import ChatWatch
from router.dashboard.gate import browser_request
from router.dashboard.sessions import Session
from router.elsewhere import caller_of_hop, check_here, keep_body
from router.limits import too_many_requests
from router.options import MemoryOptions, resolve_options
from router.providers.json_bytes import check_depth
from router.quart_app import take_body
from router.request_ids import current_request_id
from router.spans import step
from router.streaming import exits
from router.usage import RequestUsage

T = TypeVar("T")

OFFLOAD_BYTES_MIN = 128 * 1024
"""Input of this size takes a millisecond or more to read; a hop into a thread takes 0.1 ms."""


async def offload(components: Components, size_bytes: int, function: Callable[..., T], *args: Any, **named: Any) -> T:
    """Call a pure function, in a thread if its input is large: other requests must not wait for it."""
    if size_bytes < OFFLOAD_BYTES_MIN:
        return function(*args, **named)
    return await trio.to_thread.run_sync(partial(function, *args, **named), limiter=components.offload_limiter)


async def read_caller(components: Components) -> Caller:
    """The authenticated caller of the current request, within what its key and its address may do.

    The first thing a route does: what comes after costs something. A further call gives the same caller.

    Raises:
        Unauthenticated: no valid Memory Key.
        RateLimited: the key asks too often or too much at once, or the address has failed too often.
        StoreUnavailable: the key could not be looked up in time.
        NotOwner: another node answers for the caller's vault (`router.elsewhere`).
    """
    kept: Any = g._get_current_object()  # each look through the proxy costs a microsecond
    known: Caller | None = kept.get("caller")
    if known is not None:
        return known
    hop = None if components.forwarder is None else components.forwarder.hop_of(request_headers())
    browser = browser_request(request.scope)
    if hop is not None and hop.caller is not None:
        caller = await caller_of_hop(components, hop.caller)
    elif browser is None:
        caller = await authenticate_key(components, request_headers(), request.args)
    else:
        caller, kept.dashboard_session = await caller_of_session(components, browser, request_headers())
    await check_here(components, caller, hop)
    _admit(components, caller.principal)
    kept.usage = components.meter.begin(caller.principal, began_s=kept.began_s)
    exits().callback(kept.usage.close)
    kept.caller = caller
    return caller


async def read_session(components: Components) -> Caller:
    """The caller of a route that is the dashboard's own. It is not counted: its page asks all the time by itself.

    Raises:
        Unauthenticated: the request did not come through the dashboard; and what `caller_of_session` raises.
    """
    known: Caller | None = g.get("session_caller")
    if known is None:
        browser = browser_request(request.scope)
        if browser is None:
            raise Unauthenticated("This is the dashboard's own.", hint="Sign in to the dashboard.")
        known, g.dashboard_session = await caller_of_session(components, browser, request_headers())
        g.session_caller = known
    return known


def current_session() -> Session | None:
    """The session of the dashboard that the current request came through, once its caller is known."""
    session: Session | None = g.get("dashboard_session")
    return session


def watch_chat(components: Components, vault: VaultRef) -> ChatWatch | None:
    """What will hear what the current request, a chat, does with memory; None if it did not come through a session.

    A session of another node or worker asks for it by the id that it knows the request by.
    """
    session, chats, request_id = current_session(), components.dashboard.chats, current_request_id()
    if session is not None:
        return chats.begin(session.number, request_id, vault, stored_under=request_id)
    hop = g.get("hop")
    if hop is None or hop.caller is None or not hop.caller.session:
        return None
    return chats.begin(hop.caller.session, hop.caller.request_id, vault, stored_under=request_id)


async def authenticate_key(components: Components, headers: Mapping[str, str], query: Mapping[str, str]) -> Caller:
    """Whose Memory Key these headers or this query carry, within what the client's address may try.

    Args:
        headers: by lower-case name.

    Raises:
        Unauthenticated, RateLimited, StoreUnavailable: see `router.auth.authenticate`.
    """
    failures = components.limits.failures
    address = _client_group(components) if failures.active else ""
    try:
        with step("auth"):
            return await authenticate(headers, query, components.store, failures=failures, address=address)
    except RateLimited:
        components.metrics.limited.increment("failed_auth")
        await _hold_back(components)
        raise


async def read_owner(components: Components, *, user_keys_allowed: bool = False) -> Caller:
    """The caller of a route that is for the holder of an account key without a suffix.

    Raises:
        Forbidden: any other key; and what `read_caller` raises.
    """
    caller = await read_caller(components)
    caller.require_unsuffixed()
    caller.require_account(user_keys_allowed=user_keys_allowed)
    return caller


def current_usage() -> RequestUsage:
    """What the current request adds to its caller's usage; there is one once the caller is known."""
    usage: RequestUsage = g.usage
    return usage


async def _hold_back(components: Components) -> None:
    """Let whoever tries keys wait for the refusal, without keeping what was sent along.

    Not all equally long: those that came together would come again together, and who comes between waits behind all.
    """
    claim_of(request.scope).drop()
    if take_body(request) is None:
        request.body.clear()
    await trio.sleep(components.settings.limits.failed_auth_delay_ms / 1000 * random.uniform(0.5, 1.5))


def _client_group(components: Components) -> str:
    """Under which name this request's client is counted."""
    peer, *_ = request.scope.get("client") or (None,)
    return client_group(peer, request.headers.getlist("x-forwarded-for"), components.limits.trusted_proxies)


def _admit(components: Components, principal: Principal) -> None:
    """Count the request against its key; what is under way is counted until the request is over, however it ends.

    Raises:
        RateLimited: it is one too many.
    """
    allowance = components.limits.keys.take(principal)
    if allowance is not None:
        g.allowance = allowance
        if not allowance.allowed:
            components.metrics.limited.increment("requests")
            raise too_many_requests(allowance)
    try:
        leave = components.limits.keys.enter(principal)
    except RateLimited:
        components.metrics.limited.increment("concurrency")
        raise
    if leave is not None:
        exits().callback(leave)


def put_limit_headers(response: Response) -> None:
    """Say how much the key may ask, where that is limited. A provider's own headers of these names stay."""
    allowance = g.get("allowance")
    if allowance is not None:
        for name, value in allowance.headers().items():
            response.headers.setdefault(name, value)


async def read_body(components: Components) -> bytes:
    """The current request's body, decompressed.

    Raises:
        TooLarge, UnsupportedEncoding, InvalidRequest: see `router.bodies.decompress`.
        Overloaded: there is no room for it among the bodies of other requests.
    """
    data = take_body(request)
    if data is None:
        data = await request.get_data(cache=False, as_text=False, parse_form_data=False)
    keep_body(components, data)
    bytes_max = components.settings.server.body_max_bytes
    encoding = request_headers().get("content-encoding", "")
    claim = claim_of(request.scope)
    try:
        claim.check()
        if not encoding:
            return decompress(data, encoding, bytes_max=bytes_max)
        # How much it unpacks to is not known before. Only as many as there are threads unpack without being counted.
        body = await offload(components, OFFLOAD_BYTES_MIN, decompress, data, encoding, bytes_max=bytes_max)
        claim.add_nowait(len(body))
        return body
    except Overloaded:
        components.metrics.limited.increment("bodies")
        raise


async def read_json(components: Components) -> bytes:
    """The current request's body, decompressed: JSON that is nested no deeper than the settings allow.

    Raises:
        InvalidRequest: it is nested deeper; and what `read_body` raises.
    """
    body = await read_body(components)
    depth_max = components.settings.limits.json_depth_max
    if depth_max < JSON_DEPTH_MAX:  # what every parser allows needs no look of its own
        await offload(components, len(body), check_depth, body, depth_max)
    return body


async def read_object(components: Components) -> dict[str, Any]:
    """The current request's JSON object; an empty body counts as an empty one.

    Raises:
        InvalidRequest: not a JSON object.
    """
    body = await read_body(components)
    depth_max = components.settings.limits.json_depth_max
    return await offload(components, len(body), decode_object, body, depth_max=depth_max) if body.strip() else {}


def read_options(components: Components, caller: Caller, body: Mapping[str, Any]) -> MemoryOptions:
    """The current request's memory options.

    Raises:
        InvalidRequest: an option is wrong; the message names it.
    """
    return resolve_options(
        headers=request_headers(),
        query=request.args,
        body=body,
        bound=caller.access,
        settings=components.settings,
    )


def request_headers() -> dict[str, str]:
    """The current request's headers by lower-case name. Read once; nobody may change them."""
    known: dict[str, str] | None = g.get("request_headers")
    if known is None:
        known = g.request_headers = {name.lower(): header_text(value) for name, value in request.headers.items()}
    return known


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
