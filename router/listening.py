"""The public address: a socket that is bound to it, and what is wrong with one that cannot be.

Owns the options that accepted connections inherit. Must never accept: one process binds, and it or its workers listen.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

import msgspec

from models.errors import SetupError
from models.server_settings import ServerSettings
from models.settings import Settings
from models.settings_checks import exposure_warnings
from router.observe import log_event

KEEP_ALIVE_IDLE_S, KEEP_ALIVE_INTERVAL_S = 60, 15
"""TCP's own probes of a silent client; `stalled_write_timeout_s` says when one that does not answer is given up."""


class BoundAddress(msgspec.Struct, frozen=True):
    """Where the server listens; the port is a real one even where the setting says 0."""

    host: str
    port: int
    tls: bool = False

    @property
    def url(self) -> str:
        """The address as a browser takes it."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def address_of(bound: socket.socket, *, tls: bool) -> BoundAddress:
    """Where a socket from `bind` is reached."""
    host, port, *_ = bound.getsockname()
    return BoundAddress(host=host, port=port, tls=tls)


def bind(settings: ServerSettings) -> socket.socket:
    """A TCP socket, bound but not listening: a wrong address can fail before anything else is opened.

    Raises:
        SetupError: no such address, the port is in use, or it needs rights that we lack.
    """
    family, address = _resolve(settings)
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it. Hypercorn sends in a shielded scope without a deadline: without this,
        # a client that stops reading could not even be cancelled at shutdown.
        stalled_ms = int(settings.stalled_write_timeout_s * 1000)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stalled_ms)
        # A client that vanished without a word is noticed also while there is nothing to send to it.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_IDLE_S)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE_INTERVAL_S)
        listening.bind(address)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise listen_error(settings, error) from error
    return listening


def _resolve(settings: ServerSettings) -> tuple[socket.AddressFamily, Any]:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SetupError(f"server.host: {settings.host!r} is no known address or name.") from error
    # A name may have both; IPv4 goes first, since that is what most clients of `localhost` try.
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, address


def listen_error(settings: ServerSettings, error: OSError) -> SetupError:
    """What is wrong with the address, as whoever has set it may want to know."""
    where = f"{settings.host} port {settings.port}"
    match error.errno:
        case errno.EADDRINUSE:
            return SetupError(f"{where} is already in use; choose another with --port or server.port.")
        case errno.EADDRNOTAVAIL:
            return SetupError(f"server.host: {settings.host} is no address of this machine.")
        case errno.EACCES:
            return SetupError(f"{where} needs rights that this process lacks; choose a port above 1023.")
        case _:
            return SetupError(f"cannot listen on {where}: {error.strerror or error}.")


def warn_of_exposure(settings: Settings, warn: Callable[[str], None]) -> None:
    """Tell the log, and whoever starts the server, what the network sees that it should not."""
    for sentence in exposure_warnings(settings):
        log_event("exposed_without_tls", level=logging.WARNING, reason=sentence)
        warn(sentence)
