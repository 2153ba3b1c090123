"""What every store promises of provider keys, of the audit log, and of usage."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from actors.store.directory_protocol import PROVIDER_KEY_BYTES_MAX
from actors.store.protocol import Store
from models.accounts import (
    OPERATOR,
    SERVER,
    AccountChange,
    Actor,
    AuditEntry,
    AuditFilter,
    KeyChange,
    ProviderKeyRecord,
)
from models.errors import InvalidRequest, NotFound
from models.usage import UsageCount
from tests.actors.store.conftest import Clock
from tests.actors.store.samples import new_account, new_vault

OWNER = Actor("key:1", account_number=1, request_id="req_7")
SECRET = "sk-proj-0123456789-abcdef-WXYZ"


async def found(store: Store, account: int, provider: str) -> str | None:
    """A stored provider key in the clear."""
    secret = await store.find_provider_key(account, provider)
    return None if secret is None else secret.reveal()


async def test_a_provider_key_is_found_by_its_account_and_shown_by_its_last_characters(
    store: Store, clock: Clock
) -> None:
    await new_account(store)
    await new_account(store, "mk_other")
    assert await found(store, 1, "openai") is None
    record = await store.put_provider_key(1, "openai", SECRET, now_ms=5, by=OWNER)
    assert record == ProviderKeyRecord(provider="openai", last_four="WXYZ", created_ms=5)
    assert await found(store, 1, "openai") == await found(store, 1, "openai") == SECRET
    assert await found(store, 1, "anthropic") is None
    assert await found(store, 2, "openai") is None
    assert await store.list_provider_keys(1) == [record]
    assert await store.list_provider_keys(2) == []
    assert SECRET not in str(await store.find_provider_key(1, "openai"))


async def test_a_provider_key_is_replaced_and_deleted_with_the_next_look_up(store: Store, clock: Clock) -> None:
    await new_account(store)
    for provider in ("openai", "anthropic"):
        await store.put_provider_key(1, provider, SECRET, now_ms=5, by=OWNER)
    assert await found(store, 1, "openai") == SECRET
    again = await store.put_provider_key(1, "openai", "another-key-of-openai", now_ms=6, by=OWNER)
    assert await found(store, 1, "openai") == "another-key-of-openai"
    assert [entry.provider for entry in await store.list_provider_keys(1)] == ["anthropic", "openai"]
    assert (await store.list_provider_keys(1))[1] == again
    await store.delete_provider_key(1, "openai", now_ms=7, by=OWNER)
    assert await found(store, 1, "openai") is None
    assert await found(store, 1, "anthropic") == SECRET
    for account in (1, 2):
        with pytest.raises(NotFound):
            await store.delete_provider_key(account, "openai", now_ms=7, by=OWNER)
    await store.put_provider_key(1, "openai", SECRET, now_ms=8, by=OWNER)
    assert await found(store, 1, "openai") == SECRET


async def test_a_provider_key_may_have_any_characters_up_to_its_length(store: Store, clock: Clock) -> None:
    await new_account(store)
    put = partial(store.put_provider_key, 1, now_ms=1, by=OWNER)
    for secret in ("k", "ключ", "x" * PROVIDER_KEY_BYTES_MAX, "zero\0s", "short-key-12345"):
        record = await put("openai", secret)
        assert await found(store, 1, "openai") == secret
        assert record.last_four == ("xxxx" if len(secret) > 15 else ""), "of a short key nothing is shown"
    for secret in ("", "x" * (PROVIDER_KEY_BYTES_MAX + 1), "я" * (PROVIDER_KEY_BYTES_MAX // 2 + 1)):
        with pytest.raises(InvalidRequest):
            await put("openai", secret)
    assert await found(store, 1, "openai") == "short-key-12345"
    with pytest.raises(NotFound):
        await store.put_provider_key(9, "openai", "k", now_ms=1, by=OWNER)


async def test_every_change_leaves_an_entry_that_says_who_did_what_to_which(store: Store, clock: Clock) -> None:
    account = await new_account(store)
    vault = await new_vault(store, "mk_user")
    now = clock.ms
    made: list[tuple[int, int, str, str, dict[str, str | int | None]]] = [
        (3, 2000, "key.created", "key:2", {"kind": "user", "vault": 2, "vault_is_new": 1}),
        (2, 1000, "key.created", "key:1", {"kind": "account", "vault": 1, "vault_is_new": 1}),
        (1, 1000, "account.created", "account:1", {}),
    ]
    assert await store.list_audit() == [
        AuditEntry(
            number=number,
            at_ms=at_ms,
            account_number=1,
            actor="server",
            action=action,
            target=target,
            detail=detail,
        )
        for number, at_ms, action, target, detail in made
    ]
    at: dict[str, Any] = {"now_ms": now, "by": OWNER}
    await store.change_key(1, 2, KeyChange(name="secret name", disabled=False), **at)
    await store.rotate_key(1, 2, key_hash=b"n", shown="", grace_ms=60, **at)
    await store.delete_key(1, 3, with_vault=True, **at)
    await store.change_vault(1, account.vault.number, retention_days=9, **at)
    await store.change_account(1, AccountChange(name="secret name", disabled=True), **at)
    await store.put_provider_key(1, "openai", SECRET, **at)
    await store.delete_provider_key(1, "openai", **at)
    await store.replace_vault(account.vault, by=OWNER)
    await store.replace_account_key(1, key_hash=b"m", shown="", created_ms=now, by=OPERATOR)
    await store.audit(
        at_ms=now, account_number=1, action="memories.deleted", target="vault:3", by=SERVER, detail={"memories": 4}
    )
    entries = (await store.list_audit(1))[::-1][3:]
    assert [(entry.actor, entry.action, entry.target, entry.detail) for entry in entries] == [
        ("key:1", "key.changed", "key:2", {"fields": "disabled, name", "state": "live"}),
        ("key:1", "key.rotated", "key:2", {"new_key": 3, "grace_ms": 60}),
        ("key:1", "key.deleted", "key:3", {"vault": vault.number}),
        ("key:1", "vault.erased", "vault:2", {}),
        ("key:1", "vault.changed", "vault:1", {"retention_days": 9}),
        ("key:1", "account.changed", "account:1", {"fields": "disabled, name", "state": "disabled"}),
        ("key:1", "provider_key.stored", "provider:openai", {}),
        ("key:1", "provider_key.deleted", "provider:openai", {}),
        ("key:1", "vault.erased", "vault:1", {"new_vault": 3}),
        ("operator", "key.created", "key:4", {"kind": "account", "vault": 3, "vault_is_new": 0}),
        ("operator", "account.key_replaced", "account:1", {"key": 4, "keys_revoked": 1}),
        ("server", "memories.deleted", "vault:3", {"memories": 4}),
    ]
    assert {entry.request_id for entry in entries} == {"req_7", None}
    assert all(entry.at_ms == now for entry in entries)
    assert "secret" not in str(entries)
    assert SECRET not in str(entries)


async def test_the_audit_log_is_read_backwards_and_by_account(store: Store, clock: Clock) -> None:
    await new_account(store)
    await new_account(store, "mk_other")
    for number in range(5):
        await store.audit(at_ms=number, account_number=1 + number % 2, action="x", target=f"vault:{number}", by=OWNER)
    await store.audit(at_ms=9, account_number=None, action="server.key_rotated", target="server", by=OPERATOR)
    everything = await store.list_audit()
    assert [entry.number for entry in everything] == list(range(10, 0, -1))
    assert [entry.number for entry in await store.list_audit(1)] == [9, 7, 5, 2, 1]
    assert await store.list_audit(1, before=7, limit=2) == [entry for entry in everything if entry.number in (5, 2)]
    assert await store.list_audit(before=10, limit=1) == everything[1:2]
    assert await store.list_audit(3) == []
    await store.delete_account(2, now_ms=1, by=OPERATOR)
    deleted = (await store.list_audit(2))[0]
    assert (deleted.action, deleted.detail) == ("account.deleted", {"keys": 1, "vaults": 1, "provider_keys": 0})


async def test_the_audit_log_is_filtered_by_what_was_done_to_what_by_whom_and_when(store: Store, clock: Clock) -> None:
    await new_account(store)
    await new_account(store, "mk_other")
    for at_ms, account, action, target, by in (
        (1, 1, "key.deleted", "key:12", OWNER),
        (2, 1, "key.created", "key:1", OPERATOR),
        (3, 1, "keys_opened", "key:12", OWNER),
        (4, 2, "key.deleted", "key:12", OWNER),
        (5, 1, "KEY.deleted", "key:12", SERVER),
        (6, 1, "p_o", "provider:a%", OWNER),
        (5, 1, "pro", "provider:a", OWNER),
    ):
        await store.audit(at_ms=at_ms, account_number=account, action=action, target=target, by=by)

    async def numbers(account: int | None = 1, **only: Any) -> list[int]:
        """Of the entries above, counted from 1."""
        found = await store.list_audit(account, only=AuditFilter(until_ms=1000, **only))
        return [entry.number - 4 for entry in found]

    assert await numbers() == [7, 6, 5, 3, 2, 1]
    assert await numbers(action="key") == [3, 2, 1]
    assert await numbers(action="key.") == [2, 1]
    assert await numbers(action="key.deleted") == [1]
    assert await numbers(action="p_") == [6]
    assert await numbers(action="%") == await numbers(action="key.deleted.") == []
    assert await numbers(target="key:12") == [5, 3, 1]
    assert await numbers(target="key:1") == [2]
    assert await numbers(target="provider:a%") == [6]
    assert await numbers(actor="operator") == [2]
    assert await numbers(action="k", target="key:12", actor="key:1") == [3, 1]
    assert await numbers(None, target="key:12", actor="key:1") == [4, 3, 1]
    assert await numbers(since_ms=5) == [7, 6, 5]
    assert [entry.number for entry in await store.list_audit(1, only=AuditFilter(since_ms=2, until_ms=5))] == [7, 6]
    pages, before = [], None
    while page := await store.list_audit(1, before=before, limit=2, only=AuditFilter(target="key:12")):
        pages.append([entry.number - 4 for entry in page])
        before = page[-1].number
    assert pages == [[5, 3], [1]]


async def test_the_audit_log_is_trimmed_from_its_oldest_entries_on(store: Store, clock: Clock) -> None:
    for at_ms in (1, 2, 9, 3, 4, 8):
        await store.audit(at_ms=at_ms, account_number=1, action="x", target="server", by=SERVER)

    async def times() -> list[int]:
        return [entry.at_ms for entry in reversed(await store.list_audit())]

    assert await store.trim_audit(before_ms=1) == 0
    assert await store.trim_audit(before_ms=5, limit=1) == 1
    assert await times() == [2, 9, 3, 4, 8]
    assert await store.trim_audit(before_ms=5, limit=3) == 2
    assert await times() == [9, 4, 8]
    assert await store.trim_audit(before_ms=5) == 1
    assert await store.trim_audit(before_ms=5) == 0
    assert await store.trim_audit(before_ms=99) == 2
    await store.audit(at_ms=100, account_number=1, action="x", target="server", by=SERVER)
    assert [entry.number for entry in await store.list_audit()] == [7], "a number, and so a cursor, is not used again"


def count(key: int, day: int, model: str = "", *, account: int = 1, requests: int = 1, **sums: int) -> UsageCount:
    return UsageCount(key_number=key, account_number=account, day=day, model=model, requests=requests, **sums)


async def test_a_journal_file_counts_once(store: Store, clock: Clock) -> None:
    await new_account(store)
    assert await store.folded_through("j") == -1
    counts = [count(1, 5, "gpt", memories_stored=2, input_tokens=7), count(1, 5, "gpt", requests=3), count(1, 6)]
    for _ in range(2):
        await store.fold_usage("j", 0, counts, {1: 50})
    load = partial(store.load_usage, 1, first_day=0, last_day=99)
    first = [count(1, 5, "gpt", requests=4, memories_stored=2, input_tokens=7), count(1, 6)]
    assert await load() == first
    await store.fold_usage("j", 3, [count(1, 6, latency_ms_sum=9)], {1: 40, 99: 1})
    await store.fold_usage("j", 2, [count(1, 6)], {1: 60})
    assert await store.folded_through("j") == 3
    assert await load() == [first[0], count(1, 6, requests=2, latency_ms_sum=9)]
    assert (await store.get_key(1, 1)).last_used_ms == 50, "neither an earlier time, nor one of a file that is in"
    await store.fold_usage("another", 0, [count(1, 6)], {1: 70})
    assert (await load())[1].requests == 3
    assert (await store.get_key(1, 1)).last_used_ms == 70


async def test_usage_is_loaded_by_account_key_and_days(store: Store, clock: Clock) -> None:
    await new_account(store)
    everything = [
        count(1, 5, "a"),
        count(1, 5, "b"),
        count(2, 5),
        count(1, 6),
        count(1, 7),
        count(3, 6, account=2),
    ]
    await store.fold_usage("j", 1, everything[::-1], {})
    assert await store.load_usage(1, first_day=5, last_day=7) == everything[:5]
    assert await store.load_usage(1, first_day=6, last_day=6) == [everything[3]]
    assert await store.load_usage(1, key_number=2, first_day=0, last_day=9) == [everything[2]]
    assert await store.load_usage(2, first_day=0, last_day=9) == [everything[5]]
    assert await store.load_usage(1, key_number=3, first_day=0, last_day=9) == []
