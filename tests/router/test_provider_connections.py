"""Connections to a provider: kept while they are good, closed in every other case, and never more than asked for."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from router.provider_connections import (
    KEEPALIVE_EXPIRY_S,
    Answer,
    ConnectionBroken,
    NotReached,
    NotReachedInTime,
    NotSendable,
    NotTaken,
    OpenStream,
    ProviderConnections,
)
from tests.fakes.certificates import SelfSigned
from tests.patience import PATIENCE_S

HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Provider:
    """Answers what a test has prepared, in memory.

    Attributes:
        heard: what came on each connection.
    """

    def __init__(self, nursery: trio.Nursery, *answers: bytes, pair: Callable[[], Any] = memory_stream_pair) -> None:
        self.heard: list[bytes] = []
        self.ends: list[Any] = []
        self._answers = list(answers)
        self._nursery = nursery
        self._pair = pair

    async def open_stream(self, host: str, port: int) -> trio.abc.Stream:
        """A connection; the next of its answers follows each request."""
        await trio.lowlevel.checkpoint()
        ours, theirs = self._pair()
        number = len(self.ends)
        self.ends.append(theirs)
        self.heard.append(b"")
        self._nursery.start_soon(self._serve, number, theirs)
        return ours  # type: ignore[no-any-return]

    async def _serve(self, number: int, stream: Any) -> None:
        while data := await stream.receive_some():
            self.heard[number] += data
            if self.heard[number].endswith((b"{}", b"0\r\n\r\n")) and self._answers:
                await stream.send_all(self._answers.pop(0))


def connections_over(open_stream: OpenStream, base_url: str = "http://provider.test/v1") -> ProviderConnections:
    return ProviderConnections(
        base_url, ssl.create_default_context(), connect_timeout_s=5, write_timeout_s=5, open_stream=open_stream
    )


async def ask(connections: ProviderConnections, body: bytes | AsyncIterator[bytes] = b"{}", *more: Any) -> Answer:
    return await connections.ask("POST", "/chat", headers=[("x-a", "1"), *more], body=body)


async def read(answer: Answer) -> list[bytes]:
    """The body as it comes, and nothing left open."""
    chunks = []
    while chunk := await answer.receive():
        chunks.append(chunk)
    await answer.aclose()
    return chunks


async def test_a_request_is_what_was_given_with_host_and_length(nursery: trio.Nursery) -> None:
    provider = Provider(nursery, HELLO)
    answer = await ask(connections_over(provider.open_stream))
    assert (answer.status, answer.headers) == (200, [("content-length", "5")])
    assert await read(answer) == [b"hello"]
    head = b"POST /v1/chat HTTP/1.1\r\nHost: provider.test\r\nContent-Length: 2\r\nx-a: 1\r\n\r\n{}"
    assert provider.heard[0].lower() == head.lower()


async def test_a_read_answer_leaves_its_connection_to_the_next_call(nursery: trio.Nursery) -> None:
    """Nothing that an answer said comes along: no cookie."""
    provider = Provider(nursery, HELLO.replace(b"\r\n\r\n", b"\r\nset-cookie: a=b\r\n\r\n"), HELLO)
    connections = connections_over(provider.open_stream)
    await read(await ask(connections))
    assert (connections.open, connections.idle) == (1, 1)
    await read(await ask(connections))
    assert len(provider.heard) == 1
    assert b"cookie" not in provider.heard[0].lower()


@pytest.mark.parametrize(
    "answer",
    [
        HELLO.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"),
        HELLO.replace(b"1.1", b"1.0"),
        HELLO + b"what nobody asked for",
    ],
)
async def test_a_connection_that_cannot_go_on_is_closed(nursery: trio.Nursery, answer: bytes) -> None:
    provider = Provider(nursery, answer, HELLO)
    connections = connections_over(provider.open_stream)
    assert await read(await ask(connections)) == [b"hello"]
    assert connections.open == 0
    assert await read(await ask(connections)) == [b"hello"]
    assert len(provider.heard) == 2


async def test_an_answer_that_is_not_read_to_its_end_closes_its_connection(nursery: trio.Nursery) -> None:
    provider = Provider(nursery, CHUNKED + b"5\r\nhello\r\n")
    connections = connections_over(provider.open_stream)
    answer = await ask(connections)
    assert await answer.receive() == b"hello"
    await answer.aclose()
    await answer.aclose()
    assert connections.open == 0


async def test_a_cancelled_call_closes_its_connection(nursery: trio.Nursery) -> None:
    """Before the headers, and within the body."""
    provider = Provider(nursery, CHUNKED)
    connections = connections_over(provider.open_stream)
    answer = await ask(connections)
    for step in (answer.receive, lambda: ask(connections)):
        waiting: Callable[[], Awaitable[Any]] = step
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_idle, scope)
            await waiting()
        assert scope.cancelled_caught
    await answer.aclose()
    assert connections.open == 0


async def _cancel_when_idle(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_an_old_idle_connection_is_not_used_again(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    provider = Provider(nursery, HELLO, HELLO)
    connections = connections_over(provider.open_stream)
    await read(await ask(connections))
    mock_clock.jump(KEEPALIVE_EXPIRY_S)
    await read(await ask(connections))
    assert len(provider.heard) == 2
    assert connections.open == 1


async def test_a_connection_that_the_provider_has_closed_is_not_used_again(nursery: trio.Nursery) -> None:
    """On a real socket: the system knows before anybody reads."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    served = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal served
        served += 1
        await stream.receive_some()
        await stream.send_all(HELLO)
        await stream.aclose()

    nursery.start_soon(trio.serve_listeners, serve, [listener])
    port = listener.socket.getsockname()[1]
    connections = connections_over(trio.open_tcp_stream, f"http://127.0.0.1:{port}")
    for number in (1, 2):
        assert await read(await ask(connections)) == [b"hello"]
        assert served == number
        with trio.fail_after(PATIENCE_S):
            while connections._idle and not connections._idle[0].has_input():
                await trio.lowlevel.checkpoint()
    await connections.aclose()
    assert connections.open == 0
    nursery.cancel_scope.cancel()


