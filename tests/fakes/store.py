"""The store's in-memory twin: the same protocol and the same order of events, with hooks for what disks do.

Proven against the SQLite store by `tests/actors/store/test_conformance.py`. A "commit" happens one step of
Trio's loop after the first job that waits for it and takes all that wait, as a group commit does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import apsw
import msgspec
import trio

from actors.store.protocol import Commit, KeyRow, Materialisation, VaultImage, Vectors
from actors.store.tickets import Batch, Outcome, Ticket
from models.errors import (
    InvalidRequest,
    MemoryRouterError,
    NotFound,
    Overloaded,
    ShuttingDown,
    StoreUnavailable,
    TooLarge,
)
from models.ids import Principal, VaultNumber, VaultRef
from models.memory import Exchange, InboxRow, Memory
from models.messages import Page, Paged
from models.store_settings import StoreSettings
from tests.fakes.caches import MemoryCaches
from tests.fakes.memory_disk import MemoryDisk, StoredKey, StoredVault

T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode
_exchanges = msgspec.msgpack.Decoder(Exchange)
_memories = msgspec.msgpack.Decoder(Memory)


class MemoryStore(MemoryCaches):
    """Implements `actors.store.protocol.Store` in memory. `open_memory_store` makes one."""

    def __init__(self, disk: MemoryDisk, *, settings: StoreSettings, now_ms: Callable[[], int]) -> None:
        self.disk = disk
        self._settings = settings
        self._now_ms = now_ms
        self._token = trio.lowlevel.current_trio_token()
        self._waiting: deque[Ticket[Any]] = deque()
        self._rows_waiting = 0
        self._bytes_waiting = 0
        self._scheduled = False
        self._held = False
        self._closing = False
        self._failures: dict[int, MemoryRouterError] = {}
        self._attempts = 0
        self._no_connection = apsw.Connection(":memory:")
        self._counters = {"rows": 0, "bytes": 0, "commits": 0, "batches": 0, "failures": 0}

    # The hooks.

    def fail_commit(self, error: MemoryRouterError, *, nth: int = 1) -> None:
        """Let the nth group commit from now fail: nothing of it is stored, its waiters get `error`."""
        self._failures[self._attempts + nth] = error

    def hold_commits(self) -> None:
        """Let what is accepted wait until `release_commits`, as behind a slow disk."""
        self._held = True

    def release_commits(self) -> None:
        """Commit what waits, and go on as usual."""
        self._held = False
        self._schedule()

    def crash(self) -> None:
        """Lose what waits and refuse all further work, as after kill -9. `disk` keeps what was committed."""
        self._closing = True
        self._waiting.clear()

    # The vaults' logs.

    def accept_nowait(
        self,
        vault: VaultRef,
        exchanges: Sequence[Exchange],
        on_durable: Callable[[list[InboxRow]], None],
        *,
        on_failed: Callable[[], None] | None = None,
    ) -> Commit:
        accepted = tuple(exchanges)
        bodies = [_encode(exchange) for exchange in accepted]

        def work(batch: Batch) -> list[InboxRow]:
            inbox = self.disk.vault(vault).inbox
            rows = [InboxRow(row_id=batch.next_row_id(), exchange=exchange) for exchange in accepted]
            inbox.update(zip((row.row_id for row in rows), bodies, strict=True))
            return rows

        size_bytes = sum(map(len, bodies))
        ticket = Ticket(work, rows=len(bodies), size_bytes=size_bytes, on_durable=on_durable, on_failed=on_failed)
        rows_max, bytes_max = self._settings.queue_rows_max, self._settings.queue_bytes_max
        if ticket.rows > rows_max or ticket.size_bytes > bytes_max:
            raise TooLarge(f"One call may store at most {rows_max} exchanges of {bytes_max} bytes together.")
        rows, size_bytes = self._rows_waiting + ticket.rows, self._bytes_waiting + ticket.size_bytes
        if rows > rows_max or size_bytes > bytes_max:
            raise Overloaded("Too much is waiting to be stored.")
        self._put(ticket)
        ticket.limited = True
        self._rows_waiting, self._bytes_waiting = rows, size_bytes
        return ticket

    async def load_vault(self, vault: VaultRef, *, model_id: str) -> VaultImage:
        await trio.lowlevel.checkpoint()
        try:
            found = self.disk.vault(vault)
        except NotFound:
            return VaultImage(created_ms=0, memories=[], vectors={}, inbox=[], next_seq=1)
        vectors: Vectors = {seq: array for seq, (model, array) in found.vectors.items() if model == model_id}
        return VaultImage(
            created_ms=found.created_ms,
            memories=[_memories.decode(body) for _, body in sorted(found.memories.items())],
            vectors=vectors,
            inbox=[
                InboxRow(row_id=row_id, exchange=_exchanges.decode(body))
                for row_id, body in sorted(found.inbox.items())
            ],
            next_seq=found.next_seq,
        )

    async def materialise(self, vault: VaultRef, step: Materialisation) -> None:
        def work(_: Batch) -> None:
            found = self.disk.vault(vault)
            if not found.inbox.keys() >= set(step.row_ids):
                raise StoreUnavailable("These inbox rows were materialised before.")
            if any(memory.seq in found.memories for memory in step.memories):
                raise StoreUnavailable("These memories were stored before.")
            for row_id in step.row_ids:
                del found.inbox[row_id]
            found.memories.update((memory.seq, _encode(memory)) for memory in step.memories)
            for seq, array in step.vectors.items():
                if seq in found.memories:
                    found.vectors[seq] = (step.model_id, array.copy())
            found.next_seq = max(found.next_seq, step.next_seq)

        await self._put(Ticket(work)).wait()

    async def delete_memories(self, vault: VaultRef, seqs: Sequence[int]) -> None:
        def work(_: Batch) -> None:
            found = self.disk.vault(vault)
            for seq in seqs:
                found.memories.pop(seq, None)
                found.vectors.pop(seq, None)

        await self._put(Ticket(work)).wait()

    async def set_aside(self, vault: VaultRef, row_ids: Sequence[int]) -> None:
        def work(_: Batch) -> None:
            for row_id in row_ids:
                self.disk.vault(vault).inbox.pop(row_id, None)

        await self._put(Ticket(work)).wait()

    async def load_page(self, vault: VaultRef, page: Page, *, model_id: str) -> Paged:
        image = await self.load_vault(vault, model_id=model_id)
        behind = [
            memory
            for memory in image.memories
            if memory.seq > page.after_seq and page.session_id in (None, memory.session_id)
        ][: page.limit]
        seqs = {memory.seq for memory in behind}
        vectors = {seq: rows.tobytes() for seq, rows in image.vectors.items() if page.vectors and seq in seqs}
        return Paged(memories=tuple(behind), vectors=vectors)

    async def vaults_with_inbox(self) -> list[VaultRef]:
        await trio.lowlevel.checkpoint()
        found = [vault.reference for vault in self.disk.vaults.values() if vault.inbox]
        return sorted(found, key=lambda vault: (vault.shard, vault.number))

    def statistics(self) -> dict[str, Any]:
        waiting = {"queue_rows": self._rows_waiting, "queue_bytes": self._bytes_waiting}
        disk = {"last_commit_ms": 0.0, "wal_bytes": 0, "truncate_owed": False, "damaged": False}
        counters = {**waiting, **self._counters, **disk}
        alarms = ("shards_damaged", "rows_damaged_on_load", "rows_damaged_in_scrub", "erasures_owed", "ballast_bytes")
        return {"meta": counters, "shards": [counters], **dict.fromkeys(alarms, 0), "disk_full": False}

    # The directory.

    async def has_account(self) -> bool:
        await trio.lowlevel.checkpoint()
        return self.disk.accounts > 0

    async def create_account(self, *, key_hash: bytes, shown: str, created_ms: int) -> Principal:
        def work(_: Batch) -> Principal:
            self._check_new(key_hash)
            self.disk.accounts += 1
            vault = self._new_vault(self.disk.accounts, created_ms=created_ms)
            return self._new_key(
                self.disk.accounts, vault, key_hash, kind="account", shown=shown, created_ms=created_ms
            )

        return await self._put(Ticket(work)).wait()

    async def find_key(self, key_hash: bytes) -> Principal | None:
        await trio.lowlevel.checkpoint()
        for key in self.disk.keys:
            if key.key_hash == key_hash and key.revoked_ms is None:
                return key.principal
        return None

    async def create_key(
        self, account_number: int, *, name: str, key_hash: bytes, shown: str, created_ms: int
    ) -> Principal:
        def work(_: Batch) -> Principal:
            if not 0 < account_number <= self.disk.accounts:
                raise NotFound(f"Account {account_number} does not exist.")
            self._check_new(key_hash)
            vault = self._new_vault(account_number, created_ms=created_ms)
            return self._new_key(
                account_number, vault, key_hash, kind="user", name=name, shown=shown, created_ms=created_ms
            )

        return await self._put(Ticket(work)).wait()

    async def list_keys(self, account_number: int | None = None) -> list[KeyRow]:
        await trio.lowlevel.checkpoint()
        return [
            KeyRow(
                key_number=key.principal.key_number,
                account_number=key.principal.account_number,
                kind=key.principal.kind,
                name=key.principal.name,
                shown=key.principal.shown,
                created_ms=key.created_ms,
                revoked_ms=key.revoked_ms,
            )
            for key in self.disk.keys
            if account_number in (None, key.principal.account_number)
        ]

    async def revoke_key(self, key_number: int, *, revoked_ms: int) -> bool:
        def work(_: Batch) -> bool:
            for key in self.disk.keys:
                if key.principal.key_number == key_number and key.revoked_ms is None:
                    key.revoked_ms = revoked_ms
                    return True
            return False

        return await self._put(Ticket(work)).wait()

    async def replace_account_key(self, *, key_hash: bytes, shown: str, created_ms: int) -> Principal:
        def work(_: Batch) -> Principal:
            wanted = ("account", 1)
            mine = [k for k in self.disk.keys if (k.principal.kind, k.principal.account_number) == wanted]
            if not mine:
                raise NotFound("There is no account yet.")
            self._check_new(key_hash)
            for key in mine:
                key.revoked_ms = created_ms if key.revoked_ms is None else key.revoked_ms
            vault = mine[-1].principal.vault
            return self._new_key(1, vault, key_hash, kind="account", shown=shown, created_ms=created_ms)

        return await self._put(Ticket(work)).wait()

    async def replace_vault(self, vault: VaultRef) -> VaultRef:
        def work(_: Batch) -> VaultRef:
            old = self.disk.vault(vault)
            new = self._new_vault(old.account, created_ms=self._now_ms())
            del self.disk.vaults[vault.number]
            for key in self.disk.keys:
                if key.principal.vault == vault:
                    key.principal = msgspec.structs.replace(key.principal, vault=new)
            return new

        return await self._put(Ticket(work)).wait()

    # Behind both.

    def _check_new(self, key_hash: bytes) -> None:
        if any(key.key_hash == key_hash for key in self.disk.keys):
            raise InvalidRequest("This key exists already.", field="key")

    def _new_vault(self, account: int, *, created_ms: int) -> VaultRef:
        self.disk.vaults_made += 1
        number = self.disk.vaults_made
        reference = VaultRef(number=VaultNumber(number), shard=number % self._settings.shards)
        self.disk.vaults[number] = StoredVault(reference, account=account, created_ms=created_ms)
        return reference

    def _new_key(
        self,
        account: int,
        vault: VaultRef,
        key_hash: bytes,
        *,
        kind: str,
        shown: str,
        created_ms: int,
        name: str = "account",
    ) -> Principal:
        principal = Principal(
            key_number=len(self.disk.keys) + 1,
            account_number=account,
            kind=kind,
            name=name,
            vault=vault,
            shown=shown,
        )
        self.disk.keys.append(StoredKey(principal=principal, key_hash=key_hash, created_ms=created_ms))
        return principal

    def _put(self, ticket: Ticket[T]) -> Ticket[T]:
        if self._closing:
            raise ShuttingDown("The store is closing.")
        self._waiting.append(ticket)
        self._schedule()
        return ticket

    def _schedule(self) -> None:
        if not self._scheduled and not self._held:
            self._scheduled = True
            self._token.run_sync_soon(self._commit)

    def _commit(self) -> None:
        """One group commit: decide every outcome, then tell everyone in commit order."""
        self._scheduled = False
        if self._held or not self._waiting:
            return
        tickets, self._waiting = list(self._waiting), deque()
        self._attempts += 1
        error = self._failures.pop(self._attempts, None)
        batch = Batch(self._no_connection, self.disk.commits + 1)
        outcomes = [_outcome(ticket, batch, error) for ticket in tickets]
        self.disk.commits += error is None
        self._counters["batches"] += 1
        for ticket, outcome in zip(tickets, outcomes, strict=True):
            if ticket.limited:
                self._rows_waiting -= ticket.rows
                self._bytes_waiting -= ticket.size_bytes
            ticket.settle(outcome)
            self._counters["failures" if outcome.error else "commits"] += 1
            if outcome.error is None:
                self._counters["rows"] += ticket.rows
                self._counters["bytes"] += ticket.size_bytes
                if ticket.on_durable is not None:
                    ticket.on_durable(outcome.result)
            elif ticket.on_failed is not None:
                ticket.on_failed()

    async def close(self) -> None:
        """Commit what waits and refuse further work."""
        self._closing = True
        self._held = False
        self._commit()
        await trio.lowlevel.checkpoint()


def _outcome(ticket: Ticket[Any], batch: Batch, error: MemoryRouterError | None) -> Outcome:
    if error is not None:
        return Outcome(None, error)
    try:
        return Outcome(ticket.work(batch), None)
    except MemoryRouterError as own:
        return Outcome(None, own)


@asynccontextmanager
async def open_memory_store(
    disk: MemoryDisk | None = None,
    *,
    settings: StoreSettings | None = None,
    now_ms: Callable[[], int] = lambda: 1_700_000_000_000,
) -> AsyncIterator[MemoryStore]:
    """A store in memory; leaving commits what was accepted."""
    store = MemoryStore(disk or MemoryDisk(), settings=settings or StoreSettings(), now_ms=now_ms)
    try:
        yield store
    finally:
        await store.close()
