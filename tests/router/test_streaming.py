"""Streams through a real server on a real socket, and the relay's rules in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio
import trio.testing
from hypercorn.config import Config
from hypercorn.trio import serve
from hypothesis import given
from hypothesis import strategies as st
from quart import Response, request
from quart_trio import QuartTrio

from models.errors import MemoryRouterError, Overloaded, StorageFull, UpstreamError, UpstreamTimeout
from models.provider_settings import Secret
from router.headers import request_headers
from router.providers.base import Reply
from router.providers.openai_chat import OPENAI_CHAT
from router.providers.openai_reply import ChatCollector
from router.sse import EventSplitter
from router.streaming import CloseWithRequest, Commit, Relay, exits, stream_response, wait_durable
from router.upstream import open_upstream
from tests.fakes.provider import (
    DONE,
    FakeProvider,
    Pause,
    Script,
    chat_chunk,
    chat_events,
    gated,
    open_fake_provider,
    rechunk,
    stream_script,
)

_FINISH = chat_chunk(finish_reason="stop")
_ASKED = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}'


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
        collector=ChatCollector(text_chars_max=10_000),
        hand_off=memory.hand_off,
        on_not_durable=memory.not_durable.append,
        commit_wait_s=commit_wait_s,
        event_bytes_max=event_bytes_max,
    )


# --- the relay in memory ----------------------------------------------------------------------------------------------


class Chunks:
    """An upstream body: these chunks, then an end or an error."""

    def __init__(self, chunks: list[bytes], error: MemoryRouterError | None = None) -> None:
        self._chunks = iter(chunks)
        self._error = error

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for chunk in self._chunks:
            return chunk
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration


def events_of(data: bytes) -> list[bytes]:
    return [event.data for event in EventSplitter(event_bytes_max=1_000_000).feed(data)]


def chop(data: bytes, sizes: list[int]) -> list[bytes]:
    """Chunks of these sizes, again and again."""
    return rechunk(data, sizes * (len(data) // sum(sizes) + 1)) if sizes else [data]


_SIZES = st.lists(st.integers(1, 200), max_size=5)
_STREAMS = st.lists(
    st.sampled_from([chat_chunk("a"), chat_chunk("é🙂"), b": keep-alive\n\n", b"\n", chat_chunk("b").replace(b"\n", b"\r\n")]),
    max_size=6,
).map(b"".join)
_ENDINGS = st.sampled_from([_FINISH + DONE, _FINISH, _FINISH.replace(b"\n", b"\r\n") + DONE, _FINISH.strip(), DONE])


@given(_STREAMS, _ENDINGS, _SIZES)
async def test_bytes_are_the_providers_whatever_the_chunking(start: bytes, ending: bytes, sizes: list[int]) -> None:
    """All bytes, in order; one hand-off; and nothing of the finish before the commit is durable."""
    out = bytearray()
    seen_at_wait: list[bytes] = []

    def become_durable() -> None:
        seen_at_wait.append(bytes(out))
        commit.gate.set()

    commit = GateCommit(on_wait=become_durable)
    memory = Memory(commit)
    async for chunk in relay_of(Chunks(chop(start + ending, sizes)), memory):
        assert chunk
        out += chunk

    assert bytes(out) == start + ending
    assert memory.texts == ["".join(_content_of(data) for data in events_of(start))]
    assert memory.replies[0] is not None
    assert memory.replies[0].complete
    if ending != _FINISH.strip():  # without a line end the finish is only known when the body ends
        events = EventSplitter(event_bytes_max=100_000).feed(start)
        assert len(seen_at_wait) == 1
        assert seen_at_wait[0].startswith(start[: events[-1].end if events else 0])
        assert not seen_at_wait[0][len(start) :].endswith((b"\r", b"\n"))


def _content_of(data: bytes) -> str:
    return "é🙂" if "é🙂".encode() in data or b"\\u" in data else "a" if b'"a"' in data else "b"


@given(_STREAMS, _SIZES, st.floats(0, 1), st.sampled_from([None, UpstreamError("It broke."), UpstreamTimeout("Too slow.")]))
async def test_any_cut_ends_with_an_error_and_no_terminator(
    start: bytes, sizes: list[int], place: float, error: MemoryRouterError | None
) -> None:
    """What came is passed on, the user's turn is handed off once, and the last event is the error."""
    memory = Memory()
    stream = start + _FINISH
    sent = stream[: min(int(place * len(stream)), len(start) + 40)]
    out = b"".join([chunk async for chunk in relay_of(Chunks(chop(sent, sizes), error), memory)])

    assert out.startswith(sent)
    assert memory.replies == [None]
    last = events_of(out)[-1]
    assert b'"code":"upstream_' in last
    assert b"[DONE]" not in out


