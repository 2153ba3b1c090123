"""The vaults' logs on PostgreSQL: what is accepted, taken in, read, counted and, after an erasure, removed.

Owns which thread does what. A part of `actors.store.postgres.store`, which has the committers, the readers and the
ownership of partitions. Must never acknowledge what is not committed. See `actors.store.protocol` for what each method
promises.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from actors.store.committer import Committer
from actors.store.damage import DamagedRows, log_damaged_rows
from actors.store.keyring import KeyRing
from actors.store.postgres import vault_rows as sql
from actors.store.postgres.connection import PostgresConnection
from actors.store.postgres.inserts import PostgresBatch
from actors.store.protocol import Commit, Materialisation, StoreSize, VaultImage
from actors.store.snapshots import remove_snapshots
from actors.store.tickets import Batch, Chore, Ticket
from actors.store.vault_bodies import Loaded, empty_vault, encode_exchange, width_of
from actors.store.vault_rows import count_vaults
from models.errors import MemoryRouterError, NotFound, NotOwner, StoreUnavailable
from models.ids import VaultNumber, VaultRef
from models.memory import Exchange, InboxRow
from models.messages import Page, Paged

T = TypeVar("T")

ROW_OVERHEAD_BYTES = 256
"""What a waiting row holds beside its body, for the queue's limit in bytes."""

_log = logging.getLogger(__name__)


