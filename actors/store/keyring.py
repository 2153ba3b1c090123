"""The data keys of vaults, unwrapped: read from meta.db when first needed, kept in a bounded cache.

Committer threads and reader threads share one ring. Must never give out the key of a vault whose shredding is
committed: `forget` and the look-up exclude each other, so no look-up can put back what was just forgotten.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

import msgspec

from actors.store.cache import RecentlyUsed
from actors.store.database import DATABASE_ERRORS, DATABASE_FAILURES, Connection, one_row
from actors.store.seal import DataKey, ServerKey
from models.errors import NotFound, StoreUnavailable
from models.ids import VaultRef

_FIND = """SELECT vault_key.wrapped, vault.shard, vault.created_ms FROM vault JOIN vault_key
  ON vault_key.vault = vault.number WHERE vault.number = ? AND vault.state = 0"""

_log = logging.getLogger(__name__)


class OpenVault(msgspec.Struct, frozen=True):
    """What sealing and loading need to know of a live vault."""

    data_key: DataKey
    shard: int
    created_ms: int


class KeyRing:
    """Live vaults by number. Every method may be called from any thread; a look-up may read the disk."""

    __slots__ = ("_connection", "_lock", "_open_connection", "_open_vaults", "_server_key")

    def __init__(self, server_key: ServerKey, open_connection: Callable[[], Connection], *, entries_max: int) -> None:
        self._server_key = server_key
        self._open_connection = open_connection
        self._connection: Connection | None = None
        self._open_vaults: RecentlyUsed[int, OpenVault] = RecentlyUsed(entries_max)
        self._lock = threading.Lock()

    def find(self, vault: VaultRef) -> OpenVault:
        """The live vault behind a reference.

        Raises:
            NotFound: it never existed, was shredded, or lives in another shard.
            CorruptRow: its wrapped key was changed.
            StoreUnavailable: meta.db cannot be read.
        """
        with self._lock:
            found = self._open_vaults.get(vault.number)
            if found is None:
                found = self._read(vault.number)
                if found is not None:
                    self._open_vaults.put(vault.number, found)
        if found is None or found.shard != vault.shard:
            raise NotFound(f"Vault {vault.number} does not exist (any more).")
        return found

    def peek(self, number: int) -> OpenVault | None:
        """As `find`, but None for a vault that is not live, and without a place in the cache: for reading them all."""
        with self._lock:
            return self._read(number)

    def _read(self, number: int) -> OpenVault | None:
        row = self._row(number)
        if row is None:
            return None
        wrapped, shard, created_ms = row
        data_key = self._server_key.unwrap_data_key(number, wrapped)
        return OpenVault(data_key=data_key, shard=shard, created_ms=created_ms)

    def _row(self, number: int) -> tuple[bytes, int, int] | None:
        try:
            try:
                return self._query(number)
            except DATABASE_FAILURES as error:
                _log.error("reading the key of a vault failed: %s; reopening", type(error).__name__)
                self._disconnect()
                return self._query(number)
        except DATABASE_ERRORS as error:
            self._disconnect()
            _log.error("reading the key of a vault failed: %s", type(error).__name__)
            raise StoreUnavailable("The store cannot be read right now.") from error

    def _query(self, number: int) -> tuple[bytes, int, int] | None:
        if self._connection is None:
            self._connection = self._open_connection()
        row: tuple[bytes, int, int] | None = one_row(self._connection, _FIND, (number,))
        return row

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*DATABASE_ERRORS):
                connection.close()

    def forget(self, number: int) -> None:
        """Drop the key of a vault whose shredding has just been committed."""
        with self._lock:
            self._open_vaults.drop(number)

    def forget_all(self) -> None:
        """Drop all keys: another node may have shredded any of these vaults."""
        with self._lock:
            self._open_vaults.clear()

    def close(self) -> None:
        """Close the connection to meta.db. Blocks."""
        with self._lock:
            self._disconnect()
