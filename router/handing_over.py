"""Connections that go from one worker to another, with the request that has just begun on them.

All workers accept on one port, so about every second request of two workers is for a vault of the other one. To send
it on, and its answer back, costs as much again as to answer it (`router.forwarding`). Where the owner can be told by
the request's head alone, the client's connection itself moves: its descriptor, with the bytes that have come, as one
message over a Unix socket in the data directory. The owner goes on as if it had accepted it; the client notices
nothing. Owns that message and both its ends. Must never keep a connection waiting: what cannot go at once stays, and is
sent on.

Only cached keys are looked at, so what is handed over was let in before; who is mistaken about a request costs no more
than a hop, since what was handed over is never handed on.
"""

from __future__ import annotations

import array
import os
import re
import select
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import trio

from models.errors import Unauthenticated
from models.ids import Principal
from router.auth import KEY_HEADERS, find_credential
from router.unix_sockets import OwnSocket, short_path

MESSAGE_BYTES_MAX = 64 * 1024
"""Of what has come on a connection: as much as one read takes. A longer message would be refused by the kernel."""

ROOM_LEAST = 64
"""Connections that there must be room for beside those that are here: what the kernel keeps for a socket (`net.unix.
max_dgram_qlen`, 10 or more), with some to spare."""

FINISH_LOOK_S, FINISH_LOOKS = 0.005, 200

_HEAD_END = b"\r\n\r\n"
_KEY_LINE = re.compile(rb"\r\n(" + b"|".join(name.encode() for name in KEY_HEADERS) + rb"):([^\r\n]*)", re.IGNORECASE)

HandOver = Callable[[trio.SocketStream, bytes], bool]
"""Gives a connection away, with the first bytes of a request; whether it has. Then it is closed here."""


class Keys(Protocol):
    """What of `actors.store.directory_protocol.Directory` is needed here."""

    def find_key_nowait(self, key_hash: bytes) -> Principal | None:
        """The principal of a live key, if it is remembered."""


class HandingOver:
    """The way out: to the other workers."""

    def __init__(
        self,
        keys: Keys,
        *,
        owner_of: Callable[[int], int | None],
        path_of: Callable[[int], Path],
        handed_over: Callable[[], object] = lambda: None,
    ) -> None:
        """Make one; it must be closed.

        Args:
            owner_of: the worker that owns a shard, if it is another one, and serves.
            path_of: the file at which a worker takes connections.
            handed_over: is told of each connection that has gone.
        """
        self._keys = keys
        self._owner_of = owner_of
        self._path_of = path_of
        self._paths = ExitStack()
        self._addresses: dict[int, str] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._handed_over = handed_over

    def hand_over(self, stream: trio.SocketStream, data: bytes) -> bool:
        """See `HandOver`."""
        worker = self._worker_of(data)
        if worker is None or len(data) > MESSAGE_BYTES_MAX:
            return False
        descriptors = array.array("i", [stream.socket.fileno()])
        try:
            self._socket.sendmsg(
                [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)], 0, self._address_of(worker)
            )
        except OSError:  # it takes none now, or is gone
            return False
        stream.socket.close()  # of this process; nothing is said to the client
        self._handed_over()
        return True

    def close(self) -> None:
        """Hand over nothing more."""
        self._socket.close()
        self._paths.close()

    def _worker_of(self, data: bytes) -> int | None:
        """The other worker for whose vault the request is whose head begins these bytes, if that is known."""
        end = data.find(_HEAD_END)
        if end < 0:
            return None
        headers: dict[str, str] = {}
        for name, value in _KEY_LINE.findall(data, 0, end):
            place = name.decode().lower()
            if place in headers:  # which of both counts is not decided here
                return None
            headers[place] = value.decode("latin-1")
        try:
            credential = find_credential(headers, {})
        except Unauthenticated:
            return None
        principal = self._keys.find_key_nowait(credential.key_hash)
        return None if principal is None else self._owner_of(principal.vault.shard)

    def _address_of(self, worker: int) -> str:
        address = self._addresses.get(worker)
        if address is None:
            address = self._addresses[worker] = self._paths.enter_context(short_path(self._path_of(worker)))
        return address


class HandedConnections(trio.abc.Listener[trio.SocketStream]):
    """The way in: connections that other workers hand over. Must be closed."""

    def __init__(self, path: Path) -> None:
        """Take them at `path`, whose file is made. Blocks.

        Raises:
            SetupError: it cannot be made.
        """
        self._own = OwnSocket(path, noun="worker's socket for connections")
        self._data: dict[trio.SocketStream, bytes] = {}
        self._is_withdrawn = False

    async def accept(self) -> trio.SocketStream:
        """The next one."""
        while True:
            await trio.lowlevel.wait_readable(self._own.listening)
            taken = self._take_nowait()
            if taken is not None:
                return taken

    def take_data(self, stream: trio.SocketStream) -> bytes:
        """What had come on this connection before, once."""
        return self._data.pop(stream, b"")

    def note_room(self, free: int) -> None:
        """There is room for so many more. Before it is used up, nobody is to come: what is on its way must not wait."""
        if free < ROOM_LEAST and not self._is_withdrawn:
            self._own.withdraw()
            self._is_withdrawn = True
        elif free >= 2 * ROOM_LEAST and self._is_withdrawn:
            self._own.offer()
            self._is_withdrawn = False

    async def finish(self) -> None:
        """Let no more come, and wait until what has come is accepted, or for a second: then there is no room for it."""
        self._own.hide()
        waiting = select.poll()
        waiting.register(self._own.listening, select.POLLIN)
        looks = 0
        while waiting.poll(0) and looks < FINISH_LOOKS:
            looks += 1
            await trio.sleep(FINISH_LOOK_S)

    async def aclose(self) -> None:
        """Take no more."""
        self.close()

    def close(self) -> None:
        """The same."""
        self._own.close()

    def _take_nowait(self) -> trio.SocketStream | None:
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        try:
            data, descriptors, _, _ = socket.recv_fds(self._own.listening, MESSAGE_BYTES_MAX, 1, flags)
        except BlockingIOError:
            return None
        if not descriptors:
            return None
        try:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(_socket_of(descriptors[0])))
        except OSError:  # what came is no connection, or none any more
            return None
        self._data[stream] = data
        return stream


def _socket_of(descriptor: int) -> socket.socket:
    """The socket behind it; closed if it is none.

    Raises:
        OSError: so it is.
    """
    try:
        connection = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise
    connection.setblocking(False)
    return connection
