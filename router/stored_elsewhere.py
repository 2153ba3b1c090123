"""A finished exchange whose vault has moved to another node meanwhile: the new owner stores it.

A chat is finished by the node that has begun it, and its vault may be another node's by then. Owns both ends of the
hand-over: `NotOwner` says that nothing was stored here, so the exchange goes to the owner as it is (source, model,
session, times), which takes it as one of its own. Must never hand on what may have been stored here, nor anything
twice: an answer that is lost means "not stored", as for a commit that gets none.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
import trio
from msgspec.structs import replace

from actors.pin import Pin, Receipt
from models.errors import (
    MemoryRouterError,
    NotFound,
    NotOwner,
    Overloaded,
    QuotaExceeded,
    ShuttingDown,
    StorageFull,
    StoreUnavailable,
    TooLarge,
)
from models.ids import Principal, VaultRef
from models.memory import Exchange
from router.body_budget import claim_of
from router.forwarding import OWNER, Forwarder, Hop, Request
from router.node_answers import NodeAnswer
from router.observe import log_event
from router.provider_connections import CallFailed
from router.storing import hand_over

if TYPE_CHECKING:
    from router.components import Components

PATH = "/nodes/exchanges"
"""At which a node hands an exchange to another one; to anybody else there is nothing."""

TIMEOUT_S = 10.0
"""For all of it. The chat's client waits no longer than for any commit."""
LEAVE_TIMEOUT_S = 5.0
"""How long a server that stops waits for what it is just handing on."""
UNDER_WAY_MAX = 1024
ANSWER_BYTES_MAX = 1024

App = Callable[[Any, Any, Any], Awaitable[None]]

_ERRORS = {error.code: error for error in (QuotaExceeded, StorageFull, NotFound, Overloaded)}


class HandedOn(msgspec.Struct, frozen=True):
    """What travels.

    Attributes:
        vault: that the exchange is for; the principal's, or the one in its place.
        quotes: whether the reply was given memories of the vault, which it may repeat.
    """

    principal: Principal
    vault: VaultRef
    exchange: Exchange
    quotes: bool


class HandedOnCommit:
    """Where an exchange was stored: here, or by the owner. Implements `actors.store.protocol.Commit`."""

    __slots__ = ("_done", "_error", "here")

    def __init__(self) -> None:
        self.here: Receipt | None = None
        self._done = trio.Event()
        self._error: MemoryRouterError | None = None

    @property
    def durable(self) -> bool:
        """Whether it is on disk somewhere."""
        if self.here is not None and self.here.durable:
            return True
        return self._done.is_set() and self._error is None

    async def wait_durable(self) -> None:
        """Return once it is.

        Raises:
            MemoryRouterError: it is not, or that is not known.
        """
        if self.here is not None:
            with suppress(NotOwner):
                await self.here.wait_durable(timeout_s=float("inf"))
                return
        await self._done.wait()
        if self._error is not None:
            raise copy.copy(self._error)

    def settle(self, error: MemoryRouterError | None) -> None:
        """What became of it elsewhere."""
        self._error = error
        self._done.set()


class HandingOn:
    """The sending end.

    Attributes:
        counters: exchanges that the owner has stored, and those that nobody has, as far as is known.
    """

    def __init__(self, components: Components, forwarder: Forwarder, tasks: trio.Nursery) -> None:
        self._parts = components
        self._forwarder = forwarder
        self._tasks = tasks
        self._under_way = 0
        self._idle = trio.Event()
        self._idle.set()
        self._is_closed = False
        self.counters = {"handed_on": 0, "not_handed_on": 0}

    def submit(self, pin: Pin | None, principal: Principal, exchange: Exchange, *, quotes: bool) -> Receipt:
        """Have an exchange stored here, or else where its vault is now. A plain function: it cannot be cancelled.

        Args:
            pin: None if the vault was not here any more when it was to be pinned.
            quotes: see `HandedOn`.

        Raises:
            Overloaded, TooLarge, ShuttingDown, VaultUnavailable: nothing is being stored.
        """
        commit = HandedOnCommit()
        vault = principal.vault if pin is None else pin.vault
        what = HandedOn(principal, vault, exchange, quotes)
        if pin is not None:
            with suppress(NotOwner):
                commit.here = pin.submit([exchange], failed=lambda: self._begin(commit, what))
        if commit.here is None:
            self._begin(commit, what)
        return Receipt(commit)

    async def wait_idle(self) -> None:
        """Return once nothing is under way."""
        await self._idle.wait()

    def close(self) -> None:
        """Hand on nothing more."""
        self._is_closed = True

    def _begin(self, commit: HandedOnCommit, what: HandedOn) -> None:
        if self._is_closed:
            commit.settle(ShuttingDown("The server stops."))
            return
        if self._under_way >= UNDER_WAY_MAX:
            commit.settle(Overloaded("Too much is on its way to other nodes."))
            return
        self._under_way += 1
        self._idle = trio.Event() if self._idle.is_set() else self._idle
        self._tasks.start_soon(self._hand_on, commit, what)

    async def _hand_on(self, commit: HandedOnCommit, what: HandedOn) -> None:
        """Say in the end what became of it, whatever that is."""
        error: MemoryRouterError | None = StoreUnavailable("The server has stopped before the vault's owner answered.")
        try:
            if commit.here is not None:
                error = await _failure(commit.here)
                if not isinstance(error, NotOwner):
                    return
            with trio.move_on_after(TIMEOUT_S) as waiting:
                error = await self._stored_by_owner(what)
            if waiting.cancelled_caught:
                error = StoreUnavailable("The vault's owner did not answer in time.")
            self._note(what, error)
        finally:
            commit.settle(error)
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _stored_by_owner(self, what: HandedOn) -> MemoryRouterError | None:
        """None if it is stored; else why not."""
        what = replace(what, vault=self._parts.supervisor.current(what.vault))
        try:
            try:
                stale_s = await self._forwarder.check_here(what.vault, None)
            except NotOwner as moved:
                await self._send(what, moved.owner_address)
            else:
                if stale_s:
                    raise NotOwner("Nobody is known to own this vault.")
                await store_here(self._parts, what)  # it has come back
        except MemoryRouterError as error:
            return error
        return None

    async def _send(self, what: HandedOn, address: str) -> None:
        body = msgspec.msgpack.encode(what)
        if len(body) > self._parts.settings.server.body_max_bytes:
            raise TooLarge("The exchange is too large to be handed on.")
        headers = [("content-type", "application/msgpack"), ("content-length", str(len(body)))]
        request = Request("POST", PATH, headers, body)
        answer = await self._forwarder.send_on(request, what.vault.shard, address=address)
        try:
            code = await _whole(answer)
        finally:
            await answer.aclose()
        if answer.status != 200:
            error = _ERRORS.get(code, StoreUnavailable)
            raise error(f"The vault's owner did not store it: {answer.status} {code}")

    def _note(self, what: HandedOn, error: MemoryRouterError | None) -> None:
        if error is None:
            self.counters["handed_on"] += 1
            log_event("exchange_handed_on", vault=what.vault.number)
        else:
            self.counters["not_handed_on"] += 1
            log_event("exchange_not_handed_on", level=logging.ERROR, code=error.code, vault=what.vault.number)


