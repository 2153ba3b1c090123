"""A relay's surroundings: what it hands its reply to, a server with one relaying route, a client that sees chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import Response, request
from quart_trio import QuartTrio

from models.errors import MemoryRouterError
from models.provider_settings import Secret
from router.headers import request_headers
from router.providers.base import Reply
from router.providers.openai_chat import OPENAI_CHAT
from router.providers.openai_reply import ChatCollector
from router.sse import EventSplitter
from router.streaming import CloseWithRequest, Commit, Relay, exits, stream_response
from router.upstream import Upstream, open_upstream
from tests.fakes.provider import FakeProvider, open_fake_provider, rechunk
from tests.patience import PATIENCE_S

ASKED = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}'


class GateCommit:
    """A commit that becomes durable, or fails, when the test says so."""

    def __init__(self, *, on_wait: Callable[[], None] = lambda: None, error: MemoryRouterError | None = None) -> None:
        self.gate = trio.Event()
        self._on_wait = on_wait
        self._error = error

    @property
    def durable(self) -> bool:
        return self.gate.is_set() and self._error is None

    async def wait_durable(self) -> None:
        self._on_wait()
        await self.gate.wait()
        if self._error is not None:
            raise self._error


class Memory:
    """The part of the router that a relay hands its reply to."""

    def __init__(self, commit: Commit | None = None, *, error: MemoryRouterError | None = None) -> None:
        self.replies: list[Reply | None] = []
        self.not_durable: list[str] = []
        self._commit = commit
        self._error = error

    def hand_off(self, reply: Reply | None) -> Commit | None:
        self.replies.append(reply)
        if self._error is not None:
            raise self._error
        return self._commit

    @property
    def texts(self) -> list[str | None]:
        return [None if reply is None else reply.text for reply in self.replies]


def relay_of(
    chunks: AsyncIterator[bytes], memory: Memory, *, commit_wait_s: float = 30.0, event_bytes_max: int = 100_000
) -> Relay:
    return Relay(
        chunks,
        wire_format=OPENAI_CHAT,
        splitter=EventSplitter(event_bytes_max=event_bytes_max),
        collector=ChatCollector(text_chars_max=10_000),
        hand_off=memory.hand_off,
        on_not_durable=memory.not_durable.append,
        commit_wait_s=commit_wait_s,
    )


def events_of(data: bytes) -> list[bytes]:
    """The data of each event in these bytes."""
    return [event.data for event in EventSplitter(event_bytes_max=1_000_000).feed(data)]


def chop(data: bytes, sizes: list[int]) -> list[bytes]:
    """Chunks of these sizes, again and again."""
    return rechunk(data, sizes * (len(data) // sum(sizes) + 1)) if sizes else [data]


class Client:
    """A client that sees single chunks and can leave at any moment."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._wire = h11.Connection(h11.CLIENT)

    async def post(self, body: bytes = ASKED) -> None:
        head = h11.Request(method="POST", target="/chat", headers=[("host", "x"), ("content-length", str(len(body)))])
        parts = [self._wire.send(head), self._wire.send(h11.Data(data=body)), self._wire.send(h11.EndOfMessage())]
        await self._stream.send_all(b"".join(part or b"" for part in parts))

    async def event(self) -> Any:
        """The next h11 event."""
        while (event := self._wire.next_event()) is h11.NEED_DATA:
            self._wire.receive_data(await self._stream.receive_some())
        return event

    async def head(self) -> h11.Response:
        event = await self.event()
        assert isinstance(event, h11.Response)
        return event

    async def read(self, count: int) -> bytes:
        """At least so many bytes of the body."""
        body = b""
        while len(body) < count:
            event = await self.event()
            assert isinstance(event, h11.Data)
            body += event.data
        return body

    async def rest(self) -> bytes:
        body = b""
        while isinstance(event := await self.event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)
        return body

    async def leave(self) -> None:
        await self._stream.aclose()


class Proxy:
    """A server with one route that relays, and a provider behind it."""

    def __init__(self, provider: FakeProvider, memory: Memory, port: int) -> None:
        self.provider = provider
        self.memory = memory
        self._port = port
        self._clients: list[Client] = []

    async def connect(self, *, receive_buffer_bytes: int | None = None) -> Client:
        socket = trio.socket.socket()
        if receive_buffer_bytes is not None:
            socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer_bytes)
        await socket.connect(("127.0.0.1", self._port))
        self._clients.append(Client(trio.SocketStream(socket)))
        return self._clients[-1]

    async def aclose(self) -> None:
        for client in self._clients:
            await client.leave()


def make_app(upstream: Upstream, memory: Memory) -> QuartTrio:
    app = QuartTrio("proxy")

    @app.post("/chat")
    async def chat() -> Response:
        body: Any = await request.get_data()
        parsed = OPENAI_CHAT.parse_request(body)
        headers = request_headers(request.headers.items(), provider="fake", api_key=Secret("sk-1"))
        call = upstream.stream("fake", "/chat/completions", headers=headers, body=parsed.encode(model="m"))
        response = await exits().enter_async_context(call)
        return stream_response(relay_of(response, memory), status=response.status, headers=response.headers)

    return app


@asynccontextmanager
async def open_proxy(memory: Memory | None = None, **settings: float) -> AsyncIterator[Proxy]:
    """The proxy on a free port; nothing in it may last longer than `PATIENCE_S`."""
    memory = Memory() if memory is None else memory
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    stop = trio.Event()
    with trio.fail_after(PATIENCE_S):
        async with open_fake_provider() as provider, trio.open_nursery() as servers:
            fake: Any = provider.settings(**settings)  # type: ignore[arg-type]  # only floats are given here
            async with open_upstream({"fake": fake}) as upstream:
                app: Any = CloseWithRequest(make_app(upstream, memory))

                async def run(task_status: Any) -> None:
                    await serve(app, config, shutdown_trigger=stop.wait, task_status=task_status)

                binds: list[str] = await servers.start(_started, run)
                proxy = Proxy(provider, memory, int(binds[0].rsplit(":", 1)[1]))
                try:
                    yield proxy
                finally:
                    await proxy.aclose()
                    stop.set()


async def _started(run: Callable[[Any], Any], *, task_status: Any) -> None:
    await run(task_status)