class Holding(trio.abc.Stream):
    """A stream whose writes leave together, when it reads."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._held = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._held += bytes(data)
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        held, self._held = self._held, b""
        await self._stream.send_all(held)
        return bytes(await self._stream.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_what_nobody_asked_for_is_no_answer_over_tls_either(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A second answer in the same read, but in a record of its own: the next call opens another connection."""
    own = SelfSigned(tmp_path)
    theirs_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs_tls.load_cert_chain(own.certificate, own.key)
    opened: list[trio.abc.Stream] = []

    async def serve(stream: trio.abc.Stream) -> None:
        secured = trio.SSLStream(Holding(stream), theirs_tls, server_side=True, https_compatible=True)
        with suppress(trio.BrokenResourceError):
            while await secured.receive_some():
                await secured.send_all(HELLO)
                await secured.send_all(HELLO.replace(b"hello", b"other"))

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = memory_stream_pair()
        opened.append(ours)
        nursery.start_soon(serve, theirs)
        return ours

    connections = ProviderConnections(
        "https://127.0.0.1/v1", own.client(), connect_timeout_s=60, write_timeout_s=60, open_stream=open_stream
    )
    with trio.fail_after(PATIENCE_S):
        for number in range(3):
            assert await read(await ask(connections)) == [b"hello"]
            assert len(opened) == number + 1
        await connections.aclose()


