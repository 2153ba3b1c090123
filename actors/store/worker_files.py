"""What several worker processes on one data directory share: its locks, and who makes it ready.

The process that starts the workers holds the directory's LOCK, which they inherit, and makes every file ready before
the first of them starts (`prepare_shared`). Each worker then holds a lock of its own for as long as it may write the
shards of its share: so one that is started again never writes beside its predecessor that is still dying. A worker
looks for damage in what is its own (`look_at_share`), since it may be there because its predecessor was killed. Must
never finish a restore, replay the ledger or migrate anything beside running workers.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import trio

from actors.store.ballast import DiskSpace
from actors.store.clock import wall_clock_ms
from actors.store.connections import close_untouched
from actors.store.data_directory import (
    META_FILE,
    Prepared,
    find_damage,
    lock_data_directory,
    open_untouched,
    prepare,
    shard_count,
    shard_path,
)
from actors.store.erasing import note_unwritten
from actors.store.ledger import LEDGER_FILE
from actors.store.migrations import META_MIGRATIONS, schema_version
from actors.store.rotation import server_key_id, server_key_path
from actors.store.seal import ServerKey, load_server_key
from actors.store.unfinished import refuse_unfinished
from actors.store.watch import last_change
from models.errors import SettingError, SetupError
from models.store_settings import StoreSettings

if TYPE_CHECKING:
    from actors.cluster.workers import Share

LOOK_AGAIN_S = 0.05
LOOKS = 300
"""How often a worker looks whether a predecessor that is still dying has gone. A kill -9 with much memory takes a
second."""


def worker_lock_path(data_dir: Path, worker: int) -> Path:
    """The file that a worker holds while it writes its shards."""
    return data_dir / f"worker-{worker}.lock"


def prepare_shared(
    data_dir: Path,
    *,
    settings: StoreSettings,
    workers: int,
    server_key_file: Path | None = None,
    server_key: bytes | None = None,
    now_ms: Callable[[], int] = wall_clock_ms,
) -> int:
    """Lock a data directory and make it ready for workers that are about to start. Blocks.

    Args:
        data_dir: made if it is missing.
        settings: of the store; the shard count of an existing directory stays what it was.
        workers: how many will share it.
        server_key_file: the server key's file, by default `server.key` in the data directory.
        server_key: the key itself, instead of a file.
        now_ms: the clock for rows that this makes.

    Returns:
        The descriptor that holds the lock until the last process that inherits it ends or closes it.

    Raises:
        SetupError: as of `actors.store.sqlite.open_store`.
        SettingError: there are more workers than shards.
    """
    with ExitStack() as stack:
        lock = lock_data_directory(data_dir)
        stack.callback(os.close, lock)
        ready = prepare(
            data_dir,
            shards=settings.shards,
            server_key_file=server_key_file,
            server_key=server_key or settings.server_key_bytes(),
            now_ms=now_ms,
            workers=workers,
        )
        if workers > ready.shards:
            raise SettingError(
                f"server.workers is {workers}, and the data directory has {ready.shards} shards.",
                hint="A worker needs a shard of its own; their number is fixed when the directory is made.",
            )
        DiskSpace(data_dir, ballast_bytes=settings.ballast_bytes).prepare()  # the last worker gives it back
        os.set_inheritable(lock, True)
        stack.pop_all()
    return lock


@asynccontextmanager
async def locked_share(data_dir: Path, share: Share) -> AsyncIterator[None]:
    """Hold the lock of a worker; one that is still held by a dying process is waited for.

    Raises:
        SetupError: another process goes on holding it, or it cannot be made.
    """
    try:
        descriptor = _open_lock(data_dir, share.index)
    except OSError as error:
        raise SetupError(f"The data directory {data_dir} cannot be written: {error.strerror}.") from error
    try:
        for _ in range(LOOKS):
            if _has_locked(descriptor, fcntl.LOCK_EX):
                break
            await trio.sleep(LOOK_AGAIN_S)
        else:
            raise SetupError(f"Another process is worker {share.index} of {data_dir}.", hint="Stop it.")
        yield
    finally:
        os.close(descriptor)


def nobody_works(data_dir: Path, workers: int) -> bool:
    """Whether no worker of the directory holds its lock."""
    for worker in range(workers):
        descriptor = _open_lock(data_dir, worker)
        try:
            if not _has_locked(descriptor, fcntl.LOCK_SH):  # shared: two that look at a time do not see each other
                return False
        finally:
            os.close(descriptor)
    return True


def _open_lock(data_dir: Path, worker: int) -> int:
    return os.open(worker_lock_path(data_dir, worker), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _has_locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def look_at_share(data_dir: Path, share: Share, *, server_key_file: Path | None, server_key: bytes | None) -> Prepared:
    """A directory that was prepared, for one of its workers, which holds its lock. Blocks.

    Erasures that a killed worker committed and did not get into the ledger are added to it.

    Raises:
        SetupError: it was not prepared, meta.db lost commits, or the server key is another one.
    """
    try:
        meta_path = data_dir / META_FILE
        damage = find_damage(meta_path, must_exist=True)
        if damage is not None:
            raise SetupError(damage.message, hint=damage.hint)
        meta = open_untouched(meta_path)
        try:
            if schema_version(meta) != len(META_MIGRATIONS):
                raise SetupError(f"{meta_path} was not prepared for workers.", hint="Start the server, not a worker.")
            refuse_unfinished(meta)
            path = server_key_path(data_dir, server_key_file)
            key = ServerKey(server_key) if server_key is not None else load_server_key(path, may_create=False)
            if server_key_id(meta) != key.key_id:
                raise SetupError("The server key is not the one that sealed this data directory.")
            changes, shards = last_change(meta), shard_count(meta)  # before anything of it is kept in memory
            note_unwritten(meta, data_dir / LEDGER_FILE)
        finally:
            close_untouched(meta)
        damages = {}
        for shard in filter(share.owns, range(shards)):
            damage = find_damage(shard_path(data_dir, shard), must_exist=True)
            if damage is not None:
                damages[shard] = damage
    except (apsw.Error, OSError) as error:
        raise SetupError(f"The data directory {data_dir} cannot be opened: {error}.") from error
    return Prepared(shards=shards, server_key=key, damages=damages, changes=changes)
