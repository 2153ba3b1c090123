"""The SQL of the vaults' logs in PostgreSQL: what `actors.store.shard` is for a shard file of SQLite.

Pure of threads and of Trio: every function gets the connection of the thread that it runs in, in a transaction that
has been fenced (`actors.store.postgres.writer`): nobody else writes into the partition meanwhile. How much a vault
holds is counted here, in the same transactions. Must never write a plaintext body, and never touch a second partition.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from actors.store.database import ConstraintViolated
from actors.store.keyring import OpenVault
from actors.store.postgres.connection import PostgresConnection
from actors.store.postgres.inserts import IDS, PostgresBatch, array_of, insert
from actors.store.protocol import Materialisation
from actors.store.seal import DataKey
from actors.store.tickets import Batch
from actors.store.vault_bodies import (
    ImageBuilder,
    Loaded,
    read_page,
    row_id_of,
    row_range,
    sealed_exchanges,
    sealed_memory,
    sealed_vectors,
)
from models.errors import StoreUnavailable
from models.ids import VaultRef
from models.memory import Exchange, InboxRow, Memory
from models.messages import Page, Paged

PURGE_ROWS = 512
"""Rows of each table that one slice of a purge removes: a few milliseconds between two group commits."""

_log = logging.getLogger(__name__)


def append_inbox(
    batch: PostgresBatch, data_key: DataKey, vault: VaultRef, exchanges: Sequence[Exchange], bodies: Sequence[bytes]
) -> list[InboxRow]:
    """Append exchanges, whose encoded bodies are given, to the inbox, with the batch's flush."""
    rows = [InboxRow(row_id=batch.next_row_id(), exchange=exchange) for exchange in exchanges]
    sealed = sealed_exchanges(data_key, rows, bodies)
    batch.append((vault.shard, vault.number, row_id, body) for row_id, body in sealed)
    return rows


def materialise(batch: Batch, data_key: DataKey, vault: VaultRef, step: Materialisation, *, model: int) -> None:
    """Take one atomic step from inbox to memories.

    Args:
        batch: the transaction.
        data_key: the vault's.
        vault: whose.
        step: what becomes of its rows.
        model: the number of `step.model_id`; meaningless without vectors.

    Raises:
        StoreUnavailable: an inbox row is gone or a seq is taken: this step, or another one, was done before.
            The transaction cannot go on; load the vault again.
    """
    connection, part = batch.connection, vault.shard
    if step.row_ids:
        connection.execute(
            f"DELETE FROM inbox WHERE part = ? AND vault = ? AND id = {IDS}",
            (part, vault.number, array_of(step.row_ids)),
        )
        if connection.changes() != len(step.row_ids):
            raise StoreUnavailable("These inbox rows were materialised before.", hint="Load the vault again.")
    sealed = [sealed_memory(data_key, vault.number, memory) for memory in step.memories]
    try:
        if sealed:
            insert(connection, "memory", [(part, row_id, body) for row_id, body in sealed])
    except ConstraintViolated as error:
        raise StoreUnavailable("These memories were stored before.", hint="Load the vault again.") from error
    if step.vectors:
        _put_vectors(connection, data_key, vault, step, model=model)
    connection.execute(
        "INSERT INTO vault_state AS held (part, vault, next_seq, embedder, memories, content_bytes) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (part, vault) DO UPDATE SET "
        "next_seq = greatest(held.next_seq, excluded.next_seq), embedder = coalesce(held.embedder, excluded.embedder), "
        "memories = held.memories + excluded.memories, content_bytes = held.content_bytes + excluded.content_bytes",
        (part, vault.number, step.next_seq, step.embedder, len(sealed), sum(len(body) for _, body in sealed)),
    )


def _put_vectors(
    connection: PostgresConnection, data_key: DataKey, vault: VaultRef, step: Materialisation, *, model: int
) -> None:
    """Store embeddings, but none of a memory that was deleted while it was being embedded."""
    part = vault.shard
    new = {row_id_of(vault.number, memory.seq) for memory in step.memories}
    sealed = list(sealed_vectors(data_key, vault.number, step.vectors, model=model))
    of_new = [(part, model, row_id, body) for row_id, body in sealed if row_id in new]
    if of_new:
        insert(connection, "embedding", of_new)
    late = [(part, model, row_id, body) for row_id, body in sealed if row_id not in new]
    if late:
        connection.executemany(
            "INSERT INTO embedding(part, model, id, body) "
            "SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM memory WHERE part = ?1 AND id = ?3) "
            "ON CONFLICT (part, id) DO UPDATE SET model = excluded.model, body = excluded.body",
            late,
        )


