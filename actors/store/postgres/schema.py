"""The schema of the database as numbered steps, what is fixed at the first start, and the check of the server key.

Owns the tables `migration` and `setting`. A step that was ever released is never edited: its checksum is compared at
every start. Nodes may start at the same time: each step begins with its row in `migration`, so one of them waits for
the other. Must never open a database that a newer version wrote, nor one that was sealed by another server key.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from actors.cluster.tables import ADD_PARTS, CLUSTER_TABLES
from actors.store.database import ConstraintViolated, StatementFailed, all_rows, one_row
from actors.store.migrations import Migration
from actors.store.postgres.connection import PostgresConnection
from actors.store.postgres.directory_tables import DIRECTORY_TABLES
from actors.store.postgres.vault_tables import VAULT_TABLES
from actors.store.seal import ServerKey, load_server_key
from models.errors import SetupError

POSTGRES_MIGRATIONS = (
    Migration(number=1, script=DIRECTORY_TABLES),
    Migration(number=2, script=";".join(CLUSTER_TABLES)),
    Migration(number=3, script=VAULT_TABLES),
)

_MIGRATION_TABLE = """CREATE TABLE IF NOT EXISTS migration(
  id bigint PRIMARY KEY, applied_ms bigint NOT NULL, checksum bytea NOT NULL)"""
_ATTEMPTS = 10
"""Of making the first table: two nodes that do so at the same time may disturb each other."""


class PreparedDatabase(msgspec.Struct, frozen=True):
    """A database that is ready to be served.

    Attributes:
        parts: how many partitions it has.
        server_key: the key that opens it.
    """

    parts: int
    server_key: ServerKey


def prepare_database(
    connection: PostgresConnection, *, parts: int, server_key_file: Path, server_key: bytes | None, now_ms: int
) -> PreparedDatabase:
    """Bring the database to the newest schema, and see that the server key is its own. Blocks.

    Args:
        parts: partitions of a new database; an existing one keeps its number.
        server_key_file: where the server key is, if it is not given. At the first start of the first node it is made.
        server_key: the key itself, or None.

    Raises:
        SetupError: the database is newer than this version, or was sealed by another server key; the key is missing.
        StatementFailed: it cannot be read or written.
    """
    migrate(connection, POSTGRES_MIGRATIONS, now_ms=now_ms)
    return PreparedDatabase(
        parts=_fixed_parts(connection, parts), server_key=_checked_server_key(connection, server_key_file, server_key)
    )


def migrate(connection: PostgresConnection, migrations: Sequence[Migration], *, now_ms: int) -> None:
    """Bring the database to the newest schema, one transaction a step.

    Raises:
        SetupError: it was written by a newer version, or by steps that differ from ours.
        StatementFailed: a step failed; it left nothing behind.
    """
    _make_migration_table(connection)
    while True:
        found: dict[int, bytes] = dict(all_rows(connection, "SELECT id, checksum FROM migration"))
        if max(found, default=0) > len(migrations):
            raise SetupError(
                f"The database has schema {max(found)}; this version knows {len(migrations)}.",
                hint="Start the version that wrote it, or a newer one.",
            )
        for migration in migrations:
            if found.get(migration.number, migration.checksum) != migration.checksum:
                raise SetupError(
                    f"Migration {migration.number} of the database is not the one this version knows.",
                    hint="The database was written by a development version; restore it from an export.",
                )
        missing = [migration for migration in migrations if migration.number not in found]
        if not missing:
            return
        _apply(connection, missing[0], now_ms=now_ms)


def _make_migration_table(connection: PostgresConnection) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            connection.execute(_MIGRATION_TABLE)
        except StatementFailed:
            if connection.closed or attempt == _ATTEMPTS - 1:
                raise
        else:
            return


def _apply(connection: PostgresConnection, migration: Migration, *, now_ms: int) -> None:
    connection.execute("BEGIN")
    try:
        row = (migration.number, now_ms, migration.checksum)
        connection.execute("INSERT INTO migration VALUES (?, ?, ?)", row)  # first: another node may be at it
        connection.run_script(migration.script)
        connection.commit()
    except StatementFailed as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if not isinstance(error, ConstraintViolated):
            raise


def _fixed_parts(connection: PostgresConnection, parts: int) -> int:
    """How many partitions there are; made, all together, at the first start."""
    connection.execute("BEGIN")
    connection.execute("INSERT INTO setting VALUES ('parts', ?) ON CONFLICT DO NOTHING", (str(parts),))
    if connection.changes():
        connection.execute(ADD_PARTS, (parts,))
    connection.commit()
    return int(_setting(connection, "parts") or 0)


def _checked_server_key(connection: PostgresConnection, path: Path, given: bytes | None) -> ServerKey:
    """The server key of the database. The first node that comes decides which that is, before anything is sealed."""
    known = _setting(connection, "server_key_id")
    key = ServerKey(given) if given is not None else load_server_key(path, may_create=known is None)
    if known is None:
        row = ("server_key_id", key.key_id.hex())
        connection.execute("INSERT INTO setting VALUES (?, ?) ON CONFLICT DO NOTHING", row)
        known = _setting(connection, "server_key_id")
    if known != key.key_id.hex():
        raise SetupError(
            "The server key is not the one that sealed this database.",
            hint="Every node needs the same one: copy it from the node that was started first.",
        )
    return key


def _setting(connection: PostgresConnection, name: str) -> str | None:
    row = one_row(connection, "SELECT value FROM setting WHERE name = ?", (name,))
    return None if row is None else str(row[0])
