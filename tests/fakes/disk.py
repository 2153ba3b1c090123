"""A disk that fails when it is told to, and remembers what a power cut would leave: an SQLite VFS around the real one.

Every write, sync, truncation and deletion of a database or its WAL gets a number. A plan decides what becomes of it:
done, failed, half done, or out of room. What was done but not synced is what a power cut may take.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import apsw
import msgspec

Kind = Literal["write", "sync", "truncate", "delete"]
Fate = Literal["done", "failed", "torn", "full"]
Cut = Literal["synced", "written", "torn", "shuffled"]
"""What of the unsynced writes is on the disk after a power cut: none, all, all and half of the last, or any."""

SECTOR_BYTES = 512


class Operation(msgspec.Struct, frozen=True):
    """One change of a file."""

    number: int
    kind: Kind
    path: str
    offset: int = 0
    data: bytes = b""


Plan = Callable[[Operation], Fate]


def all_goes_well(_operation: Operation) -> Fate:
    """The plan of a healthy disk."""
    return "done"


class FaultyDisk(apsw.VFS):
    """A VFS with a plan.

    Attributes:
        plan: decides the fate of every operation.
        syncs_to_fail: so many of the next syncs raise an I/O error; what was written stays in the file, as on a real
            disk.
        reads_to_fail: likewise for reads.
        read_only: whether writes fail and files can only be opened for reading, as after a remount.
        operations: how many there were so far.
        failed_syncs: how many syncs failed.
        used_after_failure: operations on a handle whose sync had failed before; there must be none.
        opened: writing connections made by `connect`.
    """

    def __init__(self, name: str, *, default: bool = False) -> None:
        super().__init__(name, "unix", makedefault=default)
        self._vfs_name = name
        self.plan: Plan = all_goes_well
        self.syncs_to_fail = 0
        self.reads_to_fail = 0
        self.read_only = False
        self.operations = 0
        self.failed_syncs = 0
        self.used_after_failure = 0
        self.opened: list[apsw.Connection] = []
        self.recording: Recording | None = None

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _File:  # noqa: N802  # SQLite's name
        if self.read_only:
            writable = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
            flags[0] = flags[0] & ~writable | apsw.SQLITE_OPEN_READONLY
        return _File(name, flags, self)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802  # SQLite's name
        self._decide("delete", filename)
        super().xDelete(filename, syncdir)
        self._done("delete", filename)

    def connect(self, path: Path) -> apsw.Connection:
        """A writing connection through this disk, whether it is the default or not."""
        connection = apsw.Connection(str(path), vfs=self._vfs_name)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=0"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        self.opened.append(connection)
        return connection

    def fail_at(self, number: int, fate: Fate) -> None:
        """Give the operation of this number another fate, counted from now on."""
        self.operations = 0
        self.plan = lambda operation: fate if operation.number == number else "done"

    def heal(self) -> None:
        """From now on all goes well."""
        self.plan = all_goes_well
        self.syncs_to_fail = self.reads_to_fail = 0
        self.read_only = False

    def _decide(self, kind: Kind, path: str, offset: int = 0, data: bytes = b"") -> Fate:
        self.operations += 1
        if self.read_only:
            raise apsw.IOError("a read-only disk")
        fate = self.plan(Operation(self.operations, kind, path, offset, data))
        if fate == "full" and kind == "write":
            raise apsw.FullError("a full disk")
        if fate == "failed" or (fate != "done" and kind != "write"):
            raise apsw.IOError("a failing disk")
        return fate

    def _decide_sync(self, path: str) -> None:
        if self.syncs_to_fail:
            self.syncs_to_fail -= 1
            self.failed_syncs += 1
            raise apsw.IOError("the disk failed to sync")
        self._decide("sync", path)

    def _done(self, kind: Kind, path: str, offset: int = 0, data: bytes = b"") -> None:
        if self.recording is not None:
            self.recording.note(Operation(self.operations, kind, path, offset, data))


class _File(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int], disk: FaultyDisk) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self._failed = False

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802  # SQLite's name
        if self._disk.reads_to_fail:
            self._disk.reads_to_fail -= 1
            raise apsw.IOError("the disk failed to read")
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  # SQLite's name
        self._disk.used_after_failure += self._failed
        fate = self._disk._decide("write", self._path, offset, bytes(data))
        if fate == "torn":
            super().xWrite(bytes(data)[: len(data) // 2], offset)
            raise apsw.IOError("a torn write")
        super().xWrite(data, offset)
        self._disk._done("write", self._path, offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802  # SQLite's name
        self._disk.used_after_failure += self._failed
        self._disk._decide("truncate", self._path, newsize)
        super().xTruncate(newsize)
        self._disk._done("truncate", self._path, newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802  # SQLite's name
        self._disk.used_after_failure += self._failed
        try:
            self._disk._decide_sync(self._path)
        except apsw.IOError:
            self._failed = True
            raise
        self._disk._done("sync", self._path)  # that is all: a recording tells what is durable, no test waits for a disk


class Recording:
    """Everything that happened to the files of one directory, and what a power cut at any moment would leave of it.

    Databases and WALs are followed operation by operation. Other files are small and written through: they are taken
    as they are after each operation.

    Attributes:
        moments: for each operation, what the test had promised by then (whatever `promise` returned).
    """

    def __init__(self, directory: Path, *, promise: Callable[[], object], side_files: list[Path]) -> None:
        self._directory = directory
        self._promise = promise
        self._side_files = side_files
        self._begin = {path.name: path.read_bytes() for path in directory.iterdir() if ".db" in path.name}
        self._operations: list[Operation] = []
        self._sides: list[dict[Path, bytes]] = []
        self.moments: list[object] = []

    def note(self, operation: Operation) -> None:
        """Remember an operation that took effect."""
        name = Path(operation.path).name
        if Path(operation.path).parent != self._directory or ".db" not in name:
            return
        self._operations.append(msgspec.structs.replace(operation, path=name))
        self._sides.append({path: path.read_bytes() for path in self._side_files if path.exists()})
        self.moments.append(self._promise())

    def power_cut(self, moment: int, cut: Cut, target: Path, *, seed: int = 0) -> None:
        """Write what the disk may hold when the power goes right after this operation into an empty directory."""
        durable = dict(self._begin)
        pending: dict[str, list[Operation]] = {}
        for operation in self._operations[: moment + 1]:
            waiting = pending.setdefault(operation.path, [])
            if operation.kind == "delete":  # SQLite only deletes what it does not need any more
                pending.pop(operation.path)
                durable.pop(operation.path, None)
            elif operation.kind == "sync":
                durable[operation.path] = _applied(durable.get(operation.path, b""), waiting)
                waiting.clear()
            else:
                waiting.append(operation)
        dice = random.Random(seed)
        for name in durable.keys() | pending.keys():
            survivors = _survivors(pending.get(name, []), cut, dice)
            content = _applied(durable.get(name, b""), survivors)
            if content or name in durable:
                (target / name).write_bytes(content)
        for path, content in self._sides[moment].items():
            copy = target / path.relative_to(self._directory)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(content)
            copy.chmod(0o600)


def _survivors(pending: list[Operation], cut: Cut, dice: random.Random) -> list[Operation]:
    if cut == "synced":
        return []
    if cut == "shuffled":
        return [operation for operation in pending if dice.random() < 0.5]
    if cut == "torn" and pending:
        last = pending[-1]
        half = len(last.data) // 2 // SECTOR_BYTES * SECTOR_BYTES
        return [*pending[:-1], msgspec.structs.replace(last, data=last.data[:half])]
    return pending


def _applied(content: bytes, operations: list[Operation]) -> bytes:
    found = bytearray(content)
    for operation in operations:
        if operation.kind == "truncate":
            del found[operation.offset :]
            continue
        end = operation.offset + len(operation.data)
        if len(found) < end:
            found.extend(bytes(end - len(found)))
        found[operation.offset : end] = operation.data
    return bytes(found)
