"""Bringing a backup back: verify, stage, erase again what was erased since, and put it in place in one step.

Owns what a restore does to the staged copies. Must never touch the data directory before the backup is verified and
staged whole, never replace the server key or shorten the erasure ledger, and never leave a mixture of old and new
files: `actors.store.restoring` finishes what a crash interrupts.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import msgspec

from actors.store.backup import Manifest, known_vaults, verify_backup, write_durably
from actors.store.connections import close_untouched, writing
from actors.store.data_directory import META_FILE, lock_data_directory, open_untouched, shard_path
from actors.store.database import all_rows, one_row
from actors.store.erasing import replay, reserve_numbers
from actors.store.ledger import LEDGER_FILE, Ledger, ledger_lines, ledger_of, read_ledger
from actors.store.memory_changes import delete_again
from actors.store.migrations import META_MIGRATIONS, SHARD_MIGRATIONS, Migration, migrate
from actors.store.orphans import highest_vault, remove_orphans
from actors.store.progress import Report, unreported
from actors.store.restoring import NAMES_FILE, PARTIAL_FOLDER, READY_FOLDER, finish_restore, is_database
from actors.store.rotation import rewrap_all, server_key_id, server_key_path
from actors.store.seal import ServerKey, load_server_key, sync_directory
from models.errors import SetupError

NUMBERED = ("vault", "key", "account")
"""Tables of meta.db whose numbers others remember: they are not given out again after a restore."""


class Restored(msgspec.Struct, frozen=True):
    """What a restore did.

    Attributes:
        manifest: of the backup.
        vaults: live vaults now.
        vaults_erased: vaults that the backup held live and the ledger knows to be erased.
        keys_revoked: likewise for keys.
        accounts_deleted: likewise for accounts.
        provider_keys_erased: likewise for the providers' keys that accounts stored.
        memories_deleted: memories of live vaults that the backup held and the ledger knows to be deleted.
        orphans: rows removed because their vault came after the backup's meta.db.
    """

    manifest: Manifest
    vaults: int
    vaults_erased: int
    keys_revoked: int
    orphans: int
    memories_deleted: int = 0
    accounts_deleted: int = 0
    provider_keys_erased: int = 0


def restore(
    backup_dir: Path,
    data_dir: Path,
    *,
    now_ms: int,
    replace: bool = False,
    server_key_file: Path | None = None,
    server_key: bytes | None = None,
    backup_server_key: bytes | None = None,
    report: Report = unreported,
) -> Restored:
    """Put a backup in the place of a data directory that nobody uses. Blocks.

    Args:
        backup_dir: made by `back_up`.
        data_dir: keeps its server key and its erasure ledger; everything else is the backup's afterwards.
        now_ms: the time.
        replace: whether a directory that holds data may be replaced.
        server_key_file: the server key's file, if it is not in the data directory.
        server_key: the server key itself, instead of a file.
        backup_server_key: the key that the backup was sealed with, if another: everything is wrapped by the data
            directory's key then.
        report: told how many bytes are done, and how many there are: each is verified, and then copied.

    Raises:
        SetupError: the backup is incomplete, damaged or newer than this version; the directory is in use, holds data
            without `replace`, or its server key is missing or not the backup's. Nothing was changed.
    """
    lock = lock_data_directory(data_dir)
    try:
        finish_restore(data_dir)
        if not replace and any(is_database(path.name) for path in data_dir.iterdir()):
            raise SetupError(
                f"The data directory {data_dir} is not empty.", hint="Confirm that everything in it is to be replaced."
            )
        manifest = verify_backup(backup_dir, report=lambda done, total: report(done, 2 * total))
        key = _key_of(data_dir, server_key_file, server_key)
        old_key = key if backup_server_key is None else ServerKey(backup_server_key)
        if old_key.key_id.hex() != manifest.server_key_id:
            raise SetupError(
                "The backup was sealed with another server key.",
                hint="Put that key into the data directory, or give it beside the new one.",
            )
        return _stage_and_finish(backup_dir, data_dir, manifest, old_key=old_key, key=key, now_ms=now_ms, report=report)
    except (apsw.Error, OSError) as error:
        raise SetupError(f"The restore into {data_dir} failed: {error}.") from error
    finally:
        os.close(lock)


def _key_of(data_dir: Path, server_key_file: Path | None, server_key: bytes | None) -> ServerKey:
    if server_key is not None:
        return ServerKey(server_key)
    path = server_key_path(data_dir, server_key_file)
    if not path.exists():
        raise SetupError(
            f"There is no server key at {path}, and a backup does not hold it.",
            hint="Put the key file there first, with mode 0600.",
        )
    return load_server_key(path, may_create=False)


def _stage_and_finish(
    backup_dir: Path,
    data_dir: Path,
    manifest: Manifest,
    *,
    old_key: ServerKey,
    key: ServerKey,
    now_ms: int,
    report: Report,
) -> Restored:
    partial = data_dir / PARTIAL_FOLDER
    partial.mkdir(mode=0o700)
    done = total = sum(file.size_bytes for file in manifest.files)
    for file in manifest.files:
        shutil.copyfile(backup_dir / file.name, partial / file.name)
        (partial / file.name).chmod(0o600)
        done += file.size_bytes
        report(done, 2 * total)
    ledger = _joined(read_ledger(data_dir / LEDGER_FILE), read_ledger(partial / LEDGER_FILE))
    restored = _mend(partial, data_dir, manifest, ledger, old_key=old_key, key=key, now_ms=now_ms)
    write_durably(partial / LEDGER_FILE, ledger_lines(ledger.erasures))
    names = [file.name for file in manifest.files]
    write_durably(partial / NAMES_FILE, msgspec.json.encode(names))
    os.rename(partial, data_dir / READY_FOLDER)  # from here on the restore is decided
    sync_directory(data_dir)
    finish_restore(data_dir)
    return restored


def _joined(first: Ledger, second: Ledger) -> Ledger:
    return ledger_of([*first.erasures, *second.erasures])


def _mend(
    partial: Path,
    data_dir: Path,
    manifest: Manifest,
    ledger: Ledger,
    *,
    old_key: ServerKey,
    key: ServerKey,
    now_ms: int,
) -> Restored:
    """Make the staged copies one consistent directory: erased again, without orphans, under the right key."""
    with _staged(partial / META_FILE, META_MIGRATIONS, now_ms=now_ms) as meta:
        if server_key_id(meta) != key.key_id:
            rewrap_all(meta, old_key, key)
        shards = range(manifest.shards)
        with meta:
            replayed = replay(meta, ledger, server_key=key, shards=shards, now_ms=now_ms)
        orphans, memories, highest = 0, 0, _highest_in_use(data_dir)
        vaults = known_vaults(meta)
        for shard in shards:
            with _staged(shard_path(partial, shard), SHARD_MIGRATIONS, now_ms=now_ms) as connection:
                highest["vault"] = max(highest["vault"], highest_vault(connection))
                orphans += remove_orphans(connection, vaults)
                memories += delete_again(connection, meta, ledger, shard=shard, server_key=key)
        with meta:
            for table, number in highest.items():
                reserve_numbers(meta, table, number)
        (live,) = one_row(meta, "SELECT count(*) FROM vault WHERE state = 0")
    return Restored(
        manifest=manifest,
        vaults=live,
        vaults_erased=replayed.vaults,
        keys_revoked=replayed.keys,
        orphans=orphans,
        memories_deleted=memories,
        accounts_deleted=replayed.accounts,
        provider_keys_erased=replayed.provider_keys,
    )


@contextmanager
def _staged(path: Path, migrations: tuple[Migration, ...], *, now_ms: int) -> Iterator[apsw.Connection]:
    """A staged database at the newest schema; leaving empties its WAL into it, synced."""
    with writing(path) as connection:
        migrate(connection, migrations, now_ms=now_ms)
        yield connection
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)  # what the plain copy wrote and no page of the WAL touched
    finally:
        os.close(descriptor)


def _highest_in_use(data_dir: Path) -> dict[str, int]:
    """The highest numbers that the replaced directory gave out, by table, as far as they can be read; 0 without one."""
    highest = dict.fromkeys(NUMBERED, 0)
    path = data_dir / META_FILE
    if not path.exists():
        return highest
    connection = open_untouched(path)
    try:
        sequences = dict(all_rows(connection, "SELECT name, seq FROM sqlite_sequence"))
        return {table: int(sequences.get(table, 0)) for table in NUMBERED}
    except apsw.Error:  # it is being replaced because it is damaged, perhaps
        return highest
    finally:
        close_untouched(connection)