class VaultLogs:
    """A part of `PostgresStore`, which has the attributes."""

    __slots__ = ()

    _keyring: KeyRing
    _models: dict[str, int]
    _now_ms: Callable[[], int]
    _rows_damaged: int
    _snapshots: Path

    if TYPE_CHECKING:

        def _committer(self, vault: VaultRef) -> Committer: ...

        def _owned_parts(self) -> Sequence[int]: ...

        async def _read_vault(self, vault: VaultRef, read: Callable[[PostgresConnection], T]) -> T: ...

        async def _read_meta(self, read: Callable[[Any], T]) -> T: ...

        async def _change(self, work: Callable[[Any, Any], T], *, grows: bool = False) -> T: ...

        def _note_purged_nowait(self, vault_number: int) -> None: ...

    def accept_nowait(
        self,
        vault: VaultRef,
        exchanges: Sequence[Exchange],
        on_durable: Callable[[list[InboxRow]], None],
        *,
        on_failed: Callable[[], None] | None = None,
    ) -> Commit:
        """Queue exchanges for the next group commit; see the protocol."""
        accepted = tuple(exchanges)
        bodies = [encode_exchange(exchange) for exchange in accepted]  # here: the caller's dicts may change

        def work(batch: Batch) -> list[InboxRow]:
            assert isinstance(batch, PostgresBatch), "the writer makes them"
            return sql.append_inbox(batch, self._keyring.find(vault).data_key, vault, accepted, bodies)

        size_bytes = sum(map(len, bodies)) + ROW_OVERHEAD_BYTES * len(bodies)
        ticket = Ticket(
            work,
            rows=len(bodies),
            size_bytes=size_bytes,
            grows=True,
            on_durable=on_durable,
            on_failed=on_failed,
            part=vault.shard,
        )
        return self._committer(vault).submit_nowait(ticket)

    async def load_vault(self, vault: VaultRef, *, model_id: str) -> VaultImage:
        """Read one vault as of one moment; see the protocol."""

        def read(connection: PostgresConnection) -> Loaded:
            try:
                found = self._keyring.find(vault)
            except NotFound:
                return empty_vault()
            return sql.load(connection, found, vault, model_id=model_id)

        loaded = await self._read_vault(vault, read)
        if loaded.damaged.count:
            await self._note_damaged_rows(vault, loaded.damaged)
        return loaded.image

    async def _note_damaged_rows(self, vault: VaultRef, damaged: DamagedRows) -> None:
        """Log and count rows that do not open, and set inbox rows aside, so that nobody waits for them."""
        log_damaged_rows(vault.number, damaged)
        self._rows_damaged += damaged.count  # type: ignore[misc]  # the store has the slot
        if not damaged.inbox:
            return
        try:
            await self.set_aside(vault, damaged.inbox)
        except MemoryRouterError as error:  # they stay where they are until the next load
            _log.error("vault %d: damaged inbox rows were not set aside: %s", vault.number, error.code)

    async def set_aside(self, vault: VaultRef, row_ids: Sequence[int]) -> None:
        """Take inbox rows out of the way; see the protocol."""
        doomed = tuple(row_ids)

        def work(batch: Batch) -> None:
            sql.set_aside(batch, vault, doomed, now_ms=self._now_ms())

        await self._committer(vault).run(Ticket(work, rows=len(doomed), part=vault.shard))

    async def materialise(self, vault: VaultRef, step: Materialisation) -> None:
        """Turn inbox rows into memories and embeddings, in one transaction; see the protocol."""
        model = await self._model_number(step.model_id, dims=width_of(step.vectors)) if step.vectors else 0

        def work(batch: Batch) -> None:
            sql.materialise(batch, self._keyring.find(vault).data_key, vault, step, model=model)

        rows = len(step.row_ids) + len(step.memories) + len(step.vectors)
        await self._committer(vault).run(Ticket(work, rows=rows, part=vault.shard))

    async def _model_number(self, model_id: str, *, dims: int) -> int:
        """The number of a model, registered in a transaction of its own: a partition's must not touch other tables."""
        number = self._models.get(model_id)
        if number is None:
            found = await self._read_meta(partial(sql.find_model, model_id=model_id))
            if found is not None and found[1] == dims:
                number = found[0]
            else:
                number = await self._change(
                    lambda connection, _effects: sql.register_model(connection, model_id, dims=dims), grows=True
                )
            self._models[model_id] = number
        return number

    async def load_page(self, vault: VaultRef, page: Page, *, model_id: str) -> Paged:
        """Read memories in order; see the protocol."""

        def read(connection: PostgresConnection) -> Paged:
            return sql.load_page(connection, self._keyring.find(vault), vault, page, model_id=model_id)

        return await self._read_vault(vault, read)

    async def vaults_with_inbox(self, parts: Sequence[int] | None = None) -> list[VaultRef]:
        """Live vaults that have committed but unmaterialised rows, of the partitions that this node owns.

        Args:
            parts: only these partitions; the cluster asks for one that it has just taken.
        """
        looked_at = self._owned_parts() if parts is None else parts
        found = await self._read_meta(partial(sql.vaults_with_inbox, parts=looked_at))
        return await self._live_among(found)

    async def vaults_moving(self, parts: Sequence[int] | None = None) -> list[VaultRef]:
        """Live vaults on their way from one model to another, of the partitions that this node owns.

        Args:
            parts: only these partitions; the cluster asks for one that it has just taken.
        """
        looked_at = self._owned_parts() if parts is None else parts
        return await self._live_among(await self._read_meta(partial(sql.vaults_moving, parts=looked_at)))

    async def _live_among(self, found: Sequence[tuple[int, int]]) -> list[VaultRef]:
        live = await self._read_meta(partial(sql.live_among, vault_numbers=[number for _, number in found]))
        return [VaultRef(number=VaultNumber(number), shard=part) for part, number in found if live.get(number) == part]

    async def vault_sizes(self, vaults: Sequence[VaultRef]) -> dict[int, tuple[int, int]]:
        """Memories and bytes by vault number; see the protocol."""
        by_part: dict[int, list[int]] = {}
        for vault in vaults:
            by_part.setdefault(vault.shard, []).append(vault.number)

        def read(connection: PostgresConnection) -> dict[int, tuple[int, int]]:
            sizes: dict[int, tuple[int, int]] = {}
            for part, numbers in by_part.items():
                sizes |= sql.vault_sizes(connection, part, numbers)
            return sizes

        return await self._read_meta(read) if vaults else {}

    async def _held_together(self, shard: int, numbers: str) -> tuple[int, int]:
        """Memories and bytes of these vaults of one partition."""
        return await self._read_meta(partial(sql.held_together, part=shard, vault_numbers=numbers))

    async def size(self) -> StoreSize:
        """How much there is in all, on every node; see the protocol."""
        memories, content_bytes = await self._read_meta(sql.size)
        return StoreSize(await self._read_meta(count_vaults), memories, content_bytes)

    def _purge_nowait(self, vault: VaultRef) -> None:
        """Begin to remove the rows of a shredded vault, if this node owns its partition; else the owner will."""
        try:
            committer = self._committer(vault)
        except NotOwner:
            return
        chore = Chore(
            f"purge of vault {vault.number}",
            partial(self._purge_slice, vault),
            partial(self._note_purged_nowait, vault.number),
            part=vault.shard,
        )
        committer.add_chore_nowait(chore)

    def _purge_slice(self, vault: VaultRef, batch: Batch) -> bool:
        """A slice of what an erased vault left behind: rows first, then the files of its caches on this node."""
        if not sql.purge_slice(batch, vault):
            return False
        try:
            remove_snapshots(self._snapshots, vault.number)
        except StoreUnavailable as error:  # unreadable without the vault's key, so a nuisance and no leak
            _log.warning("snapshots_not_removed", extra={"vault": vault.number, "reason": error.message})
        return True
