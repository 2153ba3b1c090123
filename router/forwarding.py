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
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import msgspec
import trio

from actors.cluster.ownership import Owned
from models.errors import NotOwner, StoreUnavailable, UpstreamError
from models.ids import VaultRef
from models.provider_settings import Secret
from router.headers import HOP_BY_HOP, HeaderList
from router.node_answers import NodeAnswer, Readings
from router.provider_connections import Answer, CallFailed, NotReached, OpenStream, ProviderConnections
from router.unix_sockets import connect_unix

TOKEN = "x-cluster-token"
EPOCH = "x-part-epoch"
CALLER = "x-cluster-caller"
OWNER = "x-part-owner"
SIBLING = "x-cluster-sibling"
"""What a worker asks another one for itself, or says of a request that it passes on whole (`router.siblings`)."""
OWN_HEADERS = frozenset({TOKEN, EPOCH, CALLER, OWNER, SIBLING})
"""Between nodes only: those of clients are not sent on, and those of nodes never reach a client."""

_NOT_SENT_ON = HOP_BY_HOP | OWN_HEADERS | {"content-length", "cookie", "expect", "host"}
_NOT_SENT_BACK = HOP_BY_HOP | OWN_HEADERS | {"date", "server"}

CONNECT_TIMEOUT_S = 2.0
WRITE_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 900.0
"""Until an answer begins, and between two pieces of it: longer than any provider's own limit. A node that is gone
without a word is noticed by TCP long before."""
SIGN_OF_LIFE_TIMEOUT_S = 3.0
"""For a node whose lease has ended to answer, before nobody waits any longer for what it has begun to answer."""
SILENT_PEER_S = 10
"""After so long without an acknowledgement a connection to a node is given up."""
UNIX = "unix:"
"""What the address of a process on the same machine begins with; a name of a socket follows."""
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


class AnswerBroken(UpstreamError):
    """A node has died in the middle of its answer. The client must see that its answer is none, and does by its end."""


class Hop(msgspec.Struct, frozen=True):
    """What a node says beside a request that it sends on.

    Attributes:
        epoch: of the vault's partition, as far as that node knows.
        caller: who asks, where the request's own headers do not tell: through the dashboard of that node.
    """

    epoch: int
    caller: KnownCaller | None = None


class KnownCaller(msgspec.Struct, frozen=True):
    """Who asks through a dashboard: the key that the session was opened with, and the vault that is meant.

    Attributes:
        session: its number; 0 from who tells none.
        request_id: under which the node that was asked knows the request.
    """

    key_hash: bytes
    vault: int
    shard: int
    session: int = 0
    request_id: str = ""


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

    @property
    def host(self) -> str:
        """The host that its client named, which is checked where the request is answered."""
        return dict(self.headers).get("host", "")