def find_model(connection: PostgresConnection, model_id: str) -> tuple[int, int] | None:
    """Number and dimensions of a model that has embeddings."""
    rows = connection.execute("SELECT number, dims FROM model WHERE id = ?", (model_id,)).fetchall()
    return rows[0] if rows else None


def register_model(connection: PostgresConnection, model_id: str, *, dims: int) -> int:
    """The number of a model, a new one for one that has none yet. In a transaction that no other of its kind is beside.

    A row whose width was changed behind our back is set right: the id names the graph, and so the width.
    """
    found = find_model(connection, model_id)
    if found is None:
        ((number,),) = connection.execute(
            "INSERT INTO model(number, id, dims) SELECT 1 + coalesce(max(number), 0), ?, ? FROM model RETURNING number",
            (model_id, dims),
        ).fetchall()
        return int(number)
    number, known_dims = found
    if known_dims != dims:
        _log.critical("the width of model %d was %d and is set right to %d", number, known_dims, dims)
        connection.execute("UPDATE model SET dims = ? WHERE number = ?", (dims, number))
    return number


def delete_memories(batch: Batch, vault: VaultRef, seqs: Sequence[int]) -> int:
    """Delete memories and their embeddings; seqs that do not exist are skipped. How many there were."""
    row_ids = [row_id_of(vault.number, seq) for seq in seqs]
    return _delete(batch.connection, vault, row_ids)


def _delete(connection: PostgresConnection, vault: VaultRef, row_ids: list[int]) -> int:
    connection.execute(f"DELETE FROM embedding WHERE part = ? AND id = {IDS}", (vault.shard, array_of(row_ids)))
    gone = connection.execute(
        f"DELETE FROM memory WHERE part = ? AND id = {IDS} RETURNING octet_length(body)",
        (vault.shard, array_of(row_ids)),
    ).fetchall()
    if gone:
        _count(connection, vault, memories=-len(gone), content_bytes=-sum(size_bytes for (size_bytes,) in gone))
    return len(gone)


def _count(connection: PostgresConnection, vault: VaultRef, *, memories: int, content_bytes: int) -> None:
    connection.execute(
        "UPDATE vault_state SET memories = memories + ?, content_bytes = content_bytes + ? "
        "WHERE part = ? AND vault = ?",
        (memories, content_bytes, vault.shard, vault.number),
    )


def put_memory(batch: Batch, data_key: DataKey, vault: VaultRef, memory: Memory) -> None:
    """Write a memory in the place of the one with its seq.

    Raises:
        StoreUnavailable: there is none; nothing was changed.
    """
    connection = batch.connection
    row_id, body = sealed_memory(data_key, vault.number, memory)
    found = connection.execute(
        "SELECT octet_length(body) FROM memory WHERE part = ? AND id = ?", (vault.shard, row_id)
    ).fetchall()
    if not found:
        raise StoreUnavailable("The memory to be changed is not there.", hint="Load the vault again.")
    connection.execute("UPDATE memory SET body = ? WHERE part = ? AND id = ?", (body, vault.shard, row_id))
    _count(connection, vault, memories=0, content_bytes=len(body) - found[0][0])


def rewrite_memory(batch: Batch, data_key: DataKey, vault: VaultRef, seq: int, memory: Memory) -> None:
    """Delete a memory with its embedding, and store another one without embedding.

    Raises:
        StoreUnavailable: the one is not there, or the other's seq is taken. The transaction cannot go on.
    """
    connection = batch.connection
    if not _delete(connection, vault, [row_id_of(vault.number, seq)]):
        raise StoreUnavailable("The memory to be changed is not there.", hint="Load the vault again.")
    row_id, body = sealed_memory(data_key, vault.number, memory)
    try:
        insert(connection, "memory", [(vault.shard, row_id, body)])
    except ConstraintViolated as error:
        raise StoreUnavailable("This memory was stored before.", hint="Load the vault again.") from error
    connection.execute(
        "UPDATE vault_state SET next_seq = greatest(next_seq, ?), memories = memories + 1, "
        "content_bytes = content_bytes + ? WHERE part = ? AND vault = ?",
        (memory.seq + 1, len(body), vault.shard, vault.number),
    )