async def test_a_failure_that_the_provider_reports_is_passed_on_once() -> None:
    """Its own error event is enough; whatever follows it is the provider's too."""
    stream = chat_chunk("par") + b'data: {"error":{"message":"overloaded","code":529}}\n\n' + DONE
    memory = Memory()
    relay = relay_of(Chunks([stream]), memory)

    assert b"".join([chunk async for chunk in relay]) == stream
    assert memory.replies == [None]
    assert relay.outcome == "failed"


async def test_a_cut_after_the_terminator_is_no_error() -> None:
    """Clients have stopped reading; the exchange is complete."""
    memory = Memory()
    relay = relay_of(Chunks(chat_events(["a"]), UpstreamError("It broke.")), memory)

    assert b"".join([chunk async for chunk in relay]) == b"".join(chat_events(["a"]))
    assert (memory.texts, relay.outcome) == (["a"], "complete")


async def test_a_cut_between_finish_and_terminator_is_told_but_the_reply_counts() -> None:
    """The client may miss its usage chunk; the words are all there."""
    memory = Memory()
    out = [chunk async for chunk in relay_of(Chunks([chat_chunk("a"), _FINISH], UpstreamError("It broke.")), memory)]

    assert memory.texts == ["a"]
    assert out[:2] == [chat_chunk("a"), _FINISH]
    assert b'"error"' in out[2]


async def test_an_event_too_large_to_read_passes_through() -> None:
    """The user's turn is handed off at once, and the reply is not remembered."""
    stream = [chat_chunk("a"), chat_chunk("x" * 5000), *chat_events(["b"])]
    memory = Memory()
    out = []
    relay = relay_of(Chunks(stream), memory, event_bytes_max=1000)
    async for chunk in relay:
        out.append((chunk, list(memory.replies)))

    assert out == [(stream[0], []), *((chunk, [None]) for chunk in stream[1:])]
    assert relay.outcome == "unreadable"


async def test_leaving_before_the_finish_hands_off_the_users_turn_only() -> None:
    """Exactly once, however often the relay is closed."""
    memory = Memory()
    relay = relay_of(Chunks(chat_events(["a"])), memory)
    await anext(relay)
    relay.close_nowait()
    relay.close_nowait()

    assert memory.replies == [None]
    assert [chunk async for chunk in relay] == []


async def test_leaving_after_the_finish_has_a_complete_exchange() -> None:
    """The finishing event had come, even if the client did not wait for its commit."""
    memory = Memory(GateCommit())
    relay = relay_of(Chunks(chat_events(["a"])), memory)
    with trio.move_on_after(0.01):
        while True:
            await anext(relay)
    relay.close_nowait()

    assert (memory.texts, relay.outcome) == (["a"], "complete")


@pytest.mark.parametrize(
    ("memory", "reasons"),
    [
        (Memory(GateCommit()), ["commit_timeout"]),
        (Memory(error=Overloaded("Full.")), ["overloaded"]),
        (Memory(None), []),
    ],
    ids=["slow", "refused", "nothing to store"],
)
async def test_memory_never_holds_the_end_for_good(memory: Memory, reasons: list[str]) -> None:
    """The chat finishes, and the reason why it may not be stored is told."""
    relay = relay_of(Chunks(chat_events(["a"])), memory, commit_wait_s=0.02)

    assert b"".join([chunk async for chunk in relay]) == b"".join(chat_events(["a"]))
    assert (memory.texts, memory.not_durable) == (["a"], reasons)


async def test_a_commit_that_fails_is_told() -> None:
    """By the code of its error; waiting outside of a stream follows the same rule."""
    commit = GateCommit(error=StorageFull("Full."))
    commit.gate.set()

    assert await wait_durable(commit, deadline=trio.current_time() + 30) == "storage_full"
    assert await wait_durable(GateCommit(), deadline=trio.current_time()) == "commit_timeout"
    assert await wait_durable(None, deadline=0) is None


# --- through a server -------------------------------------------------------------------------------------------------


