"""Clients' connections that go to the worker of the vault that is asked for: one connection, whoever answers."""

from __future__ import annotations

import array
import json
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from models.ids import Principal, VaultNumber, VaultRef, hash_key, mint_key
from models.server_settings import ServerSettings
from router.handing_over import MESSAGE_BYTES_MAX, ROOM_LEAST, HandedConnections, HandingOver
from router.worker_link import Drained, connections_path
from tests.fakes.certificates import SelfSigned
from tests.patience import PATIENCE_S
from tests.router.worker_house import House, open_house
from tests.running import Client

HANDED, SENT_ON = "memoryrouter_connections_handed_over_total", "memoryrouter_forwarded_requests_total"


class Wire:
    """One connection of a client, as bytes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._read = b""

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer; (0, b"") when the server has closed the connection."""
        with trio.fail_after(PATIENCE_S):
            while b"\r\n\r\n" not in self._read:
                if not await self._more():
                    return 0, b""
            head, _, self._read = self._read.partition(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]  # always there
            while len(self._read) < length:
                assert await self._more()
        body, self._read = self._read[:length], self._read[length:]
        return int(head.split(b" ")[1]), body

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        await self.send(data)
        return await self.answer()

    def request(self, data: bytes) -> Callable[[], Awaitable[object]]:
        """To ask this."""
        return partial(self.ask, data)

    def found(self, fact: str, data: bytes) -> Callable[[], Awaitable[object]]:
        """To ask this, and see to it that the fact is in the answer."""

        async def ask() -> None:
            status, body = await self.ask(data)
            assert (status, fact.encode() in body) == (200, True)

        return ask

    async def _more(self) -> bool:
        received = await self._stream.receive_some(1 << 16)
        self._read += received
        return bool(received)


def search(key: str, query: str = "fact", *, header: str = "Authorization: Bearer ") -> bytes:
    body = json.dumps({"query": query}).encode()
    head = f"POST /v1/memory/search HTTP/1.1\r\nHost: localhost\r\n{header}{key}\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


@asynccontextmanager
async def wire_of(house: House) -> AsyncIterator[Wire]:
    host, port = house.url.removeprefix("http://").rsplit(":", 1)
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        yield Wire(stream)


@asynccontextmanager
async def open_two(
    data_dir: Path, *, settled: bool = True, **sections: Any
) -> AsyncIterator[tuple[House, list[Client]]]:
    """Two workers that know the keys of two users; the first user's vault is the first worker's."""
    async with open_house(data_dir, **sections) as house:
        found = [await house.at(0).other(f"user {number}") for number in range(4)]
        of_worker: dict[int, Client] = {}
        for user in found:
            before = await counted(house, SENT_ON)
            await house.at(0, user.key).ingest(f"fact of {user.key}")
            of_worker.setdefault(int(await counted(house, SENT_ON) > before), user)
        users = [of_worker[0], of_worker[1]]
        if settled:
            await settle(house, users)
        yield house, users


async def settle(house: House, users: list[Client]) -> None:
    """Wait until each worker has been asked by each key, and remembers it."""
    async with wire_of(house) as wire:
        await until_handed(house, [wire.request(search(user.key)) for user in (*users, *users)], least=3)


async def until_handed(house: House, asked: Sequence[Callable[[], Awaitable[object]]], *, least: int) -> None:
    """Ask again and again, until the connection was handed over so often and nothing was sent on.

    A worker forgets all keys when it sees that the other one has made some, which is a moment later.
    """
    with trio.fail_after(PATIENCE_S):
        while True:
            before = await counted(house, HANDED), await counted(house, SENT_ON)
            for ask in asked:
                await ask()
            after = await counted(house, HANDED), await counted(house, SENT_ON)
            if after[0] - before[0] >= least and after[1] == before[1]:
                return


async def counted(house: House, name: str) -> int:
    text = (await house.at(0).get("/metrics")).text
    return sum(int(float(line.rpartition(" ")[2])) for line in text.splitlines() if line.startswith(name))


async def test_a_connection_goes_to_where_each_request_belongs(tmp_path: Path) -> None:
    """It is answered there, and nothing is sent on."""
    async with open_two(tmp_path / "data") as (house, users), wire_of(house) as wire:
        turns = [wire.found(user.key, search(user.key)) for user in users * 3]
        await until_handed(house, turns, least=5)  # the first request may have come to its owner


async def test_the_key_is_found_in_every_header(tmp_path: Path) -> None:
    async with open_two(tmp_path / "data") as (house, users), wire_of(house) as wire:
        for header in ("authorization: ", "X-Memory-Key:  ", "x-api-key:", "X-Goog-Api-Key: ", "api-key: "):
            turns = [wire.found(user.key, search(user.key, header=header)) for user in users * 2]
            await until_handed(house, turns, least=3)


