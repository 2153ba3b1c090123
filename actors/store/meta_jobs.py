"""Jobs of meta.db: a change, its audit entry and what it erases, in one transaction, one ledger entry and one answer.

Owns the caches of look-ups and what every change does to them, and the order of an erasure: committed, the data key
forgotten, the WAL emptied, the ledger written, then the answer. Must never serve a cached answer that is older than a
change whose caller was told.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from actors.store.cache import RecentlyUsed
from actors.store.committer import Committer
from actors.store.database import Connection
from actors.store.erasing import Shredded
from actors.store.keyring import KeyRing
from actors.store.keys import LiveKey, revocations
from actors.store.ledger import ErasedProviderKey, Erasure
from actors.store.seal import ServerKey
from actors.store.tickets import Batch, Ticket
from models.errors import NotFound, ShuttingDown, StoreUnavailable
from models.ids import VaultRef
from models.provider_settings import Secret

T = TypeVar("T")

UNKNOWN_KEYS_MAX = 1024
"""Cached answers "no such key"; apart from the live keys, so that guessing cannot push those out."""
PROVIDER_KEYS_CACHED_MAX = 4096
"""Cached providers' keys, and answers that there is none."""


class Effects:
    """What one job does beyond its own rows.

    Attributes:
        key_hashes: keys whose cached look-ups are outdated.
        account: whose cached look-ups are all outdated, if one's.
        providers: accounts and providers whose cached keys are outdated.
        erasures: for the ledger.
        vaults: shredded ones.
        shreds: whether the WAL must be emptied before the answer.
        truncate_owed: whether it could not be emptied yet.
        change: which of all changes to what others cache this is, where several nodes or workers share a directory.
    """

    __slots__ = ("account", "change", "erasures", "key_hashes", "providers", "shreds", "truncate_owed", "vaults")

    def __init__(self) -> None:
        self.key_hashes: list[bytes] = []
        self.account: int | None = None
        self.providers: list[tuple[int, str]] = []
        self.erasures: list[Erasure] = []
        self.vaults: list[VaultRef] = []
        self.shreds = False
        self.truncate_owed = False
        self.change = 0

    @property
    def outdates_caches(self) -> bool:
        """Whether somebody may have cached what is different now."""
        return bool(self.key_hashes or self.providers or self.vaults or self.account is not None)

    def note_revoked(self, key_hashes: list[bytes], *, revoked_ms: int) -> None:
        """These keys open nothing from then on."""
        self.key_hashes += key_hashes
        self.erasures += revocations(key_hashes, revoked_ms)

    def note_shredded(self, *shredded: Shredded) -> None:
        """The data keys of these vaults are destroyed."""
        self.vaults += [vault.vault for vault in shredded]
        self.erasures += [vault.erasure for vault in shredded]
        self.shreds |= bool(shredded)

    def note_provider_keys(self, erased: Sequence[ErasedProviderKey]) -> None:
        """These provider keys are destroyed."""
        self.erasures += erased
        self.shreds |= bool(erased)


Work = Callable[[Connection, Effects], T]


class DirectoryReaders(Protocol):
    """Threads that read the directory."""

    async def run(self, read: Callable[[Any], T]) -> T:
        """Run `read` with a connection, in one read transaction.

        Raises:
            StoreUnavailable: the database cannot be read.
        """


class ErasureLog(Protocol):
    """Where erasures are noted beside the database."""

    @property
    def owed(self) -> Sequence[Erasure]:
        """Those that could not be written yet."""

    def append(self, erasures: Sequence[Erasure]) -> None:
        """Write them, and what is owed, so that they last.

        Raises:
            OSError: they are owed now.
        """


