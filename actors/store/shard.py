"""The SQL of one shard: what is written into its tables and read from them, sealed and opened on the way.

Pure of threads and of Trio: every function gets the connection of the thread that it runs in. Bodies are
msgpack: exchanges as in `models.memory`, memories as in `actors.store.memory_rows`. Must never write a plaintext body,
and never read one vault's rows with another's key.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import apsw

from actors.store.connections import batches
from actors.store.database import all_rows, one_row
from actors.store.keyring import OpenVault
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
    width_of,
)
from models.errors import StoreUnavailable
from models.memory import Exchange, InboxRow, Memory
from models.messages import Page, Paged

PURGE_ROWS = 256
"""Rows of each table that one slice of a purge removes: a few milliseconds between two group commits."""
PURGE_BYTES = 256 * 1024
"""The same in bytes of bodies: their pages are overwritten, so a slice takes as much room in the WAL."""

_log = logging.getLogger(__name__)


def append_inbox(
    batch: Batch, data_key: DataKey, vault_number: int, exchanges: Sequence[Exchange], bodies: Sequence[bytes]
) -> list[InboxRow]:
    """Append exchanges, whose encoded bodies are given, to the inbox."""
    rows = [InboxRow(row_id=batch.next_row_id(), exchange=exchange) for exchange in exchanges]
    batch.connection.executemany(
        "INSERT INTO inbox(id, vault, body) VALUES (?, ?, ?)",
        [(row_id, vault_number, sealed) for row_id, sealed in sealed_exchanges(data_key, rows, bodies)],
    )
    return rows


def materialise(batch: Batch, data_key: DataKey, vault_number: int, step: Materialisation) -> None:
    """Take one atomic step from inbox to memories.

    Raises:
        StoreUnavailable: an inbox row is gone or a seq is taken: this step, or another one, was done before.
            Nothing was changed; load the vault again.
    """
    connection = batch.connection
    before = connection.total_changes()
    connection.executemany(
        "DELETE FROM inbox WHERE id = ? AND vault = ?", [(row_id, vault_number) for row_id in step.row_ids]
    )
    if connection.total_changes() - before != len(step.row_ids):
        raise StoreUnavailable("These inbox rows were materialised before.", hint="Load the vault again.")
    try:
        connection.executemany(
            "INSERT INTO memory(id, body) VALUES (?, ?)",
            [sealed_memory(data_key, vault_number, memory) for memory in step.memories],
        )
    except apsw.ConstraintError as error:
        raise StoreUnavailable("These memories were stored before.", hint="Load the vault again.") from error
    if step.vectors:
        _put_vectors(connection, data_key, vault_number, step)
    connection.execute(
        "INSERT INTO vault_state(vault, next_seq, embedder) VALUES (?, ?, ?) ON CONFLICT(vault) DO UPDATE SET "
        "next_seq = max(next_seq, excluded.next_seq), embedder = coalesce(embedder, excluded.embedder)",
        (vault_number, step.next_seq, step.embedder),
    )


def _put_vectors(connection: apsw.Connection, data_key: DataKey, vault_number: int, step: Materialisation) -> None:
    """Store embeddings, but none of a memory that was deleted while it was being embedded."""
    model = _model_number(connection, step.model_id, dims=width_of(step.vectors))
    sealed = sealed_vectors(data_key, vault_number, step.vectors, model=model)
    rows = [(row_id, model, body, row_id) for row_id, body in sealed]
    connection.executemany(
        "INSERT OR REPLACE INTO embedding(id, model, body) SELECT ?, ?, ? "
        "WHERE EXISTS (SELECT 1 FROM memory WHERE id = ?)",
        rows,
    )


def _model_number(connection: apsw.Connection, model_id: str, *, dims: int) -> int:
    row = one_row(connection, "SELECT number, dims FROM model WHERE id = ?", (model_id,)) or one_row(
        connection, "INSERT INTO model(id, dims) VALUES (?, ?) RETURNING number, dims", (model_id, dims)
    )
    number, known_dims = row
    if known_dims != dims:  # the id names the graph, and so the width: the row was damaged
        _log.critical("the width of model %d was %d and is set right to %d", number, known_dims, dims)
        connection.execute("UPDATE model SET dims = ? WHERE number = ?", (dims, number))
    return int(number)


def delete_memories(batch: Batch, vault_number: int, seqs: Sequence[int]) -> None:
    """Delete memories and their embeddings; seqs that do not exist are skipped."""
    row_ids = [(row_id_of(vault_number, seq),) for seq in seqs]
    batch.connection.executemany("DELETE FROM embedding WHERE id = ?", row_ids)
    batch.connection.executemany("DELETE FROM memory WHERE id = ?", row_ids)


def put_memory(batch: Batch, data_key: DataKey, vault_number: int, memory: Memory) -> None:
    """Write a memory in the place of the one with its seq.

    Raises:
        StoreUnavailable: there is none; nothing was changed.
    """
    row_id, body = sealed_memory(data_key, vault_number, memory)
    batch.connection.execute("UPDATE memory SET body = ? WHERE id = ?", (body, row_id))
    if batch.connection.changes() != 1:
        raise StoreUnavailable("The memory to be changed is not there.", hint="Load the vault again.")


def rewrite_memory(batch: Batch, data_key: DataKey, vault_number: int, seq: int, memory: Memory) -> None:
    """Delete a memory with its embedding, and store another one without embedding.

    Raises:
        StoreUnavailable: the one is not there, or the other's seq is taken; nothing was changed.
    """
    connection, old_id = batch.connection, row_id_of(vault_number, seq)
    connection.execute("DELETE FROM embedding WHERE id = ?", (old_id,))
    connection.execute("DELETE FROM memory WHERE id = ?", (old_id,))
    if connection.changes() != 1:
        raise StoreUnavailable("The memory to be changed is not there.", hint="Load the vault again.")
    try:
        connection.execute("INSERT INTO memory(id, body) VALUES (?, ?)", sealed_memory(data_key, vault_number, memory))
    except apsw.ConstraintError as error:
        raise StoreUnavailable("This memory was stored before.", hint="Load the vault again.") from error
    connection.execute(
        "UPDATE vault_state SET next_seq = max(next_seq, ?) WHERE vault = ?", (memory.seq + 1, vault_number)
    )


def purge_slice(batch: Batch, vault_number: int) -> bool:
    """Remove a few rows of each table of a shredded vault; True when none is left."""
    return delete_vault_rows(batch.connection, vault_number) == 0


def delete_vault_rows(connection: apsw.Connection, vault_number: int) -> int:
    """Remove rows of a vault from every table, at most `PURGE_ROWS` or about `PURGE_BYTES` of each; how many."""
    before = connection.total_changes()
    connection.execute("DELETE FROM vault_state WHERE vault = ?", (vault_number,))  # first: then no trigger counts
    low, high = row_range(vault_number)
    for table in ("embedding", "memory"):
        _delete_slice(connection, table, "id BETWEEN ? AND ?", (low, high))
    for table in ("inbox", "damaged_inbox"):
        _delete_slice(connection, table, "vault = ?", (vault_number,))
    return connection.total_changes() - before


def _delete_slice(connection: apsw.Connection, table: str, condition: str, bindings: tuple[int, ...]) -> None:
    rows = all_rows(
        connection,
        f"SELECT id, length(body) FROM {table} WHERE {condition} ORDER BY id LIMIT {PURGE_ROWS:d}",
        bindings,
    )
    doomed: list[tuple[int]] = []
    size_bytes = 0
    for row_id, body_bytes in rows:
        doomed.append((row_id,))
        size_bytes += body_bytes
        if size_bytes >= PURGE_BYTES:
            break
    connection.executemany(f"DELETE FROM {table} WHERE id = ?", doomed)


def vaults_with_inbox(connection: apsw.Connection) -> list[int]:
    """Numbers of the vaults that have inbox rows."""
    return [number for (number,) in all_rows(connection, "SELECT DISTINCT vault FROM inbox ORDER BY vault")]


def load(connection: apsw.Connection, vault: OpenVault, vault_number: int, *, model_id: str) -> Loaded:
    """Read one vault. The connection is in a read transaction, so all parts are of one moment.

    A row that was changed since it was written is left out: one bad sector must not take the whole vault.
    """
    bounds = row_range(vault_number)
    state = one_row(connection, "SELECT next_seq, moves FROM vault_state WHERE vault = ?", (vault_number,))
    model, dims = one_row(connection, "SELECT number, dims FROM model WHERE id = ?", (model_id,)) or (0, 1)
    image = ImageBuilder(vault)
    for rows in batches(connection, "SELECT id, body FROM memory WHERE id BETWEEN ? AND ? ORDER BY id", bounds):
        image.add_memories(rows)
    for rows in batches(
        connection, "SELECT id, body FROM embedding WHERE id BETWEEN ? AND ? AND model = ?", (*bounds, model)
    ):
        image.add_embeddings(rows, model=model, dims=dims)
    image.add_inbox(all_rows(connection, "SELECT id, body FROM inbox WHERE vault = ? ORDER BY id", (vault_number,)))
    return image.finish(next_seq=1 if state is None else state[0], moving=state is not None and state[1] == 1)


def load_page(connection: apsw.Connection, vault: OpenVault, vault_number: int, page: Page, *, model_id: str) -> Paged:
    """Memories behind `page.after_seq` in order, with their vectors. Rows that do not open are left out."""

    def memories_between(low: int, high: int, limit: int) -> list[Any]:
        statement = "SELECT id, body FROM memory WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
        return all_rows(connection, statement, (low, high, limit))

    def embeddings_of(row_ids: Sequence[int]) -> tuple[int, list[Any]]:
        (model,) = one_row(connection, "SELECT number FROM model WHERE id = ?", (model_id,)) or (0,)
        rows = []
        for row_id in row_ids:  # one by one: between those of one session may lie a large vault
            rows += all_rows(connection, "SELECT id, body FROM embedding WHERE id = ? AND model = ?", (row_id, model))
        return model, rows

    return read_page(vault, vault_number, page, memories_between=memories_between, embeddings_of=embeddings_of)


def vault_sizes(connection: apsw.Connection, vault_numbers: Sequence[int]) -> dict[int, tuple[int, int]]:
    """By vault number: its memories, and the bytes of their rows."""
    found = {}
    for number in vault_numbers:
        row = one_row(connection, "SELECT memories, content_bytes FROM vault_state WHERE vault = ?", (number,))
        found[number] = (0, 0) if row is None else tuple(row)
    return found


def held_together(connection: apsw.Connection, vault_numbers: str) -> tuple[int, int]:
    """Memories, and the bytes of their rows, of all these vaults, whose numbers are a JSON array."""
    memories, content_bytes = one_row(
        connection,
        "SELECT coalesce(sum(memories), 0), coalesce(sum(content_bytes), 0) "
        "FROM json_each(?) CROSS JOIN vault_state ON vault_state.vault = json_each.value",
        (vault_numbers,),
    )
    return memories, content_bytes


def size(connection: apsw.Connection) -> tuple[int, int]:
    """All memories of the file, and the bytes of their rows."""
    row = one_row(connection, "SELECT coalesce(sum(memories), 0), coalesce(sum(content_bytes), 0) FROM vault_state")
    return int(row[0]), int(row[1])


def set_aside(batch: Batch, vault_number: int, row_ids: Sequence[int], *, now_ms: int) -> None:
    """Move inbox rows that do not open out of the way, as they are."""
    rows = [(now_ms, row_id, vault_number) for row_id in row_ids]
    batch.connection.executemany(
        "INSERT OR REPLACE INTO damaged_inbox(id, vault, body, set_aside_ms) "
        "SELECT id, vault, body, ? FROM inbox WHERE id = ? AND vault = ?",
        rows,
    )
    batch.connection.executemany("DELETE FROM inbox WHERE id = ? AND vault = ?", [row[1:] for row in rows])
