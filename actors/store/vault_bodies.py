"""What stands in the rows of a vault, whatever database holds them: their ids, sealed bodies, and a vault's image.

Owns the numbering of memories (`vault << 32 | seq`), and how exchanges and vectors become bytes; bodies of memories are
in `actors.store.memory_rows`. The ids are associated data of the seals, so both engines number alike, and rows move
between them as they are. Pure of databases, of threads and of Trio. Must never give out a plaintext body to be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors.store.damage import DamagedRows
from actors.store.keyring import OpenVault
from actors.store.memory_rows import decode_memory, encode_memory
from actors.store.protocol import VaultImage, Vectors
from actors.store.seal import DataKey, Table
from models.memory import Exchange, InboxRow, Memory
from models.messages import Page, Paged

T = TypeVar("T")

SEQ_BITS = 32
SEQ_MASK = (1 << SEQ_BITS) - 1

VECTOR_TYPE = np.dtype("<f2")

_encode = msgspec.msgpack.Encoder().encode
_exchanges = msgspec.msgpack.Decoder(Exchange)


def encode_exchange(exchange: Exchange) -> bytes:
    """The body of an inbox row, not sealed yet."""
    return _encode(exchange)


def row_id_of(vault_number: int, seq: int) -> int:
    """The id of a memory, and of its embedding."""
    assert 0 < seq < 1 << SEQ_BITS, "a vault numbers its memories from 1, in 32 bits"
    return vault_number << SEQ_BITS | seq


def row_range(vault_number: int) -> tuple[int, int]:
    """The first and the last id that memories of a vault may have."""
    return vault_number << SEQ_BITS, vault_number << SEQ_BITS | SEQ_MASK


def sealed_exchanges(
    data_key: DataKey, rows: Iterable[InboxRow], bodies: Iterable[bytes]
) -> Iterator[tuple[int, bytes]]:
    """Row ids and sealed bodies of exchanges whose encoded bodies are given."""
    for row, body in zip(rows, bodies, strict=True):
        yield row.row_id, data_key.seal(Table.INBOX, row.row_id, body)


def sealed_memory(data_key: DataKey, vault_number: int, memory: Memory) -> tuple[int, bytes]:
    """A memory's row id and sealed body."""
    row_id = row_id_of(vault_number, memory.seq)
    return row_id, data_key.seal(Table.MEMORY, row_id, encode_memory(memory))


def width_of(vectors: Vectors) -> int:
    """The dimensions of embeddings of one model."""
    widths = {of_memory.shape[1] for of_memory in vectors.values()}
    assert len(widths) == 1, "embeddings of one model have one width"
    return int(widths.pop())


def sealed_vectors(
    data_key: DataKey, vault_number: int, vectors: Vectors, *, model: int
) -> Iterator[tuple[int, bytes]]:
    """Row ids and sealed bodies of embeddings by the model of this number."""
    for seq, of_memory in vectors.items():
        row_id = row_id_of(vault_number, seq)
        plaintext = of_memory.astype(VECTOR_TYPE, copy=False).tobytes()
        yield row_id, data_key.seal(Table.EMBEDDING, row_id, plaintext, qualifier=model)


class Loaded(msgspec.Struct, frozen=True):
    """A vault's image, and what had to be left out of it."""

    image: VaultImage
    damaged: DamagedRows


def empty_vault() -> Loaded:
    """What is read of a vault that does not exist (any more)."""
    image = VaultImage(created_ms=0, memories=[], vectors={}, inbox=[], next_seq=1)
    return Loaded(image=image, damaged=DamagedRows())


