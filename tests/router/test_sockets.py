"""Sockets that are read and written beside their streams: the same bytes, the same errors, fewer turns."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import assert_no_checkpoints, memory_stream_pair, wait_all_tasks_blocked

from router.sockets import WRITTEN_AT_ONCE_BYTES_MAX, QuickSocket, quick_socket
from tests.patience import PATIENCE_S


@asynccontextmanager
async def open_pair() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Two ends of a connection."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        ours = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        theirs = await listener.accept()
    async with ours, theirs:
        yield ours, theirs


async def test_what_is_small_is_sent_without_a_turn() -> None:
    async with open_pair() as (ours, theirs):
        with assert_no_checkpoints():
            assert QuickSocket(ours).write_nowait(b"hello") == 5
        with trio.fail_after(PATIENCE_S):
            assert await QuickSocket(theirs).read(100) == b"hello"


async def test_what_is_large_and_what_finds_no_room_is_left_to_the_stream() -> None:
    async with open_pair() as (ours, _theirs):
        quick = QuickSocket(ours)
        assert quick.write_nowait(b"x" * (WRITTEN_AT_ONCE_BYTES_MAX + 1)) == 0
        ours.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        while quick.write_nowait(b"x" * WRITTEN_AT_ONCE_BYTES_MAX):
            pass
        assert quick.write_nowait(b"x") == 0


async def test_the_end_of_the_other_side_is_empty() -> None:
    async with open_pair() as (ours, theirs):
        await ours.send_eof()
        with trio.fail_after(PATIENCE_S):
            assert await QuickSocket(theirs).read(100) == b""


async def test_a_closed_socket_is_neither_read_nor_written() -> None:
    """Not even if its number belongs to another file by then."""
    async with open_pair() as (ours, _theirs):
        quick = QuickSocket(ours)
        await ours.aclose()
        with pytest.raises(trio.ClosedResourceError):
            quick.write_nowait(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await quick.read(1)


async def test_who_waits_for_a_socket_that_is_closed_is_woken(nursery: trio.Nursery) -> None:
    async with open_pair() as (ours, _theirs):
        errors: list[Exception] = []

        async def read() -> None:
            try:
                await QuickSocket(ours).read(1)
            except trio.ClosedResourceError as error:
                errors.append(error)

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        await ours.aclose()
        await wait_all_tasks_blocked()
        assert len(errors) == 1


async def test_a_connection_that_was_reset_is_broken() -> None:
    async with open_pair() as (ours, theirs):
        theirs.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await theirs.aclose()
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE_S):
            await QuickSocket(ours).read(1)
        with pytest.raises(trio.BrokenResourceError):
            QuickSocket(ours).write_nowait(b"x")


async def test_only_a_plain_socket_is_quick() -> None:
    ours, _theirs = memory_stream_pair()
    assert quick_socket(ours) is None
    async with open_pair() as (plain, _other):
        assert quick_socket(plain) is not None