async def test_requests_that_came_together_are_answered_in_their_order(tmp_path: Path) -> None:
    async with open_two(tmp_path / "data") as (house, users), wire_of(house) as wire:
        asked = [users[turn % 2] for turn in range(6)]
        await wire.send(b"".join(search(user.key) for user in asked))
        for user in asked:
            status, body = await wire.answer()
            assert (status, user.key.encode() in body) == (200, True)


async def test_a_head_that_comes_in_pieces_is_answered(tmp_path: Path) -> None:
    async with open_two(tmp_path / "data") as (house, users), wire_of(house) as wire:
        for user in (*users, *users):
            request = search(user.key)
            await wire.send(request[:60])
            await trio.testing.wait_all_tasks_blocked()
            status, body = await wire.ask(request[60:])
            assert (status, user.key.encode() in body) == (200, True)


async def test_the_rest_of_a_long_body_follows(tmp_path: Path) -> None:
    async with open_two(tmp_path / "data") as (house, users), wire_of(house) as wire:

        async def ask(user: Client) -> None:
            request = search(user.key, "fact " + "x" * 10_000)
            await wire.send(request[:300])
            await trio.testing.wait_all_tasks_blocked()
            await wire.found(user.key, request[300:])()

        await until_handed(house, [partial(ask, user) for user in users * 2], least=3)


async def test_unknown_keys_are_refused_where_they_come(tmp_path: Path) -> None:
    async with open_two(tmp_path / "data") as (house, users), wire_of(house) as wire:
        before = await counted(house, HANDED)
        for key in (mint_key(), "mk_short", users[0].key + ":wrong"):
            status, _ = await wire.ask(search(key))
            assert status == 401
        assert await counted(house, HANDED) == before


async def test_nothing_goes_to_a_worker_that_does_not_serve(tmp_path: Path) -> None:
    async with open_two(tmp_path / "data") as (house, users), wire_of(house) as wire:
        before = await counted(house, HANDED)
        await house.tell_alive()
        statuses = sorted([(await wire.ask(search(user.key)))[0] for user in users])
        assert statuses == [200, 503]
        await house.tell_alive(0, 1)  # else it is not asked for its figures
        assert await counted(house, HANDED) == before


async def test_connections_stay_where_those_of_an_address_are_counted(tmp_path: Path) -> None:
    server = ServerSettings(host="127.0.0.1", port=0, workers=2, connections_per_address_max=100)
    async with open_two(tmp_path / "data", settled=False, server=server) as (house, users), wire_of(house) as wire:
        for user in (*users, *users):
            status, _ = await wire.ask(search(user.key))
            assert status == 200
        assert await counted(house, HANDED) == 0


async def test_connections_under_tls_stay(tmp_path: Path) -> None:
    certificate = SelfSigned(tmp_path)
    server = ServerSettings(
        host="127.0.0.1",
        port=0,
        workers=2,
        tls_certificate_file=str(certificate.certificate),
        tls_key_file=str(certificate.key),
    )
    async with open_two(tmp_path / "data", settled=False, server=server) as (house, users):
        host, port = house.url.removeprefix("http://").rsplit(":", 1)
        plain = await trio.open_tcp_stream(host, int(port))
        context = ssl.create_default_context(cafile=str(certificate.certificate))
        async with trio.SSLStream(plain, context, server_hostname="127.0.0.1", https_compatible=True) as stream:
            wire = Wire(stream)  # type: ignore[arg-type]  # it is read and written alike
            for user in (*users, *users):
                status, _ = await wire.ask(search(user.key))
                assert status == 200
        assert await counted(house, HANDED) == 0


async def test_a_stop_answers_what_was_handed_over(tmp_path: Path) -> None:
    """And then closes the connection, which is idle, without waiting for the drain time."""
    async with open_two(tmp_path / "data") as (house, users), wire_of(house) as wire:
        for user in users:
            status, _ = await wire.ask(search(user.key))
            assert status == 200
        house.stop()
        assert await wire.answer() == (0, b"")
        for worker, link in enumerate(house.links):
            await house.wait_said(worker, Drained)
            link.hang_up()
        with trio.fail_after(PATIENCE_S):
            for ended in house.ended:
                await ended.wait()


# The two ends by themselves.

KEY = mint_key()
PRINCIPAL = Principal(key_number=1, account_number=1, kind="user", name="", vault=VaultRef(VaultNumber(1), 1))


class KnownKey:
    """Remembers one key."""

    def find_key_nowait(self, key_hash: bytes) -> Principal | None:
        return PRINCIPAL if key_hash == hash_key(KEY) else None


