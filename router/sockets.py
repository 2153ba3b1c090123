"""A socket that is read and written in fewer turns of the event loop than Trio's streams take.

A Trio stream tries first and waits then, and lets all other tasks have their turn after each success. On the way of a
proxied request there is hardly ever something to read that was not waited for, and what is written is small: here a
read waits first, and neither gives up its turn when it is done. Must never write more at once than the kernel takes:
who has more to send, or has something in flight, uses the stream.
"""

from __future__ import annotations

import os

import trio

WRITTEN_AT_ONCE_BYTES_MAX = 64 * 1024
"""Who sends more in one piece can wait a turn."""


class QuickSocket:
    """The socket below a Trio stream, which keeps it and closes it."""

    __slots__ = ("_number",)

    def __init__(self, stream: trio.SocketStream) -> None:
        # Asked for each time: once the stream is closed, what was its number may be another file's.
        self._number = stream.socket.fileno

    async def read(self, bytes_max: int) -> bytes:
        """Wait until something has come; b"" at the end.

        Raises:
            trio.ClosedResourceError, trio.BrokenResourceError: as a stream.
        """
        while (number := self._number()) >= 0:
            await trio.lowlevel.wait_readable(number)
            try:
                if (number := self._number()) >= 0:
                    return os.read(number, bytes_max)
            except BlockingIOError:
                continue  # what was there has not stayed
            except OSError as error:
                raise trio.BrokenResourceError from error
        raise trio.ClosedResourceError

    def write_nowait(self, data: bytes) -> int:
        """Send what the kernel takes at once; how much that was, and 0 where others should have their turn first.

        Raises:
            trio.ClosedResourceError, trio.BrokenResourceError: as a stream.
        """
        number = self._number()
        if number < 0:
            raise trio.ClosedResourceError
        if len(data) > WRITTEN_AT_ONCE_BYTES_MAX:
            return 0
        try:
            return os.write(number, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError from error


def quick_socket(stream: trio.abc.Stream) -> QuickSocket | None:
    """The socket below a stream; None where there is none, or something between that changes the bytes."""
    return QuickSocket(stream) if isinstance(stream, trio.SocketStream) else None
