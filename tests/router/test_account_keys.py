"""What is behind the routes and commands of keys: long lists, and what is forgotten after something was shredded."""

from __future__ import annotations

import pytest

from models.accounts import OPERATOR
from models.errors import StoreUnavailable
from models.ids import VaultRef, hash_key
from router.account_keys import AccountKeys, nothing_in_memory
from tests.fakes.store import open_memory_store

NOW_MS = 1_780_000_000_000
KEYS = 1_000


async def test_a_thousand_keys_are_listed_page_by_page_each_once() -> None:
    """In order, whatever the size of a page, also while keys are deleted between two pages."""
    async with open_memory_store() as store:
        keys = AccountKeys(store, now_ms=lambda: NOW_MS, retire=nothing_in_memory, rotation_grace_s=60)
        await keys.create_account({}, by=OPERATOR)
        for number in range(KEYS - 1):
            await keys.create(1, {"name": f"user:{number}"}, by=OPERATOR)
        for limit in (1000, 999, 100, 7):
            found: list[str] = []
            cursor: str | None = ""
            while cursor is not None:
                page = await keys.list(1, {"limit": str(limit), "cursor": cursor})
                assert len(page["keys"]) <= limit
                found += [key["id"] for key in page["keys"]]
                cursor = page["next_cursor"]
            assert found == [f"key_{number}" for number in range(1, KEYS + 1)]
        first = await keys.list(1, {"limit": "500"})
        for key in ("key_500", "key_501", "key_1000"):
            await keys.delete(1, key, vault="keep", by=OPERATOR)
        second = await keys.list(1, {"limit": "1000", "cursor": first["next_cursor"]})
        assert [key["id"] for key in second["keys"]] == [f"key_{number}" for number in range(502, KEYS)]
        assert len((await keys.list(1, {}))["keys"]) == 100


async def test_a_key_ends_when_its_grace_period_or_its_time_is_over() -> None:
    """By the clock, with nobody doing anything."""
    clock = [NOW_MS]
    async with open_memory_store(now_ms=lambda: clock[0]) as store:
        keys = AccountKeys(store, now_ms=lambda: clock[0], retire=nothing_in_memory, rotation_grace_s=60)
        await keys.create_account({}, by=OPERATOR)
        created = await keys.create(1, {"expires_at": NOW_MS + 90_000}, by=OPERATOR)
        rotated = await keys.rotate(1, created["id"], {}, by=OPERATOR)

        async def live() -> list[bool]:
            return [await store.find_key(hash_key(key["key"])) is not None for key in (created, rotated)]

        assert await live() == [True, True]
        clock[0] += 59_999
        assert await live() == [True, True]
        clock[0] += 1
        assert await live() == [False, True]
        clock[0] += 30_000
        assert await live() == [False, False]
        states = [key["state"] for key in (await keys.list(1, {}))["keys"]]
        assert states == ["live", "expired"]  # the rotated one is over, and not listed
        assert (await keys.get(1, created["id"]))["state"] == "expired"


async def test_what_was_shredded_is_taken_out_of_memory_and_a_failure_to_do_so_is_told() -> None:
    """It is shredded all the same."""
    retired: list[int] = []

    async def retire(vault: VaultRef) -> None:
        retired.append(vault.number)
        if vault.number == 3:
            raise StoreUnavailable("it is still in memory")

    async with open_memory_store() as store:
        keys = AccountKeys(store, now_ms=lambda: NOW_MS, retire=retire, rotation_grace_s=60)
        await keys.create_account({}, by=OPERATOR)
        for _ in range(2):
            await keys.create(1, {}, by=OPERATOR)
        await keys.delete(1, "key_2", vault="delete", by=OPERATOR)
        with pytest.raises(StoreUnavailable):
            await keys.delete(1, "key_3", vault="delete", by=OPERATOR)
        assert retired == [2, 3]
        assert [vault["id"] for vault in (await keys.list_vaults(1, {}))["vaults"]] == ["vault_1"]
