"""The room of a disk where several processes write one data directory: one ballast, and one mind about a full disk.

The file `ballast` says what is so: empty, the disk is full for all of them; whole, it is not. Whoever meets a full disk
empties it, whoever finds room makes it again, one process at a time. Must never believe in room on the word of a file
that is half made.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from actors.store.ballast import RECHECK_S, DiskSpace

_log = logging.getLogger(__name__)


class SharedDiskSpace(DiskSpace):
    """See `DiskSpace`."""

    __slots__ = ("_is_last",)

    def __init__(self, data_dir: Path, *, ballast_bytes: int, is_last: Callable[[], bool]) -> None:
        """`is_last` is asked at the end: whether no other process uses the ballast any more."""
        super().__init__(data_dir, ballast_bytes=ballast_bytes)
        self._is_last = is_last

    def prepare(self) -> None:
        """Take the ballast at the start, unless another process has it already, or gave it up. Blocks."""
        self._follow()
        self._recheck_s = 0.0
        if not self._full and self._held_bytes < self._ballast_bytes:
            super().prepare()

    def close(self) -> None:
        """The last one gives the ballast back; on a full disk it leaves the sign of it. Blocks."""
        with suppress(OSError):
            if self._is_last():
                super().close()

    def release(self) -> None:
        """A commit met a full disk: give the ballast up and refuse growth from now on, in all processes. Blocks."""
        super().release()
        if self._ballast_bytes:
            with suppress(OSError):  # perhaps there was none: then the sign has to be made
                os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))

    def refuses_growth(self) -> bool:
        """Whether the disk is still full, as far as any process knows. One look at the file for each call."""
        self._follow()
        return super().refuses_growth()

    def _follow(self) -> None:
        """Believe what the file says."""
        if not self._ballast_bytes:
            return
        try:
            size_bytes = os.stat(self._path).st_size
        except OSError:
            return
        with self._lock:
            if not size_bytes and not self._full:
                self._full, self._held_bytes = True, 0
                self._recheck_s = time.monotonic() + RECHECK_S
                _log.warning("another process met a full disk: new memories are refused until there is room again")
            elif size_bytes >= self._ballast_bytes:
                self._held_bytes = self._ballast_bytes
                if self._full:
                    self._full = False
                    _log.warning("another process found room on the disk; new memories are accepted")

    def _take(self) -> bool:
        if not self._ballast_bytes:
            return True
        try:
            descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if super()._take():
                return True
            self._forget_half_made()
        except OSError:
            pass  # another process takes it now; what came of it stands in the file
        finally:
            os.close(descriptor)
        return False

    def _forget_half_made(self) -> None:
        if not self._path.exists() or self._path.stat().st_size >= self._ballast_bytes:
            return
        if self._full:
            os.truncate(self._path, 0)
        else:
            self._path.unlink()
