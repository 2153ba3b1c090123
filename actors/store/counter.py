"""The commit counter beside a database: how many commits were durable when somebody last looked.

SQLite ends recovery at the first damaged frame of a WAL and calls what is left whole: everything committed after it
vanishes without an error. The counter in a file of its own notices. It is written after the commit is durable and
not synced each time, so a power cut may leave it behind the database, which proves nothing; it can never be ahead of a
database that is whole. Owns the 16 bytes of such a file; decides nothing.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
from pathlib import Path

COUNTER_FOLDER = "hwm"  # high-water marks
_COUNTER = struct.Struct(">Q8s")

_log = logging.getLogger(__name__)


def counter_path(database: Path) -> Path:
    """The counter's file of a database."""
    return database.parent / COUNTER_FOLDER / database.stem


def _packed(commits: int) -> bytes:
    number = commits.to_bytes(8, "big")
    return _COUNTER.pack(commits, hashlib.sha256(b"memoryrouter commits" + number).digest()[:8])


def read_counter(path: Path) -> int | None:
    """The counter, or None when there is none or its own checksum fails: then it proves nothing. Blocks.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(found) == _COUNTER.size:
        (commits, _) = _COUNTER.unpack(found)
        if found == _packed(commits):
            return int(commits)
    _log.error("the commit counter %s fails its checksum; it is made anew", path.name)
    return None


def write_counter(path: Path, commits: int) -> None:
    """Make a counter's file, or set it, durably. Blocks.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, _packed(commits), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class CommitCounter:
    """The counter as its committer keeps it, one thread only.

    Attributes:
        commits: the highest commit number known to be durable.
        failures: how often it could not be written; then it lags, which is safe.
    """

    __slots__ = ("_descriptor", "_path", "commits", "failures")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self.commits = read_counter(path) or 0
        self.failures = 0

    def note(self, commits: int) -> None:
        """Record a commit that is durable. Sixteen bytes in place: this needs no room on the disk.

        Where several processes write the database, a slower one may put a smaller number over a larger one: then the
        file lags until the next commit, which proves less and is never wrong.
        """
        self.commits = commits
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.pwrite(self._descriptor, _packed(commits), 0)
        except OSError as error:
            if not self.failures:
                _log.error("the commit counter %s cannot be written: %s", self._path.name, error.strerror)
            self.failures += 1

    def close(self) -> None:
        """Sync and close the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            os.fsync(descriptor)
        except OSError as error:
            _log.error("the commit counter %s cannot be synced: %s", self._path.name, error.strerror)
        finally:
            os.close(descriptor)
