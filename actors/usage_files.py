"""The files of the usage journal: made, appended to, synced, read, removed.

Owns the folder and the order in which names and bytes become durable. Knows records as bytes only. Everything but
`append` may wait for the disk, so it belongs into a thread.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from actors.store.seal import sync_directory
from actors.usage_records import Header, seed_of

FOLDER = "usage"
"""Below the data directory."""

SUFFIX = ".usage"
DAMAGED_SUFFIX = ".damaged"


class OpenFile:
    """A file that records are appended to.

    Attributes:
        seed: what the checksums of its records begin with.
        size_bytes: how long it is.
    """

    __slots__ = ("_descriptor", "_files", "path", "seed", "size_bytes")

    def __init__(self, files: UsageFiles, path: Path, descriptor: int, *, seed: int) -> None:
        self._files = files
        self._descriptor = descriptor
        self.path = path
        self.seed = seed
        self.size_bytes = 0

    def append(self, data: bytes) -> None:
        """Write at the end, in one call: from then on the death of the process takes nothing of it.

        Raises:
            OSError: nothing of it counts; what may be there of it is a torn record.
        """
        written = self._files.write(self._descriptor, data)
        if written < len(data):
            self._files.truncate(self._descriptor, self.size_bytes)
            raise OSError(errno.ENOSPC, "a short write")
        self.size_bytes += len(data)

    def duplicate(self) -> int:
        """A descriptor of its own for a thread that syncs; whoever asks for it closes it."""
        return os.dup(self._descriptor)

    def close(self) -> None:
        """Nothing more is appended."""
        os.close(self._descriptor)


def _all(_shard: int) -> bool:
    return True


class UsageFiles:
    """The folder with the journal's files.

    Attributes:
        owns: whether the rows of a shard are counted here; another worker counts the others.
    """

    def __init__(self, folder: Path, *, owns: Callable[[int], bool] = _all) -> None:
        self.folder = folder
        self.owns = owns

    def create(self, header: Header) -> OpenFile:
        """A new, empty file whose name and header are durable.

        Raises:
            OSError: there is none, or one of no use.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"{header.journal}-{header.number:08d}{SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        encoded = header.encode()
        opened = OpenFile(self, path, descriptor, seed=seed_of(encoded))
        try:
            opened.append(encoded)
            self.sync(descriptor)
            sync_directory(self.folder)
        except OSError:
            opened.close()
            path.unlink(missing_ok=True)
            raise
        return opened

    def found(self) -> list[Path]:
        """The files that are there; those of one run in the order in which they were written."""
        return sorted(self.folder.glob(f"*{SUFFIX}"))

    def remove(self, path: Path) -> None:
        """Delete a file; harmless a second time."""
        path.unlink(missing_ok=True)

    def set_aside(self, path: Path) -> None:
        """Keep a file under a name that is not looked for again."""
        path.rename(path.with_suffix(DAMAGED_SUFFIX))

    # What fakes replace.

    def write(self, descriptor: int, data: bytes) -> int:
        """Append, and say how much of it."""
        return os.write(descriptor, data)

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Take back what a write left half done."""
        os.ftruncate(descriptor, size_bytes)

    def sync(self, descriptor: int) -> None:
        """Make what was appended survive a power cut."""
        os.fsync(descriptor)
