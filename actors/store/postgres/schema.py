"""The schema of the database as numbered steps, what is fixed at the first start, and the check of the server key.

Owns the tables `migration` and `setting`. A step that was ever released is never edited: its checksum is compared at
every start. Nodes may start at the same time: each step begins with its row in `migration`, so one of them waits for
the other. A step is taken only while no node lives, and fences off what one of them may still have under way: an older
version must not write into tables that have changed under it. Must never open a database that a newer version wrote,
nor one that was sealed by another server key.
"""

from __future__ import annotations

import time
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
_CLUSTER_STEP = 2
"""Made the tables of nodes and partitions."""
_LEASE_LEFT_S_MAX = 60.0
_LEASE_MARGIN_S = 0.5
_LOOK_S = 0.1
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
        SetupError: it was written by a newer version, or by steps that differ from ours; or nodes run on it.
        StatementFailed: a step failed; it left nothing behind.
    """
    _make_migration_table(connection)
    gives_up_s = None
    while True:
        refuse_newer(connection, known=len(migrations))
        found: dict[int, bytes] = dict(all_rows(connection, "SELECT id, checksum FROM migration"))
        for migration in migrations:
            if found.get(migration.number, migration.checksum) != migration.checksum:
                raise SetupError(
                    f"Migration {migration.number} of the database is not the one this version knows.",
                    hint="The database was written by a development version; restore it from an export.",
                )
        missing = [migration for migration in migrations if migration.number not in found]
        if not missing:
            return
        living = _living(connection) if _CLUSTER_STEP in found else []
        if not living:
            _apply(connection, missing[0], now_ms=now_ms, with_nodes=_CLUSTER_STEP in found)
            continue
        # One that was killed, perhaps this one itself, has a lease that nobody renews; its end is waited for.
        left_s = min(_LEASE_LEFT_S_MAX, max(left_s for _, left_s in living))
        gives_up_s = gives_up_s or time.monotonic() + left_s + _LEASE_MARGIN_S
        if time.monotonic() > gives_up_s:
            raise _nodes_live(living)
        time.sleep(min(left_s, _LOOK_S))


def refuse_newer(connection: PostgresConnection, *, known: int = len(POSTGRES_MIGRATIONS)) -> None:
    """Nothing, unless a newer version has changed the tables.

    Args:
        known: the newest step of this version.

    Raises:
        SetupError: it has.
    """
    (newest,) = one_row(connection, "SELECT coalesce(max(id), 0) FROM migration")
    if newest > known:
        raise SetupError(
            f"The database has schema {newest}; this version knows {known}.",
            hint="Start the version that wrote it, or a newer one.",
        )


def _living(connection: PostgresConnection) -> list[tuple[str, float]]:
    """Nodes whose leases last, and for how many seconds more."""
    left = "extract(epoch FROM expires_at - clock_timestamp())::float8"
    return all_rows(connection, f"SELECT node_id, {left} FROM node WHERE expires_at > clock_timestamp() ORDER BY 1")


def _nodes_live(living: Sequence[tuple[str, float]]) -> SetupError:
    names = ", ".join(name for name, _ in living[:5])
    return SetupError(
        f"This version changes the database's tables, and other servers run on it: {names}.",
        hint="Stop all of them first; see docs/scale-out.md, rolling upgrade.",
    )


def _make_migration_table(connection: PostgresConnection) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            connection.execute(_MIGRATION_TABLE)
        except StatementFailed:
            if connection.closed or attempt == _ATTEMPTS - 1:
                raise
        else:
            return


def _apply(connection: PostgresConnection, migration: Migration, *, now_ms: int, with_nodes: bool) -> None:
    connection.execute("BEGIN")
    try:
        row = (migration.number, now_ms, migration.checksum)
        connection.execute("INSERT INTO migration VALUES (?, ?, ?)", row)  # first: another node may be at it
        if with_nodes:
            _shut_out_nodes(connection)
        connection.run_script(migration.script)
        connection.commit()
    except StatementFailed as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if not isinstance(error, ConstraintViolated):
            raise
    except SetupError:
        connection.execute("ROLLBACK")
        raise


def _shut_out_nodes(connection: PostgresConnection) -> None:
    """No node joins until this transaction ends (then it looks at the schema), and what a frozen one had under way is
    fenced off: it owns nothing when it wakes.

    Raises:
        SetupError: one has just joined.
    """
    connection.execute("LOCK TABLE node IN SHARE MODE")
    living = _living(connection)
    if living:
        raise _nodes_live(living)
    connection.execute("UPDATE part SET owner = NULL, epoch = epoch + 1")


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
