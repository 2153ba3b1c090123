"""The SQL of one shard: what is written into its tables and read from them, sealed and opened on the way.

Pure of threads and of Trio: every function gets the connection of the thread that it runs in. Bodies are
msgpack of the Structs in `models.memory`. Must never write a plaintext body, and never read one vault's rows
with another's key.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw
import msgspec
import numpy as np

from actors.store.connections import all_rows, one_row
from actors.store.keyring import OpenVault
from actors.store.protocol import Materialisation, VaultImage
from actors.store.seal import DataKey, Table
from actors.store.tickets import Batch
from models.errors import CorruptRow, StoreUnavailable
from models.memory import Exchange, InboxRow, Memory

SEQ_BITS = 32
SEQ_MASK = (1 << SEQ_BITS) - 1
PURGE_ROWS = 256
"""Rows of each table that one slice of a purge removes: a few milliseconds between two group commits."""

_VECTOR_TYPE = np.dtype("<f2")
_encode = msgspec.msgpack.Encoder().encode
_exchanges = msgspec.msgpack.Decoder(Exchange)
_memories = msgspec.msgpack.Decoder(Memory)


def encode_exchange(exchange: Exchange) -> bytes:
    """The body of an inbox row, not sealed yet."""
    return _encode(exchange)


def _row_id(vault_number: int, seq: int) -> int:
    assert 0 < seq < 1 << SEQ_BITS, "a vault numbers its memories from 1, in 32 bits"
    return vault_number << SEQ_BITS | seq


def _row_range(vault_number: int) -> tuple[int, int]:
    return vault_number << SEQ_BITS, vault_number << SEQ_BITS | SEQ_MASK


def append_inbox(
    batch: Batch, data_key: DataKey, vault_number: int, exchanges: Sequence[Exchange], bodies: Sequence[bytes]
) -> list[InboxRow]:
    """Append exchanges, whose encoded bodies are given, to the inbox."""
    rows = [InboxRow(row_id=batch.next_row_id(), exchange=exchange) for exchange in exchanges]
    batch.connection.executemany(
        "INSERT INTO inbox(id, vault, body) VALUES (?, ?, ?)",
        [
            (row.row_id, vault_number, data_key.seal(Table.INBOX, row.row_id, body))
            for row, body in zip(rows, bodies, strict=True)
        ],
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
            [_sealed_memory(data_key, vault_number, memory) for memory in step.memories],
        )
    except apsw.ConstraintError as error:
        raise StoreUnavailable("These memories were stored before.", hint="Load the vault again.") from error
    if step.vectors:
        _put_vectors(connection, data_key, vault_number, step)
    connection.execute(
        "INSERT INTO vault_state(vault, next_seq) VALUES (?, ?) "
        "ON CONFLICT(vault) DO UPDATE SET next_seq = max(next_seq, excluded.next_seq)",
        (vault_number, step.next_seq),
    )


def _sealed_memory(data_key: DataKey, vault_number: int, memory: Memory) -> tuple[int, bytes]:
    row_id = _row_id(vault_number, memory.seq)
    return row_id, data_key.seal(Table.MEMORY, row_id, _encode(memory))


def _put_vectors(connection: apsw.Connection, data_key: DataKey, vault_number: int, step: Materialisation) -> None:
    """Store embeddings, but none of a memory that was deleted while it was being embedded."""
    widths = {vectors.shape[1] for vectors in step.vectors.values()}
    assert len(widths) == 1, "embeddings of one model have one width"
    model = _model_number(connection, step.model_id, dims=widths.pop())
    rows = []
    for seq, vectors in step.vectors.items():
        row_id = _row_id(vault_number, seq)
        plaintext = vectors.astype(_VECTOR_TYPE, copy=False).tobytes()
        rows.append((row_id, model, data_key.seal(Table.EMBEDDING, row_id, plaintext, qualifier=model), row_id))
    connection.executemany(
        "INSERT OR REPLACE INTO embedding(id, model, body) SELECT ?, ?, ? "
        "WHERE EXISTS (SELECT 1 FROM memory WHERE id = ?)",
        rows,
    )


def _model_number(connection: apsw.Connection, model_id: str, *, dims: int) -> int:
    row = one_row(connection, "SELECT number, dims FROM model WHERE id = ?", (model_id,)) or one_row(
        connection, "INSERT INTO model(id, dims) VALUES (?, ?) RETURNING number, dims", (model_id, dims)
    )
    assert row[1] == dims, "a model's embeddings keep their width"
    return int(row[0])


def delete_memories(batch: Batch, vault_number: int, seqs: Sequence[int]) -> None:
    """Delete memories and their embeddings; seqs that do not exist are skipped."""
    row_ids = [(_row_id(vault_number, seq),) for seq in seqs]
    batch.connection.executemany("DELETE FROM embedding WHERE id = ?", row_ids)
    batch.connection.executemany("DELETE FROM memory WHERE id = ?", row_ids)


def purge_slice(batch: Batch, vault_number: int) -> bool:
    """Remove up to `PURGE_ROWS` rows of each table of a shredded vault; True when none is left."""
    connection = batch.connection
    before = connection.total_changes()
    low, high = _row_range(vault_number)
    for table in ("embedding", "memory"):
        connection.execute(
            f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE id BETWEEN ? AND ? LIMIT ?)",
            (low, high, PURGE_ROWS),
        )
    connection.execute(
        "DELETE FROM inbox WHERE id IN (SELECT id FROM inbox WHERE vault = ? LIMIT ?)",
        (vault_number, PURGE_ROWS),
    )
    connection.execute("DELETE FROM vault_state WHERE vault = ?", (vault_number,))
    return connection.total_changes() == before


def vaults_with_inbox(connection: apsw.Connection) -> list[int]:
    """Numbers of the vaults that have inbox rows."""
    return [number for (number,) in all_rows(connection, "SELECT DISTINCT vault FROM inbox ORDER BY vault")]


def load(connection: apsw.Connection, vault: OpenVault, vault_number: int, *, model_id: str) -> VaultImage:
    """Read one vault. The connection is in a read transaction, so all parts are of one moment.

    Raises:
        CorruptRow: a row was changed since it was written.
    """
    row_range = _row_range(vault_number)
    state = one_row(connection, "SELECT next_seq FROM vault_state WHERE vault = ?", (vault_number,))
    model, dims = one_row(connection, "SELECT number, dims FROM model WHERE id = ?", (model_id,)) or (0, 1)
    memories = all_rows(connection, "SELECT id, body FROM memory WHERE id BETWEEN ? AND ? ORDER BY id", row_range)
    embeddings = all_rows(
        connection,
        "SELECT id, body FROM embedding WHERE id BETWEEN ? AND ? AND model = ?",
        (*row_range, model),
    )
    inbox = all_rows(connection, "SELECT id, body FROM inbox WHERE vault = ? ORDER BY id", (vault_number,))
    unseal_rows = vault.data_key.unseal_rows
    try:
        return VaultImage(
            created_ms=vault.created_ms,
            memories=[_memories.decode(body) for _, body in unseal_rows(Table.MEMORY, memories)],
            vectors={
                row_id & SEQ_MASK: np.frombuffer(body, _VECTOR_TYPE).reshape(-1, dims)
                for row_id, body in unseal_rows(Table.EMBEDDING, embeddings, qualifier=model)
            },
            inbox=[
                InboxRow(row_id=row_id, exchange=_exchanges.decode(body))
                for row_id, body in unseal_rows(Table.INBOX, inbox)
            ],
            next_seq=1 if state is None else state[0],
        )
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptRow(f"A row of vault {vault_number} cannot be decoded.") from error
