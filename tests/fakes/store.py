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

from actors.store.protocol import Commit, Materialisation, VaultImage, Vectors
from actors.store.tickets import Batch, Outcome, Ticket
from models.errors import (
    MemoryRouterError,
    NotFound,
    Overloaded,
    ShuttingDown,
    StoreUnavailable,
    TooLarge,
)
from models.ids import VaultRef
from models.memory import Exchange, InboxRow, Memory
from models.messages import Page, Paged
from models.store_settings import StoreSettings
from tests.fakes.caches import MemoryCaches
from tests.fakes.directory_keys import MemoryKeys
from tests.fakes.directory_vaults import MemoryRecords, MemoryVaults
from tests.fakes.memory_disk import MemoryDisk

T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode
_exchanges = msgspec.msgpack.Decoder(Exchange)
_memories = msgspec.msgpack.Decoder(Memory)


class MemoryStore(MemoryKeys, MemoryVaults, MemoryRecords, MemoryCaches):
    """Implements `actors.store.protocol.Store` in memory. `open_memory_store` makes one."""

    def __init__(self, disk: MemoryDisk, *, settings: StoreSettings, now_ms: Callable[[], int]) -> None:
        self.disk = disk
        self._settings = settings
        self._shards = settings.shards
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
            moving=found.moves,
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
            found.embedder = found.embedder or step.embedder

        await self._put(Ticket(work)).wait()

    async def delete_memories(self, vault: VaultRef, seqs: Sequence[int]) -> None:
        def work(_: Batch) -> None:
            found = self.disk.vault(vault)
            for seq in seqs:
                found.memories.pop(seq, None)
                found.vectors.pop(seq, None)

        await self._put(Ticket(work)).wait()

    async def put_memory(self, vault: VaultRef, memory: Memory) -> None:
        def work(_: Batch) -> None:
            found = self.disk.vault(vault)
            if memory.seq not in found.memories:
                raise StoreUnavailable("The memory to be changed is not there.")
            found.memories[memory.seq] = _encode(memory)

        await self._put(Ticket(work)).wait()

    async def rewrite_memory(self, vault: VaultRef, seq: int, memory: Memory) -> None:
        def work(_: Batch) -> None:
            found = self.disk.vault(vault)
            if seq not in found.memories or memory.seq in found.memories:
                raise StoreUnavailable("The memory to be changed is not there, or was changed before.")
            del found.memories[seq]
            found.vectors.pop(seq, None)
            found.memories[memory.seq] = _encode(memory)
            found.next_seq = max(found.next_seq, memory.seq + 1)

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

    async def remembered_embedder(self, vault: VaultRef) -> str | None:
        await trio.lowlevel.checkpoint()
        found = self.disk.vaults.get(vault.number)
        return None if found is None else found.embedder

    async def choose_embedder(self, vault: VaultRef, name: str) -> None:
        def work(_: Batch) -> None:
            found = self.disk.vault(vault)
            found.embedder, found.moves = name, True

        await self._put(Ticket(work)).wait()

    async def finish_move(self, vault: VaultRef, *, name: str, model_id: str) -> None:
        def work(_: Batch) -> None:
            found = self.disk.vault(vault)
            if found.embedder == name:
                found.vectors = {seq: kept for seq, kept in found.vectors.items() if kept[0] == model_id}
                found.moves = False

        await self._put(Ticket(work)).wait()

    async def vaults_moving(self) -> list[VaultRef]:
        await trio.lowlevel.checkpoint()
        return [vault.reference for vault in self.disk.vaults.values() if vault.moves]

    async def vaults_with_inbox(self) -> list[VaultRef]:
        await trio.lowlevel.checkpoint()
        found = [vault.reference for vault in self.disk.vaults.values() if vault.inbox]
        return sorted(found, key=lambda vault: (vault.shard, vault.number))

    def statistics(self) -> dict[str, Any]:
        waiting = {"queue_rows": self._rows_waiting, "queue_bytes": self._bytes_waiting}
        disk = {"wal_bytes": 0, "truncate_owed": False, "damaged": False}
        counters = {**waiting, **self._counters, **disk}
        alarms = ("shards_damaged", "rows_damaged_on_load", "rows_damaged_in_scrub", "erasures_owed", "ballast_bytes")
        return {"meta": counters, "shards": [counters], **dict.fromkeys(alarms, 0), "disk_full": False}

    # Behind it and the directory.

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
