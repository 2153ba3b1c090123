"""The last step of a restore: staged files take their places, however often a crash interrupts that.

Owns the names of the staging folders. `restore.partial` is being filled and means nothing; it becomes `restore.ready`
by one rename, and from then on the restore is decided: whoever locks the data directory next finishes it. Every step
can be done twice. Must never let an old WAL meet a new database.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path

import msgspec

from actors import usage_files
from actors.store.counter import COUNTER_FOLDER
from actors.store.seal import sync_directory

PARTIAL_FOLDER = "restore.partial"
READY_FOLDER = "restore.ready"
NAMES_FILE = "names.json"
SNAPSHOT_FOLDER = "snap"
"""Index snapshots: a cache of what a restore, or an accepted loss, makes untrue."""

_DATABASE = re.compile(r"(meta|shard-\d\d)\.db")
_SIDECAR = re.compile(r"(meta|shard-\d\d)\.db-(wal|shm|journal)")

_log = logging.getLogger(__name__)


def finish_restore(data_dir: Path) -> bool:
    """Finish a restore that is decided, clear one away that is not. The caller holds the lock. Blocks.

    Returns:
        Whether there was one to finish.

    Raises:
        OSError: it failed half-way; calling this again goes on.
    """
    partial, ready = data_dir / PARTIAL_FOLDER, data_dir / READY_FOLDER
    if partial.exists():
        shutil.rmtree(partial)
    if not ready.exists():
        return False
    names = set(msgspec.json.decode((ready / NAMES_FILE).read_bytes(), type=list[str]))
    for path in list(data_dir.iterdir()):
        if _SIDECAR.fullmatch(path.name) or (_DATABASE.fullmatch(path.name) and path.name not in names):
            path.unlink()
    drop_snapshots(data_dir)
    shutil.rmtree(data_dir / COUNTER_FOLDER, ignore_errors=True)  # they counted the commits of what goes now
    shutil.rmtree(data_dir / usage_files.FOLDER, ignore_errors=True)  # names rows of the inboxes that go now
    sync_directory(data_dir)
    for name in sorted(names):
        staged = ready / name
        if staged.exists():
            os.replace(staged, data_dir / name)
    sync_directory(data_dir)
    (ready / NAMES_FILE).unlink()
    ready.rmdir()
    sync_directory(data_dir)
    _log.warning("a restored backup is in place: %d files", len(names))
    return True


def drop_snapshots(data_dir: Path) -> None:
    """Remove all index snapshots. They are built again. Blocks."""
    shutil.rmtree(data_dir / SNAPSHOT_FOLDER, ignore_errors=True)


def is_database(name: str) -> bool:
    """Whether a file of this name is one of a data directory's databases."""
    return _DATABASE.fullmatch(name) is not None