def purge_slice(batch: Batch, vault: VaultRef) -> bool:
    """Remove a few rows of each table of a shredded vault; True when none is left."""
    connection, part = batch.connection, vault.shard
    low, high = row_range(vault.number)
    before = connection.total_changes()
    connection.execute("DELETE FROM vault_state WHERE part = ? AND vault = ?", (part, vault.number))
    for table in ("embedding", "memory"):
        connection.execute(
            f"DELETE FROM {table} WHERE part = ?1 AND id = ANY(ARRAY(SELECT id FROM {table} "
            f"WHERE part = ?1 AND id BETWEEN ?2 AND ?3 ORDER BY id LIMIT {PURGE_ROWS:d}))",
            (part, low, high),
        )
    for table in ("inbox", "damaged_inbox"):
        connection.execute(
            f"DELETE FROM {table} WHERE part = ?1 AND vault = ?2 AND id = ANY(ARRAY(SELECT id FROM {table} "
            f"WHERE part = ?1 AND vault = ?2 ORDER BY id LIMIT {PURGE_ROWS:d}))",
            (part, vault.number),
        )
    return bool(connection.total_changes() == before)


def vaults_with_inbox(connection: PostgresConnection, parts: Sequence[int]) -> list[tuple[int, int]]:
    """Partitions and numbers of the vaults of these partitions that have inbox rows."""
    return connection.execute(
        f"SELECT DISTINCT part, vault FROM inbox WHERE part = {IDS} ORDER BY part, vault", (array_of(parts),)
    ).fetchall()


def vaults_moving(connection: PostgresConnection, parts: Sequence[int]) -> list[tuple[int, int]]:
    """Partitions and numbers of the vaults of these partitions that are on their way from one model to another."""
    return connection.execute(
        f"SELECT part, vault FROM vault_state WHERE part = {IDS} AND moves = 1 ORDER BY part, vault", (array_of(parts),)
    ).fetchall()


def load(connection: PostgresConnection, found: OpenVault, vault: VaultRef, *, model_id: str) -> Loaded:
    """Read one vault. The connection is in a read transaction with one snapshot, so all parts are of one moment.

    Rows are opened while the server sends the next ones. A row that was changed since it was written is left out.
    """
    part, bounds = vault.shard, row_range(vault.number)
    state = connection.execute(
        "SELECT next_seq, moves FROM vault_state WHERE part = ? AND vault = ?", (part, vault.number)
    ).fetchall()
    next_seq, moves = state[0] if state else (1, 0)
    model, dims = find_model(connection, model_id) or (0, 1)
    image = ImageBuilder(found, ordered=False)  # the server would sort on its disk what lies scattered
    for rows in connection.batches(
        "SELECT id, body FROM memory WHERE part = ? AND id BETWEEN ? AND ?", (part, *bounds)
    ):
        image.add_memories(rows)
    for rows in connection.batches(
        "SELECT id, body FROM embedding WHERE part = ? AND id BETWEEN ? AND ? AND model = ?", (part, *bounds, model)
    ):
        image.add_embeddings(rows, model=model, dims=dims)
    image.add_inbox(
        connection.execute(
            "SELECT id, body FROM inbox WHERE part = ? AND vault = ? ORDER BY id", (part, vault.number)
        ).fetchall()
    )
    return image.finish(next_seq=next_seq, moving=moves == 1)


def load_page(connection: PostgresConnection, found: OpenVault, vault: VaultRef, page: Page, *, model_id: str) -> Paged:
    """Memories behind `page.after_seq` in order, with their vectors. Rows that do not open are left out."""

    def memories_between(low: int, high: int, limit: int) -> list[Any]:
        statement = "SELECT id, body FROM memory WHERE part = ? AND id BETWEEN ? AND ? ORDER BY id LIMIT ?"
        return connection.execute(statement, (vault.shard, low, high, limit)).fetchall()

    def embeddings_of(row_ids: Sequence[int]) -> tuple[int, list[Any]]:
        model, _ = find_model(connection, model_id) or (0, 1)
        statement = f"SELECT id, body FROM embedding WHERE part = ? AND id = {IDS} AND model = ? ORDER BY id"
        return model, connection.execute(statement, (vault.shard, array_of(row_ids), model)).fetchall()

    return read_page(found, vault.number, page, memories_between=memories_between, embeddings_of=embeddings_of)


def vault_sizes(connection: PostgresConnection, part: int, vault_numbers: Sequence[int]) -> dict[int, tuple[int, int]]:
    """By vault number: its memories, and the bytes of their rows."""
    rows = connection.execute(
        f"SELECT vault, memories, content_bytes FROM vault_state WHERE part = ? AND vault = {IDS}",
        (part, array_of(vault_numbers)),
    ).fetchall()
    return dict.fromkeys(vault_numbers, (0, 0)) | {vault: (memories, size) for vault, memories, size in rows}


