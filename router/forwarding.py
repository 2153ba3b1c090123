"""Requests for vaults that another node owns: they go there as they came, and its answer comes back as it comes.

A request is sent on once its caller is known, before it is counted, metered or read: all of that happens where its
vault lives, so that limits and usage are exact however requests are spread over the nodes. Owns what nodes tell each
other beside a request, and the connections between them. Must never send on what another node has sent on: a node that
is asked and does not own the vault says who does (421), and the one that asked tries that once.
"""

from __future__ import annotations

import base64
import hmac
import socket
import ssl
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import quote

import msgspec
import trio

from actors.cluster.ownership import Owned
from models.errors import NotOwner, StoreUnavailable, UpstreamError
from models.ids import VaultRef
from models.provider_settings import Secret
from router.headers import HOP_BY_HOP, HeaderList
from router.provider_connections import Answer, CallFailed, NotReached, ProviderConnections

TOKEN = "x-cluster-token"
EPOCH = "x-part-epoch"
CALLER = "x-cluster-caller"
OWNER = "x-part-owner"
OWN_HEADERS = frozenset({TOKEN, EPOCH, CALLER, OWNER})
"""Between nodes only: those of clients are not sent on, and those of nodes never reach a client."""

_NOT_SENT_ON = HOP_BY_HOP | OWN_HEADERS | {"content-length", "cookie", "expect", "host"}
_NOT_SENT_BACK = HOP_BY_HOP | OWN_HEADERS | {"date", "server"}

CONNECT_TIMEOUT_S = 2.0
WRITE_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 900.0
"""Until an answer begins, and between two pieces of it: longer than any provider's own limit. A node that is gone
without a word is noticed by TCP long before."""
SILENT_PEER_S = 10
"""After so long without an acknowledgement a connection to a node is given up."""
COMING_WAIT_S = 3.0
"""How long a request waits for a partition that is on its way."""


class Cluster(Protocol):
    """What of `actors.cluster.cluster.Cluster` is needed here."""

    @property
    def address(self) -> str:
        """At which the other nodes reach this one."""

    def owner_of(self, part: int) -> Owned:
        """Where a partition's requests belong."""

    async def wait_here(self, part: int, *, timeout_s: float) -> Owned:
        """Wait while it is about to come to this node."""

    async def hand_over(self) -> None:
        """Give everything to the others."""

    def is_gone(self, address: str) -> bool:
        """Whether the node at an address has let its lease end."""

    async def wait_changed(self) -> None:
        """Wait for another look at the cluster."""


class Hop(msgspec.Struct, frozen=True):
    """What a node says beside a request that it sends on.

    Attributes:
        epoch: of the vault's partition, as far as that node knows.
        caller: who asks, where the request's own headers do not tell: through the dashboard of that node.
    """

    epoch: int
    caller: KnownCaller | None = None


class KnownCaller(msgspec.Struct, frozen=True):
    """Who asks through a dashboard: the key that the session was opened with, and the vault that is meant."""

    key_hash: bytes
    vault: int
    shard: int


class Request(msgspec.Struct, frozen=True):
    """A request to be sent on. Its body is whole, so that it may be sent twice.

    Attributes:
        target: path and query.
        headers: as they came, names in lower case.
    """

    method: str
    target: str
    headers: HeaderList
    body: bytes
    caller: KnownCaller | None = None


