"""A request whose vault another process has: what its client sees of an answer that is not whole."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

from tests.router.sibling_servers import Worker, open_workers
from tests.running import object_of

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@asynccontextmanager
async def beside_one_that_answers(folder: Path, answer: bytes) -> AsyncIterator[Worker]:
    """A worker whose vaults are all another one's, which says this and is gone."""

    async def die(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.aclose()

    async with open_workers(folder, 2) as (owner, worker), trio.open_nursery() as tasks:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        tasks.start_soon(trio.serve_listeners, die, [listener])
        owner.address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        assert worker.components.siblings is not None
        worker.components.forwarder = worker.components.siblings.forwarder
        yield worker
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("body", [b'{"pending": 0}', b""])
async def test_a_short_answer_passes_as_it_is(tmp_path: Path, body: bytes) -> None:
    head = HEAD + b"x-own: caf\xe9\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with beside_one_that_answers(tmp_path, head + body) as worker:
        answer = await worker.client.get("/v1/memory/stats")
    assert (answer.status_code, answer.content) == (200, body)
    assert answer.headers["x-own"] == "caf\xe9"


async def test_the_head_alone_passes_with_the_length_that_its_body_has_elsewhere(tmp_path: Path) -> None:
    async with beside_one_that_answers(tmp_path, HEAD + b"content-length: 14\r\n\r\n") as worker:
        answer = await worker.http.head("/v1/memory/stats", headers={"authorization": f"Bearer {worker.key}"})
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "14", b"")


async def test_a_short_answer_that_breaks_off_is_a_refusal_that_says_to_ask_again(tmp_path: Path) -> None:
    async with beside_one_that_answers(tmp_path, HEAD + b'content-length: 14\r\n\r\n{"pend') as worker:
        answer = await worker.client.get("/v1/memory/stats")
    assert (answer.status_code, object_of(answer)["code"]) == (503, "store_unavailable")
    assert int(answer.headers["retry-after"]) > 0


async def test_a_stream_that_breaks_off_has_no_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The connection ends, so that nobody takes a part for the whole; the log says so, and not that it was a bug."""
    answer = HEAD + b"transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"
    async with beside_one_that_answers(tmp_path, answer) as worker:
        with pytest.raises(httpx.RemoteProtocolError):
            await worker.client.get("/v1/memory/stats")
    assert "answer_broken_off" in [record.message for record in caplog.records]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
