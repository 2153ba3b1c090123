"""The room of a data directory's disk: the ballast that is given up when it is full, and who may grow until it is back.

Owns the file `ballast`, which stands while a store is open; an empty one says that the last store met a full disk and
did not see the end of it. On a full disk even a DELETE fails, since it appends to a WAL. The ballast is room for
deletes, for materialisations of what was accepted, and for checkpoints, which may need as much as the WAL holds; new
memories must not eat it, so they are refused until there is room for them and for the ballast again. Must never keep
the server from starting, and never write into the file: it holds only blocks.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

BALLAST_FILE = "ballast"
RECHECK_S = 1.0
"""Time between two looks at the free room while the disk is full, and the least time that the ballast stays away."""
_ZEROS_BYTES = 1024 * 1024

_log = logging.getLogger(__name__)


class DiskSpace:
    """One data directory's room, shared by its committers. Every method may be called from any thread."""

    __slots__ = ("_ballast_bytes", "_full", "_held_bytes", "_lock", "_path", "_recheck_s", "one_checkpoint_at_a_time")

    def __init__(self, data_dir: Path, *, ballast_bytes: int) -> None:
        self._path = data_dir / BALLAST_FILE
        self._ballast_bytes = ballast_bytes
        self._lock = threading.Lock()
        self.one_checkpoint_at_a_time = threading.Lock()
        """Held by the one committer that may copy its WAL while the disk is full."""
        self._full = False
        self._recheck_s = 0.0
        self._held_bytes = 0

    @property
    def full(self) -> bool:
        """Whether a commit met a full disk and the room for growth is not back yet."""
        return self._full

    def free_bytes(self) -> int:
        """Room that this process may use; 0 when it cannot be told. Blocks."""
        try:
            status = os.statvfs(self._path.parent)
        except OSError:
            return 0
        return status.f_bavail * status.f_frsize

    def prepare(self) -> None:
        """Take the ballast at the start, if there is room for it twice. Blocks."""
        with self._lock:
            was_full = self._path.exists() and not self._path.stat().st_size
            if not self._take():
                self._full = was_full
                _log.warning("there is no room for a ballast of %d bytes", self._ballast_bytes)

    def close(self) -> None:
        """Give the ballast back at the end; on a full disk leave the sign of it. Blocks."""
        if not self._full:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def release(self) -> None:
        """A commit met a full disk: give the ballast up and refuse growth from now on. Blocks."""
        with self._lock:
            self._recheck_s = time.monotonic() + RECHECK_S
            if self._full or not self._ballast_bytes:
                return
            self._full = True
            released, self._held_bytes = self._held_bytes, 0
            try:
                os.truncate(self._path, 0)
            except OSError:
                released = 0
        _log.critical(
            "the disk is full: new memories are refused until %d bytes are free; %d bytes of ballast were given up "
            "so that reads, deletes and checkpoints go on",
            2 * self._ballast_bytes,
            released,
        )

    def refuses_growth(self) -> bool:
        """Whether the disk is still full. Looks at it at most once in `RECHECK_S`; taking the ballast back ends it."""
        if not self._full:
            return False
        with self._lock:
            now_s = time.monotonic()
            if self._full and now_s >= self._recheck_s:
                self._recheck_s = now_s + RECHECK_S
                if self._take():
                    self._full = False
                    _log.warning("there is room on the disk again; new memories are accepted")
            return self._full

    def _take(self) -> bool:
        """Make the ballast; False when there is no room for it twice: once for itself and once to work in."""
        if not self._ballast_bytes:
            return True
        try:
            held = self._path.stat().st_size if self._path.exists() else 0
            if held < self._ballast_bytes and self.free_bytes() < 2 * self._ballast_bytes:
                return False
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(descriptor, min(held, self._ballast_bytes))
                _allocate(descriptor, self._ballast_bytes)
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.warning("the ballast of %d bytes cannot be made: %s", self._ballast_bytes, error.strerror)
            return False
        self._held_bytes = self._ballast_bytes
        return True

    def statistics(self) -> dict[str, Any]:
        """Whether the disk is full, and how much is held back."""
        return {"disk_full": self._full, "ballast_bytes": self._held_bytes}


def _allocate(descriptor: int, size_bytes: int) -> None:
    """Give a file real blocks; systems without `posix_fallocate` get them by writing zeros."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size_bytes)
        return
    zeros = bytes(_ZEROS_BYTES)
    for start in range(0, size_bytes, _ZEROS_BYTES):
        os.pwrite(descriptor, zeros[: size_bytes - start], start)