def held_together(connection: PostgresConnection, part: int, vault_numbers: str) -> tuple[int, int]:
    """Memories, and the bytes of their rows, of all these vaults of a partition, whose numbers are a JSON array."""
    ((memories, content_bytes),) = connection.execute(
        "SELECT CAST(coalesce(sum(memories), 0) AS bigint), CAST(coalesce(sum(content_bytes), 0) AS bigint) "
        "FROM vault_state WHERE part = ? AND vault IN "
        "(SELECT CAST(number AS bigint) FROM json_array_elements_text(CAST(? AS json)) AS number)",
        (part, vault_numbers),
    ).fetchall()
    return memories, content_bytes


def size(connection: PostgresConnection) -> tuple[int, int]:
    """All memories, and the bytes of their rows."""
    ((memories, content_bytes),) = connection.execute(
        "SELECT CAST(coalesce(sum(memories), 0) AS bigint), CAST(coalesce(sum(content_bytes), 0) AS bigint) "
        "FROM vault_state"
    ).fetchall()
    return memories, content_bytes


def set_aside(batch: Batch, vault: VaultRef, row_ids: Sequence[int], *, now_ms: int) -> None:
    """Move inbox rows that do not open out of the way, as they are."""
    place = (vault.shard, vault.number, array_of(row_ids))
    batch.connection.execute(
        "INSERT INTO damaged_inbox(part, vault, id, set_aside_ms, body) "
        "SELECT part, vault, id, ?4, body FROM inbox WHERE part = ?1 AND vault = ?2 "
        "AND id = ANY(CAST(?3 AS bigint[])) ON CONFLICT (part, vault, id) DO UPDATE SET "
        "body = excluded.body, set_aside_ms = excluded.set_aside_ms",
        (*place, now_ms),
    )
    batch.connection.execute(f"DELETE FROM inbox WHERE part = ? AND vault = ? AND id = {IDS}", place)


def remembered(connection: PostgresConnection, vault: VaultRef) -> str | None:
    """The name of the embedder that a vault remembers."""
    rows = connection.execute(
        "SELECT embedder FROM vault_state WHERE part = ? AND vault = ?", (vault.shard, vault.number)
    ).fetchall()
    return rows[0][0] if rows else None


def choose(batch: Batch, vault: VaultRef, name: str) -> None:
    """Let a vault remember an embedder."""
    batch.connection.execute(
        "INSERT INTO vault_state(part, vault, next_seq, embedder, moves) VALUES (?, ?, 1, ?, 1) "
        "ON CONFLICT (part, vault) DO UPDATE SET embedder = excluded.embedder, moves = 1",
        (vault.shard, vault.number, name),
    )


def sweep(batch: Batch, vault: VaultRef, low: int, *, name: str, model_id: str, rows_max: int) -> int | None:
    """Remove what is of another model among the next vectors, from an id on, of a vault that remembers `name`.

    Returns:
        The id to go on from, or None at the end.
    """
    connection, part = batch.connection, vault.shard
    if remembered(connection, vault) != name:
        return None  # it moves again, perhaps back to what would be removed
    model, _ = find_model(connection, model_id) or (0, 1)
    rows = connection.execute(
        "SELECT id, model FROM embedding WHERE part = ? AND id BETWEEN ? AND ? ORDER BY id LIMIT ?",
        (part, low, row_range(vault.number)[1], rows_max),
    ).fetchall()
    others = [row_id for row_id, of_model in rows if of_model != model]
    if others:
        connection.execute(f"DELETE FROM embedding WHERE part = ? AND id = {IDS}", (part, array_of(others)))
    if len(rows) == rows_max:
        return int(rows[-1][0]) + 1
    connection.execute("UPDATE vault_state SET moves = 0 WHERE part = ? AND vault = ?", (part, vault.number))
    return None


def live_among(connection: PostgresConnection, vault_numbers: Sequence[int]) -> dict[int, int]:
    """Those of these vaults that are live, by number, with their partitions. Reads the directory."""
    if not vault_numbers:
        return {}
    rows = connection.execute(
        f"SELECT number, shard FROM vault WHERE state = 0 AND number = {IDS}", (array_of(vault_numbers),)
    ).fetchall()
    return dict(rows)
