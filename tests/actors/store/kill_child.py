"""The victim of `test_kill.py`: accepts and materialises for ever, and prints what was acknowledged.

Run as `python -m tests.actors.store.kill_child DATA_DIR CYCLE`. Each line on stdout is one text whose commit was
durable before the line was written.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import trio

from actors.store.sqlite import SqliteStore, open_store
from models.ids import VaultRef, hash_key
from models.memory import InboxRow
from models.store_settings import StoreSettings
from tests.actors.store.samples import MODEL, accept, memory, new_account, step

WRITERS = 16
STEP_ROWS = 20


async def write(store: SqliteStore, vault: VaultRef, name: str, hand_over: list[InboxRow]) -> None:
    """Accept one text after the other and print each once it is durable."""
    number = 0
    while True:
        text = f"{name}-{number}"
        number += 1
        await accept(store, vault, text, on_durable=hand_over.extend).wait_durable()
        os.write(1, f"{text}\n".encode())


async def materialise(store: SqliteStore, vault: VaultRef, waiting: list[InboxRow], next_seq: int) -> None:
    """Turn rows into memories beside the writers, a few at a time."""
    while True:
        rows, waiting[:STEP_ROWS] = waiting[:STEP_ROWS], []
        if not rows:
            await trio.lowlevel.checkpoint()
            continue
        texts = [row.exchange.messages[0].content for row in rows]
        memories = [memory(next_seq + place, text) for place, text in enumerate(texts)]
        next_seq += len(memories)
        await store.materialise(vault, step(tuple(row.row_id for row in rows), *memories, next_seq=next_seq))


async def main(data_dir: Path, cycle: str) -> None:
    """Work until killed."""
    async with open_store(data_dir, settings=StoreSettings(shards=1, checkpoint_wal_bytes=1 << 20)) as store:
        found = await store.find_key(hash_key("mk_account"))
        vault = (found or await new_account(store)).vault
        image = await store.load_vault(vault, model_id=MODEL)
        waiting = list(image.inbox)
        async with trio.open_nursery() as tasks:
            tasks.start_soon(materialise, store, vault, waiting, image.next_seq)
            for number in range(WRITERS):
                tasks.start_soon(write, store, vault, f"{cycle}-{number}", waiting)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2])
