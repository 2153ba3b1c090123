"""What the doctor looks at: a database's counter, schema, structure and sealed rows, and what the findings are called.

Reads only, on connections that leave every file as it is, also beside a running server. Must never stop at the first
fault, and never show content.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

import apsw
import msgspec

from actors.store.counter import counter_path, read_counter
from actors.store.damage import ROW_IDS_LOGGED_MAX
from actors.store.data_directory import commits_of, open_untouched
from actors.store.database import all_rows, one_row
from actors.store.keyring import OpenVault
from actors.store.migrations import Migration, schema_version
from actors.store.orphans import count_loose_embeddings, orphaned_vaults
from actors.store.scrub import all_sealed_rows, damaged_among
from actors.store.seal import Table
from models.errors import CorruptRow

Severity = Literal["damage", "warning", "note"]
Find = Callable[[int], OpenVault | None]


class Finding(msgspec.Struct, frozen=True):
    """One thing that the doctor found.

    Attributes:
        severity: `damage` when something acknowledged may be lost or unreadable.
        where: the file.
        what: a sentence, without content.
        remedy: what to do about it, or "".
        repairable: whether `repair` does it.
    """

    severity: Severity
    where: str
    what: str
    remedy: str = ""
    repairable: bool = False


class DatabaseReport(msgspec.Struct, frozen=True):
    """What one database holds.

    Attributes:
        rows_verified: sealed rows that were opened, by table.
    """

    name: str
    schema: int
    commits: int
    rows_verified: dict[str, int]


def look_at(path: Path, migrations: Sequence[Migration], findings: list[Finding]) -> apsw.Connection | None:
    """Open a database and check its counter, its schema and its structure; None when it cannot be read at all."""
    wanted = read_counter(counter_path(path))  # first: a running server only ever adds to the database
    if not path.exists():
        findings.append(Finding("damage", path.name, "The file is missing.", _ACCEPT))
        return None
    connection = open_untouched(path)
    try:
        commits = commits_of(connection)
        findings += _counter_findings(path.name, commits, wanted)
        schema = schema_version(connection)
        if schema > len(migrations):
            what = f"Its schema is {schema}; this version knows {len(migrations)}."
            findings.append(Finding("damage", path.name, what, "Use the version that wrote it, or a newer one."))
            connection.close(True)
            return None
        if schema < len(migrations):
            what = f"Its schema is {schema}; the next start brings it to {len(migrations)}."
            findings.append(Finding("note", path.name, what))
        findings += [
            Finding("damage", path.name, f"Its structure is damaged: {verdict}.", "Restore a backup.")
            for (verdict,) in all_rows(connection, "PRAGMA integrity_check(10)")
            if verdict != "ok"
        ]
    except apsw.Error as error:
        connection.close(True)
        what = f"It cannot be read: {type(error).__name__}."
        findings.append(Finding("damage", path.name, what, _ACCEPT))
        return None
    return connection


_ACCEPT = "Restore a backup, or accept the loss."


def _counter_findings(name: str, commits: int, wanted: int | None) -> Iterator[Finding]:
    if wanted is None:
        what = "It has no valid commit counter beside it."
        yield Finding("warning", name, what, "The next start, or a repair, makes one.", repairable=True)
    elif commits < wanted:
        what = f"{wanted - commits} durable commits are missing: it holds {commits} of {wanted}. It refuses to serve."
        yield Finding("damage", name, what, _ACCEPT)


def describe(path: Path, connection: apsw.Connection, rows: dict[str, int]) -> DatabaseReport:
    """The report on a database that could be read."""
    return DatabaseReport(
        name=path.name, schema=schema_version(connection), commits=commits_of(connection), rows_verified=rows
    )


def examine_shard(
    path: Path,
    connection: apsw.Connection,
    findings: list[Finding],
    *,
    vaults: Collection[int],
    find_vault: Find | None,
    opened: Callable[[int], None] = lambda _: None,
) -> DatabaseReport:
    """Open every sealed row of a shard, and count what belongs to nobody.

    Args:
        path: its file.
        connection: to it, from `look_at`.
        findings: gets what is wrong.
        vaults: numbers of all vaults in meta.db.
        find_vault: the live vault of a number; None leaves the rows unopened.
        opened: told of every few rows how many bytes they have.
    """
    name = path.name
    rows: dict[str, int] = {}
    try:
        orphans = orphaned_vaults(connection, vaults)
        if orphans:
            what = f"It has rows of {len(orphans)} vaults that do not exist."
            findings.append(Finding("warning", name, what, "A repair removes them.", repairable=True))
        loose = count_loose_embeddings(connection)
        if loose:
            what = f"{loose} embeddings have no memory."
            findings.append(Finding("note", name, what, "A repair removes them.", repairable=True))
        aside = one_row(connection, "SELECT count(*) FROM damaged_inbox")[0] if schema_version(connection) > 1 else 0
        if aside:
            what = f"{aside} inbox rows were set aside: damaged ones, and ones that no vault could take in."
            findings.append(Finding("warning", name, what, "They are kept; a backup may hold damaged ones whole."))
        if find_vault is not None:
            for table in Table:
                rows[table.name.lower()] = _verify_rows(name, connection, table, find_vault, findings, opened)
    except apsw.Error as error:
        what = f"Reading stopped half-way: {type(error).__name__}."
        findings.append(Finding("damage", name, what, "Restore a backup."))
    return describe(path, connection, rows)


def _verify_rows(
    name: str,
    connection: apsw.Connection,
    table: Table,
    find_vault: Find,
    findings: list[Finding],
    opened: Callable[[int], None],
) -> int:
    verified = 0
    damaged: list[str] = []
    unopened: set[int] = set()

    def find(number: int) -> OpenVault | None:
        try:
            return find_vault(number)
        except CorruptRow:
            unopened.add(number)
            return None

    for rows in all_sealed_rows(connection, table):
        verified += len(rows)
        damaged += [f"{row_id} in vault {vault}" for row_id, vault, _, _ in damaged_among(rows, table, find)]
        opened(sum(len(body) for _, _, _, body in rows))
    if damaged:
        shown = ", ".join(damaged[:ROW_IDS_LOGGED_MAX]) + (", ..." if len(damaged) > ROW_IDS_LOGGED_MAX else "")
        what = f"{len(damaged)} rows of {table.name.lower()} fail their checksum: {shown}."
        findings.append(Finding("damage", name, what, _REMEDIES[table], repairable=table is Table.EMBEDDING))
    if unopened:
        shown = ", ".join(map(str, sorted(unopened)[:ROW_IDS_LOGGED_MAX]))
        what = f"The data keys of {len(unopened)} vaults with rows of {table.name.lower()} do not open: {shown}."
        findings.append(Finding("damage", name, what, "Restore a backup; nothing else opens these vaults."))
    return verified


_REMEDIES = {
    Table.MEMORY: "They are left out and kept; a backup may hold them whole.",
    Table.INBOX: "They are set aside when their vault is loaded; a backup may hold them whole.",
    Table.EMBEDDING: "A repair removes them; they are computed again.",
}
