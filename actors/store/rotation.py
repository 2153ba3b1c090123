"""Which server key opens a data directory, and how it is exchanged for a new one.

Owns the two-key window: a new key's file is placed beside the old one as `server.key.new` before the one transaction
that wraps every data key and seals every provider key anew. Until that commits, the old key opens the directory,
afterwards the new one; the next start finds out which by the key id in meta.db, and clears the other away. Must never
delete the only key that opens anything.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import apsw
import msgspec

from actors.store.database import all_rows, one_row
from actors.store.progress import Report, unreported
from actors.store.provider_keys import reseal_all
from actors.store.seal import (
    KEY_BYTES,
    SERVER_KEY_FILE,
    WRAPPED_KEY_BYTES,
    ServerKey,
    load_server_key,
    sync_directory,
    write_key_file,
)
from models.errors import CorruptRow, SetupError


class Rotation(msgspec.Struct, frozen=True):
    """What a rotation did.

    Attributes:
        vaults: data keys that are wrapped by the new server key now.
        damaged: data keys that the old one does not open either; they stay as they are.
        provider_keys: providers' keys that are sealed by the new server key now.
        damaged_provider_keys: row numbers of those that the old one does not open either.
    """

    vaults: int
    damaged: tuple[int, ...]
    provider_keys: int = 0
    damaged_provider_keys: tuple[int, ...] = ()


def server_key_path(data_dir: Path, server_key_file: Path | None) -> Path:
    """Where the key's file is."""
    return server_key_file or data_dir / SERVER_KEY_FILE


def new_key_path(path: Path) -> Path:
    """Where the file of a new key waits for its transaction."""
    return path.with_name(f"{path.name}.new")


def resolve_server_key(meta: apsw.Connection, path: Path, given: bytes | None) -> ServerKey:
    """The server key, which must be the one that wrapped the keys in `meta`; before the first of them, any will do.

    Raises:
        SetupError: it is missing, unusable or the wrong one.
        OSError: what an interrupted rotation left cannot be cleared away.
    """
    wrapped = one_row(meta, "SELECT 1 FROM vault_key LIMIT 1") is not None
    if given is None:
        _finish_rotation(meta, path)
    key = ServerKey(given) if given is not None else load_server_key(path, may_create=not wrapped)
    if not wrapped:
        meta.execute("INSERT OR REPLACE INTO setting VALUES ('server_key_id', ?)", (key.key_id,))
    elif server_key_id(meta) != key.key_id:
        raise SetupError(
            "The server key is not the one that sealed this data directory.",
            hint="Put the right key back; without it nothing that is stored can be read.",
        )
    return key


def server_key_id(meta: apsw.Connection) -> Any:
    """The id of the server key that wrapped the keys in `meta`, or None."""
    row = one_row(meta, "SELECT value FROM setting WHERE name = 'server_key_id'")
    return None if row is None else row[0]


def _finish_rotation(meta: apsw.Connection, path: Path) -> None:
    """Of the two key files that a crash may leave, keep the one that opens `meta`, in its place."""
    waiting = new_key_path(path)
    if not waiting.exists():
        return
    if load_server_key(waiting, may_create=False).key_id == server_key_id(meta):
        os.replace(waiting, path)
    elif path.exists() and load_server_key(path, may_create=False).key_id == server_key_id(meta):
        waiting.unlink()
    sync_directory(path.parent)


def rewrap_all(meta: apsw.Connection, old: ServerKey, new: ServerKey, *, report: Report = unreported) -> Rotation:
    """Wrap data keys and provider keys by `new`, in one transaction, and empty the WAL. Blocks.

    It held the old ones. Rows are overwritten in place by as many bytes: see the schema.

    Args:
        report: told of how many vaults the keys are wrapped, and how many vaults there are.

    Raises:
        apsw.Error: nothing was changed.
    """
    damaged = []
    meta.execute("BEGIN IMMEDIATE")
    try:
        rows = all_rows(meta, "SELECT vault, wrapped FROM vault_key WHERE wrapped <> zeroblob(?)", (WRAPPED_KEY_BYTES,))
        rewrapped = []
        for place, (number, wrapped) in enumerate(rows, start=1):
            try:
                rewrapped.append((old.rewrap_data_key(number, wrapped, by=new), number))
            except CorruptRow:
                damaged.append(number)
            report(place, len(rows))
        meta.executemany("UPDATE vault_key SET wrapped = ? WHERE vault = ?", rewrapped)
        resealed = reseal_all(meta, old, new)
        meta.execute("INSERT OR REPLACE INTO setting VALUES ('server_key_id', ?)", (new.key_id,))
        meta.execute("COMMIT")
    except apsw.Error:
        if meta.in_transaction:
            meta.execute("ROLLBACK")
        raise
    meta.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    return Rotation(
        vaults=len(rewrapped),
        damaged=tuple(damaged),
        provider_keys=resealed.count,
        damaged_provider_keys=resealed.damaged,
    )


def exchange_server_key(
    meta: apsw.Connection, path: Path, *, given: bytes | None, new_secret: bytes | None, report: Report = unreported
) -> Rotation:
    """Wrap everything by a new server key and put its file in the old one's place. Blocks.

    Args:
        meta: the writing connection of meta.db, in a locked data directory.
        path: the key's file, of the old key if it has one, and of the new key unless `new_secret` is given.
        given: the old key, if it is not in the file.
        new_secret: the new key, if the operator keeps it elsewhere: then no file is written, and the old one goes.
        report: as of `rewrap_all`.

    Raises:
        SetupError: the old key is not the right one.
        apsw.Error, OSError: it failed; the old key still opens the directory, or the next start finishes the exchange.
    """
    old = resolve_server_key(meta, path, given)
    if new_secret is not None:
        rotation = rewrap_all(meta, old, ServerKey(new_secret), report=report)
        if given is None:
            path.unlink()
            sync_directory(path.parent)
        return rotation
    secret = os.urandom(KEY_BYTES)
    waiting = new_key_path(path)
    waiting.unlink(missing_ok=True)  # of a rotation that ended before its transaction
    write_key_file(waiting, secret)
    rotation = rewrap_all(meta, old, ServerKey(secret), report=report)
    os.replace(waiting, path)
    sync_directory(path.parent)
    return rotation
