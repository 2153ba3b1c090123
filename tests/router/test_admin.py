"""An operator's commands: keys are minted, shown once, listed without their text, revoked and replaced."""

from __future__ import annotations

import pytest

from models.errors import InvalidRequest, NotFound, SetupError
from models.ids import hash_key
from router.admin import Administration, create_account, create_user_key, format_time
from tests.fakes.store import open_memory_store

NOW_MS = 1_780_000_000_123


def test_times_are_iso_with_milliseconds() -> None:
    assert format_time(1_780_693_200_000) == "2026-06-05T21:00:00.000Z"
    assert format_time(1_780_693_200_007) == "2026-06-05T21:00:00.007Z"


async def test_the_account_is_created_once() -> None:
    async with open_memory_store() as store:
        key = await create_account(store, created_ms=NOW_MS)

        principal = await store.find_key(hash_key(key))
        assert principal is not None
        assert principal.kind == "account"
        with pytest.raises(SetupError, match="initialised already"):
            await create_account(store, created_ms=NOW_MS)


async def test_two_user_keys_open_two_vaults() -> None:
    async with open_memory_store() as store:
        await create_account(store, created_ms=NOW_MS)
        administration = Administration(store, now_ms=lambda: NOW_MS)

        answers = [await administration.perform("keys.create", {"name": "same"}) for _ in range(2)]
        found = [await store.find_key(hash_key(answer["key"])) for answer in answers]

        assert len({principal.vault.number for principal in found if principal}) == 2
        assert answers[0]["created_at"] == format_time(NOW_MS)


@pytest.mark.parametrize("name", ["", " \t", "\0" * 201, "x" * 201])
async def test_a_name_that_is_empty_or_too_long_is_refused(name: str) -> None:
    async with open_memory_store() as store:
        await create_account(store, created_ms=NOW_MS)

        with pytest.raises(InvalidRequest, match="name must have 1 to 200 characters"):
            await create_user_key(store, 1, name=name, created_ms=NOW_MS)
        assert len(await store.list_keys()) == 1


async def test_strange_characters_of_a_name_are_replaced() -> None:
    async with open_memory_store() as store:
        await create_account(store, created_ms=NOW_MS)

        created = await create_user_key(store, 1, name="a\0b\udc80c", created_ms=NOW_MS)

        assert created["name"] == "a\ufffdb\ufffdc"


async def test_a_list_never_holds_a_key() -> None:
    async with open_memory_store() as store:
        account_key = await create_account(store, created_ms=NOW_MS)
        administration = Administration(store, now_ms=lambda: NOW_MS)
        user_key = (await administration.perform("keys.create", {"name": "one"}))["key"]

        listed = await administration.perform("keys.list", {})

        assert [row["key"] for row in listed["keys"]] == [account_key[:7] + "…", user_key[:7] + "…"]
        assert account_key not in str(listed)
        assert user_key not in str(listed)


async def test_a_revoked_key_opens_nothing_and_cannot_be_revoked_again() -> None:
    async with open_memory_store() as store:
        await create_account(store, created_ms=NOW_MS)
        administration = Administration(store, now_ms=lambda: NOW_MS)
        key = (await administration.perform("keys.create", {"name": "one"}))["key"]

        assert await administration.perform("keys.revoke", {"number": 2}) == {"revoked": 2}
        assert await store.find_key(hash_key(key)) is None
        with pytest.raises(NotFound):
            await administration.perform("keys.revoke", {"number": 2})


async def test_the_account_key_is_replaced_on_the_same_vault_and_not_revoked() -> None:
    async with open_memory_store() as store:
        lost = await create_account(store, created_ms=NOW_MS)
        administration = Administration(store, now_ms=lambda: NOW_MS)
        before = await store.find_key(hash_key(lost))

        with pytest.raises(InvalidRequest, match="replaced, not revoked"):
            await administration.perform("keys.revoke", {"number": 1})
        replaced = (await administration.perform("keys.replace-account-key", {}))["account_key"]

        after = await store.find_key(hash_key(replaced))
        assert before is not None
        assert after is not None
        assert after.vault == before.vault
        assert await store.find_key(hash_key(lost)) is None


@pytest.mark.parametrize(
    ("command", "arguments"), [("keys.drop", {}), ("keys.create", {}), ("keys.create", {"name": 1}), ("", {})]
)
async def test_an_unknown_command_or_wrong_arguments_are_refused(command: str, arguments: dict[str, object]) -> None:
    async with open_memory_store() as store:
        with pytest.raises(InvalidRequest):
            await Administration(store, now_ms=lambda: NOW_MS).perform(command, arguments)


@pytest.mark.parametrize(("command", "arguments"), [("keys.create", {"name": "x"}), ("keys.replace-account-key", {})])
async def test_without_an_account_the_error_says_what_to_run(command: str, arguments: dict[str, object]) -> None:
    async with open_memory_store() as store:
        with pytest.raises(SetupError, match="there is no account yet"):
            await Administration(store, now_ms=lambda: NOW_MS).perform(command, arguments)
