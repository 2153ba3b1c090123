"""The directory of a store in SQL: meta.db of SQLite, some tables of PostgreSQL.

Writes are jobs of one committer, each with its audit entry; look-ups of keys are cached. The parts: accounts and
keys, vaults and provider keys, and here usage and the audit log. See `actors.store.directory_protocol`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from actors.store import usage_rows
from actors.store.audit import add_entry, list_entries, trim_entries
from actors.store.database import Connection
from actors.store.directory_keys import SqlKeys
from actors.store.directory_protocol import PAGE_MAX
from actors.store.directory_vaults import SqlVaults
from actors.store.meta_jobs import Effects
from models.accounts import EVERY_ENTRY, Actor, AuditEntry, AuditFilter
from models.usage import UsageCount


class SqlDirectory(SqlKeys, SqlVaults):
    """Implements `actors.store.directory_protocol.Directory`."""

    __slots__ = ()

    async def audit(
        self,
        *,
        at_ms: int,
        account_number: int | None,
        action: str,
        target: str,
        by: Actor,
        detail: Mapping[str, str | int | None] | None = None,
    ) -> None:
        """Add an entry for something that changes nothing else here."""

        def work(connection: Connection, _effects: Effects) -> None:
            add_entry(connection, action, target, at_ms=at_ms, account=account_number, by=by, detail=detail)

        await self._change(work)

    async def list_audit(
        self,
        account_number: int | None = None,
        *,
        before: int | None = None,
        limit: int = PAGE_MAX,
        only: AuditFilter = EVERY_ENTRY,
    ) -> list[AuditEntry]:
        """Entries that concern one account, or all, the newest first; see the protocol."""
        return await self._read_meta(
            partial(list_entries, account=account_number, before=before, limit=limit, only=only)
        )

    async def trim_audit(self, *, before_ms: int, limit: int = PAGE_MAX) -> int:
        """Delete the oldest entries; see the protocol."""

        def work(connection: Connection, _effects: Effects) -> int:
            return trim_entries(connection, before_ms=before_ms, limit=limit)

        return await self._change(work)

    async def fold_usage(
        self, journal: str, number: int, counts: Sequence[UsageCount], last_used: Mapping[int, int]
    ) -> None:
        """Add what a journal file counted, once; see the protocol."""

        def work(connection: Connection, _effects: Effects) -> None:
            usage_rows.fold_usage(connection, journal, number, counts, last_used)

        await self._change(work, grows=True)

    async def folded_through(self, journal: str) -> int:
        """The highest number of this journal that was folded."""
        return await self._read_meta(partial(usage_rows.folded_through, journal=journal))

    async def load_usage(
        self, account_number: int, *, key_number: int | None = None, first_day: int, last_day: int
    ) -> list[UsageCount]:
        """Counts of an account, or of one of its keys; see the protocol."""
        load = partial(
            usage_rows.load_usage, account=account_number, key=key_number, first_day=first_day, last_day=last_day
        )
        return await self._read_meta(load)

    async def prune_usage(self, *, before_day: int) -> None:
        """Delete old counts."""

        def work(connection: Connection, _effects: Effects) -> None:
            usage_rows.prune_usage(connection, before_day)

        await self._change(work)