async def test_what_came_together_leaves_together(nursery: trio.Nursery) -> None:
    provider = Provider(nursery, CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert await read(await ask(connections_over(provider.open_stream))) == [b"abcde"]


async def test_a_chunk_is_there_before_the_next_has_come(nursery: trio.Nursery) -> None:
    provider = Provider(nursery, CHUNKED)
    answer = await ask(connections_over(provider.open_stream))
    for piece in (b"abc", b"de"):
        await provider.ends[0].send_all(b"%x\r\n%b\r\n" % (len(piece), piece))
        assert await answer.receive() == piece
    await provider.ends[0].send_all(b"0\r\n\r\n")
    assert await answer.receive() == b""
    assert await answer.receive() == b""


async def test_interim_answers_are_passed_over_but_no_other_protocol_is_spoken(nursery: trio.Nursery) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    switching = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
    provider = Provider(nursery, interim + HELLO, switching)
    connections = connections_over(provider.open_stream)
    assert await read(await ask(connections)) == [b"hello"]
    with pytest.raises(ConnectionBroken):
        await ask(connections)
    assert connections.open == 0


@pytest.mark.parametrize(
    "said", [b"no HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello", b""]
)
async def test_a_connection_that_breaks_is_an_error_that_quotes_nothing(nursery: trio.Nursery, said: bytes) -> None:
    provider = Provider(nursery, said)
    connections = connections_over(provider.open_stream)

    async def hang_up() -> None:
        await wait_all_tasks_blocked()
        await provider.ends[0].send_eof()

    nursery.start_soon(hang_up)
    with pytest.raises(ConnectionBroken) as caught:
        await read(await ask(connections))
    assert str(caught.value) == ""
    assert connections.open <= 1  # the answer that nobody closed


async def test_a_provider_that_answers_before_it_has_read_all_is_heard(nursery: trio.Nursery) -> None:
    """It may refuse a large body and hang up; whatever it says of the connection, nothing more is sent on it."""
    refusal = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n"
    ours, theirs = memory_stream_pair()
    await theirs.send_all(refusal)

    async def deaf(_data: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError

    sending: Any = ours.send_stream
    sending.send_all = deaf

    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return ours

    connections = connections_over(open_stream)
    answer = await ask(connections, b"x" * 100_000)
    assert answer.status == 413
    assert await read(answer) == []
    assert (connections.open, connections.idle) == (0, 0)


async def test_a_body_in_pieces_says_when_it_has_ended(nursery: trio.Nursery) -> None:
    provider = Provider(nursery, HELLO)
    told: list[bool] = []

    async def pieces() -> AsyncIterator[bytes]:
        yield b"ab"
        assert not told
        yield b"c"

    answer = await connections_over(provider.open_stream).ask(
        "POST", "/x", headers=[("transfer-encoding", "chunked")], body=pieces(), on_sent=lambda: told.append(True)
    )
    assert await read(answer) == [b"hello"]
    assert told == [True]
    assert provider.heard[0].endswith(b"\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")


async def test_a_body_of_another_length_than_was_said_is_the_senders_fault(nursery: trio.Nursery) -> None:
    class Piece:
        def __aiter__(self) -> Piece:
            return self

        async def __anext__(self) -> bytes:
            return b"abc"

    connections = connections_over(Provider(nursery).open_stream)
    with pytest.raises(NotSendable):
        await connections.ask("POST", "/x", headers=[("content-length", "2")], body=Piece())
    assert connections.open == 0


async def test_who_cannot_be_reached_and_who_does_not_answer_the_door(mock_clock: MockClock) -> None:
    async def refuse(_host: str, _port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise ConnectionRefusedError

    with pytest.raises(NotReached) as caught:
        await ask(connections_over(refuse))
    assert not isinstance(caught.value, NotReachedInTime)
    mock_clock.autojump_threshold = 0

    async def wait(_host: str, _port: int) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(NotReachedInTime):
        await ask(connections_over(wait))


async def test_a_provider_that_takes_nothing_is_given_up(mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0
    ours, _theirs = lockstep_stream_pair()

    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return ours

    connections = connections_over(open_stream)
    with pytest.raises(NotTaken):
        await ask(connections)
    assert connections.open == 0


async def test_paths_are_encoded_and_ports_named(nursery: trio.Nursery) -> None:
    provider = Provider(nursery, HELLO)
    connections = connections_over(provider.open_stream, "http://provider.test:8000/base/")
    await read(await connections.ask("GET", "/models/ä b:x?alt=sse", headers=[("x-end", "{}")], body=b"{}"))
    first, host, *_ = provider.heard[0].split(b"\r\n")
    assert first == b"GET /base/models/%C3%A4%20b:x?alt=sse HTTP/1.1"
    assert host.lower() == b"host: provider.test:8000"
