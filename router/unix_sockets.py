"""Unix sockets in the data directory, for their owner only: made, replaced when stale, reached, removed.

Owns the mode of their files and how a path that is too long for a socket's address is named all the same. Must never be
reachable by another user of the machine: the file is created with mode 0600 and never has a wider one.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import trio

from models.errors import SetupError

SOCKET_MODE = 0o600
SOCKET_PATH_BYTES_MAX = 100  # sun_path has 108 on Linux, 104 on BSD, with a NUL at the end
PROBE_TIMEOUT_S = 5.0
WITHDRAWN = ".full"
"""Ends the name of a socket's file that is not to be found for a while."""


class OwnSocket:
    """A socket with its file, which `close` removes unless somebody has put another one in its place.

    Attributes:
        listening: of it.
    """

    __slots__ = ("_identity", "_path", "listening")

    def __init__(self, path: Path, *, noun: str, backlog: int = 0) -> None:
        """Listen at `path`. A socket file that nobody answers on was left by a dead process and is replaced. Blocks.

        Args:
            noun: what it is called in errors.
            backlog: connections that wait to be accepted; 0 makes a socket that takes single messages instead.

        Raises:
            SetupError: something else is in the way, or a process answers there.
        """
        self._path = path
        _withdrawn(path).unlink(missing_ok=True)  # of a dead process
        self.listening = _bind(path, backlog=backlog, noun=noun)
        self._identity = _identity_of(path)

    def close(self) -> None:
        """Stop listening, and remove the file. May be called again."""
        self.listening.close()
        self.hide()

    def withdraw(self) -> None:
        """Let nobody find the socket, until `offer`."""
        with suppress(OSError):
            self._path.rename(_withdrawn(self._path))

    def offer(self) -> None:
        """Let it be found again."""
        with suppress(OSError):
            _withdrawn(self._path).rename(self._path)

    def hide(self) -> None:
        """Remove the file: nobody finds the socket any more. May be called again."""
        for path in (self._path, _withdrawn(self._path)):
            if self._identity is not None and _identity_of(path) == self._identity:
                path.unlink(missing_ok=True)
        self._identity = None


def _withdrawn(path: Path) -> Path:
    return path.with_name(path.name + WITHDRAWN)


def _bind(path: Path, *, backlog: int, noun: str) -> socket.socket:
    kind = socket.SOCK_STREAM if backlog else socket.SOCK_DGRAM
    _remove_stale(path, kind, noun=noun)
    listening = socket.socket(socket.AF_UNIX, kind)
    with ExitStack() as on_failure:
        on_failure.callback(listening.close)
        try:
            # On Linux the file gets the mode of the unbound socket, so it never exists with a wider one. A
            # umask would hold for every thread of the process.
            os.fchmod(listening.fileno(), SOCKET_MODE)
            with short_path(path) as address:
                listening.bind(address)
            too_wide = stat.S_IMODE(path.stat().st_mode) & ~SOCKET_MODE
        except OSError as error:
            raise SetupError(f"{path}: the {noun} cannot be made: {error.strerror or error}.") from error
        if too_wide:
            path.unlink()
            raise SetupError(f"{path}: this system does not let a socket be for its owner only.")
        if backlog:
            listening.listen(backlog)
        listening.setblocking(False)
        on_failure.pop_all()
    return listening


def _remove_stale(path: Path, kind: socket.SocketKind, *, noun: str) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SetupError(f"{path}: in the way of the {noun}, and no socket itself.")
    with socket.socket(socket.AF_UNIX, kind) as probe, short_path(path) as address:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            probe.connect(address)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise SetupError(f"{path}: {error.strerror or error}.") from error
        else:
            raise SetupError(f"{path}: a running server answers there.")


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name of `path` that fits into a socket address: itself, or one by way of its open directory.

    Raises:
        SetupError: the path is too long and the system has no /proc.
    """
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        by_descriptor = f"/proc/self/fd/{directory}"
        if not os.path.isdir(by_descriptor):
            raise SetupError(f"{path}: longer than the {SOCKET_PATH_BYTES_MAX} bytes a socket's path may have.")
        yield f"{by_descriptor}/{path.name}"
    finally:
        os.close(directory)


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


async def connect_unix(path: Path) -> trio.SocketStream:
    """A connection to the socket at `path`.

    Raises:
        OSError: nobody listens there, or it is another user's.
        SetupError: see `short_path`.
    """
    connecting = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_path(path) as address:
            await connecting.connect(address)
    except BaseException:
        connecting.close()
        raise
    return trio.SocketStream(connecting)