@contextmanager
def way_out(folder: Path) -> Iterator[HandingOver]:
    handing = HandingOver(
        KnownKey(), owner_of=lambda part: part, path_of=lambda worker: connections_path(folder, worker)
    )
    with closing(handing):
        yield handing


@asynccontextmanager
async def stream_pair() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """A client's connection, and the server's end of it."""
    client, server = map(trio.SocketStream, trio.socket.socketpair())
    async with client, server:
        yield client, server


async def test_what_arrives_is_the_connection_with_what_had_come_on_it(tmp_path: Path) -> None:
    in_, request = HandedConnections(connections_path(tmp_path, 1)), search(KEY)
    with way_out(tmp_path) as out, closing(in_) as handed:
        async with stream_pair() as (client, server):
            assert out.hand_over(server, request)
            assert server.socket.fileno() == -1
            with trio.fail_after(PATIENCE_S):
                arrived = await handed.accept()
                assert handed.take_data(arrived) == request
                assert handed.take_data(arrived) == b""
                await arrived.send_all(b"answer")
                assert await client.receive_some(100) == b"answer"
                await arrived.aclose()
                assert await client.receive_some(100) == b""  # nobody else holds it


@pytest.mark.parametrize(
    "data",
    [
        search(KEY)[:40],
        search(mint_key()),
        search("sk-of-a-provider"),
        search(KEY).replace(b"Content-Type", b"Authorization: Bearer x\r\nContent-Type"),
        search(KEY) + b"x" * MESSAGE_BYTES_MAX,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + f"Authorization: Bearer {KEY}\r\n".encode(),
    ],
)
async def test_what_is_not_clear_stays(tmp_path: Path, data: bytes) -> None:
    """Half a head, an unknown key, none, two headers of a name, more than a message holds, a key in a body."""
    with way_out(tmp_path) as out, closing(HandedConnections(connections_path(tmp_path, 1))):
        async with stream_pair() as (client, server):
            assert not out.hand_over(server, data)
            await server.send_all(b"still here")
            assert await client.receive_some(100) == b"still here"


async def test_a_worker_that_takes_none_now_gets_none(tmp_path: Path) -> None:
    """The kernel keeps a few; a worker that is gone keeps none."""
    async with AsyncExitStack() as stack:
        out = stack.enter_context(way_out(tmp_path))
        pairs = [await stack.enter_async_context(stream_pair()) for _ in range(100)]
        request = search(KEY, "x" * 60_000)  # so large that a hundred are more than any kernel's buffer
        assert not out.hand_over(pairs[0][1], request)
        with closing(HandedConnections(connections_path(tmp_path, 1))):
            taken = [out.hand_over(server, request) for _, server in pairs]
            assert taken[0]
            assert not taken[-1]
            await pairs[-1][1].send_all(b"still here")


async def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = connections_path(tmp_path, 0)
    handed = HandedConnections(path)
    assert path.stat().st_mode & 0o777 == 0o600
    await handed.aclose()
    assert not path.exists()
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    stale.bind(str(path))
    stale.close()
    with closing(HandedConnections(path)):
        assert path.exists()


async def test_nobody_comes_where_there_is_hardly_any_room(tmp_path: Path) -> None:
    """Until there is enough again: whoever is on the way finds room."""
    async with stream_pair() as (_, server), stream_pair() as (_, other):
        with way_out(tmp_path) as out, closing(HandedConnections(connections_path(tmp_path, 1))) as handed:
            handed.note_room(ROOM_LEAST - 1)
            assert not out.hand_over(server, search(KEY))
            handed.note_room(ROOM_LEAST)
            assert not out.hand_over(server, search(KEY))
            handed.note_room(2 * ROOM_LEAST)
            assert out.hand_over(server, search(KEY))
            handed.note_room(0)
            assert not out.hand_over(other, search(KEY))
            with trio.fail_after(PATIENCE_S):
                arrived = await handed.accept()
            await arrived.aclose()
    assert list(tmp_path.iterdir()) == []


async def test_what_is_no_connection_is_let_go(tmp_path: Path) -> None:
    path = connections_path(tmp_path, 1)
    with closing(HandedConnections(path)) as handed, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        reading, writing = os.pipe()
        for descriptors in ([writing], []):
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
            sender.sendmsg([b"data"], rights, 0, str(path))
        os.close(writing)
        with trio.move_on_after(0) as waiting:
            await handed.accept()
        with way_out(tmp_path) as out, trio.fail_after(PATIENCE_S):
            async with stream_pair() as (client, server):
                assert out.hand_over(server, search(KEY))
                arrived = await handed.accept()
                await arrived.send_all(b"answer")
                assert await client.receive_some(100) == b"answer"
                await arrived.aclose()
        assert waiting.cancelled_caught
        assert os.read(reading, 1) == b""  # nobody keeps the other end
        os.close(reading)
