"""The way to other nodes, where one of them is gone without a word."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.cluster.ownership import Owned
from models.errors import StoreUnavailable
from models.provider_settings import Secret
from router.forwarding import Forwarder, Request
from router.provider_connections import CallFailed
from router.unix_sockets import OwnSocket
from tests.patience import PATIENCE_S


class FrozenCluster:
    """Another node owns everything; it may end its lease. Implements `router.forwarding.Cluster`."""

    def __init__(self) -> None:
        self.address = "127.0.0.1:1"
        self.other = ""
        self.gone = False
        self.changed = trio.Event()

    def owner_of(self, part: int) -> Owned:
        return Owned(here=False, address=self.other, epoch=1)

    async def wait_here(self, part: int, *, timeout_s: float) -> Owned:
        raise AssertionError("nothing comes here")

    async def hand_over(self) -> None:
        raise AssertionError("nothing is handed over")

    def is_gone(self, address: str) -> bool:
        return self.gone and address == self.other

    async def wait_changed(self) -> None:
        await self.changed.wait()
        self.changed = trio.Event()


async def test_nobody_waits_for_a_node_that_took_a_request_and_froze() -> None:
    """Its machine still acknowledges every byte; only the end of its lease tells."""
    cluster, taken = FrozenCluster(), trio.Event()

    async def freeze(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        taken.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as tasks:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        cluster.other = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        tasks.start_soon(trio.serve_listeners, freeze, [listener])
        forwarder = Forwarder(cluster, token=Secret("t"), scheme="http", tls=ssl.create_default_context())
        tasks.start_soon(forwarder.watch)

        async def end_lease() -> None:
            await taken.wait()
            cluster.changed.set()  # another look, and it still lives
            while cluster.changed.is_set():
                await trio.lowlevel.checkpoint()
            assert forwarder.counters["failed"] == 0
            cluster.gone = True
            cluster.changed.set()

        tasks.start_soon(end_lease)
        with trio.fail_after(PATIENCE_S), pytest.raises(StoreUnavailable):
            await forwarder.send_on(Request("GET", "/", [], b""), 0, address=cluster.other)
        assert forwarder.counters == {"forwarded": 0, "redirected": 0, "failed": 1, "handed_over": 0}
        tasks.cancel_scope.cancel()


async def test_connections_to_a_node_that_is_gone_are_closed_when_their_answers_are_read() -> None:
    cluster = FrozenCluster()

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await trio.sleep_forever()

    async with trio.open_nursery() as tasks:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        cluster.other = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        tasks.start_soon(trio.serve_listeners, answer, [listener])
        forwarder = Forwarder(cluster, token=Secret("t"), scheme="http", tls=ssl.create_default_context())
        tasks.start_soon(forwarder.watch)
        reply = await forwarder.send_on(Request("GET", "/", [], b""), 0, address=cluster.other)
        cluster.gone = True
        await wait_all_tasks_blocked()
        cluster.changed.set()
        await wait_all_tasks_blocked()
        assert cluster.other in forwarder._nodes, "an answer of it is still being read"
        assert await reply.receive() == b"ok"
        cluster.changed.set()
        await wait_all_tasks_blocked()
        assert forwarder._nodes == {}
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "cut off from the database"])
async def test_a_body_that_a_dead_node_has_begun_breaks_off_and_that_of_a_living_one_does_not(
    frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease has ended in both cases. One that is only cut off from the database answers other questions."""
    monkeypatch.setattr("router.forwarding.SIGN_OF_LIFE_TIMEOUT_S", 0.1 if frozen else PATIENCE_S)
    cluster, asked, go_on = FrozenCluster(), trio.Event(), trio.Event()

    async def answer(stream: trio.SocketStream) -> None:
        if b"/livez" in await stream.receive_some():
            asked.set()
            if frozen:
                await trio.sleep_forever()
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        else:
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbe")
            await go_on.wait()
            await stream.send_all(b"en")
        await trio.sleep_forever()

    async with trio.open_nursery() as tasks:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        cluster.other = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        tasks.start_soon(trio.serve_listeners, answer, [listener])
        forwarder = Forwarder(cluster, token=Secret("t"), scheme="http", tls=ssl.create_default_context())
        tasks.start_soon(forwarder.watch)
        reply = await forwarder.send_on(Request("GET", "/", [], b""), 0, address=cluster.other)
        assert await reply.receive() == b"be"
        cluster.gone = True

        async def look() -> None:
            while not asked.is_set():  # until it is noticed that somebody waits
                cluster.changed.set()
                await trio.lowlevel.checkpoint()
            if not frozen:
                await wait_all_tasks_blocked(0.05)
                go_on.set()

        tasks.start_soon(look)
        with trio.fail_after(PATIENCE_S):
            if frozen:
                with pytest.raises(CallFailed):
                    await reply.receive()
            else:
                assert await reply.receive() == b"en"
        await reply.aclose()
        await forwarder.aclose()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("depth", [0, 2])
async def test_a_process_on_the_same_machine_is_reached_by_its_socket(tmp_path: Path, depth: int) -> None:
    """By the name in its address, in the folder of this one: whatever else the address may say, and however deep the
    folder lies."""
    cluster, heard = FrozenCluster(), bytearray()
    folder = tmp_path.joinpath(*["x" * 80] * depth)
    folder.mkdir(parents=True, exist_ok=True)

    async def answer(stream: trio.SocketStream) -> None:
        heard.extend(await stream.receive_some())
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    own = OwnSocket(folder / "worker-1.sock", backlog=1, noun="socket")
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(own.listening))
    cluster.other = "unix:../elsewhere/worker-1.sock"
    tls = ssl.create_default_context()
    forwarder = Forwarder(cluster, token=Secret("t"), scheme="https", tls=tls, sockets=folder)
    headers = [("host", "memory.example.org"), ("x-part-epoch", "77"), ("accept", "*/*")]
    async with trio.open_nursery() as tasks:
        tasks.start_soon(trio.serve_listeners, answer, [listener])
        with trio.fail_after(PATIENCE_S):
            reply = await forwarder.send_on(Request("GET", "/v1/x", headers, b""), 0, address=cluster.other)
            assert await reply.receive() == b"ok"
        tasks.cancel_scope.cancel()
    await forwarder.aclose()
    own.close()
    lines = bytes(heard).lower().split(b"\r\n")
    assert lines[0] == b"get /v1/x http/1.1"
    assert {b"host: memory.example.org", b"accept: */*", b"x-part-epoch: 1", b"x-cluster-token: t"} <= set(lines)
    assert not (folder / "worker-1.sock").exists()


async def test_who_is_away_and_comes_back_to_the_same_place_is_asked_again(autojump_clock: MockClock) -> None:
    cluster = FrozenCluster()
    tls = ssl.create_default_context()
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        there = f"127.0.0.1:{taken.getsockname()[1]}"
    forwarder = Forwarder(cluster, token=Secret("t"), scheme="http", tls=tls)

    async def come_back() -> None:
        await trio.sleep(1)
        cluster.other = there

    async with trio.open_nursery() as tasks:
        tasks.start_soon(come_back)
        began_s = trio.current_time()
        assert await forwarder._next_address(0, after=there) == there
        assert trio.current_time() - began_s < 2
