"""A provider whose replies name what was asked, so that each reply is unique and shows whose it is.

It answers any number of chats at once, whole or streamed in a few pieces. Hand-made HTTP: a campaign's provider should
cost little beside the server under test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import trio

from tests.campaigns.moments import pass_time
from tests.fakes.provider import DONE, chat_chunk, chat_reply

REPLY = "The answer to "
PIECE_S = 0.004
_EVENT_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def reply_to(asked: str) -> str:
    """What this provider answers to a user's text."""
    return REPLY + asked


def _asked(body: bytes) -> tuple[str, bool]:
    """The last user message without the memory block in front of it, and whether a stream is wanted."""
    request: dict[str, Any] = msgspec.json.decode(body)
    text = next(message["content"] for message in reversed(request["messages"]) if message["role"] == "user")
    return text.rpartition("</memory_context>")[2].splitlines()[-1].strip(), bool(request.get("stream"))


async def _serve(piece_s: float, stream: trio.SocketStream) -> None:
    buffer = b""
    try:
        while True:
            while b"\r\n\r\n" not in buffer:
                data = await stream.receive_some()
                if not data:
                    return
                buffer += data
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            size = int(length.partition(b":")[2])
            while len(buffer) < size:
                buffer += await stream.receive_some()
            body, buffer = buffer[:size], buffer[size:]
            await _answer(stream, *_asked(body), piece_s=piece_s)
    except trio.BrokenResourceError:
        return  # the server was killed, or its client left


async def _answer(stream: trio.SocketStream, asked: str, streamed: bool, *, piece_s: float) -> None:
    reply = reply_to(asked)
    if not streamed:
        body = chat_reply(reply)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        await stream.send_all(head.encode() + body)
        return
    await stream.send_all(_EVENT_STREAM)
    pieces = [reply[start : start + 20] for start in range(0, len(reply), 20)]
    for event in [*map(chat_chunk, pieces), chat_chunk(finish_reason="stop"), DONE]:
        await stream.send_all(b"%x\r\n%b\r\n" % (len(event), event))
        await pass_time(piece_s)
    await stream.send_all(b"0\r\n\r\n")


@asynccontextmanager
async def open_echo_provider(*, piece_s: float = PIECE_S) -> AsyncIterator[str]:
    """Such a provider on a free port; yields its base URL.

    Args:
        piece_s: time between two pieces of a stream.
    """
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as connections:
        connections.start_soon(trio.serve_listeners, partial(_serve, piece_s), listeners)
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
        connections.cancel_scope.cancel(reason="the campaign is over")
