"""What every store promises of accounts and of vaults as accounts see them."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
import trio

from actors.store.protocol import Store, StoreSize
from models.accounts import OPERATOR, AccountChange, AccountRecord, AccountSize, Actor, Retention
from models.errors import Conflict, NotFound
from models.ids import VaultNumber, VaultRef, hash_key
from tests.actors.store.conftest import Clock
from tests.actors.store.samples import new_account, new_vault, remembered, revoke, stored, texts_of

OWNER = Actor("key:1", account_number=1)


async def test_accounts_are_listed_with_their_keys_and_vaults(store: Store, clock: Clock) -> None:
    await store.create_account(key_hash=b"a", shown="mk_a", created_ms=5, name="first", by=OPERATOR)
    await new_account(store, "mk_second")
    await new_vault(store, "mk_user")
    found = await store.list_accounts()
    assert found == [
        AccountRecord(number=1, name="first", created_ms=5, live_keys=2, vaults=2),
        AccountRecord(number=2, name="", created_ms=1000, live_keys=1, vaults=1),
    ]
    assert await store.list_accounts(after=1) == found[1:]
    assert await store.list_accounts(limit=1) == found[:1]
    assert await store.get_account(2) == found[1]
    with pytest.raises(NotFound):
        await store.get_account(3)


async def test_of_several_that_would_make_the_first_account_one_does(store: Store) -> None:
    """Servers that start on one database at the same moment."""
    made: list[bytes] = []

    async def make(name: bytes) -> None:
        with suppress(Conflict):
            await store.create_account(key_hash=name, shown="mk_a", created_ms=5, only_first=True)
            made.append(name)

    async with trio.open_nursery() as starting:
        for name in (b"a", b"b", b"c"):
            starting.start_soon(make, name)
    (key_hash,) = made
    assert await store.find_key(key_hash) is not None
    assert [account.live_keys for account in await store.list_accounts()] == [1]
    await new_account(store, "mk_second")
    assert len(await store.list_accounts()) == 2


async def test_a_switched_off_accounts_keys_open_nothing_from_the_next_look_up_on(store: Store, clock: Clock) -> None:
    account = await new_account(store)
    other = await new_account(store, "mk_other")
    vault = await new_vault(store, "mk_user")
    for key in ("mk_account", "mk_user", "mk_other"):
        assert await store.find_key(hash_key(key)) is not None
    change = partial(store.change_account, 1, now_ms=clock.ms, by=OPERATOR)
    assert (await change(AccountChange(disabled=True))).disabled_ms == clock.ms
    for _ in range(2):
        assert await store.find_key(hash_key("mk_account")) is None
        assert await store.find_key(hash_key("mk_user")) is None
    assert await store.find_key(hash_key("mk_other")) == other
    assert (await store.list_keys(1))[0].disabled_ms is None, "the keys themselves stay as they are"
    assert (await change(AccountChange(name="n"))).disabled_ms == clock.ms
    assert (await change(AccountChange(disabled=False))).disabled_ms is None
    assert await store.find_key(hash_key("mk_account")) == account
    found = await store.find_key(hash_key("mk_user"))
    assert found is not None
    assert found.vault == vault


async def test_a_deleted_account_takes_everything_with_it(store: Store, clock: Clock) -> None:
    account = await new_account(store)
    other = await new_account(store, "mk_other")
    vault = await new_vault(store, "mk_user")
    await remembered(store, vault, "a")
    await store.put_provider_key(1, "openai", "sk-0123456789abcdef", now_ms=clock.ms, by=OWNER)
    assert await store.find_provider_key(1, "openai")
    assert await store.find_key(hash_key("mk_user")) is not None

    await store.delete_account(1, now_ms=clock.ms, by=OPERATOR)

    for key in ("mk_account", "mk_user"):
        assert await store.find_key(hash_key(key)) is None
    assert await texts_of(store, vault) == ([], [])
    assert [record.number for record in await store.list_accounts()] == [other.account_number]
    assert await store.list_vaults(1) == []
    assert await store.find_provider_key(1, "openai") is None
    assert await store.list_provider_keys(1) == []
    keys = await store.list_keys(1, include_revoked=True)
    assert [(key.name, key.revoked_ms) for key in keys] == [("", clock.ms), ("", clock.ms)]
    assert await store.find_key(hash_key("mk_other")) == other
    for attempt in (
        partial(store.delete_account, 1, now_ms=clock.ms, by=OPERATOR),
        partial(store.get_account, 1),
        partial(store.change_account, 1, AccountChange(disabled=False), now_ms=clock.ms, by=OPERATOR),
        partial(new_vault, store, "mk_next"),
        partial(store.replace_account_key, 1, key_hash=b"x", shown="", created_ms=1),
        partial(store.put_provider_key, 1, "openai", "sk", now_ms=1, by=OWNER),
    ):
        with pytest.raises(NotFound):
            await attempt()
    assert await store.has_account()
    assert (await new_account(store, "mk_third")).account_number == 3
    assert account.account_number == 1


async def test_any_accounts_lost_key_is_replaced(store: Store, clock: Clock) -> None:
    first = await new_account(store)
    second = await new_account(store, "mk_second")
    await store.add_account_key(2, name="x", key_hash=hash_key("mk_x"), shown="", created_ms=1, by=OWNER)
    new = await store.replace_account_key(2, key_hash=hash_key("mk_new"), shown="", created_ms=9, by=OPERATOR)
    for key in ("mk_second", "mk_x"):
        assert await store.find_key(hash_key(key)) is None
    assert await store.find_key(hash_key("mk_account")) == first
    assert await store.find_key(hash_key("mk_new")) == new
    assert new.vault.number == 3, "of the newest account key"
    user = await store.create_key(second.account_number, name="u", key_hash=b"u", shown="", created_ms=1)
    await revoke(store, user, now_ms=1)


async def test_an_account_without_any_vault_gets_one_with_its_new_key(store: Store, clock: Clock) -> None:
    """Its vaults can all be deleted: those of revoked account keys as well."""
    account = await new_account(store)
    await store.add_account_key(1, name="x", key_hash=b"x", shown="", created_ms=1, by=OWNER)
    await store.delete_key(1, 1, now_ms=2, with_vault=True, by=OWNER)
    new = await store.replace_account_key(1, key_hash=b"y", shown="", created_ms=3)
    assert new.vault.number == 2
    await store.add_account_key(1, name="z", key_hash=b"z", shown="", created_ms=4, by=OWNER)
    await store.delete_key(1, new.key_number, now_ms=5, with_vault=True, by=OWNER)
    last = await store.replace_account_key(1, key_hash=b"w", shown="", created_ms=6)
    assert last.vault.number == 3
    assert account.vault.number == 1


async def test_a_vault_is_seen_by_its_account_only(store: Store, clock: Clock) -> None:
    account = await new_account(store)
    other = await new_account(store, "mk_other")
    vaults = [await new_vault(store, f"mk_{number}") for number in range(3)]
    found = await store.list_vaults(1)
    assert [record.vault for record in found] == [account.vault, *vaults]
    assert [record.live_keys for record in found] == [1, 1, 1, 1]
    assert [record.vault for record in await store.list_vaults(1, after=vaults[0].number, limit=1)] == [vaults[1]]
    assert [record.vault for record in await store.list_vaults(2)] == [other.vault]
    record = await store.get_vault(1, vaults[0].number)
    assert (record.vault, record.created_ms, record.account_number) == (vaults[0], 2000, 1)
    for attempt in (
        partial(store.get_vault, 2, vaults[0].number),
        partial(store.get_vault, 1, 99),
        partial(store.change_vault, 2, vaults[0].number, retention_days=1, now_ms=1, by=OWNER),
        partial(store.delete_vault, 2, vaults[0].number, now_ms=1, by=OWNER),
    ):
        with pytest.raises(NotFound):
            await attempt()


async def test_a_vault_is_deleted_once_no_key_opens_it(store: Store, clock: Clock) -> None:
    await new_account(store)
    vault = await new_vault(store, "mk_user")
    await remembered(store, vault, "a")
    with pytest.raises(Conflict):
        await store.delete_vault(1, vault.number, now_ms=1, by=OWNER)
    await store.delete_key(1, 2, now_ms=1, with_vault=False, by=OWNER)
    assert await texts_of(store, vault) == (["a"], [])
    await store.delete_vault(1, vault.number, now_ms=1, by=OWNER)
    assert await texts_of(store, vault) == ([], [])
    with pytest.raises(NotFound):
        await store.delete_vault(1, vault.number, now_ms=1, by=OWNER)
    assert (await new_vault(store, "mk_next")).number == vault.number + 1


async def test_retention_is_the_vaults_own_or_its_accounts(store: Store, clock: Clock) -> None:
    account = await new_account(store)
    await new_account(store, "mk_other")
    vault = await new_vault(store, "mk_user")
    assert await store.list_retentions() == []
    changed = await store.change_vault(1, vault.number, retention_days=7, now_ms=1, by=OWNER)
    assert (changed.retention_days, changed.live_keys) == (7, 1)
    assert await store.list_retentions() == [Retention(vault=vault, account_number=1, days=7)]
    assert (await store.change_account(1, AccountChange(retention_days=30), now_ms=1, by=OWNER)).retention_days == 30
    both = [Retention(vault=account.vault, account_number=1, days=30), Retention(vault=vault, account_number=1, days=7)]
    assert await store.list_retentions() == both
    assert await store.list_retentions(after=account.vault.number) == both[1:]
    assert await store.list_retentions(limit=1) == both[:1]
    await store.change_vault(1, vault.number, retention_days=None, now_ms=1, by=OWNER)
    assert [entry.days for entry in await store.list_retentions()] == [30, 30]
    assert (await store.get_account(1)).retention_days == 30
    await store.change_account(1, AccountChange(retention_days=None), now_ms=1, by=OWNER)
    assert await store.list_retentions() == []


async def test_a_vaults_size_is_that_of_its_memories(store: Store, clock: Clock) -> None:
    account = await new_account(store)
    vault = await new_vault(store, "mk_user")
    await stored(store, vault, "waits in the inbox")
    assert await store.vault_sizes([vault, account.vault]) == {vault.number: (0, 0), account.vault.number: (0, 0)}
    await remembered(store, vault, "a", "b" * 1000)
    ((memories, content_bytes),) = (await store.vault_sizes([vault])).values()
    assert memories == 2
    assert 1000 < content_bytes < 1300
    await store.delete_memories(vault, [2, 2, 99])
    ((left, left_bytes),) = (await store.vault_sizes([vault])).values()
    assert (left, left_bytes < 200) == (1, True)
    assert ((await store.get_vault(1, vault.number)).memories, left_bytes) == (
        1,
        (await store.list_vaults(1))[1].content_bytes,
    )
    await store.replace_vault(vault)
    assert (await store.vault_sizes([VaultRef(number=VaultNumber(3), shard=1)])) == {3: (0, 0)}


async def test_an_accounts_size_is_that_of_its_live_vaults(store: Store, clock: Clock) -> None:
    """Over all shards, without those of other accounts, and without what was erased."""
    assert await store.account_size(1) == AccountSize(vaults=0, memories=0, content_bytes=0)
    account = await new_account(store)
    other = await store.create_account(key_hash=hash_key("mk_other"), shown="mk_othe", created_ms=1)
    vaults = [account.vault, *[await new_vault(store, f"mk_{number}") for number in range(4)]]
    for vault in (*vaults, other.vault):
        await remembered(store, vault, "a", "b")
    sizes = await store.vault_sizes(vaults)
    size = await store.account_size(1)
    assert (size.vaults, size.memories) == (5, 10)
    assert size.content_bytes == sum(content_bytes for _, content_bytes in sizes.values())
    await store.replace_vault(vaults[1])
    size = await store.account_size(1)
    assert (size.vaults, size.memories) == (5, 8)
    assert (await store.account_size(other.account_number)).memories == 2


async def test_the_stores_size_is_that_of_all_accounts(store: Store, clock: Clock) -> None:
    assert await store.size() == StoreSize(vaults=0, memories=0, content_bytes=0)
    account = await new_account(store)
    other = await store.create_account(key_hash=hash_key("mk_other"), shown="mk_othe", created_ms=1)
    vaults = [account.vault, await new_vault(store, "mk_1"), other.vault]
    for vault in vaults:
        await remembered(store, vault, "a", "b")
    size = await store.size()
    assert (size.vaults, size.memories) == (3, 6)
    assert size.content_bytes == sum(held for _, held in (await store.vault_sizes(vaults)).values())
