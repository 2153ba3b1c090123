"""What the store's tests write: small exchanges, memories and vectors that are told apart by their text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from actors.store.protocol import Commit, Materialisation, Store, Vectors
from models.accounts import OPERATOR
from models.ids import Principal, VaultRef, hash_key
from models.memory import Exchange, InboxRow, Memory, Message

MODEL = "test-model@1"
DIMS = 8


def exchange(text: str) -> Exchange:
    """One user message."""
    return Exchange(
        messages=(Message(role="user", content=text, metadata={"tag": text}),),
        source="ingest",
        accepted_ms=1_700_000_000_000,
    )


def memory(seq: int, text: str) -> Memory:
    """A memory of one chunk."""
    return Memory(
        seq=seq,
        role="user",
        content=text,
        timestamp_ms=1_700_000_000_000,
        stored_ms=1_700_000_000_000,
        source="ingest",
        spans=((0, len(text)),),
    )


def vectors(*seqs: int) -> Vectors:
    """One chunk for each seq, filled with the seq."""
    return {seq: np.full((1, DIMS), seq, dtype=np.float16) for seq in seqs}


def step(row_ids: tuple[int, ...], *memories: Memory, next_seq: int, embedded: bool = True) -> Materialisation:
    """A step that turns rows into memories."""
    return Materialisation(
        row_ids=row_ids,
        memories=memories,
        vectors=vectors(*(memory.seq for memory in memories)) if embedded else {},
        model_id=MODEL,
        next_seq=next_seq,
    )


def ignore(_rows: list[InboxRow]) -> None:
    """A callback that does nothing."""


async def new_account(store: Store, key: str = "mk_account") -> Principal:
    """An account with its key."""
    return await store.create_account(key_hash=hash_key(key), shown=key[:7], created_ms=1000)


async def new_vault(store: Store, key: str) -> VaultRef:
    """The vault of a new user key of account 1."""
    principal = await store.create_key(1, name=key, key_hash=hash_key(key), shown=key[:7], created_ms=2000)
    return principal.vault


async def revoke(store: Store, principal: Principal, *, now_ms: int) -> None:
    """Delete a key and keep its vault."""
    await store.delete_key(principal.account_number, principal.key_number, now_ms=now_ms, with_vault=False, by=OPERATOR)


def accept(store: Store, vault: VaultRef, *texts: str, on_durable: Callable[[list[InboxRow]], None] = ignore) -> Commit:
    """Accept one exchange a text."""
    return store.accept_nowait(vault, [exchange(text) for text in texts], on_durable)


async def stored(store: Store, vault: VaultRef, *texts: str) -> list[InboxRow]:
    """Accept exchanges and wait until they are durable."""
    rows: list[InboxRow] = []
    await accept(store, vault, *texts, on_durable=rows.extend).wait_durable()
    return rows


async def remembered(store: Store, vault: VaultRef, *texts: str) -> None:
    """Accept exchanges and materialise each into one embedded memory."""
    rows = await stored(store, vault, *texts)
    first = (await store.load_vault(vault, model_id=MODEL)).next_seq
    memories = [memory(first + place, text) for place, text in enumerate(texts)]
    row_ids = tuple(row.row_id for row in rows)
    await store.materialise(vault, step(row_ids, *memories, next_seq=first + len(texts)))


async def texts_of(store: Store, vault: VaultRef) -> tuple[list[str], list[str]]:
    """The contents of a vault's memories, and those of its inbox."""
    image = await store.load_vault(vault, model_id=MODEL)
    inbox = [message.content for row in image.inbox for message in row.exchange.messages]
    return [memory.content for memory in image.memories], inbox
