"""The deletion of one session from a vault: in steps, each of which holds whatever becomes of the next.

Owns their order: what is under way to the store first, then the imprint, which holds words of what goes, then the rows,
then what the vault has of them. Runs within a turn, so nobody else has the vault; must never leave in memory what the
store has deleted, nor delete in memory what the store may still have.
"""

from __future__ import annotations

import trio

from actors.imprint_keeper import MEMORIES_PER_S_MIN, ImprintKeeper
from actors.slices import Pause
from actors.step_writer import StepWriter
from actors.store.protocol import VaultStore
from actors.vault import Vault
from models.errors import StoreUnavailable
from models.ids import VaultRef

FORGET_MEMORIES_MAX = 1_000
"""In one transaction: the other vaults of the shard commit in between."""

FORGET_TIMEOUT_S = 10.0
"""Of one step; the vault's readers wait meanwhile. What a slower store was asked for is still to be read."""


async def forget_session(
    session_id: str, *, ref: VaultRef, vault: Vault, store: VaultStore, writer: StepWriter, imprints: ImprintKeeper
) -> int:
    """Delete a session, of which all that there is has been put to the writer.

    Returns:
        How many memories it had.

    Raises:
        StoreUnavailable: a step took too long or failed; asking again deletes what is left.
    """
    seqs = vault.session_seqs(session_id)
    pause = Pause()
    for start in range(0, len(seqs), FORGET_MEMORIES_MAX):
        part = seqs[start : start + FORGET_MEMORIES_MAX]
        patience_s = FORGET_TIMEOUT_S + imprints.covered / MEMORIES_PER_S_MIN  # the imprint is overwritten, once
        with trio.move_on_after(patience_s) as waiting:
            await writer.wait_settled()
            await imprints.remove()
            await store.delete_memories(ref, part)
        if waiting.cancelled_caught:
            raise StoreUnavailable("The store did not delete the session in time; ask again until it is deleted.")
        for seq in part:
            vault.forget(seq)
            await pause.after_slice()
    while not vault.purge():
        await pause.after_slice()
    return len(seqs)