class Forwarder:
    """The way from this node to the others."""

    def __init__(self, cluster: Cluster, *, token: Secret, scheme: str, tls: ssl.SSLContext) -> None:
        """Make one.

        Args:
            token: what nodes know each other by.
            scheme: `http` or `https`, as all nodes are served.
        """
        self._cluster = cluster
        self._scheme = scheme
        self._token = token
        self._tls = tls
        self._nodes: dict[str, ProviderConnections] = {}
        self._waiting: dict[trio.CancelScope, str] = {}
        self.counters = {"forwarded": 0, "redirected": 0, "failed": 0}

    def hop_of(self, headers: Mapping[str, str]) -> Hop | None:
        """What another node says beside this request; None if it comes from a client, whatever that claims to be.

        Args:
            headers: by lower-case name.
        """
        shown = headers.get(TOKEN, "")
        if not self._token or not hmac.compare_digest(shown.encode(), self._token.reveal().encode()):
            return None
        try:
            epoch = int(headers.get(EPOCH, "0"))
            told = headers.get(CALLER)
            caller = None if told is None else _decode_caller(base64.urlsafe_b64decode(told))
        except (ValueError, msgspec.MsgspecError):
            return None
        return Hop(epoch, caller)

    async def check_here(self, vault: VaultRef, hop: Hop | None) -> float:
        """Whether this node answers for the vault; for how many seconds it has not heard of the others, as a rule 0.

        Raises:
            NotOwner: another one does; its address is in the error, if it is known.
        """
        owned = self._cluster.owner_of(vault.shard)
        if not owned.here and owned.coming and (hop is not None or not owned.address):
            owned = await self._cluster.wait_here(vault.shard, timeout_s=COMING_WAIT_S)
        if owned.here:
            return owned.stale_s
        raise NotOwner("Another node owns this vault.", owner_address=owned.address)

    async def send_on(self, request: Request, part: int, *, address: str) -> Answer:
        """The owner's answer, once its headers are here; it must be closed.

        Raises:
            StoreUnavailable: the owner is not known, or cannot be reached; nothing was done, or it is not known what.
        """
        if not address:
            address = await self._next_address(part, after="")
        try:
            answer = await self._ask(request, part, address)
        except NotReached:
            address = await self._next_address(part, after=address)
        else:
            if answer.status != NotOwner.status or not _is_redirection(answer):
                return answer
            self.counters["redirected"] += 1
            told = dict(answer.headers).get(OWNER, "")
            await answer.aclose()
            address = told or await self._next_address(part, after=address)
        try:
            answer = await self._ask(request, part, address)
        except NotReached:
            raise self._moving() from None
        if answer.status == NotOwner.status and _is_redirection(answer):
            await answer.aclose()
            raise self._moving()
        return answer

    async def hand_over(self) -> None:
        """Give every partition to the other nodes; requests go there from now on."""
        await self._cluster.hand_over()

    async def aclose(self) -> None:
        """Close what is idle."""
        for node in self._nodes.values():
            await node.aclose()

    async def _ask(self, request: Request, part: int, address: str) -> Answer:
        """One attempt.

        Raises:
            NotReached: nothing was sent.
            StoreUnavailable: there is no answer; the owner may have done what was asked for.
        """
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = ProviderConnections(
                f"{self._scheme}://{address}",
                self._tls,
                connect_timeout_s=CONNECT_TIMEOUT_S,
                write_timeout_s=WRITE_TIMEOUT_S,
                open_stream=_open_watched,
            )
        beside = [(TOKEN, self._token.reveal()), (EPOCH, str(self._cluster.owner_of(part).epoch))]
        if request.caller is not None:
            beside.append((CALLER, base64.urlsafe_b64encode(msgspec.msgpack.encode(request.caller)).decode()))
        headers = [(name, value) for name, value in request.headers if name not in _NOT_SENT_ON]
        answer = None
        try:
            with trio.move_on_after(ANSWER_TIMEOUT_S) as waiting:
                self._waiting[waiting] = address
                answer = await node.ask(request.method, request.target, headers=[*headers, *beside], body=request.body)
        except CallFailed as error:
            if isinstance(error, NotReached):
                raise
        finally:
            del self._waiting[waiting]
        if answer is None:
            self.counters["failed"] += 1
            raise StoreUnavailable("The vault's node did not answer.", retry_after_s=1)
        self.counters["forwarded"] += 1
        return answer

    async def watch(self) -> None:
        """Give up waiting for nodes that are gone, until cancelled: a frozen one keeps its connections for ever."""
        while True:
            await self._cluster.wait_changed()
            for waiting, address in self._waiting.items():
                if self._cluster.is_gone(address):
                    waiting.cancel(reason="the node is gone")
            for address, node in list(self._nodes.items()):
                if self._cluster.is_gone(address):
                    await node.aclose()
                    if not node.open:  # nothing of an answer is still to come
                        del self._nodes[address]

    async def _next_address(self, part: int, *, after: str) -> str:
        """Where the partition is when another look at the cluster has been had; it may have come to this node.

        Raises:
            StoreUnavailable: that is not known.
        """
        with trio.move_on_after(COMING_WAIT_S):
            while True:
                owned = self._cluster.owner_of(part)
                if owned.here or (owned.address and owned.address != after):
                    break
                await trio.sleep(0.05)
        if owned.here:
            return self._cluster.address
        if not owned.address:
            raise self._moving()
        return owned.address

    def _moving(self) -> StoreUnavailable:
        self.counters["failed"] += 1
        return StoreUnavailable("The vault is moving to another node.", hint="Ask again.", retry_after_s=1)


def target_of_path(path: str, query: bytes) -> str:
    """Path and query as they go onto the wire."""
    target = quote(path, safe="/:@!$&'()*+,;=~-._")
    return f"{target}?{query.decode('latin-1')}" if query else target


def headers_back(answer: Answer) -> HeaderList:
    """The headers of a node's answer that reach the client."""
    return [(name, value) for name, value in answer.headers if name not in _NOT_SENT_BACK]


class AnswerPieces:
    """The body of a node's answer, in the pieces that it comes in."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __aiter__(self) -> AnswerPieces:
        return self

    async def __anext__(self) -> bytes:
        """The next piece.

        Raises:
            UpstreamError: it broke off; the client must see that, too.
        """
        try:
            with trio.fail_after(ANSWER_TIMEOUT_S):
                piece = await self._answer.receive()
        except (CallFailed, trio.TooSlowError):
            raise UpstreamError("The vault's node broke off its answer.") from None
        if not piece:
            raise StopAsyncIteration
        return piece


def _is_redirection(answer: Answer) -> bool:
    return any(name == OWNER for name, _ in answer.headers)


async def _open_watched(host: str, port: int) -> trio.abc.Stream:
    """A connection that ends within `SILENT_PEER_S` when the machine at its other end is gone."""
    stream = await trio.open_tcp_stream(host, port)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENT_PEER_S // 2)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, SILENT_PEER_S // 2)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_PEER_S * 1000)
    return stream


_decode_caller = msgspec.msgpack.Decoder(KnownCaller).decode
