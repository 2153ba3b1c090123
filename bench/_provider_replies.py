"""What the mock provider says: whole replies and streams of Chat Completions and Messages, as bytes made once.

Owns the bytes and the meaning of a model's name. Never touches a socket. A reply is a script: bytes are written, a
number is how many seconds after the moment of the last one the next bytes are due.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterator

STREAM_CHUNKS = 50
PAUSE_S = 0.005
ANSWER = "An answer. "

Script = Iterator[bytes | float]

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM_END = b"0\r\n\r\n"
CUT = b""
"""In a script: close the connection here."""

_DONE = b"data: [DONE]\n\n"
_STAMP = b"at=%019d;"
_PLACE = _STAMP % 0
"""Where a stamp goes; a stamp has always this length, so that all but it is made once."""


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


def chunk(data: bytes) -> bytes:
    """Bytes as one chunk of HTTP/1.1."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(body: bytes, status: str = "200 OK") -> bytes:
    """A response of JSON with its head."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _chat_event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "mock", "choices": [choice]}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def _messages_event(kind: str, **data: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()


CHAT = whole(
    json.dumps(
        {
            "id": "chatcmpl-mock",
            "object": "chat.completion",
            "created": 1,
            "model": "mock",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": ANSWER * 100}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 300, "total_tokens": 301},
        }
    ).encode()
)
MESSAGES = whole(
    json.dumps(
        {
            "id": "msg_mock",
            "type": "message",
            "role": "assistant",
            "model": "mock",
            "content": [{"type": "text", "text": ANSWER * 100}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 300},
        }
    ).encode()
)
MODELS = whole(b'{"object":"list","data":[{"id":"mock","object":"model","created":1,"owned_by":"bench"}]}')
_FAULTS = {
    400: "400 Bad Request",
    401: "401 Unauthorized",
    429: "429 Too Many Requests",
    500: "500 Internal Server Error",
    503: "503 Service Unavailable",
    529: "529 Overloaded",
}


class _Stream:
    """The bytes of a streamed format: what comes first, one stamped piece, what comes last."""

    def __init__(self, start: bytes, piece: Callable[[str], bytes], end: bytes) -> None:
        self.start = chunk(start) if start else b""
        before, _, after = chunk(piece(f"{ANSWER}{_PLACE.decode()} ")).partition(_PLACE)
        self.piece = before.replace(b"%", b"%%") + _STAMP + after.replace(b"%", b"%%")
        self.plain = chunk(piece(ANSWER))
        self.end = chunk(end) + STREAM_END

    def paced(self, chunks: int, every_s: float) -> Script:
        """A chunk each time, stamped as it leaves."""
        yield STREAM_HEAD + self.start
        for _ in range(chunks):
            yield self.piece % time.monotonic_ns()
            yield every_s
        yield self.end

    def burst(self, chunks: int) -> bytes:
        """All in one write, with one stamp."""
        return STREAM_HEAD + self.start + (self.piece % time.monotonic_ns()) * chunks + self.end


_CHAT_STREAM = _Stream(b"", lambda text: _chat_event({"content": text}), _chat_event({}, "stop") + _DONE)
_MESSAGES_STREAM = _Stream(
    _messages_event(
        "message_start",
        message={"id": "m", "type": "message", "role": "assistant", "model": "mock", "content": [], "stop_reason": None,
                 "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}},
    ) + _messages_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    lambda text: _messages_event("content_block_delta", index=0, delta={"type": "text_delta", "text": text}),
    _messages_event("content_block_stop", index=0)
    + _messages_event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 5})
    + _messages_event("message_stop"),
)  # fmt: skip


def answer(model: str, *, stream: bool, in_messages: bool) -> bytes | Script:
    """What a model answers, by its name without a prefix of the kind `openai/`.

    `endless` streams for ever, `hang` says nothing; `random-SEED` streams `random_stream(SEED)`; `burst` or `burst-N`
    streams N chunks in one write; `pace-MS-N` streams N chunks MS milliseconds apart; `slow-MS` waits so long before
    its first byte; `fault-STATUS` answers an error; `cut-N` closes the connection after N chunks, or within a whole
    reply. Any other name, `mock` for one, streams `STREAM_CHUNKS` chunks `PAUSE_S` apart, or answers at once.
    """
    kind, _, rest = model.rpartition("/")[2].partition("-")
    numbers = [int(part) for part in rest.split("-") if part.isdigit()]
    body = MESSAGES if in_messages else CHAT
    form = _MESSAGES_STREAM if in_messages else _CHAT_STREAM
    if kind == "hang":
        return iter([math.inf])
    if kind == "endless":
        return _endless(form)
    if kind == "fault" and numbers:
        return _fault(numbers[0])
    if kind == "slow" and numbers:
        return _later(numbers[0] / 1_000, form.burst(STREAM_CHUNKS) if stream else body)
    if kind == "cut":
        return _cut(form, numbers[0] if numbers else 10) if stream else iter([body[: len(body) // 2], CUT])
    if not stream:
        return body
    if kind == "random" and numbers:
        return iter([STREAM_HEAD, *map(chunk, random_stream(numbers[0])), STREAM_END])
    if kind == "burst":
        return form.burst(numbers[0] if numbers else STREAM_CHUNKS)
    if kind == "pace" and len(numbers) == 2:
        return form.paced(numbers[1], numbers[0] / 1_000)
    return form.paced(STREAM_CHUNKS, PAUSE_S)


def _fault(status: int) -> bytes:
    error = {"message": f"The mock was asked for {status}.", "type": "mock_error", "param": None, "code": None}
    return whole(json.dumps({"error": error}).encode(), _FAULTS.get(status, f"{status} Error"))


def _endless(form: _Stream) -> Script:
    yield STREAM_HEAD
    while True:
        yield form.plain
        yield PAUSE_S


def _later(seconds: float, reply: bytes) -> Script:
    yield seconds
    yield reply


def _cut(form: _Stream, chunks: int) -> Script:
    yield STREAM_HEAD + form.start
    for _ in range(chunks):
        yield form.piece % time.monotonic_ns()
        yield PAUSE_S
    yield CUT
