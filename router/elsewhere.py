"""Requests of this application whose vault is on another node: `router.forwarding` as the routes see it.

Owns when a request is sent on: as soon as its caller is known, before anything of it is read or counted. One that was
under way when its partition left goes after it, if it is small: `NotOwner` says that nothing was done. Must never send
on what has begun to be answered.
"""

from __future__ import annotations

from typing import Any

import msgspec
from quart import Response, g, request

from models.errors import NotOwner, StoreUnavailable, Unauthenticated
from models.ids import INVALID_KEY_HINT, Access, VaultNumber, VaultRef
from models.provider_settings import Secret
from router.auth import Caller
from router.components import Components
from router.dashboard.gate import browser_request
from router.forwarding import (
    OWNER,
    AnswerBroken,
    AnswerPieces,
    Hop,
    KnownCaller,
    Request,
    headers_back,
    target_of_path,
)
from router.node_answers import NodeAnswer
from router.passing_through import is_upload
from router.quart_app import take_body
from router.request_ids import current_request_id
from router.streaming import PulledBody, exits

RESENT_BYTES_MAX = 256 * 1024
"""Of a body that is kept until its request has been answered, in case that its partition leaves meanwhile."""

SHORT_BYTES_MAX = 64 * 1024
"""Of an answer that is received as a whole."""

STALE = "X-Memory-Stale"
"""Seconds for which this node has not heard of the others: what it answers may be outdated by as much."""


async def caller_of_hop(components: Components, known: KnownCaller) -> Caller:
    """Who asks by another node's word.

    Raises:
        Unauthenticated: that key is not live any more.
    """
    principal = await components.store.find_key(known.key_hash)
    if principal is None:
        raise Unauthenticated("Invalid or inactive memory key.", hint=INVALID_KEY_HINT)
    vault = VaultRef(VaultNumber(known.vault), known.shard)
    on_its_vault = msgspec.structs.replace(principal, vault=vault)
    return Caller(principal=on_its_vault, access=Access(), suffixed=False, provider_key=Secret())


async def check_here(components: Components, caller: Caller, hop: Hop | None) -> None:
    """Whether this node answers for the caller's vault.

    Raises:
        NotOwner: it does not; the request will be sent on by `answer_elsewhere`.
    """
    forwarder = components.forwarder
    scope: Any = request.scope
    if forwarder is None or is_upload(scope):  # a file for a provider needs no vault, and is held by nobody
        return
    try:
        stale_s = await forwarder.check_here(caller.principal.vault, hop)
    finally:
        g.hop, g.asker = hop, caller
    g.under_way = True
    if stale_s:
        g.stale_s = stale_s


def keep_body(components: Components, data: bytes) -> None:
    """The current request's body was read as it came; it may have to be sent on."""
    if components.forwarder is not None and len(data) <= RESENT_BYTES_MAX:
        g.kept_body = data


def put_stale_header(response: Response) -> None:
    """Say that nobody knows whether this node still owns the vault, if that is so."""
    stale_s = g.get("stale_s")
    if stale_s:
        response.headers[STALE] = f"{stale_s:.1f}"


async def answer_elsewhere(components: Components, error: NotOwner) -> Response:
    """The owner's answer; to another node, who that is.

    Raises:
        StoreUnavailable: it cannot be asked now, or the partition was lost while the request was under way.
    """
    forwarder, caller = components.forwarder, g.get("asker")
    if forwarder is None or caller is None:
        raise StoreUnavailable("The vault is moving to another node.", hint="Ask again.", retry_after_s=1)
    if "usage" in g:
        g.usage.discard()  # the owner counts it
    if g.hop is not None:
        return Response(b"", NotOwner.status, headers={OWNER: error.owner_address})
    sent = await _sent(caller)
    answer = await forwarder.send_on(sent, caller.principal.vault.shard, address=error.owner_address)
    exits().push_async_callback(answer.aclose)
    headers = headers_back(answer)
    is_short = int(dict(headers).get("content-length", SHORT_BYTES_MAX + 1)) <= SHORT_BYTES_MAX
    response = Response(await _whole(answer) if is_short else PulledBody(AnswerPieces(answer)), answer.status)
    response.headers.clear()
    for name, value in headers:
        response.headers.add(name, value)
    response.timeout = None  # the owner's own limits bound it
    return response


async def _whole(answer: NodeAnswer) -> bytes:
    """A short body, which goes out together with its head: that costs half of what pieces do.

    Raises:
        StoreUnavailable: it broke off. The client has seen nothing of it yet, and may ask again.
    """
    try:
        return b"".join([piece async for piece in AnswerPieces(answer)])
    except AnswerBroken:
        raise StoreUnavailable("The vault's node did not answer.", hint="Ask again.", retry_after_s=1) from None


async def _sent(caller: Caller) -> Request:
    """The current request as it goes to the owner.

    Raises:
        StoreUnavailable: its body was not kept.
    """
    body = await _body()
    scope: Any = request.scope
    known = None
    if browser_request(scope) is not None:
        vault, session = caller.principal.vault, g.dashboard_session
        known = KnownCaller(session.key_hash, vault.number, vault.shard, session.number, current_request_id())
    return Request(
        method=request.method,
        target=target_of_path(request.path, scope.get("query_string", b"")),
        headers=[(name.lower(), value) for name, value in request.headers.items()],
        body=body,
        caller=known,
    )


async def _body() -> bytes:
    kept: bytes | None = g.get("kept_body")
    if kept is not None:
        return kept
    if g.get("under_way") and request.content_length != 0 and request.method not in ("GET", "HEAD", "DELETE"):
        raise StoreUnavailable("The vault is moving to another node.", hint="Ask again.", retry_after_s=1)
    body = take_body(request)
    return bytes(await request.get_data(cache=False, as_text=False, parse_form_data=False) if body is None else body)
