"""A scripted provider on a real loopback socket: h11 over Trio streams, no framework.

It answers each request with the next script, records what it got, and counts what it produced and which clients left.
Its timing comes from gates (`trio.Event`) and, where a cadence itself is the subject, from `Pause`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Literal

import h11
import msgspec
import trio

from models.provider_settings import ProviderSettings, Secret

Ending = Literal["clean", "cut", "cut_in_chunk"]


class Pause:
    """A step that takes time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


Step = bytes | trio.Event | Pause


class Script:
    """What to do with one request.

    Attributes:
        body: sent with a content-length; None for a chunked body of `steps`.
        steps: chunks to send, gates to wait for, pauses; may be endless.
        ending: how a chunked body ends: properly, by closing the socket, or in the middle of a chunk.
        hang: read the request and never answer.
    """

    def __init__(
        self,
        *,
        status: int = 200,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        steps: Iterable[Step] = (),
        ending: Ending = "clean",
        hang: bool = False,
    ) -> None:
        self.status = status
        self.headers = list(headers)
        self.body = body
        self.steps = steps
        self.ending: Ending = ending
        self.hang = hang


class Recorded(msgspec.Struct, frozen=True):
    """A request as it arrived. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def chat_reply(text: str = "Hello there.", *, finish_reason: str = "stop") -> bytes:
    """A whole chat completion, with a vendor's extra field."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return msgspec.json.encode({**body, "usage": usage, "x_vendor": {"kept": True}})


def chat_chunk(content: str | None = None, *, finish_reason: str | None = None, index: int = 0) -> bytes:
    """One `data:` event of a streamed chat completion."""
    delta = {} if content is None else {"content": content}
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + msgspec.json.encode({**body, "choices": [choice], "x_vendor": None}) + b"\n\n"


DONE = b"data: [DONE]\n\n"


def chat_events(pieces: Iterable[str] = ("Hel", "lo ", "there.")) -> list[bytes]:
    """The events of a whole streamed reply: its pieces, the finishing event, the terminator."""
    return [*(chat_chunk(piece) for piece in pieces), chat_chunk(finish_reason="stop"), DONE]


