"""Uploads to a server that is busy, strict, slow to start or gone: by a real HTTP server with scripted answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest

from models.errors import MemoryRouterError, StoreUnavailable, TooLarge
from router.commands.connecting import RefusedByServer
from router.commands.retrying import ATTEMPTS_MAX
from router.commands.upload_delivery import Delivery
from router.commands.upload_http import upload_over_http
from router.commands.upload_plan import Line


class Answer(msgspec.Struct, frozen=True):
    """One scripted answer; status 0 hangs up, status 200 counts the lines as stored."""

    status: int
    body: dict[str, Any] = {}
    headers: dict[str, str] = {}


class Script:
    """Answers in their order, then success; remembers how many lines came each time, and with which key."""

    def __init__(self, *answers: Answer, lines_max: int = 1_000_000) -> None:
        self.answers = list(answers)
        self.lines_max = lines_max
        self.bodies: list[list[str]] = []
        self.keys: set[str] = set()

    def answer(self, body: bytes) -> Answer:
        lines = body.decode().splitlines()
        self.bodies.append(lines)
        if self.answers:
            return self.answers.pop(0)
        if len(lines) > self.lines_max:
            return Answer(413, {"error": f"An upload may have at most {self.lines_max} lines."})
        return Answer(200, {"status": "complete", "stats": {"stored": len(lines), "duplicates": 0}})


@contextmanager
def serving(script: Script) -> Iterator[str]:
    """A server that follows the script; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            script.keys.add(self.headers["authorization"])
            answer = script.answer(self.rfile.read(int(self.headers["content-length"])))
            if not answer.status:
                self.close_connection = True
                return
            data = json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {**answer.headers, "content-type": "application/json"}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


def delivery_of(count: int) -> Delivery:
    """So many lines."""
    return Delivery(
        lambda: (Line(data=b'{"content":"%d"}\n' % number, place=f"a, line {number}") for number in range(count))
    )


def upload(script: Script, count: int = 3) -> tuple[Delivery, list[float]]:
    """Upload so many lines; how long was waited, each time."""
    waits: list[float] = []
    delivery = delivery_of(count)
    with serving(script) as url:
        upload_over_http(delivery, url, "mk_test", show=lambda _: None, wait=waits.append)
    return delivery, waits


BUSY = Answer(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, {"retry-after": "7"})


def test_lines_go_as_they_are_with_the_key() -> None:
    script = Script()
    delivery, waits = upload(script)

    assert script.bodies == [['{"content":"0"}', '{"content":"1"}', '{"content":"2"}']]
    assert script.keys == {"Bearer mk_test"}
    assert (delivery.stored, delivery.done, waits) == (3, 3, [])


def test_a_busy_server_gets_the_time_it_asks_for() -> None:
    delivery, waits = upload(Script(BUSY, Answer(503, {"error": "x"}, {"retry-after": "20"}), Answer(502)))

    assert delivery.stored == 3
    assert waits == [7.0, 20.0, 2.0]


def test_a_lost_answer_is_asked_for_again_and_waits_grow() -> None:
    script = Script(*[Answer(0)] * 4)
    delivery, waits = upload(script)

    assert delivery.stored == 3
    assert waits == [1.0, 1.0, 2.0, 4.0]
    assert len(script.bodies) == 5


def test_patience_ends() -> None:
    with pytest.raises(StoreUnavailable, match="slow down"):
        upload(Script(*[BUSY] * (ATTEMPTS_MAX + 1)))
    with pytest.raises(StoreUnavailable):
        upload(Script(Answer(503, {"error": "back tomorrow"}, {"retry-after": "86400"})))


def test_a_server_that_was_never_there_is_said_at_once() -> None:
    with serving(Script()) as url:
        pass
    waits: list[float] = []

    with pytest.raises(MemoryRouterError, match="refuses the connection"):
        upload_over_http(delivery_of(3), url, "mk_test", show=lambda _: None, wait=waits.append)
    assert waits == []


@pytest.mark.parametrize("status", [400, 401, 402, 403, 507])
def test_a_refusal_is_final_and_in_the_servers_words(status: int) -> None:
    script = Script(Answer(status, {"error": "Not like this.", "hint": "Do that."}))

    with pytest.raises(RefusedByServer, match="Not like this") as caught:
        upload(script)
    assert caught.value.hint == "Do that."
    assert len(script.bodies) == 1


def test_a_server_with_a_smaller_limit_gets_smaller_slices() -> None:
    script = Script(lines_max=4)
    delivery, _ = upload(script, count=10)

    taken = [line for lines in script.bodies if len(lines) <= 4 for line in lines]
    assert taken == [f'{{"content":"{number}"}}' for number in range(10)]
    assert delivery.stored == 10


def test_a_line_that_is_too_large_alone_is_named() -> None:
    with pytest.raises(TooLarge, match=r"a, line 0: An upload may have at most 0 lines"):
        upload(Script(lines_max=0), count=2)
