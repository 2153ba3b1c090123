"""What the parent of several workers and one of them say to each other: an order first, then messages both ways.

The order lies in an anonymous file that the worker inherits: it holds settings with their keys, and is neither on a
disk nor in an environment. Messages go over a pair of sockets that keep their bounds; its end tells each side that the
other one is gone. Owns these forms. Must never wait for a side that does not read.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import trio

from models.provider_settings import Secret
from models.settings import Settings

MESSAGE_BYTES_MAX = 64 * 1024
"""Of one message; the longest is a worker's last word, an error of two lines."""

SENTENCE_CHARACTERS_MAX = 4096
"""Of each of them; as JSON a character has up to six bytes, and half a message is none."""


class Order(msgspec.Struct, frozen=True):
    """What a worker is to do. The numbers are of descriptors that it inherits.

    Attributes:
        settings: as the parent has read them: a file that changes later must not make workers differ.
        lock: of the data directory; it is held as long as any process has it open.
    """

    index: int
    count: int
    settings: Settings
    data_dir: str
    listening: int
    link: int
    lock: int


class State(msgspec.Struct, frozen=True, tag="state"):
    """To a worker: which workers serve, and how often each was started again. The first one admits it to the port."""

    alive: tuple[int, ...]
    restarts: tuple[int, ...]


class Renew(msgspec.Struct, frozen=True, tag="renew"):
    """To a worker: read the certificate again."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """To a worker: accept no more connections, and finish those that there are."""


class AccountMade(msgspec.Struct, frozen=True, tag="account"):
    """To the parent: the account key of the first start, which is to be shown."""

    key: str


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """To the parent: everything is open, but the port."""


class Serving(msgspec.Struct, frozen=True, tag="serving"):
    """To the parent: requests are served."""


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """To the parent: the loop goes round."""


class Drained(msgspec.Struct, frozen=True, tag="drained"):
    """To the parent: no client is connected any more, and none will be."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """To the parent: what keeps the worker from serving, for whoever runs the server."""

    message: str
    hint: str


ToWorker = State | Renew | Stop
ToParent = AccountMade | Opened | Serving | Beat | Drained | Refused


def write_order(order: Order) -> int:
    """The descriptor of a file that holds an order; whoever gets it closes it."""
    descriptor = os.memfd_create("order", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(msgspec.json.encode(order, enc_hook=_reveal))
    return descriptor


def read_order(descriptor: int) -> Order:
    """The order in an inherited descriptor, which is closed.

    Raises:
        OSError, msgspec.MsgspecError: there is none.
    """
    with open(descriptor, "rb") as file:
        file.seek(0)
        return msgspec.json.decode(file.read(), type=Order, dec_hook=_secret)


def _reveal(value: object) -> str:
    if not isinstance(value, Secret):
        raise TypeError(f"{type(value).__name__} is no setting")
    return value.reveal()


def _secret(kind: type, value: Any) -> Secret:
    if kind is not Secret or not isinstance(value, str):
        raise TypeError(f"{kind.__name__} is no setting")
    return Secret(value)


def link_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a link."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Link:
    """One end."""

    __slots__ = ("_socket",)

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end

    def send_nowait(self, message: ToWorker | ToParent) -> bool:
        """Say something; whether it is on its way. A side that has gone, or has stopped to read, hears nothing."""
        try:
            self._socket.send(msgspec.json.encode(message))
        except OSError:
            return False
        return True

    async def receive(self) -> bytes:
        """The next message; b"" when the other side is gone."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(MESSAGE_BYTES_MAX)
            except (BlockingIOError, ConnectionResetError):
                continue  # reset: it did not read all before it went, but what it has said is still to come

    def hang_up(self) -> None:
        """Say that nothing more will be said. What the other side says is still heard. May be called again."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let the other side know that this one is gone. May be called again."""
        self._socket.close()


decode_to_worker = msgspec.json.Decoder(ToWorker).decode
decode_to_parent = msgspec.json.Decoder(ToParent).decode


def socket_name(worker: int) -> str:
    """The file in the data directory at which the other workers reach this one."""
    return f"worker-{worker}.sock"


def socket_path(data_dir: Path, worker: int) -> Path:
    """The same with its folder."""
    return data_dir / socket_name(worker)


def connections_path(data_dir: Path, worker: int) -> Path:
    """The file at which a worker takes clients' connections from the others."""
    return data_dir / f"worker-{worker}.connections"
