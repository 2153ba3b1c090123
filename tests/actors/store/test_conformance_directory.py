"""What every store promises of accounts and keys, run on each implementation."""

from __future__ import annotations

import pytest

from actors.store.protocol import Store
from models.errors import InvalidRequest, NotFound
from models.ids import hash_key
from tests.actors.store.samples import new_account, new_vault, remembered, revoke, texts_of


async def test_the_first_account_gets_a_key_and_a_vault(store: Store) -> None:
    assert not await store.has_account()
    principal = await new_account(store)
    assert await store.has_account()
    assert (principal.account_number, principal.kind, principal.shown) == (1, "account", "mk_acco")
    assert await store.find_key(hash_key("mk_account")) == principal


async def test_an_unknown_key_is_found_once_it_is_made(store: Store) -> None:
    await new_account(store)
    assert await store.find_key(hash_key("mk_new")) is None
    assert await store.find_key(hash_key("mk_new")) is None
    vault = await new_vault(store, "mk_new")
    found = await store.find_key(hash_key("mk_new"))
    assert found is not None
    assert (found.vault, found.kind, found.name) == (vault, "user", "mk_new")


async def test_every_key_opens_its_own_vault(store: Store) -> None:
    account = await new_account(store)
    made = [await new_vault(store, f"mk_{number}") for number in range(4)]
    assert len({account.vault, *made}) == 5
    assert all(vault.shard == vault.number % 2 for vault in made)


async def test_a_revoked_key_is_not_found_and_its_vault_stays(store: Store) -> None:
    await new_account(store)
    vault = await new_vault(store, "mk_user")
    await remembered(store, vault, "a")
    found = await store.find_key(hash_key("mk_user"))
    assert found is not None
    await revoke(store, found, now_ms=3000)
    assert await store.find_key(hash_key("mk_user")) is None
    with pytest.raises(NotFound):
        await revoke(store, found, now_ms=4000)
    assert await texts_of(store, vault) == (["a"], [])
    assert [key.number for key in await store.list_keys()] == [1]
    assert [key.revoked_ms for key in await store.list_keys(include_revoked=True)] == [None, 3000]


async def test_keys_are_listed_by_account_oldest_first(store: Store) -> None:
    await new_account(store)
    second = await new_account(store, "mk_second")
    await new_vault(store, "mk_user")
    assert [key.name for key in await store.list_keys(1)] == ["account", "mk_user"]
    assert [key.kind for key in await store.list_keys(second.account_number)] == ["account"]
    rows = await store.list_keys()
    assert [(key.number, key.account_number, key.shown) for key in rows] == [
        (1, 1, "mk_acco"),
        (2, 2, "mk_seco"),
        (3, 1, "mk_user"),
    ]
    assert rows[2].created_ms == 2000


async def test_a_key_is_made_only_once_and_only_for_an_account(store: Store) -> None:
    await new_account(store)
    with pytest.raises(InvalidRequest):
        await new_vault(store, "mk_account")
    with pytest.raises(NotFound):
        await store.create_key(7, name="n", key_hash=hash_key("mk_n"), shown="mk_n", created_ms=1)
    assert len(await store.list_keys()) == 1


async def test_a_lost_account_key_is_replaced_on_the_same_vault(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.replace_account_key(1, key_hash=hash_key("mk_b"), shown="mk_b", created_ms=5)
    account = await new_account(store)
    second = await new_account(store, "mk_second")
    assert await store.find_key(hash_key("mk_account")) == account
    new = await store.replace_account_key(1, key_hash=hash_key("mk_b"), shown="mk_b", created_ms=5)
    assert (new.vault, new.account_number, new.kind) == (account.vault, 1, "account")
    assert await store.find_key(hash_key("mk_account")) is None
    assert await store.find_key(hash_key("mk_b")) == new
    assert await store.find_key(hash_key("mk_second")) == second