def rechunk(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """The same bytes in chunks of these sizes; the rest is the last chunk."""
    chunks, start = [], 0
    for size in sizes:
        if start >= len(data):
            break
        chunks.append(data[start : start + size])
        start += size
    return [*chunks, data[start:]] if start < len(data) else chunks


def reply_script(text: str = "Hello there.") -> Script:
    """Answers with a whole chat completion."""
    return Script(body=chat_reply(text), headers=[("content-type", "application/json"), ("x-request-id", "req-1")])


def stream_script(steps: Iterable[Step] | None = None, *, ending: Ending = "clean") -> Script:
    """Answers with server-sent events."""
    steps = chat_events() if steps is None else steps
    return Script(headers=[("content-type", "text/event-stream")], steps=steps, ending=ending)


class FakeProvider:
    """What `open_fake_provider` yields.

    Attributes:
        base_url: with `/v1`, as an OpenAI-style provider has it.
        requests: in order of arrival.
        chunks_sent, bytes_sent: of chunked bodies, so far; a chunk counts once the kernel has taken it.
        disconnects: clients that left before their reply was complete.
        connections: accepted so far.
        disconnected: set at the first disconnect.
    """

    def __init__(self, port: int) -> None:
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self.requests: list[Recorded] = []
        self.chunks_sent = 0
        self.bytes_sent = 0
        self.disconnects = 0
        self.connections = 0
        self.disconnected = trio.Event()
        self._scripts: list[Script] = []

    def enqueue(self, *scripts: Script) -> None:
        """Answer the next requests with these, in order; without a script a request gets `reply_script()`."""
        self._scripts += scripts

    def settings(
        self,
        *,
        connect_timeout_s: float = 5.0,
        first_byte_timeout_s: float = 30.0,
        idle_timeout_s: float = 30.0,
        connections_max: int = 100,
        api_key: str = "sk-fake",
    ) -> ProviderSettings:
        """Settings that point at this provider."""
        return ProviderSettings(
            base_url=self.base_url,
            api_key=Secret(api_key),
            connect_timeout_s=connect_timeout_s,
            first_byte_timeout_s=first_byte_timeout_s,
            idle_timeout_s=idle_timeout_s,
            connections_max=connections_max,
        )

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, until either side closes it."""
        self.connections += 1
        wire = h11.Connection(h11.SERVER)
        async with stream:
            try:
                while await self._serve_request(stream, wire):
                    wire.start_next_cycle()
            except (trio.BrokenResourceError, h11.RemoteProtocolError):
                return

    def script_for(self, recorded: Recorded) -> Script:
        """What to answer this request with; a provider that goes by the request overrides it."""
        return self._scripts.pop(0) if self._scripts else reply_script()

    async def _serve_request(self, stream: trio.SocketStream, wire: h11.Connection) -> bool:
        recorded = await _read_request(stream, wire)
        if recorded is None:
            return False
        self.requests.append(recorded)
        script = self.script_for(recorded)
        finished, left = False, trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, stream, wire, left, nursery.cancel_scope)
            try:
                finished = await self._answer(stream, wire, script)
            except trio.BrokenResourceError:
                left.set()
            nursery.cancel_scope.cancel()
        if left.is_set() and not finished:
            self.disconnects += 1
            self.disconnected.set()
        return finished and wire.our_state is h11.DONE and wire.their_state is h11.DONE

    async def _watch(
        self, stream: trio.SocketStream, wire: h11.Connection, left: trio.Event, answering: trio.CancelScope
    ) -> None:
        """Notice that the client leaves before its reply is complete; bytes of a next request are kept."""
        data = b""
        with suppress(trio.BrokenResourceError):
            data = await stream.receive_some()
        if data:
            wire.receive_data(data)
        else:
            left.set()
            answering.cancel()

    async def _answer(self, stream: trio.SocketStream, wire: h11.Connection, script: Script) -> bool:
        if script.hang:
            await trio.sleep_forever()
        framing = ("transfer-encoding", "chunked")
        if script.body is not None:
            framing = ("content-length", str(len(script.body)))
        head = h11.Response(status_code=script.status, headers=[*script.headers, framing])
        await stream.send_all(wire.send(head) or b"")
        if script.body is not None:
            await stream.send_all(wire.send(h11.Data(data=script.body)) or b"")
        for step in script.steps:
            await self._take_step(stream, wire, step)
        if script.ending == "cut_in_chunk":
            await stream.send_all(b"ff\r\ndata: half of a ch")
        if script.ending != "clean":
            return False
        await stream.send_all(wire.send(h11.EndOfMessage()) or b"")
        return True

    async def _take_step(self, stream: trio.SocketStream, wire: h11.Connection, step: Step) -> None:
        if isinstance(step, trio.Event):
            await step.wait()
        elif isinstance(step, Pause):
            await trio.sleep(step.seconds)
        else:
            await stream.send_all(wire.send(h11.Data(data=step)) or b"")
            self.chunks_sent += 1
            self.bytes_sent += len(step)


@asynccontextmanager
async def open_fake_provider() -> AsyncIterator[FakeProvider]:
    """A provider on a free port of 127.0.0.1."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    provider = FakeProvider(listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as connections:
        connections.start_soon(trio.serve_listeners, provider.serve, listeners)
        yield provider
        connections.cancel_scope.cancel()


@asynccontextmanager
async def open_dead_provider() -> AsyncIterator[ProviderSettings]:
    """Settings of a provider that refuses connections: its port is taken, so that nobody else listens there."""
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        yield FakeProvider(taken.getsockname()[1]).settings()


def gated(chunks: Iterable[bytes], gates: Iterable[trio.Event]) -> Iterator[Step]:
    """These chunks with a gate before each."""
    for chunk, gate in zip(chunks, gates, strict=True):
        yield gate
        yield chunk


async def _read_request(stream: trio.SocketStream, wire: h11.Connection) -> Recorded | None:
    request: h11.Request | None = None
    body = bytearray()
    while True:
        event = wire.next_event()
        if event is h11.NEED_DATA:
            wire.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
            return Recorded(request.method.decode(), request.target.decode(), headers, bytes(body))
        else:
            return None
