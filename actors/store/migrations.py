"""The schema of both kinds of database, as numbered steps, and how a file gets from one step to the next.

Owns `PRAGMA user_version` and the table `migration`. A step that was ever released is never edited: its
checksum is compared at every start. Must never open a file that a newer version wrote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import apsw
import msgspec

from actors.store.database import all_rows, one_row
from models.errors import SetupError


class Migration(msgspec.Struct, frozen=True):
    """One step. `number` counts from 1 without holes; `script` runs in one transaction."""

    number: int
    script: str

    @property
    def checksum(self) -> bytes:
        """SHA-256 of the script."""
        return hashlib.sha256(self.script.encode()).digest()


META_MIGRATIONS = (
    Migration(
        number=1,
        script="""
CREATE TABLE commit_counter(one INTEGER PRIMARY KEY CHECK (one = 1), commits INTEGER NOT NULL) STRICT;
INSERT INTO commit_counter VALUES (1, 0);
CREATE TABLE setting(name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE account(number INTEGER PRIMARY KEY AUTOINCREMENT, created_ms INTEGER NOT NULL) STRICT;
CREATE TABLE vault(
  number INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice: it is the upper half of row ids
  account INTEGER NOT NULL REFERENCES account(number),
  shard INTEGER NOT NULL,
  state INTEGER NOT NULL DEFAULT 0 CHECK (state IN (0, 1, 2)),  -- live, shredded, rows removed too
  created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX vault_shredded ON vault(number) WHERE state = 1;
-- Rows are appended and overwritten in place by zeros of the same length, never deleted or resized: SQLite
-- moves cells between pages when it balances a tree, and the gap that a moved cell leaves is not cleared,
-- even by secure_delete.
CREATE TABLE vault_key(vault INTEGER PRIMARY KEY, wrapped BLOB NOT NULL) STRICT;
CREATE TABLE key(
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  account INTEGER NOT NULL REFERENCES account(number),
  vault INTEGER NOT NULL REFERENCES vault(number),
  kind TEXT NOT NULL CHECK (kind IN ('account', 'user')),
  name TEXT NOT NULL,
  shown TEXT NOT NULL,
  hash BLOB NOT NULL UNIQUE,
  created_ms INTEGER NOT NULL,
  revoked_ms INTEGER
) STRICT;
CREATE INDEX key_vault ON key(vault);
CREATE INDEX key_account ON key(account);
""",
    ),
    Migration(
        number=2,
        script="""
-- When each vault was shredded; with the vault's own row, what the erasure ledger holds outside.
CREATE TABLE erasure(vault INTEGER PRIMARY KEY REFERENCES vault(number), erased_ms INTEGER NOT NULL) STRICT;
INSERT INTO erasure SELECT number, created_ms FROM vault WHERE state <> 0;
""",
    ),
    Migration(
        number=3,
        script="""
ALTER TABLE account ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE account ADD COLUMN disabled_ms INTEGER;
ALTER TABLE account ADD COLUMN deleted_ms INTEGER;
ALTER TABLE account ADD COLUMN retention_days INTEGER;
ALTER TABLE vault ADD COLUMN retention_days INTEGER;
ALTER TABLE key ADD COLUMN disabled_ms INTEGER;
ALTER TABLE key ADD COLUMN expires_ms INTEGER;
ALTER TABLE key ADD COLUMN last_used_ms INTEGER;
ALTER TABLE key ADD COLUMN rotated_to INTEGER REFERENCES key(number);  -- then expires_ms is the end of its grace period
ALTER TABLE key ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';  -- JSON of models.key_limits.KeyLimits
CREATE INDEX vault_account ON vault(account) WHERE state = 0;
CREATE INDEX key_state ON key(account, revoked_ms, rotated_to, expires_ms);
CREATE INDEX key_of_account ON key(account) WHERE kind = 'account';
CREATE INDEX key_rotated ON key(rotated_to) WHERE rotated_to IS NOT NULL;
-- One row for each account and provider, used again by the next key: see actors/store/provider_keys.py.
CREATE TABLE provider_key(
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  account INTEGER NOT NULL REFERENCES account(number),
  provider TEXT NOT NULL,
  last_four TEXT NOT NULL,
  mark BLOB NOT NULL,  -- random, another one for each key: what the erasure ledger knows it by
  created_ms INTEGER NOT NULL,
  erased_ms INTEGER,
  UNIQUE (account, provider)
) STRICT;
-- As vault_key: rows are appended and overwritten in place by as many bytes, never deleted or resized.
CREATE TABLE provider_secret(provider_key INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
CREATE TABLE provider_erasure(mark BLOB PRIMARY KEY, erased_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE audit(
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ms INTEGER NOT NULL,
  account INTEGER,  -- whom it concerns; NULL: the whole server
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  detail TEXT NOT NULL,
  request_id TEXT
) STRICT;
CREATE INDEX audit_account ON audit(account);
CREATE TABLE usage(
  account INTEGER NOT NULL,
  day INTEGER NOT NULL,  -- since the Unix epoch, UTC
  key INTEGER NOT NULL,
  model TEXT NOT NULL,
  requests INTEGER NOT NULL,
  memories_stored INTEGER NOT NULL,
  tokens_retrieved INTEGER NOT NULL,
  tokens_injected INTEGER NOT NULL,
  tokens_billed INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  errors INTEGER NOT NULL,
  latency_ms_sum INTEGER NOT NULL,
  PRIMARY KEY (account, day, key, model)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_key ON usage(account, key, day);
-- How far each journal of counts is folded in: what makes adding them happen once.
CREATE TABLE usage_fold(journal TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID;
""",
    ),
    Migration(
        number=4,
        script="""
-- Lists are read along one index each, which also holds what they are searched and filtered by: what does not fit is
-- passed over without its row. The indexes that go are the beginnings of those that come.
DROP INDEX key_account;
CREATE INDEX key_listed ON key(account, number, revoked_ms, rotated_to, expires_ms, name);
DROP INDEX audit_account;
CREATE INDEX audit_listed ON audit(account, number, at_ms, actor, action, target);
CREATE INDEX audit_target ON audit(account, target);
-- How many keys of a vault are neither revoked nor rotated, exact because it changes with the keys themselves. Where
-- there is none, only a grace period can still keep the vault open, and that is looked up for the few such vaults.
ALTER TABLE vault ADD COLUMN open_keys INTEGER NOT NULL DEFAULT 0;
UPDATE vault SET open_keys =
  (SELECT count(*) FROM key WHERE key.vault = vault.number AND revoked_ms IS NULL AND rotated_to IS NULL);
CREATE INDEX vault_kept ON vault(account) WHERE state = 0 AND open_keys = 0;
CREATE TRIGGER key_added AFTER INSERT ON key WHEN new.revoked_ms IS NULL AND new.rotated_to IS NULL BEGIN
  UPDATE vault SET open_keys = open_keys + 1 WHERE number = new.vault;
END;
CREATE TRIGGER key_changed AFTER UPDATE OF vault, revoked_ms, rotated_to ON key BEGIN
  UPDATE vault SET open_keys = open_keys
    - (number = old.vault AND old.revoked_ms IS NULL AND old.rotated_to IS NULL)
    + (number = new.vault AND new.revoked_ms IS NULL AND new.rotated_to IS NULL)
  WHERE number IN (old.vault, new.vault);
END;
""",
    ),
    Migration(
        number=5,
        script="""
-- Where several processes write this file: which of all changes to what they keep in memory was the last one, and the
-- number of the last commit of each of them, by which one whose COMMIT failed finds out whether it took effect.
CREATE TABLE directory_state(one INTEGER PRIMARY KEY CHECK (one = 1), changes INTEGER NOT NULL) STRICT;
INSERT INTO directory_state VALUES (1, 0);
CREATE TABLE directory_writer(name TEXT PRIMARY KEY, commits INTEGER NOT NULL) STRICT, WITHOUT ROWID;
""",
    ),
)

SHARD_MIGRATIONS = (
    Migration(
        number=1,
        script="""
CREATE TABLE commit_counter(one INTEGER PRIMARY KEY CHECK (one = 1), commits INTEGER NOT NULL) STRICT;
INSERT INTO commit_counter VALUES (1, 0);
-- id = (commit number << 20) | place in the commit: grows in commit order and is never used twice.
CREATE TABLE inbox(id INTEGER PRIMARY KEY, vault INTEGER NOT NULL, body BLOB NOT NULL) STRICT;
CREATE INDEX inbox_vault ON inbox(vault);
-- id = (vault number << 32) | seq: one vault is one range of the tree.
CREATE TABLE memory(id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE embedding(id INTEGER PRIMARY KEY, model INTEGER NOT NULL, body BLOB NOT NULL) STRICT;
CREATE TABLE vault_state(vault INTEGER PRIMARY KEY, next_seq INTEGER NOT NULL) STRICT;
CREATE TABLE model(number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, dims INTEGER NOT NULL) STRICT;
""",
    ),
    Migration(
        number=2,
        script="""
-- Inbox rows that fail their checksum, as they are: out of the way, but never thrown away.
CREATE TABLE damaged_inbox(
  id INTEGER PRIMARY KEY, vault INTEGER NOT NULL, body BLOB NOT NULL, set_aside_ms INTEGER NOT NULL
) STRICT;
""",
    ),
    Migration(
        number=3,
        script="""
-- From here on the body of a memory is an array (actors/store/memory_rows.py); those that are there stay maps. No row
-- is rewritten, but programs that read maps only would leave new rows out as damaged, so they must refuse the file.
""",
    ),
    Migration(
        number=4,
        script="""
-- The name of the embedder that a vault remembers; until now there was one only.
ALTER TABLE vault_state ADD COLUMN embedder TEXT;
UPDATE vault_state SET embedder = 'all-MiniLM-L6-v2';
-- 1 from the choice of another one until no vector of the old model is left.
ALTER TABLE vault_state ADD COLUMN moves INTEGER NOT NULL DEFAULT 0 CHECK (moves IN (0, 1));
CREATE INDEX vault_moves ON vault_state(vault) WHERE moves = 1;
""",
    ),
    Migration(
        number=5,
        script="""
-- How much each vault holds, exact because it changes with the rows themselves. `memory` has no INSERT OR REPLACE: that
-- would remove a row without its trigger.
ALTER TABLE vault_state ADD COLUMN memories INTEGER NOT NULL DEFAULT 0;
ALTER TABLE vault_state ADD COLUMN content_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE vault_state SET
  memories = (SELECT count(*) FROM memory WHERE id BETWEEN vault << 32 AND vault << 32 | 0xFFFFFFFF),
  content_bytes = (
    SELECT coalesce(sum(length(body)), 0) FROM memory WHERE id BETWEEN vault << 32 AND vault << 32 | 0xFFFFFFFF
  );
CREATE TRIGGER memory_added AFTER INSERT ON memory BEGIN
  INSERT INTO vault_state(vault, next_seq, memories, content_bytes) VALUES (new.id >> 32, 1, 1, length(new.body))
  ON CONFLICT(vault) DO UPDATE SET memories = memories + 1, content_bytes = content_bytes + excluded.content_bytes;
END;
CREATE TRIGGER memory_changed AFTER UPDATE OF body ON memory BEGIN
  UPDATE vault_state SET content_bytes = content_bytes + length(new.body) - length(old.body) WHERE vault = new.id >> 32;
END;
CREATE TRIGGER memory_removed AFTER DELETE ON memory BEGIN
  UPDATE vault_state SET memories = memories - 1, content_bytes = content_bytes - length(old.body)
  WHERE vault = old.id >> 32;
END;
""",
    ),
)


def schema_version(connection: apsw.Connection) -> int:
    """The number of the last migration that ran; 0 for an empty file."""
    return int(one_row(connection, "PRAGMA user_version")[0])


def migrate(connection: apsw.Connection, migrations: Sequence[Migration], *, now_ms: int) -> None:
    """Bring one database to the newest schema, one transaction a step.

    Raises:
        SetupError: the file was written by a newer version, or by steps that differ from ours.
    """
    version = schema_version(connection)
    if version > len(migrations):
        raise SetupError(
            f"{connection.filename} has schema {version}; this version knows {len(migrations)}.",
            hint="Start the version that wrote it, or a newer one.",
        )
    if version:
        _compare_checksums(connection, migrations[:version])
    for migration in migrations[version:]:
        _apply(connection, migration, now_ms=now_ms)


def _compare_checksums(connection: apsw.Connection, applied: Sequence[Migration]) -> None:
    found = dict(all_rows(connection, "SELECT id, checksum FROM migration"))
    for migration in applied:
        if found.get(migration.number) != migration.checksum:
            raise SetupError(
                f"Migration {migration.number} of {connection.filename} is not the one this version knows.",
                hint="The file was written by a development version; restore it from an export.",
            )


def _apply(connection: apsw.Connection, migration: Migration, *, now_ms: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migration("
            "id INTEGER PRIMARY KEY, applied_ms INTEGER NOT NULL, checksum BLOB NOT NULL) STRICT"
        )
        connection.execute(migration.script)
        connection.execute("INSERT INTO migration VALUES (?, ?, ?)", (migration.number, now_ms, migration.checksum))
        connection.execute(f"PRAGMA user_version = {migration.number:d}")
        connection.execute("COMMIT")
    except apsw.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
