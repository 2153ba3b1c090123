"""A provider that does nothing but answer at once: fixed bytes for a completion, fixed chunks for a stream."""

from __future__ import annotations

import contextlib
import json
import sys

import trio

_MESSAGE = {"role": "assistant", "content": "An answer. " * 100}
_BODY = json.dumps(
    {
        "id": "chatcmpl-mock",
        "object": "chat.completion",
        "created": 1,
        "model": "mock",
        "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 300, "total_tokens": 301},
    }
).encode()
_WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_BODY) + _BODY
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM_CHUNKS = 50


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(delta: dict[str, str], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "mock", "choices": [choice]}
    return _chunk(b"data: " + json.dumps(body).encode() + b"\n\n")


async def _answer(stream: trio.SocketStream) -> None:
    buffer = b""
    while True:
        while b"\r\n\r\n" not in buffer:
            data = await stream.receive_some(1 << 20)
            if not data:
                return
            buffer += data
        head, buffer = buffer.split(b"\r\n\r\n", 1)
        length = int(
            next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")).split(b":")[1]
        )
        while len(buffer) < length:
            buffer += await stream.receive_some(1 << 20)
        body, buffer = buffer[:length], buffer[length:]
        if b'"stream": true' in body or b'"stream":true' in body:
            await stream.send_all(_STREAM_HEAD)
            for _ in range(STREAM_CHUNKS):
                await stream.send_all(_event({"content": "An answer. "}, None))
                await trio.sleep(0.005)
            await stream.send_all(_event({}, "stop") + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        else:
            await stream.send_all(_WHOLE)


async def _serve(port: int) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await _answer(stream)

    await trio.serve_tcp(handle, port, host="127.0.0.1")


if __name__ == "__main__":
    trio.run(_serve, int(sys.argv[1]))