async def _failure(receipt: Receipt) -> MemoryRouterError | None:
    """Why nothing was stored here; it is settled."""
    try:
        await receipt.wait_durable()
    except MemoryRouterError as error:
        return error
    return None


async def _whole(answer: NodeAnswer) -> str:
    """The code in an answer."""
    body = b""
    with suppress(CallFailed):
        while len(body) < ANSWER_BYTES_MAX and (piece := await answer.receive()):
            body += piece
    return body[:ANSWER_BYTES_MAX].decode("utf-8", "replace")


@asynccontextmanager
async def open_handing_on(components: Components) -> AsyncIterator[HandingOn | None]:
    """The sending end for the length of the block; None where there are no other nodes."""
    if components.forwarder is None:
        yield None
        return
    async with trio.open_nursery() as tasks:
        handing_on = HandingOn(components, components.forwarder, tasks)
        yield handing_on
        with trio.move_on_after(LEAVE_TIMEOUT_S, shield=True):
            await handing_on.wait_idle()
        handing_on.close()
        tasks.cancel_scope.cancel(reason="the server stops")


async def store_here(components: Components, what: HandedOn) -> None:
    """Store an exchange that another node has finished; it is durable when this returns.

    Raises:
        NotOwner: nothing was stored; the vault is another node's.
        MemoryRouterError: it is not stored, or not known to be.
    """
    exchange = what.exchange
    if what.quotes and components.supervisor.current(what.vault) != what.vault:
        # The vault was erased while the reply was written: what it quotes must not come back.
        exchange = replace(exchange, messages=tuple(said for said in exchange.messages if said.role == "user"))
    if not exchange.messages:
        return
    principal = replace(what.principal, vault=what.vault)
    async with hand_over(components, principal, [exchange]) as receipt:
        await receipt.wait_durable(timeout_s=TIMEOUT_S)


class TakesExchanges:
    """ASGI wrapper around the application: the receiving end. Clients cannot reach it: they have not the nodes' token.

    It belongs within `BudgetedBodies`.
    """

    def __init__(self, app: App, components: Components) -> None:
        self._app = app
        self._parts = components

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one ASGI connection."""
        hop = self._hop_of(scope) if scope["type"] == "http" and scope["path"] == PATH else None
        if hop is None:
            await self._app(scope, receive, send)
            return
        status, code, headers = 200, "", []
        try:
            await self._take(scope, receive, hop)
        except NotOwner as error:
            status, headers = error.status, [(OWNER.encode(), error.owner_address.encode())]
        except MemoryRouterError as error:
            status, code = error.status, error.code
        body = code.encode()
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _hop_of(self, scope: Any) -> Hop | None:
        forwarder = self._parts.forwarder
        if forwarder is None or scope["method"] != "POST":
            return None
        return forwarder.hop_of({name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]})

    async def _take(self, scope: Any, receive: Any, hop: Hop) -> None:
        """Read it and store it.

        Raises:
            MemoryRouterError: it is not stored, or not known to be.
        """
        forwarder = self._parts.forwarder
        assert forwarder is not None
        body = bytearray()
        with trio.move_on_after(TIMEOUT_S) as reading:
            while (message := await receive())["type"] == "http.request":
                body += message.get("body", b"")
                if len(body) > self._parts.settings.server.body_max_bytes:
                    raise TooLarge("The exchange is too large.")
                if not message.get("more_body", False):
                    break
        if reading.cancelled_caught:
            raise StoreUnavailable("The exchange did not come in time.")
        claim_of(scope).check()
        try:
            what = _decode(bytes(body))
        except msgspec.MsgspecError:
            raise StoreUnavailable("The exchange cannot be read: does that node run another version?") from None
        await forwarder.check_here(what.vault, hop)
        await store_here(self._parts, what)


_decode = msgspec.msgpack.Decoder(HandedOn).decode
