"""What the tests of damage do to a data directory, and how they look at its files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import apsw

from actors.store.connections import open_writer
from actors.store.database import all_rows
from models.store_settings import StoreSettings

SETTINGS = StoreSettings(shards=2, ballast_bytes=0, scrub_interval_s=0)


def flip(path: Path, offset: int) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 4
    path.write_bytes(content)


def copy_running(data_dir: Path, target: Path) -> Path:
    """A copy of a directory that a store is using, as a crash at this moment would leave it."""
    shutil.copytree(data_dir, target, ignore=shutil.ignore_patterns("*-shm"))
    return target


def shorten_wal(database: Path) -> None:
    """Make SQLite end recovery early: a flipped bit in the last frame but one of the WAL."""
    wal = database.with_name(f"{database.name}-wal")
    frame_bytes = 24 + 4096
    frames = (wal.stat().st_size - 32) // frame_bytes
    assert frames >= 2, "there must be something to lose"
    flip(wal, 32 + (frames - 2) * frame_bytes + 100)


def captured(data_dir: Path) -> dict[str, bytes]:
    """Every file and its content."""
    return {
        str(path.relative_to(data_dir)): path.read_bytes() for path in sorted(data_dir.rglob("*")) if path.is_file()
    }


def change(database: Path, statement: str, *bindings: int) -> int:
    """Change a database behind the store's back, with `flip` for a body; how many rows that were."""
    connection = open_writer(database)
    connection.create_scalar_function("flip", _flipped, 1)
    connection.execute(statement, bindings)
    changed = connection.changes()
    connection.close()
    return changed


def _flipped(*arguments: Any) -> Any:
    (body,) = arguments
    return bytes([*body[:-5], body[-5] ^ 4, *body[-4:]])


def query(database: Path, statement: str, *bindings: object) -> list[tuple[object, ...]]:
    """What a fresh connection finds."""
    connection = apsw.Connection(str(database))
    try:
        return all_rows(connection, statement, tuple(bindings))
    finally:
        connection.close()