class MetaJobs:
    """What the parts of `SqlDirectory` are made of."""

    __slots__ = (
        "_generation",
        "_keyring",
        "_ledger",
        "_live_keys",
        "_meta",
        "_meta_readers",
        "_now_ms",
        "_provider_keys",
        "_server_key",
        "_unknown_keys",
    )

    def __init__(
        self,
        meta: Committer,
        meta_readers: DirectoryReaders,
        *,
        server_key: ServerKey,
        keyring: KeyRing,
        ledger: ErasureLog,
        key_cache_max: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._meta = meta
        self._meta_readers = meta_readers
        self._server_key = server_key
        self._keyring = keyring
        self._ledger = ledger
        self._now_ms = now_ms
        self._live_keys: RecentlyUsed[bytes, LiveKey] = RecentlyUsed(key_cache_max)
        self._unknown_keys: RecentlyUsed[bytes, bool] = RecentlyUsed(UNKNOWN_KEYS_MAX)
        self._provider_keys: RecentlyUsed[tuple[int, str], Secret] = RecentlyUsed(PROVIDER_KEYS_CACHED_MAX)
        self._generation = 0
        """Grows with every change of what is cached; an answer read before must not be cached after."""

    async def _read_meta(self, read: Callable[[Connection], T]) -> T:
        """Read meta.db.

        Raises:
            ShardDamaged: it must not be served.
        """
        self._check_meta()
        return await self._meta_readers.run(read)

    async def _change(self, work: Work[T], *, grows: bool = False) -> T:
        """Run a job of meta.db that erases nothing.

        Raises:
            ShardDamaged: meta.db must not be served.
        """
        self._check_meta()
        result, _ = await self._meta.run(self._ticket(work, grows=grows))
        return result

    async def _erase(self, work: Work[T], *, grows: bool = False) -> T:
        """Run a job of meta.db whose effect belongs into the ledger as well.

        Raises:
            StoreUnavailable: it took effect, but a restored backup would undo it, since the ledger cannot be written;
                or the WAL still holds what was erased.
        """
        self._check_meta()
        try:
            result, effects = await self._meta.run(self._ticket(work, grows=grows))
        except NotFound:  # gone, perhaps by a call that could not be confirmed
            if self._ledger.owed:
                _, effects = await self._meta.run(self._ticket(lambda _connection, _effects: None))
                self._check_confirmed(effects)
            raise
        self._check_confirmed(effects)
        return result

    def _ticket(self, work: Work[T], *, grows: bool = False) -> Ticket[tuple[T, Effects]]:
        def run(batch: Batch) -> tuple[T, Effects]:
            effects = Effects()  # here: the job may run twice
            result = work(batch.connection, effects)
            if effects.outdates_caches:
                self._note_change(batch.connection, effects)
            return result, effects

        def after_commit(done: tuple[T, Effects]) -> None:
            effects = done[1]
            self._note_committed(effects)
            for vault in effects.vaults:
                self._keyring.forget(vault.number)
            if effects.shreds:
                self._meta.truncate_wal()
                effects.truncate_owed = self._meta.truncate_owed  # now: a moment later it may be another erasure's
            if effects.erasures or self._ledger.owed:
                with suppress(OSError):  # logged, and owed
                    self._ledger.append(effects.erasures)

        return Ticket(
            run, grows=grows, after_commit=after_commit, on_durable=lambda done: self._forget_outdated(done[1])
        )

    def _check_confirmed(self, effects: Effects) -> None:
        if self._ledger.owed:
            raise StoreUnavailable(
                "This was erased, but the erasure ledger could not be written.",
                hint="Look at the server's log, and ask again.",
            )
        if effects.truncate_owed:
            raise StoreUnavailable(
                "This was erased, but the write-ahead log of meta.db could not be emptied yet.",
                hint="Ask again until this is confirmed.",
            )

    def _check_meta(self) -> None:
        if self._meta.damage is not None:
            raise copy.copy(self._meta.damage)

    def _forget_outdated(self, effects: Effects) -> None:
        """In Trio's thread, before the caller is told."""
        self._generation += 1
        for key_hash in effects.key_hashes:
            self._live_keys.drop(key_hash)
            self._unknown_keys.drop(key_hash)
        for place in effects.providers:
            self._provider_keys.drop(place)
        account = effects.account
        if account is not None:
            self._live_keys.drop_if(lambda _, key: key.principal.account_number == account)
            self._provider_keys.drop_if(lambda place, _: place[0] == account)
            self._unknown_keys.clear()  # keys of an account that was switched off are among them
        for vault in effects.vaults:
            self._purge_nowait(vault)

    def _note_change(self, connection: Connection, effects: Effects) -> None:
        """In the transaction: tell other nodes, if there are any, that what they cached is outdated."""

    def _note_committed(self, effects: Effects) -> None:
        """In the committer's thread, right after the commit."""

    def _shards_for_new_vaults(self) -> Sequence[int]:
        """Which shards may take new vaults. The half of the store that has the shards knows."""
        raise AssertionError("a directory alone has no shards")

    def _purge_nowait(self, vault: VaultRef) -> None:
        """Begin to remove the rows of a shredded vault. The half of the store that has the shards does it."""
        raise AssertionError("a directory alone has no rows to purge")

    def _note_purged_nowait(self, vault_number: int) -> None:
        """Record that a shredded vault has no rows left."""

        def work(batch: Batch) -> None:
            batch.connection.execute("UPDATE vault SET state = 2 WHERE number = ? AND state = 1", (vault_number,))

        with suppress(ShuttingDown):  # the next start finds no rows and records it
            self._meta.put_nowait(Ticket(work))
