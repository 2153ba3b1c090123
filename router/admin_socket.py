"""The door for the command line of a running server: a Unix socket in the data directory, for its owner only.

One JSON line in, one JSON line out, then the connection closes. Owns what is said there; the file is the business of
`router.unix_sockets`. Must never say anything to another user of the machine.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from models.errors import InvalidRequest, MemoryRouterError, SetupError, StoreUnavailable
from router.observe import log_event
from router.unix_sockets import OwnSocket, connect_unix

SOCKET_NAME = "admin.sock"
CONNECTIONS_MAX = 8
REQUEST_BYTES_MAX = 64 * 1024
REPLY_BYTES_MAX = 64 * 1024 * 1024  # a list of some hundred thousand keys
REQUEST_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 30.0

Perform = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Does one command with its arguments, see `router.admin.Administration.perform`."""


class AdminRequest(msgspec.Struct, frozen=True):
    """The line that goes in."""

    command: str
    arguments: dict[str, Any] = {}


class AdminReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The line that comes out: an answer, or an error with its slug."""

    answer: dict[str, Any] | None = None
    error: str = ""
    code: str = ""


class AdminError(MemoryRouterError):
    """A running server refused a command; the message is the server's."""

    status = 400
    code = "admin_error"


# --- the server's side ---


@asynccontextmanager
async def open_admin_socket(path: Path, perform: Perform) -> AsyncIterator[None]:
    """Answer commands on the socket at `path` for the length of the block, then remove the file.

    A socket file that nobody answers on was left by a dead server and is replaced.

    Raises:
        SetupError: something else is in the way, or a server answers there.
    """
    own = OwnSocket(path, backlog=CONNECTIONS_MAX, noun="admin socket")
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(own.listening))
    slots = trio.CapacityLimiter(CONNECTIONS_MAX)
    try:
        async with trio.open_nursery() as connections:
            handle = partial(_handle_connection, perform, slots)
            await connections.start(partial(trio.serve_listeners, handle, [listener]))
            yield
            connections.cancel_scope.cancel(reason="the server closes its admin socket")
    finally:
        own.close()


async def _handle_connection(perform: Perform, slots: trio.CapacityLimiter, stream: trio.SocketStream) -> None:
    async with stream:
        with trio.move_on_after(REQUEST_TIMEOUT_S + COMMAND_TIMEOUT_S):
            async with slots:
                reply = await _answer(perform, stream)
                try:
                    await stream.send_all(msgspec.json.encode(reply) + b"\n")
                except trio.BrokenResourceError:
                    log_event("admin_client_gone", level=logging.WARNING)


async def _answer(perform: Perform, stream: trio.SocketStream) -> AdminReply:
    """The reply to what the stream brings. Every failure becomes a reply: this is the edge."""
    try:
        with trio.fail_after(REQUEST_TIMEOUT_S):
            line = await _receive_line(stream, REQUEST_BYTES_MAX)
        request = msgspec.json.decode(line, type=AdminRequest)
        with trio.fail_after(COMMAND_TIMEOUT_S):
            answer = await perform(request.command, request.arguments)
    except MemoryRouterError as error:
        return AdminReply(error=f"{error.message} {error.hint}".strip(), code=error.code)
    except msgspec.DecodeError:
        return AdminReply(error="the request is no JSON line with a command.", code=InvalidRequest.code)
    except trio.TooSlowError:
        return AdminReply(error="the command took too long.", code="deadline_exceeded")
    except Exception as error:
        log_event("admin_command_failed", level=logging.ERROR, error=error)
        return AdminReply(error="the command failed; the server's log says why.", code="internal_error")
    log_event("admin_command", command=request.command)
    return AdminReply(answer=answer)


async def _receive_line(stream: trio.abc.ReceiveStream, bytes_max: int) -> bytes:
    """What comes before the first line feed, or before the end.

    Raises:
        InvalidRequest: more than `bytes_max` bytes.
    """
    received = bytearray()
    while b"\n" not in received:
        part = await stream.receive_some()
        if not part:
            break
        received += part
        if len(received) > bytes_max:
            raise InvalidRequest(f"a line may have at most {bytes_max} bytes.", field="line")
    return bytes(received.partition(b"\n")[0])


# --- the command line's side ---


async def call_admin(path: Path, command: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Let the server that runs on this data directory do a command; None if there is none.

    Raises:
        SetupError: the socket belongs to somebody else.
        AdminError: the server refused the command.
        StoreUnavailable: the server did not answer.
    """
    stream = await _connect(path)
    if stream is None:
        return None
    request = msgspec.json.encode(AdminRequest(command, arguments)) + b"\n"
    async with stream:
        try:
            with trio.fail_after(REQUEST_TIMEOUT_S + COMMAND_TIMEOUT_S):
                await stream.send_all(request)
                line = await _receive_line(stream, REPLY_BYTES_MAX)
            reply = msgspec.json.decode(line, type=AdminReply)
        except (trio.TooSlowError, trio.BrokenResourceError, msgspec.DecodeError) as error:
            raise StoreUnavailable("the running server did not answer; see its log.") from error
    if reply.answer is None:
        raise AdminError(reply.error)
    return reply.answer


async def _connect(path: Path) -> trio.SocketStream | None:
    try:
        with trio.fail_after(REQUEST_TIMEOUT_S):
            return await connect_unix(path)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None
    except PermissionError as error:
        raise SetupError(f"{path}: belongs to another user; run this as the user of the server.") from error
    except (OSError, trio.TooSlowError) as error:
        raise StoreUnavailable(f"{path}: the running server does not answer.") from error