class Client:
    """A client that sees single chunks and can leave at any moment."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._wire = h11.Connection(h11.CLIENT)

    async def post(self, body: bytes = _ASKED) -> None:
        head = h11.Request(
            method="POST", target="/chat", headers=[("host", "x"), ("content-length", str(len(body)))]
        )
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

    async def connect(self, *, receive_buffer_bytes: int | None = None) -> Client:
        socket = trio.socket.socket()
        if receive_buffer_bytes is not None:
            socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer_bytes)
        await socket.connect(("127.0.0.1", self._port))
        return Client(trio.SocketStream(socket))


def make_app(upstream: Any, memory: Memory) -> QuartTrio:
    app = QuartTrio("proxy")

    @app.post("/chat")
    async def chat() -> Response:
        parsed = OPENAI_CHAT.parse_request(await request.get_data())
        headers = request_headers(request.headers.items(), provider="fake", api_key=Secret("sk-1"))
        call = upstream.stream("fake", "/chat/completions", headers=headers, body=parsed.encode(model="m"))
        response = await exits().enter_async_context(call)
        return stream_response(relay_of(response, memory), status=response.status, headers=response.headers)

    return app


@asynccontextmanager
async def open_proxy(memory: Memory | None = None, **settings: float) -> AsyncIterator[Proxy]:
    """The proxy on a free port; everything must be over within ten seconds."""
    memory = Memory() if memory is None else memory
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    stop = trio.Event()
    with trio.fail_after(10):
        async with open_fake_provider() as provider, trio.open_nursery() as servers:
            fake: Any = provider.settings(**settings)  # type: ignore[arg-type]  # only floats are given here
            async with open_upstream({"fake": fake}) as upstream:
                app: Any = CloseWithRequest(make_app(upstream, memory))

                async def run(task_status: Any) -> None:
                    await serve(app, config, shutdown_trigger=stop.wait, task_status=task_status)

                binds: list[str] = await servers.start(_started, run)
                yield Proxy(provider, memory, int(binds[0].rsplit(":", 1)[1]))
                stop.set()


async def _started(run: Callable[[Any], Any], *, task_status: Any) -> None:
    await run(task_status)


_REPLY = b"".join(chat_events(["Grü", "ße"]))


@pytest.mark.parametrize("sizes", [[1], [7], [len(_REPLY)], [len(_REPLY) - 3], [60, 200]])
async def test_each_chunk_arrives_before_the_next_is_produced(sizes: list[int]) -> None:
    """Cut anywhere, even inside a character or a line end; the bytes are equal."""
    chunks = chop(_REPLY, sizes)
    gates = [trio.Event() for _ in chunks]
    async with open_proxy() as proxy:
        proxy.provider.enqueue(stream_script(gated(chunks, gates)))
        client = await proxy.connect()
        await client.post()
        await client.head()
        for chunk, gate in zip(chunks, gates, strict=True):
            gate.set()
            assert await client.read(len(chunk)) == chunk
        assert await client.rest() == b""

    assert proxy.memory.texts == ["Grüße"]


async def test_headers_come_with_the_providers_status() -> None:
    """What the SDK reads is kept; nothing may buffer the stream on its way."""
    headers = [("content-type", "text/event-stream"), ("x-request-id", "req-1"), ("set-cookie", "c=1")]
    async with open_proxy() as proxy:
        proxy.provider.enqueue(Script(headers=headers, steps=chat_events()))
        client = await proxy.connect()
        await client.post()
        head = await client.head()
        names = {name.decode(): value.decode() for name, value in head.headers}
        await client.rest()

    assert head.status_code == 200
    assert names["content-type"] == "text/event-stream"
    assert names["x-request-id"] == "req-1"
    assert (names["cache-control"], names["x-accel-buffering"]) == ("no-cache", "no")
    assert not names.keys() & {"content-length", "set-cookie"}


async def test_the_end_waits_for_the_commit_and_nothing_else_does() -> None:
    """The finishing event shares its chunk with text and terminator: the text goes, the rest stays."""
    commit = GateCommit()
    async with open_proxy(Memory(commit)) as proxy:
        proxy.provider.enqueue(stream_script([chat_chunk("a"), chat_chunk("b") + _FINISH + DONE]))
        client = await proxy.connect()
        await client.post()
        await client.head()
        before = chat_chunk("a") + chat_chunk("b")
        assert await client.read(len(before)) == before
        assert proxy.memory.texts == ["ab"]
        with trio.move_on_after(0.05) as waiting:
            await client.event()
        assert waiting.cancelled_caught
        commit.gate.set()
        assert await client.rest() == _FINISH + DONE


async def test_a_client_that_leaves_cancels_the_provider() -> None:
    """Within 100 ms by design; the test allows 500 ms for a busy machine, counted in chunks of 10 ms."""

    def endless() -> Any:
        while True:
            yield chat_chunk("x")
            yield Pause(0.01)

    async with open_proxy() as proxy:
        proxy.provider.enqueue(stream_script(endless()))
        client = await proxy.connect()
        await client.post()
        await client.head()
        await client.read(500)
        produced = proxy.provider.chunks_sent
        await client.leave()
        await proxy.provider.disconnected.wait()
        assert proxy.provider.chunks_sent - produced <= 50
        await trio.testing.wait_all_tasks_blocked(0.01)

    assert proxy.memory.replies == [None]


async def test_a_client_that_leaves_before_the_first_byte_cancels_the_provider() -> None:
    """Nothing is handed off by the relay then: there was none yet."""
    async with open_proxy() as proxy:
        proxy.provider.enqueue(Script(hang=True))
        client = await proxy.connect()
        await client.post()
        await trio.testing.wait_all_tasks_blocked(0.05)
        await client.leave()
        await proxy.provider.disconnected.wait()

    assert proxy.memory.replies == []


async def test_a_client_that_leaves_while_the_end_is_held_loses_nothing() -> None:
    """The exchange was handed off whole; the provider's call is closed."""
    async with open_proxy(Memory(GateCommit())) as proxy:
        proxy.provider.enqueue(stream_script([chat_chunk("a"), _FINISH, trio.Event()]))
        client = await proxy.connect()
        await client.post()
        await client.head()
        await client.read(len(chat_chunk("a")))
        await trio.testing.wait_all_tasks_blocked(0.02)
        await client.leave()
        await proxy.provider.disconnected.wait()

    assert proxy.memory.texts == ["a"]


