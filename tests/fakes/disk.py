"""A disk whose fsync can be told to fail: an SQLite VFS around the real one."""

from __future__ import annotations

from pathlib import Path

import apsw


class FailingDisk(apsw.VFS):
    """The next `syncs_to_fail` syncs raise an I/O error; what was written stays in the file, as on a real disk.

    The shim has no shared memory, so connections hold their file exclusively and nobody reads beside them.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, "")
        self._vfs_name = name
        self.syncs_to_fail = 0
        self.failed_syncs = 0
        self.opened: list[apsw.Connection] = []

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _File:  # noqa: N802  # SQLite's name
        return _File(name, flags, self)

    def connect(self, path: Path) -> apsw.Connection:
        """A writing connection through this disk."""
        connection = apsw.Connection(str(path), vfs=self._vfs_name)
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=0"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        self.opened.append(connection)
        return connection


class _File(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int], disk: FailingDisk) -> None:
        super().__init__("", name, flags)
        self._disk = disk

    def xSync(self, flags: int) -> None:  # noqa: N802  # SQLite's name
        if self._disk.syncs_to_fail:
            self._disk.syncs_to_fail -= 1
            self._disk.failed_syncs += 1
            raise apsw.IOError("the disk failed to sync")
        super().xSync(flags)