class Forwarder:
    """The way from this node to the others."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        token: Secret,
        scheme: str,
        tls: ssl.SSLContext,
        sockets: Path | None = None,
    ) -> None:
        """Make one.

        Args:
            token: what nodes know each other by.
            scheme: `http` or `https`, as all nodes are served.
            sockets: the folder of sockets that addresses of the form `unix:NAME` are in.
        """
        self._sockets = sockets
        self._cluster = cluster
        self._scheme = scheme
        self._token = token
        self._tls = tls
        self._nodes: dict[str, ProviderConnections] = {}
        self._waiting: dict[trio.CancelScope, str] = {}
        self._readings = Readings()
        self.counters = {"forwarded": 0, "redirected": 0, "failed": 0, "handed_over": 0}

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

    async def send_on(self, request: Request, part: int, *, address: str) -> NodeAnswer:
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

    def connections_to(self, address: str) -> ProviderConnections:
        """Those to one node, which are kept as long as it is not gone."""
        node = self._nodes.get(address)
        if node is None:
            base_url, open_stream = self._way_to(address)
            node = self._nodes[address] = ProviderConnections(
                base_url,
                self._tls,
                connect_timeout_s=CONNECT_TIMEOUT_S,
                write_timeout_s=WRITE_TIMEOUT_S,
                open_stream=open_stream,
            )
        return node

    def _way_to(self, address: str) -> tuple[str, OpenStream]:
        """What a node is asked as, and how a connection to it is made."""
        if self._sockets is None or not address.startswith(UNIX):
            return f"{self._scheme}://{address}", _open_watched
        path = self._sockets / Path(address.removeprefix(UNIX)).name

        async def open_stream(host: str, port: int) -> trio.abc.Stream:
            return await connect_unix(path)

        return "http://localhost", open_stream

    def token_header(self) -> tuple[str, str]:
        """What a node proves by that it is one."""
        return TOKEN, self._token.reveal()

    def note_handed_over(self) -> None:
        """A client's connection went to another worker, so that its request need not be sent on."""
        self.counters["handed_over"] += 1

    async def hand_over(self) -> None:
        """Give every partition to the other nodes; requests go there from now on."""
        await self._cluster.hand_over()

    async def aclose(self) -> None:
        """Close what is idle."""
        for node in self._nodes.values():
            await node.aclose()

    async def _ask(self, request: Request, part: int, address: str) -> NodeAnswer:
        """One attempt.

        Raises:
            NotReached: nothing was sent.
            StoreUnavailable: there is no answer; the owner may have done what was asked for.
        """
        node = self.connections_to(address)
        beside = [self.token_header(), (EPOCH, str(self._cluster.owner_of(part).epoch))]
        if request.caller is not None:
            beside.append((CALLER, base64.urlsafe_b64encode(msgspec.msgpack.encode(request.caller)).decode()))
        headers = [(name, value) for name, value in request.headers if name not in _NOT_SENT_ON]
        answer = None
        try:
            with trio.move_on_after(ANSWER_TIMEOUT_S) as waiting:
                self._waiting[waiting] = address
                answer = await node.ask(
                    request.method, request.target, headers=[*headers, *beside], body=request.body, host=request.host
                )
        except CallFailed as error:
            if isinstance(error, NotReached):
                raise
        finally:
            del self._waiting[waiting]
        if answer is None:
            self.counters["failed"] += 1
            raise StoreUnavailable("The vault's node did not answer.", retry_after_s=1)
        self.counters["forwarded"] += 1
        return NodeAnswer(answer, address, self._readings)

    async def watch(self) -> None:
        """Give up waiting for nodes that are gone, until cancelled: a frozen one keeps its connections for ever."""
        async with trio.open_nursery() as asking:
            while True:
                await self._cluster.wait_changed()
                for waiting, address in self._waiting.items():
                    if self._cluster.is_gone(address):
                        waiting.cancel(reason="the node is gone")
                for address in self._readings.doubtful(self._cluster.is_gone):
                    asking.start_soon(self._readings.end_unless, address, self._is_alive)
                for address, node in list(self._nodes.items()):
                    if self._cluster.is_gone(address):
                        await node.aclose()
                        if not node.open:  # nothing of an answer is still to come
                            del self._nodes[address]

    async def _is_alive(self, address: str) -> bool:
        """Whether a node answers anything at all."""
        with trio.move_on_after(SIGN_OF_LIFE_TIMEOUT_S):
            try:
                answer = await self.connections_to(address).ask("GET", "/livez", headers=[], body=b"")
            except CallFailed:
                return False
            await answer.aclose()
            return True
        return False

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
                if not owned.address:  # who was there is gone: it may come back to the same place
                    after = ""
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


def headers_back(answer: Answer | NodeAnswer) -> HeaderList:
    """The headers of a node's answer that reach the client."""
    return [(name, value) for name, value in answer.headers if name not in _NOT_SENT_BACK]


class AnswerPieces:
    """The body of a node's answer, in the pieces that it comes in."""

    def __init__(self, answer: Answer | NodeAnswer) -> None:
        self._answer = answer

    def __aiter__(self) -> AnswerPieces:
        return self

    async def __anext__(self) -> bytes:
        """The next piece.

        Raises:
            AnswerBroken: it broke off; the client must see that, too.
        """
        try:
            with trio.fail_after(ANSWER_TIMEOUT_S):
                piece = await self._answer.receive()
        except (CallFailed, trio.TooSlowError):
            raise AnswerBroken("The vault's node broke off its answer.") from None
        if not piece:
            raise StopAsyncIteration
        return piece


def _is_redirection(answer: NodeAnswer) -> bool:
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
