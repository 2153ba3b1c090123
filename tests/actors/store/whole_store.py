"""A store with a row of every kind, and all that can be asked of it: what a move must keep."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from actors.store.protocol import Materialisation, Store
from models.accounts import OPERATOR, SERVER, AccountChange
from models.ids import VaultNumber, VaultRef, hash_key
from models.usage import UsageCount
from tests.actors.store.samples import DIMS, MODEL, memory, new_account, new_vault, remembered, step, stored, vectors

KEYS = 6
PROVIDER_SECRET = "sk-a-secret-of-a-provider"


async def fill(store: Store, *, memories: int = 20) -> None:
    """Everything that a store can hold."""
    first = (await new_account(store)).vault
    await new_account(store, "mk_second")
    vaults = [first, *[await new_vault(store, f"mk_{number}") for number in range(KEYS)]]
    for place, vault in enumerate(vaults):
        await remembered(store, vault, *(f"text {place} {number}" for number in range(memories)))
        await stored(store, vault, f"waiting {place}", f"another {place}")
    await _of_vaults(store, vaults)
    await _of_the_directory(store)
    await store.delete_key(1, 3, now_ms=9, with_vault=True, by=OPERATOR)


async def _of_vaults(store: Store, vaults: list[VaultRef]) -> None:
    """Memories of every shape: deleted, rewritten, without vectors, of another model, of several chunks."""
    await store.delete_memories(vaults[0], [1, 3])
    await store.rewrite_memory(vaults[0], 2, memory(100, "rewritten"))
    await store.put_memory(vaults[0], msgspec.structs.replace(memory(4, "text"), session_id="s"))
    await store.materialise(vaults[2], step((), memory(200, "bare"), next_seq=201, embedded=False))
    chunks = {seq: np.full((3, DIMS), seq, dtype=np.float16) for seq in (5, 6)}
    await store.materialise(vaults[3], Materialisation((), (), chunks, model_id=MODEL, next_seq=7))
    await store.choose_embedder(vaults[3], "other")
    await store.materialise(vaults[3], Materialisation((), (), vectors(1, 2), model_id="other@1", next_seq=7))
    await store.set_aside(vaults[4], [row.row_id for row in await stored(store, vaults[4], "damaged", "too")])
    await store.replace_vault(vaults[5])


async def _of_the_directory(store: Store) -> None:
    """Keys that were rotated, revoked or switched off, accounts with names, provider keys, audit entries, usage."""
    await store.change_account(2, AccountChange(name="Zürich", retention_days=30), now_ms=5, by=OPERATOR)
    await store.put_provider_key(1, "openai", PROVIDER_SECRET, now_ms=5, by=OPERATOR)
    await store.put_provider_key(1, "gone", PROVIDER_SECRET, now_ms=5, by=OPERATOR)
    await store.delete_provider_key(1, "gone", now_ms=6, by=OPERATOR)
    await store.audit(
        at_ms=7, account_number=None, action="test.done", target="nothing", by=SERVER, detail={"ü": 1, "none": None}
    )
    await store.rotate_key(
        1, 4, key_hash=hash_key("mk_rotated"), shown="mk_rota", now_ms=8, grace_ms=10**15, by=OPERATOR
    )
    counted = [(day, model) for day in (3, 4) for model in ("b", "A")]
    counts = [UsageCount(key_number=1, account_number=1, day=day, model=model) for day, model in counted]
    await store.fold_usage("journal", 4, counts, {1: 50})


async def everything(store: Store) -> dict[str, Any]:
    """All that can be asked of a store, but for the partitions of vaults."""
    answers: dict[str, Any] = {}
    for account in await store.list_accounts():
        number = account.number
        vaults = [msgspec.structs.replace(found, vault=_bare(found.vault)) for found in await store.list_vaults(number)]
        answers[f"account {number}"] = (
            account,
            [_without_vault(key) for key in await store.list_keys(number, include_revoked=True)],
            vaults,
            await store.list_provider_keys(number),
            await store.load_usage(number, first_day=0, last_day=99),
            await store.account_size(number),
        )
        for vault in await store.list_vaults(number):
            answers[f"vault {vault.vault.number}"] = await contents(store, vault.vault)
    secret = await store.find_provider_key(1, "openai")
    answers["secret"] = secret and secret.reveal()
    answers["audit"] = await store.list_audit()
    answers["folded"] = await store.folded_through("journal")
    answers["vaults"] = (await store.size()).vaults  # its memories go down while shredded vaults are purged
    answers["moving"] = {vault.number for vault in await store.vaults_moving()}
    answers["inbox"] = {vault.number for vault in await store.vaults_with_inbox()}
    for name in ("account", "second", "rotated", *map(str, range(KEYS))):
        principal = await store.find_key(hash_key(f"mk_{name}"))
        answers[f"key {name}"] = principal and (principal.key_number, principal.vault.number)
    return answers


def _bare(vault: VaultRef) -> VaultRef:
    return VaultRef(number=VaultNumber(vault.number), shard=0)


def _without_vault(record: Any) -> Any:
    return msgspec.structs.replace(record, vault=_bare(record.vault))


async def contents(store: Store, vault: VaultRef) -> Any:
    """A vault's rows, opened; ids of inbox rows are the store's own business."""
    both = []
    for model in (MODEL, "other@1"):
        image = await store.load_vault(vault, model_id=model)
        found = {seq: embedded.tolist() for seq, embedded in image.vectors.items()}
        both.append((image.memories, found, [row.exchange for row in image.inbox], image.next_seq, image.damaged))
    return both, await store.remembered_embedder(vault)
