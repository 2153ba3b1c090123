"""A provider on loopback for browser tests: it lists models, knows one good key, and says what it was asked.

A thread with the standard library's server, since nothing of Trio may run beside Playwright's blocking interface.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.patience import PATIENCE_S

GOOD_KEY = "sk-browser-tests-0123456789abcdef-good"
MODELS = ("stub-large", "stub-small", "stub-waits", "stub-fails")


class StubProvider:
    """What it was asked, and a gate that holds the end of the replies of `stub-waits`.

    Attributes:
        url: its base URL, as a provider's table names it.
        asked: bodies of chats, in order.
        gate: opened by the test.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[dict[str, Any]] = []
        self.gate = threading.Event()


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _chunk(content: str | None, *, finish: str | None = None) -> bytes:
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "stub", "choices": [choice]})


def _text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: StubProvider

    def do_GET(self) -> None:
        if self._refused():
            return
        self._send_json(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in MODELS]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self._refused():
            return
        self.stub.asked.append(asked)
        if asked["model"] == "stub-fails":
            self._send_json(500, {"error": {"message": "The stub <b>fails</b>.", "type": "server_error"}})
            return
        said = _text_of(asked["messages"][-1]).rpartition("</memory_context>")[2].strip().splitlines()[-1]
        words = ["You ", "said: ", said]
        if asked.get("stream"):
            self._stream(words, waits=asked["model"] == "stub-waits")
        else:
            message = {"role": "assistant", "content": "".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
            body = {"id": "c", "object": "chat.completion", "created": 1, "model": "stub", "choices": [choice]}
            self._send_json(200, {**body, "usage": usage})

    def _stream(self, words: list[str], *, waits: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        for number, word in enumerate(words):
            if waits and number == len(words) - 1:
                self.stub.gate.wait(PATIENCE_S)
            self._write(_chunk(word))
        self._write(_chunk(None, finish="stop") + b"data: [DONE]\n\n")

    def _write(self, data: bytes) -> None:
        with suppress(OSError):  # the client has left
            self.wfile.write(data)

    def _refused(self) -> bool:
        if self.headers.get("authorization") == f"Bearer {GOOD_KEY}":
            return False
        self._send_json(401, {"error": {"message": "Incorrect API key provided.", "type": "invalid_request_error"}})
        return True

    def _send_json(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def running_provider() -> Iterator[StubProvider]:
    """The provider, for the length of the block."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        stub = StubProvider(f"http://127.0.0.1:{server.server_port}/v1")
        handler.stub = stub  # type: ignore[attr-defined]
        serving = threading.Thread(target=server.serve_forever, args=[0.05])
        serving.start()
        try:
            yield stub
        finally:
            stub.gate.set()
            server.shutdown()
            serving.join()
