"""The deletion of memories: in steps, in an order that a crash cannot turn against what it promises.

What callers see of it is in `test_vault_actor.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import trio
from trio.testing import MockClock

from actors.analysis import analyse
from actors.forgetting import Forgetting
from actors.imprint_keeper import ImprintKeeper
from actors.index_keeper import IndexKeeper
from actors.mailbox import Mailbox
from actors.step_writer import StepWriter
from actors.store.protocol import VaultStore
from actors.vault import Vault
from models.ids import VaultNumber, VaultRef
from models.memory import Exchange, InboxRow, Message
from tests.fakes.embedding import HashEmbedding

REF = VaultRef(number=VaultNumber(1), shard=0)


class NeverWritten:
    """A store that notes what it is asked for, and never comes to the end of an imprint."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.saving = trio.Event()

    async def save_imprint(self, vault: VaultRef, parts: Sequence[memoryview]) -> None:
        self.saving.set()
        try:
            await trio.sleep_forever()
        finally:
            self.asked.append("save given up")

    async def remove_imprint(self, vault: VaultRef) -> None:
        self.asked.append("remove imprint")
        await trio.lowlevel.checkpoint()

    async def prune_segments(self, vault: VaultRef, *, keep: Sequence[int]) -> None:
        self.asked.append(f"keep segments {list(keep)}")
        await trio.lowlevel.checkpoint()

    async def delete_memories(self, vault: VaultRef, seqs: Sequence[int]) -> None:
        self.asked.append(f"delete {list(seqs)}")
        await trio.lowlevel.checkpoint()


def a_vault(*texts: str) -> Vault:
    """Each text a session of its own."""
    vault = Vault(dims=8, repeat_window_ms=1, relevance_min=0.2)
    messages = tuple(Message(role="user", content=text, session_id=text) for text in texts)
    row = InboxRow(1, Exchange(messages=messages, source="upload", accepted_ms=1))
    for message in vault.begin_row(row):
        vault.add(row, message, analyse(message, HashEmbedding(dims=8), 200))
    vault.end_row(row)
    return vault


async def test_a_deletion_gives_up_the_imprint_that_is_being_written(mock_clock: MockClock) -> None:
    """No time passes in this test: whoever waited for the write would wait for ever."""
    held = NeverWritten()
    store = cast(VaultStore, held)
    vault = a_vault("one", "two", "three")
    imprints = ImprintKeeper(REF, store, memories_min=1)
    writer = StepWriter(REF, store, written=lambda _: None)
    async with imprints.running():
        imprints.keep_nowait(vault)
        await held.saving.wait()
        mailbox = Mailbox(messages_max=8, reserved_max=1)
        keeper = IndexKeeper(REF, store, mailbox, trio.CapacityLimiter(1), model_id="m", dims=8)
        forgetting = Forgetting(REF, vault, store, writer=writer, imprints=imprints, keeper=keeper, reload=lambda: None)
        await forgetting.delete(vault.session_seqs("two"))
    assert held.asked == ["save given up", "remove imprint", "keep segments []", "delete [2]"]
    assert vault.session_seqs("two") == []
    assert vault.memories == 2
