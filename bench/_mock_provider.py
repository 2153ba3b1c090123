"""A provider that does nothing but answer at once: fixed bytes for a whole reply, fixed chunks for a stream.

It speaks Chat Completions and Messages. Every chunk of a stream says when it was sent (`at=NANOSECONDS;` of the clock
that all processes of a machine share). Some models are for one question each: `endless` never stops streaming, `hang`
never answers, `random-SEED` streams `random_stream(SEED)`. `GET /left` tells when clients of the first two left.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from collections.abc import Callable

import trio

STREAM_CHUNKS = 50
PAUSE_S = 0.005

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
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_DONE = b"data: [DONE]\n\n"


def random_stream(seed: int) -> list[bytes]:
    """A streamed chat with odd line ends, comments and characters, in chunks of random sizes; one for each seed."""
    pick = random.Random(seed)  # a generator of test data
    events = [_chat_event({"content": pick.choice(["An ", "ans", "wer \u00e9\U0001f415.", '\\"'])}) for _ in range(20)]
    events += [_chat_event({}, "stop"), _DONE]
    noise = [b"", b"", b": keep-alive\n\n", b"\r\n", b": OPENROUTER PROCESSING\r\n\r\n"]
    data = b"".join(pick.choice(noise) + event for event in events)
    if pick.random() < 0.5:
        data = data.replace(b"\n\n", b"\r\n\r\n")
    chunks = []
    while data:
        size = pick.choice([1, 2, 7, 40, 300, 5_000])
        chunks.append(data[:size])
        data = data[size:]
    return chunks


def _chat_event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "mock", "choices": [choice]}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def _messages_event(kind: str, **data: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()


def _messages_piece(text: str) -> bytes:
    return _messages_event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


def _chat_piece(text: str) -> bytes:
    return _chat_event({"content": text})


_MESSAGES_START = _messages_event(
    "message_start",
    message={"id": "m", "type": "message", "role": "assistant", "model": "mock", "content": [], "stop_reason": None,
             "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}},
) + _messages_event("content_block_start", index=0, content_block={"type": "text", "text": ""})  # fmt: skip
_MESSAGES_END = (
    _messages_event("content_block_stop", index=0)
    + _messages_event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 5})
    + _messages_event("message_stop")
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


class _Provider:
    def __init__(self) -> None:
        self._left_ns: list[int] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                data = await stream.receive_some(1 << 20)
                if not data:
                    return
                buffer += data
            head, buffer = buffer.split(b"\r\n\r\n", 1)
            lines = head.lower().split(b"\r\n")
            length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
            while len(buffer) < length:
                buffer += await stream.receive_some(1 << 20)
            body, buffer = buffer[:length], buffer[length:]
            if lines[0].startswith(b"get /left"):
                left_ns, self._left_ns = self._left_ns, []
                await stream.send_all(_whole(json.dumps(left_ns).encode()))
            else:
                await self._answer(stream, json.loads(body), in_messages=b"/messages " in lines[0])

    async def _answer(self, stream: trio.SocketStream, asked: dict[str, object], *, in_messages: bool) -> None:
        model = str(asked["model"])
        if model in {"endless", "hang"}:
            await self._until_left(stream, model)
        elif not asked.get("stream"):
            await stream.send_all(_whole(_BODY))
        elif model.startswith("random-"):
            await stream.send_all(_STREAM_HEAD)
            for chunk in random_stream(int(model.removeprefix("random-"))):
                await stream.send_all(_chunk(chunk))
            await stream.send_all(b"0\r\n\r\n")
        elif in_messages:
            await self._stream(stream, _MESSAGES_START, _messages_piece, _MESSAGES_END)
        else:
            await self._stream(stream, b"", _chat_piece, _chat_event({}, "stop") + _DONE)

    async def _stream(self, stream: trio.SocketStream, start: bytes, piece: Callable[[str], bytes], end: bytes) -> None:
        await stream.send_all(_STREAM_HEAD + (_chunk(start) if start else b""))
        for _ in range(STREAM_CHUNKS):
            await stream.send_all(_chunk(piece(f"An answer. at={time.monotonic_ns()}; ")))
            await trio.sleep(PAUSE_S)
        await stream.send_all(_chunk(end) + b"0\r\n\r\n")

    async def _until_left(self, stream: trio.SocketStream, model: str) -> None:
        async def watch() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.receive_some()
            answering.cancel_scope.cancel()

        async with trio.open_nursery() as answering:
            answering.start_soon(watch)
            with contextlib.suppress(trio.BrokenResourceError):  # then the watcher knows, too
                if model == "endless":
                    await stream.send_all(_STREAM_HEAD)
                while model == "endless":
                    await stream.send_all(_chunk(_chat_piece("An answer. ")))
                    await trio.sleep(PAUSE_S)
        self._left_ns.append(time.monotonic_ns())


async def _serve(port: int) -> None:
    provider = _Provider()

    async def handle(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await provider.serve(stream)

    await trio.serve_tcp(handle, port, host="127.0.0.1")


if __name__ == "__main__":
    trio.run(_serve, int(sys.argv[1]))
