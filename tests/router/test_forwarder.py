"""The way to other nodes, where one of them is gone without a word."""

from __future__ import annotations

import ssl

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.cluster.ownership import Owned
from models.errors import StoreUnavailable
from models.provider_settings import Secret
from router.forwarding import Forwarder, Request
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
        assert forwarder.counters == {"forwarded": 0, "redirected": 0, "failed": 1}
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
