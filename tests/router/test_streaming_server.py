"""Streams through a real server on a real socket: chunks at once, departures noticed, ends held, memory bounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
import trio.testing

from router.streaming import CloseWithRequest
from router.upstream import open_upstream
from tests.fakes.provider import (
    DONE,
    Pause,
    Script,
    Step,
    chat_chunk,
    chat_events,
    gated,
    open_fake_provider,
    stream_script,
)
from tests.fakes.proxy import ASKED, GateCommit, Memory, chop, events_of, make_app, open_proxy
from tests.patience import PATIENCE_S, pass_time_until, wait_until

_FINISH = chat_chunk(finish_reason="stop")
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
    """Within 100 ms by design, which is ten chunks; counted so, a machine that stands still does no harm."""

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

    assert proxy.memory.replies == [None]


async def test_a_client_that_leaves_before_the_first_byte_cancels_the_provider() -> None:
    """Nothing is handed off by the relay then: there was none yet."""
    async with open_proxy() as proxy:
        proxy.provider.enqueue(Script(hang=True))
        client = await proxy.connect()
        await client.post()
        await wait_until(lambda: bool(proxy.provider.requests))
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
        await wait_until(lambda: bool(proxy.memory.replies))
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


async def test_a_provider_that_falls_silent_ends_with_a_timeout(mock_clock: trio.testing.MockClock) -> None:
    """The idle timeout counts between chunks, so a long reply is not cut."""
    gates = [trio.Event() for _ in "abcd"]
    steps: list[Step] = [*gated(map(chat_chunk, "abc"), gates[:3]), gates[3]]
    bodies: list[bytes] = []
    async with open_proxy(idle_timeout_s=10) as proxy, trio.open_nursery() as reading:
        proxy.provider.enqueue(stream_script(steps))
        client = await proxy.connect()
        await client.post()
        await client.head()
        for letter, gate in zip("abc", gates[:3], strict=True):
            gate.set()
            assert await client.read(len(chat_chunk(letter))) == chat_chunk(letter)
            await trio.testing.wait_all_tasks_blocked(0.01)
            mock_clock.jump(6)

        async def read_rest() -> None:
            bodies.append(await client.rest())

        reading.start_soon(read_rest)
        await pass_time_until(mock_clock, lambda: bool(bodies), step_s=6)
        await proxy.provider.disconnected.wait()

    assert b'"code":"upstream_timeout"' in events_of(bodies[0])[-1]


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
    messages = [{"type": "http.request", "body": ASKED, "more_body": False}]
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

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/chat",
        "raw_path": b"/chat",
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": ("x", 1),
        "server": ("x", 1),
        "extensions": {},
    }
    with trio.fail_after(PATIENCE_S):
        async with open_fake_provider() as provider:
            provider.enqueue(stream_script([chat_chunk("a"), trio.Event()]))
            async with open_upstream({"fake": provider.settings()}) as upstream:
                await CloseWithRequest(make_app(upstream, memory))(scope, receive, send)

                assert memory.replies == [None]
                assert upstream.statistics()["fake"]["calls"] == 0
                await provider.disconnected.wait()
