"""Background scrub: every sealed row of a shard is opened once in a while, so that damage is found before it is needed.

Owns the place in the pass and its pace. Lives in the committer's thread, between group commits, a few rows at a time on
a reading connection of its own. Must never write, and never keep a snapshot of the database longer than a slice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import apsw

from actors.store.connections import close
from actors.store.damage import ROW_IDS_LOGGED_MAX
from actors.store.database import all_rows, one_row
from actors.store.keyring import OpenVault
from actors.store.seal import Table
from models.errors import MemoryRouterError

SLICE_ROWS = 64
SLICE_BYTES = 1024 * 1024
"""A slice ends after so many rows or bytes: about a millisecond."""
START_S = 60.0
"""Quiet time after the start, which has better things to do."""
PAUSE_MIN_S = 0.02
SLICES_MIN = 3  # one a table
_PAGES_IN_A_SLICE = 12  # 64 embeddings of 0.8 kB; 64 memories take some more

_QUERIES = {
    Table.MEMORY: "SELECT id, id >> 32, 0, body FROM memory WHERE id > ? ORDER BY id",
    Table.EMBEDDING: "SELECT id, id >> 32, model, body FROM embedding WHERE id > ? ORDER BY id",
    Table.INBOX: "SELECT id, vault, 0, body FROM inbox WHERE id > ? ORDER BY id",
}
_NEXT = {Table.MEMORY: Table.EMBEDDING, Table.EMBEDDING: Table.INBOX, Table.INBOX: None}

Row = tuple[int, int, int, bytes]
"""Row id, vault number, qualifier, sealed body."""

_log = logging.getLogger(__name__)


def sealed_rows(connection: apsw.Connection, table: Table, after: int) -> tuple[list[Row], bool]:
    """A slice of a table: the next rows after a row id, and whether the table ends with them."""
    rows: list[Row] = []
    size_bytes = 0
    with closing(connection.execute(_QUERIES[table], (after,))) as cursor:
        for row_id, vault_number, qualifier, body in cursor:
            rows.append((row_id, vault_number, qualifier, body))
            size_bytes += len(body)
            if len(rows) >= SLICE_ROWS or size_bytes >= SLICE_BYTES:
                return rows, False
    return rows, True


def all_sealed_rows(connection: apsw.Connection, table: Table) -> Iterator[list[Row]]:
    """All rows of a table, slice by slice."""
    after, at_end = -1, False
    while not at_end:
        rows, at_end = sealed_rows(connection, table, after)
        if rows:
            after = rows[-1][0]
            yield rows


def damaged_among(rows: list[Row], table: Table, find_vault: Callable[[int], OpenVault | None]) -> Iterator[Row]:
    """Those rows of live vaults that do not open. Rows of other vaults are not looked at: nothing opens them.

    Raises:
        MemoryRouterError: a vault's own key cannot be read, or does not open.
    """
    vaults: dict[int, OpenVault | None] = {}
    for row in rows:
        row_id, vault_number, qualifier, body = row
        if vault_number not in vaults:
            vaults[vault_number] = find_vault(vault_number)
        vault = vaults[vault_number]
        if vault is None:
            continue
        damaged: list[int] = []
        for _ in vault.data_key.unseal_rows(table, ((row_id, body),), qualifier=qualifier, damaged=damaged):
            pass
        if damaged:
            yield row


class Scrub:
    """One shard's passes over its rows, one after the other, each spread over `interval_s`.

    Implements `actors.store.committer.IdleWork`.
    """

    __slots__ = (
        "_connection",
        "_counters",
        "_damaged_now",
        "_find_vault",
        "_interval_s",
        "_name",
        "_open_connection",
        "_pass_began_s",
        "_row_id",
        "_slices_last",
        "_slices_now",
        "_table",
        "due_s",
    )

    def __init__(
        self,
        name: str,
        open_connection: Callable[[], apsw.Connection],
        find_vault: Callable[[int], OpenVault | None],
        *,
        interval_s: float,
    ) -> None:
        self._name = name
        self._open_connection = open_connection
        self._find_vault = find_vault
        self._interval_s = interval_s
        self._connection: apsw.Connection | None = None
        self._table: Table | None = Table.MEMORY
        self._row_id = -1
        self._damaged_now = self._slices_now = self._slices_last = 0
        self._counters = {"scrub_rows": 0, "scrub_passes": 0, "scrub_damaged_rows": 0}
        self.due_s = self._pass_began_s = time.monotonic() + min(START_S, interval_s)

    def do_slice(self) -> None:
        """Verify the next rows, and be due again when the pace says so."""
        try:
            if self._connection is None:
                self._connection = self._open_connection()
            self._verify(self._connection)
            pause_s = self._pause_s(self._connection)
        except (apsw.Error, MemoryRouterError) as error:
            _log.error("%s: the scrub cannot read: %s; it goes on later", self._name, type(error).__name__)
            self.close()
            pause_s = min(START_S, self._interval_s)
        if self._table is None:
            self._end_pass()
        else:
            self.due_s = time.monotonic() + pause_s

    def _verify(self, connection: apsw.Connection) -> None:
        assert self._table is not None, "a pass that ended begins anew"
        table = self._table
        rows, at_end = sealed_rows(connection, table, self._row_id)
        self._counters["scrub_rows"] += len(rows)
        self._slices_now += 1
        if at_end:
            self._table, self._row_id = _NEXT[table], -1
        else:
            self._row_id = rows[-1][0]  # now: a slice that fails is passed over, not repeated
        for row in damaged_among(rows, table, self._find_vault):
            if _is_there_still(connection, table, row):
                self._note(table, row)

    def _note(self, table: Table, row: Row) -> None:
        row_id, vault_number, _, _ = row
        self._damaged_now += 1
        if self._damaged_now <= ROW_IDS_LOGGED_MAX:
            _log.critical(
                "%s: row %d of %s in vault %d is damaged", self._name, row_id, table.name.lower(), vault_number
            )

    def _pause_s(self, connection: apsw.Connection) -> float:
        """So long that a pass takes about `interval_s`: by the slices of the last one, or else by the file's size."""
        slices = self._slices_last
        if not slices:
            (pages,) = one_row(connection, "PRAGMA page_count")
            slices = SLICES_MIN + pages // _PAGES_IN_A_SLICE
        return max(PAUSE_MIN_S, self._interval_s / (slices + 1))

    def _end_pass(self) -> None:
        if self._damaged_now:
            _log.critical("%s: the scrub found %d damaged rows", self._name, self._damaged_now)
        self._counters["scrub_passes"] += 1
        self._counters["scrub_damaged_rows"] = self._damaged_now
        self._slices_last, self._slices_now, self._damaged_now = self._slices_now, 0, 0
        self._table = Table.MEMORY
        self._pass_began_s = max(time.monotonic(), self._pass_began_s + self._interval_s)
        self.due_s = self._pass_began_s

    def statistics(self) -> dict[str, Any]:
        """Rows read and passes done since the start, and damaged rows: of this pass so far, or of the last one."""
        found = max(self._damaged_now, self._counters["scrub_damaged_rows"])
        return {**self._counters, "scrub_damaged_rows": found}

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            close(connection)


def _is_there_still(connection: apsw.Connection, table: Table, row: Row) -> bool:
    """Whether a row that does not open is still as it was read: it may have gone with its vault meanwhile."""
    return all_rows(connection, f"SELECT body FROM {table.name.lower()} WHERE id = ?", (row[0],)) == [(row[3],)]
