"""An operator's commands: one table for socket and command line, over all accounts of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from actors.store.protocol import Store
from models.errors import Conflict, InvalidRequest, MemoryRouterError, NotFound, SetupError
from models.ids import VaultRef, hash_key
from models.times import format_time
from router.admin import Administration, create_account
from router.upstream import Upstream
from tests.fakes.provider import Script, open_fake_provider
from tests.fakes.store import open_memory_store
from tests.running import settings_for

NOW_MS = 1_780_000_000_123


class Operator:
    """An operator of a server without vaults in memory.

    Attributes:
        key: the first account's key.
        retired: vaults that were to be taken out of memory.
    """

    def __init__(self, store: Store, administration: Administration, key: str, retired: list[int]) -> None:
        self.store = store
        self.key = key
        self.retired = retired
        self._administration = administration

    async def do(self, command: str, **arguments: Any) -> dict[str, Any]:
        """One command."""
        return await self._administration.perform(command, arguments)

    async def opens(self, key: str) -> bool:
        """Whether this key opens a vault."""
        return await self.store.find_key(hash_key(key)) is not None


@asynccontextmanager
async def open_operator() -> AsyncIterator[Operator]:
    """An operator with one account."""
    settings = settings_for()
    retired: list[int] = []

    async def retire(vault: VaultRef) -> None:
        retired.append(vault.number)

    async with open_memory_store(now_ms=lambda: NOW_MS) as store:
        key = await create_account(store, created_ms=NOW_MS)
        upstream = Upstream({})
        administration = Administration(store, settings, upstream, now_ms=lambda: NOW_MS, retire=retire)
        yield Operator(store, administration, key, retired)


def test_times_are_iso_with_milliseconds() -> None:
    """In UTC."""
    assert format_time(1_780_693_200_000) == "2026-06-05T21:00:00.000Z"
    assert format_time(1_780_693_200_007) == "2026-06-05T21:00:00.007Z"


async def test_the_account_is_created_once() -> None:
    """By the first start; later ones are made by a command."""
    async with open_memory_store() as store:
        key = await create_account(store, created_ms=NOW_MS)
        principal = await store.find_key(hash_key(key))
        assert principal is not None
        assert principal.kind == "account"
        with pytest.raises(SetupError, match="initialised already"):
            await create_account(store, created_ms=NOW_MS)


async def test_a_minted_key_opens_its_own_vault_and_its_text_is_in_no_list() -> None:
    """Shown once."""
    async with open_operator() as operator:
        created = await operator.do("keys.create", name="user:42")
        assert (created["name"], created["kind"]) == ("user:42", "user")
        assert created["created_at"] == format_time(NOW_MS)
        assert await operator.opens(created["key"])
        listed = await operator.do("keys.list")
        assert [row["prefix"] for row in listed["keys"]] == [operator.key[:7] + "…", created["key"][:7] + "…"]
        assert created["key"] not in str(listed)
        assert operator.key not in str(listed)


@pytest.mark.parametrize("name", ["", "x" * 201, None, 5])
async def test_a_key_needs_a_name_of_reasonable_length(name: object) -> None:
    """On the command line, where somebody has typed it; HTTP has a default."""
    async with open_operator() as operator:
        with pytest.raises(InvalidRequest) as refused:
            await operator.do("keys.create", name=name)
        assert refused.value.field == "name"


async def test_strange_text_in_a_name_becomes_replacement_characters() -> None:
    """As everywhere."""
    async with open_operator() as operator:
        assert (await operator.do("keys.create", name="a\0b\udc80c"))["name"] == "a\ufffdb\ufffdc"


async def test_keys_of_all_accounts_are_found_by_number_or_id() -> None:
    """And changed, rotated and deleted in their own account."""
    async with open_operator() as operator:
        await operator.do("accounts.create", name="second")
        made = await operator.do("keys.create", name="one", account="acct_2", limits={"memories_max": 5})
        assert (made["id"], made["account_id"], made["limits"]["memories_max"]) == ("key_3", "acct_2", 5)
        for name in ("3", "key_3"):
            assert (await operator.do("keys.show", key=name))["account_id"] == "acct_2"
        assert (await operator.do("keys.change", key="3", name="two"))["name"] == "two"
        assert (await operator.do("keys.change", key="3", disabled=True))["state"] == "disabled"
        assert not await operator.opens(made["key"])
        assert (await operator.do("keys.change", key="3", disabled=False))["state"] == "live"
        rotated = await operator.do("keys.rotate", key="3", grace_s=0)
        assert (await operator.opens(made["key"]), await operator.opens(rotated["key"])) == (False, True)
        deleted = await operator.do("keys.delete", key=rotated["id"], vault="delete")
        assert deleted["vault_deleted"]
        assert operator.retired == [3]
        for key in ("99", "key_99"):
            with pytest.raises(NotFound, match="no key with number 99"):
                await operator.do("keys.show", key=key)
        everything = await operator.do("keys.list", include_revoked=True)
        assert len(everything["keys"]) == 4
        assert [row["id"] for row in (await operator.do("keys.list", account="2"))["keys"]] == ["key_2"]


async def test_an_account_key_is_replaced_on_its_vault() -> None:
    """The last one cannot be deleted; of which account, can be said."""
    async with open_operator() as operator:
        second = await operator.do("accounts.create", name="second")
        with pytest.raises(Conflict, match="last live account key"):
            await operator.do("keys.delete", key="1", vault="keep")
        before = await operator.store.find_key(hash_key(operator.key))
        replaced = (await operator.do("keys.replace-account-key"))["account_key"]
        after = await operator.store.find_key(hash_key(replaced))
        assert before is not None
        assert after is not None
        assert after.vault == before.vault
        assert not await operator.opens(operator.key)
        assert await operator.opens(second["account_key"])
        of_second = (await operator.do("keys.replace-account-key", account="2"))["account_key"]
        assert (await operator.opens(second["account_key"]), await operator.opens(of_second)) == (False, True)


async def test_vaults_are_found_in_whichever_account_they_are() -> None:
    """Kept ones are given to a new key there, or shredded."""
    async with open_operator() as operator:
        await operator.do("accounts.create", name="second")
        made = await operator.do("keys.create", name="one", account="2")
        assert (await operator.do("vaults.show", vault=made["vault_id"]))["account_id"] == "acct_2"
        changed = await operator.do("vaults.change", vault="vault_3", retention_days=9)
        assert changed["retention_days"] == 9
        with pytest.raises(Conflict):
            await operator.do("vaults.delete", vault="vault_3")
        await operator.do("keys.delete", key=made["id"], vault="keep")
        again = await operator.do("keys.create", name="two", vault_id="vault_3")
        assert (again["vault_id"], again["account_id"]) == ("vault_3", "acct_2")
        await operator.do("keys.delete", key=again["id"], vault="keep")
        assert operator.retired == []
        await operator.do("vaults.delete", vault="3")
        assert operator.retired == [3]
        with pytest.raises(NotFound, match="no vault with number 3"):
            await operator.do("vaults.show", vault="3")
        assert [vault["id"] for vault in (await operator.do("vaults.list", account="2"))["vaults"]] == ["vault_2"]


async def test_accounts_are_made_changed_switched_and_deleted() -> None:
    """Deleting one revokes its keys and takes its vaults out of memory; the others stay."""
    async with open_operator() as operator:
        made = await operator.do("accounts.create", name="Acme")
        user = await operator.do("keys.create", name="one", account=made["id"])
        await operator.do("providers.list", account="2")
        assert (await operator.do("accounts.change", account="2", name="Other"))["name"] == "Other"
        assert (await operator.do("accounts.change", account="2", retention_days=5))["retention_days"] == 5
        assert (await operator.do("accounts.change", account="2", disabled=True))["disabled_at"] is not None
        assert not await operator.opens(user["key"])
        assert (await operator.do("accounts.change", account="2", disabled=False))["disabled_at"] is None
        assert await operator.opens(user["key"])
        assert [row["name"] for row in (await operator.do("accounts.list"))["accounts"]] == ["", "Other"]
        assert (await operator.do("accounts.delete", account="acct_2"))["vaults_deleted"] == 2
        assert operator.retired == [2, 3]
        assert [await operator.opens(key) for key in (user["key"], made["account_key"], operator.key)] == [
            False, False, True,
        ]  # fmt: skip
        with pytest.raises(NotFound):
            await operator.do("accounts.show", account="2")
        log = await operator.do("audit.list", account="2")
        assert log["entries"][0]["action"] == "account.deleted"
        assert {entry["actor"] for entry in log["entries"]} == {"operator"}
        assert len((await operator.do("audit.list", limit=1))["entries"]) == 1


async def test_a_providers_key_is_stored_for_an_account_checked_and_removed() -> None:
    """By the same rules as over HTTP."""
    async with open_fake_provider() as provider, open_memory_store() as store:
        await create_account(store, created_ms=NOW_MS)
        settings = settings_for(provider.settings(api_key=""))
        upstream = Upstream(settings.providers.by_name)
        administration = Administration(store, settings, upstream, now_ms=lambda: NOW_MS)
        provider.enqueue(Script(status=401, body=b"no"), Script(body=b"{}"), Script(body=b"{}"))
        key = {"provider": "openai", "key": "sk-0123456789abcdef", "check": True}
        with pytest.raises(InvalidRequest, match="refuses this key"):
            await administration.perform("providers.set", key)
        assert (await administration.perform("providers.set", key))["last_four"] == "cdef"
        assert (await administration.perform("providers.check", {"provider": "openai"}))["ok"]
        (listed,) = (await administration.perform("providers.list", {}))["providers"]
        assert (listed["key_source"], listed["last_four"]) == ("account", "cdef")
        await administration.perform("providers.remove", {"provider": "openai"})
        with pytest.raises(NotFound):
            await administration.perform("providers.remove", {"provider": "openai"})
        await upstream.aclose()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("keys.drop", {}),
        ("", {}),
        ("keys.create", {}),
        ("keys.show", {}),
        ("keys.show", {"key": 1}),
        ("keys.change", {"key": "1"}),
        ("keys.delete", {"key": "1"}),
        ("keys.delete", {"key": "1", "vault": "perhaps"}),
        ("keys.list", {"limit": 0}),
        ("keys.list", {"account": 1}),
        ("vaults.change", {"vault": "1"}),
        ("accounts.change", {"account": "1"}),
        ("accounts.change", {"account": "1", "disabled": "yes"}),
        ("providers.set", {"provider": "openai"}),
        ("providers.check", {}),
        ("audit.list", {"cursor": "!"}),
    ],
)
async def test_an_unknown_command_or_wrong_arguments_are_refused(command: str, arguments: dict[str, Any]) -> None:
    """And nothing is changed."""
    async with open_operator() as operator:
        before = await operator.do("audit.list")
        with pytest.raises((InvalidRequest, NotFound)):
            await operator.do(command, **arguments)
        assert await operator.do("audit.list") == before


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("keys.create", {"name": "x"}), ("keys.replace-account-key", {}), ("vaults.list", {}), ("providers.list", {})],
)
async def test_without_an_account_the_error_says_what_to_run(command: str, arguments: dict[str, Any]) -> None:
    """Lists over all accounts are empty."""
    async with open_memory_store() as store:
        administration = Administration(store, settings_for(), Upstream({}), now_ms=lambda: NOW_MS)
        with pytest.raises(SetupError, match="there is no account yet"):
            await administration.perform(command, arguments)
        assert (await administration.perform("keys.list", {}))["keys"] == []
        with pytest.raises(MemoryRouterError):
            await administration.perform("accounts.show", {"account": "1"})
