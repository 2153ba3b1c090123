"""Vaults written straight through the store, as if their memories had come and been embedded long ago.

Embedding is what takes time on the way in, and it is not what these benchmarks measure: the vectors are random unit
vectors under the id of the real model, so that a server takes them for its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import trio
from numpy.typing import NDArray

from actors.store.protocol import Materialisation, Store
from actors.store.sqlite import open_store
from bench._harness import sentence
from models.embedding import TextEncoder, open_embedding_model
from models.ids import VaultRef, hash_key, mint_key, show_key
from models.memory import Exchange, InboxRow, Memory, Message
from models.store_settings import StoreSettings
from router.embedding_models import MODELS_FOLDER

AT_MS = 1_760_000_000_000
STEP_MEMORIES = 2_000
WRITERS = 64
"""Vaults that are written at the same time: as many jobs as one committer takes at once."""

TEXT_BYTES = 500


def texts(first: int, count: int) -> list[str]:
    """Memories of about `TEXT_BYTES` bytes each."""
    return [
        (" ".join(sentence(first + number * 3 + part) for part in range(3)))[:TEXT_BYTES] for number in range(count)
    ]


def vectors_like(encoder: TextEncoder, count: int, random_: np.random.Generator) -> NDArray[np.float16]:
    """Random unit vectors: (count, dims)."""
    rows = random_.standard_normal((count, encoder.dims), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float16)


def open_model(data_dir: Path) -> TextEncoder:
    """The model that a server with this data directory uses."""
    return open_embedding_model(data_dir / MODELS_FOLDER, threads=1)


async def append(store: Store, vault: VaultRef, exchanges: Sequence[Exchange]) -> list[InboxRow]:
    """Store exchanges durably; their inbox rows."""
    rows: list[InboxRow] = []
    await store.accept_nowait(vault, exchanges, on_durable=rows.extend).wait_durable()
    return rows


async def fill(store: Store, vault: VaultRef, contents: Sequence[str], encoder: TextEncoder, seed: int) -> None:
    """Let a vault hold these memories, embedded and written out."""
    random_ = np.random.default_rng(seed)
    for start in range(0, len(contents), STEP_MEMORIES):
        part = contents[start : start + STEP_MEMORIES]
        messages = tuple(Message(role="user", content=content) for content in part)
        rows = await append(store, vault, [Exchange(messages=messages, source="upload", accepted_ms=AT_MS)])
        memories = tuple(
            Memory(
                seq=seq,
                role="user",
                content=content,
                timestamp_ms=AT_MS + seq,
                stored_ms=AT_MS,
                source="upload",
                tokens=encoder.count_tokens(content),
                spans=((0, len(content)),),
            )
            for seq, content in enumerate(part, start + 1)
        )
        matrix = vectors_like(encoder, len(part), random_)
        vectors = {memory.seq: matrix[place : place + 1] for place, memory in enumerate(memories)}
        step = Materialisation(
            row_ids=tuple(row.row_id for row in rows),
            memories=memories,
            vectors=vectors,
            model_id=encoder.id,
            next_seq=start + len(part) + 1,
        )
        await store.materialise(vault, step)


async def write_vaults(data_dir: Path, sizes: Iterable[int]) -> tuple[str, list[str]]:
    """A new data directory with an account and one vault for each size.

    Returns:
        The account key, and the key of each vault in the order of `sizes`.
    """
    sizes = list(sizes)
    encoder = open_model(data_dir)
    account_key = mint_key()
    keys = [mint_key() for _ in sizes]
    numbers = iter(range(len(sizes)))
    async with open_store(data_dir, settings=StoreSettings()) as store:
        account = await store.create_account(
            key_hash=hash_key(account_key), shown=show_key(account_key), created_ms=AT_MS
        )

        async def write() -> None:
            for number in numbers:
                key = keys[number]
                principal = await store.create_key(
                    account.account_number,
                    name=f"user {number}",
                    key_hash=hash_key(key),
                    shown=show_key(key),
                    created_ms=AT_MS,
                )
                await fill(store, principal.vault, texts(number * 1_000, sizes[number]), encoder, number)

        async with trio.open_nursery() as writing:
            for _ in range(min(WRITERS, len(sizes))):
                writing.start_soon(write)
    return account_key, keys


def disk_bytes(data_dir: Path) -> int:
    """What the databases take on disk."""
    return sum(file.stat().st_size for file in data_dir.glob("*.db*"))