@pytest.mark.parametrize("ending", ["cut", "cut_in_chunk", "clean"])
async def test_a_cut_reply_ends_with_an_error_event(ending: Any) -> None:
    """The HTTP response ends properly, its last event is the error, and there is no terminator."""
    async with open_proxy() as proxy:
        proxy.provider.enqueue(stream_script([chat_chunk("a"), chat_chunk("b")[:40]], ending=ending))
        client = await proxy.connect()
        await client.post()
        await client.head()
        body = await client.rest()

    assert body.startswith(chat_chunk("a") + chat_chunk("b")[:40])
    assert b'"code":"upstream_unavailable"' in events_of(body)[-1]
    assert b"[DONE]" not in body
    assert proxy.memory.replies == [None]


async def test_a_provider_that_falls_silent_ends_with_a_timeout() -> None:
    """The idle timeout counts between chunks, so a long reply is not cut."""
    steps = [chat_chunk("a"), Pause(0.1), chat_chunk("b"), Pause(0.1), chat_chunk("c"), trio.Event()]
    async with open_proxy(idle_timeout_s=0.25) as proxy:
        proxy.provider.enqueue(stream_script(steps))
        client = await proxy.connect()
        await client.post()
        await client.head()
        body = await client.rest()
        await proxy.provider.disconnected.wait()

    assert body.startswith(b"".join(map(chat_chunk, "abc")))
    assert b'"code":"upstream_timeout"' in events_of(body)[-1]


async def test_a_slow_client_slows_the_provider_down() -> None:
    """All that is produced sits in the kernel's socket buffers; the proxy holds one chunk."""
    chunk = chat_chunk("x" * 60_000)

    def endless() -> Any:
        while True:
            yield chunk

    async with open_proxy() as proxy:
        proxy.provider.enqueue(stream_script(endless()))
        client = await proxy.connect(receive_buffer_bytes=64 * 1024)
        await client.post()
        await client.head()
        await trio.testing.wait_all_tasks_blocked(0.2)  # reached only if production stops
        produced = proxy.provider.bytes_sent
        await client.leave()
        await proxy.provider.disconnected.wait()

    assert produced < 64 * 1024 * 1024


async def test_what_a_handler_opened_is_closed_when_its_body_is_never_entered() -> None:
    """The client leaves while the response's head is being sent: Quart then drops the body."""
    memory = Memory()
    messages = [{"type": "http.request", "body": _ASKED, "more_body": False}]
    head_reached = trio.Event()

    async def receive() -> Mapping[str, Any]:
        if messages:
            return messages.pop()
        await head_reached.wait()
        return {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        assert message["type"] == "http.response.start"
        head_reached.set()
        await trio.sleep_forever()

    scope = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": "/chat", "raw_path": b"/chat",
             "query_string": b"", "root_path": "", "headers": [], "client": ("x", 1), "server": ("x", 1), "extensions": {}}  # fmt: skip
    with trio.fail_after(10):
        async with open_fake_provider() as provider:
            provider.enqueue(stream_script([chat_chunk("a"), trio.Event()]))
            async with open_upstream({"fake": provider.settings()}) as upstream:
                await CloseWithRequest(make_app(upstream, memory))(scope, receive, send)

                assert memory.replies == [None]
                assert upstream.statistics()["fake"]["calls"] == 0
                await provider.disconnected.wait()