class ImageBuilder:
    """Opens the sealed rows of one vault, batch by batch, and puts its image together.

    A row that was changed since it was written is left out: one bad sector must not take the whole vault.

    Args:
        vault: whose rows.
        ordered: whether memories and embeddings come in the order of their ids; else `finish` sorts them.
    """

    __slots__ = (
        "_bad_embeddings",
        "_bad_inbox",
        "_bad_memories",
        "_inbox",
        "_last_row_id",
        "_memories",
        "_ordered",
        "_vault",
        "_vectors",
    )

    def __init__(self, vault: OpenVault, *, ordered: bool = True) -> None:
        self._vault = vault
        self._ordered = ordered
        self._memories: list[Memory] = []
        self._vectors: Vectors = {}
        self._inbox: list[InboxRow] = []
        self._last_row_id = 0
        self._bad_memories: list[int] = []
        self._bad_embeddings: list[int] = []
        self._bad_inbox: list[int] = []

    def add_memories(self, rows: Sequence[tuple[int, bytes]]) -> None:
        """Sealed rows, at least one."""
        last_row_id = rows[-1][0] if self._ordered else max(row_id for row_id, _ in rows)
        self._last_row_id = max(self._last_row_id, last_row_id)
        opened = self._vault.data_key.unseal_rows(Table.MEMORY, rows, damaged=self._bad_memories)
        self._memories += [memory for _, memory in decoded(opened, decode_memory, self._bad_memories)]

    def add_embeddings(self, rows: Sequence[tuple[int, bytes]], *, model: int, dims: int) -> None:
        """Sealed rows of the model of this number."""
        opened = self._vault.data_key.unseal_rows(Table.EMBEDDING, rows, qualifier=model, damaged=self._bad_embeddings)
        self._vectors.update(_vectors_of(opened, dims, self._bad_embeddings))

    def add_inbox(self, rows: Sequence[tuple[int, bytes]]) -> None:
        """Sealed rows in the order of their ids."""
        opened = self._vault.data_key.unseal_rows(Table.INBOX, rows, damaged=self._bad_inbox)
        self._inbox += [
            InboxRow(row_id=row_id, exchange=exchange)
            for row_id, exchange in decoded(opened, _exchanges.decode, self._bad_inbox)
        ]

    def finish(self, *, next_seq: int, moving: bool) -> Loaded:
        """The image. `next_seq` is the vault's counter; a damaged one takes no number twice."""
        if not self._ordered:
            self._memories.sort(key=attrgetter("seq"))
            self._vectors = dict(sorted(self._vectors.items()))
        image = VaultImage(
            created_ms=self._vault.created_ms,
            memories=self._memories,
            vectors=self._vectors,
            inbox=self._inbox,
            next_seq=max(next_seq, (self._last_row_id & SEQ_MASK) + 1),
            damaged=len(self._bad_memories) + len(self._bad_embeddings) + len(self._bad_inbox),
            moving=moving,
        )
        damaged = DamagedRows(
            memories=tuple(self._bad_memories), embeddings=tuple(self._bad_embeddings), inbox=tuple(self._bad_inbox)
        )
        return Loaded(image=image, damaged=damaged)


def _vectors_of(rows: Iterable[tuple[int, bytes]], dims: int, damaged: list[int]) -> Vectors:
    """The arrays of opened embeddings by seq; parts of one array where all are of one size, as most memories are."""
    rows = list(rows)
    sizes = {len(body) for _, body in rows}
    if len(sizes) == 1 and not sizes.pop() % (dims * VECTOR_TYPE.itemsize):
        joined = np.frombuffer(b"".join([body for _, body in rows]), VECTOR_TYPE).reshape(len(rows), -1, dims)
        return dict(zip([row_id & SEQ_MASK for row_id, _ in rows], joined, strict=True))

    def to_vectors(body: bytes) -> NDArray[np.float16]:
        return np.frombuffer(body, VECTOR_TYPE).reshape(-1, dims)

    return {row_id & SEQ_MASK: vectors for row_id, vectors in decoded(rows, to_vectors, damaged)}


def decoded(
    rows: Iterable[tuple[int, bytes]], decode: Callable[[bytes], T], damaged: list[int]
) -> Iterator[tuple[int, T]]:
    """Row ids and what their opened bodies mean; ids of those that mean nothing go to `damaged`."""
    for row_id, body in rows:
        try:
            meaning = decode(body)
        except (msgspec.MsgspecError, ValueError):
            damaged.append(row_id)
            continue
        yield row_id, meaning


def read_page(
    vault: OpenVault,
    vault_number: int,
    page: Page,
    *,
    memories_between: Callable[[int, int, int], Sequence[tuple[int, bytes]]],
    embeddings_of: Callable[[Sequence[int]], tuple[int, Sequence[tuple[int, bytes]]]],
) -> Paged:
    """Memories behind `page.after_seq` in order, with their vectors. Rows that do not open are left out.

    Args:
        vault: whose.
        vault_number: its number.
        page: which.
        memories_between: sealed rows from an id to another, both included, in order, at most so many.
        embeddings_of: the model's number, and the sealed rows by that model of these ids.
    """
    low, high = row_range(vault_number)
    damaged: list[int] = []
    memories: list[Memory] = []
    position = low + max(0, min(page.after_seq, SEQ_MASK)) + 1  # `low` is where seq 0 would be
    while len(memories) < page.limit:
        rows = memories_between(position, high, page.limit)
        opened = vault.data_key.unseal_rows(Table.MEMORY, rows, damaged=damaged)
        for _, memory in decoded(opened, decode_memory, damaged):
            if page.session_id is None or memory.session_id == page.session_id:
                memories.append(memory)
        if len(rows) < page.limit:
            break
        position = rows[-1][0] + 1
    memories = memories[: page.limit]
    vectors: dict[int, bytes] = {}
    if page.vectors and memories:
        model, rows = embeddings_of([row_id_of(vault_number, memory.seq) for memory in memories])
        opened = vault.data_key.unseal_rows(Table.EMBEDDING, rows, qualifier=model, damaged=damaged)
        vectors = {row_id & SEQ_MASK: body for row_id, body in opened}
    return Paged(memories=tuple(memories), vectors=vectors)
