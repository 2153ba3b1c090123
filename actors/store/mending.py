"""Mending a data directory: what can be repaired without losing anything, and going on after a loss that was accepted.

Both need the directory for themselves. Owns the words that say what was done. Must never remove a row that something
can still open, and never go on with a number that was used before the loss.
"""

from __future__ import annotations

from pathlib import Path

import apsw
import msgspec

from actors.store.backup import known_vaults
from actors.store.connections import writing
from actors.store.counter import counter_path, read_counter, write_counter
from actors.store.data_directory import META_FILE, commits_of, locked, open_untouched, prepare, prepared, shard_count
from actors.store.data_directory import shard_path as path_of_shard
from actors.store.database import one_row
from actors.store.erasing import reserve_numbers
from actors.store.keyring import KeyRing
from actors.store.ledger import LEDGER_FILE, read_ledger
from actors.store.migrations import SHARD_MIGRATIONS
from actors.store.orphans import highest_vault, remove_loose_embeddings, remove_orphans
from actors.store.restoring import drop_snapshots, finish_restore
from actors.store.scrub import all_sealed_rows, damaged_among
from actors.store.seal import Table, sync_directory
from models.errors import SetupError


class Loss(msgspec.Struct, frozen=True):
    """What was accepted to be lost.

    Attributes:
        name: of the database.
        commits: how many commits are gone; all that it had when `moved_to` says where the file is now.
        moved_to: the new name of a file that cannot be read, or "".
    """

    name: str
    commits: int
    moved_to: str = ""


def repair(
    data_dir: Path,
    *,
    now_ms: int,
    server_key_file: Path | None = None,
    server_key: bytes | None = None,
) -> list[str]:
    """Mend what `verify` calls repairable; what was done, in sentences. Blocks.

    Raises:
        SetupError: the directory is in use, or meta.db or the server key are not usable.
    """
    with locked(data_dir):
        done = []
        if finish_restore(data_dir):
            done.append("Finished an interrupted restore.")
        ready = prepare(  # which settles counters, key files, the ledger and schemas
            data_dir, shards=1, server_key_file=server_key_file, server_key=server_key, now_ms=lambda: now_ms
        )
        keyring = KeyRing(ready.server_key, lambda: open_untouched(data_dir / META_FILE), entries_max=1)
        meta = open_untouched(data_dir / META_FILE)
        try:
            vaults = known_vaults(meta)
            for shard in range(ready.shards):
                path = path_of_shard(data_dir, shard)
                if shard in ready.damages:
                    done.append(f"Left {path.name} alone: {ready.damages[shard].message}")
                    continue
                with prepared(path, SHARD_MIGRATIONS, now_ms=now_ms) as connection:
                    done += _repair_shard(path.name, connection, vaults, keyring)
        except apsw.Error as error:
            raise SetupError(f"The repair of {data_dir} failed: {type(error).__name__}.") from error
        finally:
            keyring.close()
            meta.close(True)
        return done


def _repair_shard(name: str, connection: apsw.Connection, vaults: set[int], keyring: KeyRing) -> list[str]:
    counts = {
        "rows of vaults that do not exist": remove_orphans(connection, vaults),
        "embeddings without a memory": remove_loose_embeddings(connection),
        "damaged embeddings, which are computed again": _remove_damaged_embeddings(connection, keyring),
    }
    return [f"Removed {count} {what} from {name}." for what, count in counts.items() if count]


def _remove_damaged_embeddings(connection: apsw.Connection, keyring: KeyRing) -> int:
    damaged: list[tuple[int]] = []
    for rows in all_sealed_rows(connection, Table.EMBEDDING):
        damaged += [(row_id,) for row_id, _, _, _ in damaged_among(rows, Table.EMBEDDING, keyring.peek)]
    with connection:
        connection.executemany("DELETE FROM embedding WHERE id = ?", damaged)
    return len(damaged)


def accept_loss(data_dir: Path, *, now_ms: int) -> list[Loss]:
    """Let databases serve again that lost commits; what is gone is gone. Blocks.

    A database that lost its last commits goes on with what is left. A shard that is missing or cannot be read begins
    empty; its old file is kept under another name. Commit numbers, and so row ids, go on where they were, and index
    snapshots are removed, since both may know of what is lost.

    Args:
        data_dir: the directory. Copy it before, as long as somebody may want to look for the lost commits.
        now_ms: the time, for names and migrations.

    Raises:
        SetupError: the directory is in use, or meta.db itself is missing or cannot be read: only a backup helps then.
    """
    with locked(data_dir):
        try:
            finish_restore(data_dir)
            return list(_accept_losses(data_dir, now_ms=now_ms))
        except (apsw.Error, OSError) as error:
            raise SetupError(f"The loss in {data_dir} cannot be accepted: {error}.") from error


def _accept_losses(data_dir: Path, *, now_ms: int) -> list[Loss]:
    meta_path = data_dir / META_FILE
    if not meta_path.exists():
        raise SetupError("meta.db is missing; it holds the keys of all vaults.", hint="Restore a backup.")
    losses = [*_accept(meta_path, now_ms=now_ms, may_move=False)]
    meta = open_untouched(meta_path)
    try:
        shards = shard_count(meta)
    finally:
        meta.close(True)
    for shard in range(shards):
        losses += _accept(path_of_shard(data_dir, shard), now_ms=now_ms, may_move=True)
    if losses:
        drop_snapshots(data_dir)
        _reserve_vault_numbers(data_dir, shards, now_ms=now_ms)
        sync_directory(data_dir)
    return losses


def _accept(path: Path, *, now_ms: int, may_move: bool) -> list[Loss]:
    wanted = read_counter(counter_path(path)) or 0
    try:
        found = _commits_in(path)
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, FileNotFoundError):
        if not may_move:
            raise
        moved_to = _move_aside(path, now_ms=now_ms)
        with prepared(path, SHARD_MIGRATIONS, now_ms=now_ms):
            pass
        _set_commits(path, wanted)
        return [Loss(name=path.name, commits=wanted, moved_to=moved_to)]
    if found >= wanted:
        return []
    _set_commits(path, wanted)
    return [Loss(name=path.name, commits=wanted - found)]


def _commits_in(path: Path) -> int:
    if not path.exists():
        raise FileNotFoundError(path.name)
    connection = open_untouched(path)
    try:
        return commits_of(connection)
    finally:
        connection.close(True)


def _move_aside(path: Path, *, now_ms: int) -> str:
    """Rename a file and what belongs to it; its new name, or "" when it is not there."""
    name = f"{path.name}.damaged-{now_ms}"
    found = path.exists()
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(path.with_name(name + suffix))
    return name if found else ""


def _set_commits(path: Path, commits: int) -> None:
    """Go on counting from here, so that no row id is given out twice."""
    with writing(path) as connection:
        connection.execute("UPDATE commit_counter SET commits = ?", (commits,))
    write_counter(counter_path(path), commits)


def _reserve_vault_numbers(data_dir: Path, shards: int, *, now_ms: int) -> None:
    """New vaults must not get numbers of vaults that meta.db forgot: their rows may still be there."""
    highest = max((number for number, _ in read_ledger(data_dir / LEDGER_FILE).vaults), default=0)
    for shard in range(shards):
        with prepared(path_of_shard(data_dir, shard), SHARD_MIGRATIONS, now_ms=now_ms) as connection:
            highest = max(highest, highest_vault(connection))
    with writing(data_dir / META_FILE) as meta:
        if one_row(meta, "SELECT 1 FROM vault LIMIT 1") is not None:
            reserve_numbers(meta, "vault", highest)
