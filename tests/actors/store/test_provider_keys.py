"""Providers' keys at rest: in no file in the clear, opened only for their own place, taken along by a rotation."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.store.data_directory import rotate_server_key
from actors.store.directory_protocol import PROVIDER_KEY_BYTES_MAX
from actors.store.doctor import verify
from actors.store.ledger import mark_id, read_ledger
from actors.store.provider_keys import SEALED_BYTES
from actors.store.restore import restore
from actors.store.sqlite import open_store
from models.accounts import OPERATOR
from models.errors import CorruptRow
from tests.actors.store.harm import SETTINGS, change, query
from tests.actors.store.samples import new_account
from tests.actors.store.test_directory_erasing import (
    NOW_MS,
    OWNER,
    SECRET,
    files_with,
    provider_key,
    put,
    sealed_keys,
)


async def test_a_provider_key_is_in_no_file_and_its_sealed_form_in_none_once_it_is_erased(tmp_path: Path) -> None:
    """Not in the database, not in its WAL, not in the slack of its pages, before the call returns."""
    providers = [f"provider-{number}" for number in range(40)]
    async with open_store(tmp_path, settings=SETTINGS) as store:
        await new_account(store)
        for number, provider in enumerate(providers):
            await put(store, provider, number)
        sealed = sealed_keys(tmp_path)
        assert {len(secret) for secret in sealed.values()} == {SEALED_BYTES}
        for place, provider in enumerate(providers[::3]):
            assert files_with(tmp_path, sealed[provider]), "the control"
            if place % 2:
                await store.delete_provider_key(1, provider, now_ms=NOW_MS, by=OWNER)
            else:
                await put(store, provider, 99)
            assert files_with(tmp_path, sealed[provider]) == []
        assert files_with(tmp_path, b"do-not-write-me-down") == []
        kept = sealed[providers[1]]
        assert files_with(tmp_path, kept)
        await store.delete_account(1, now_ms=NOW_MS, by=OPERATOR)
        assert files_with(tmp_path, kept) == []
        assert set(b"".join(sealed_keys(tmp_path).values())) == {0}
    assert files_with(tmp_path, b"do-not-write-me-down") == []
    assert files_with(tmp_path, b"write-me") == []


async def test_every_sealed_key_takes_the_same_room_whatever_its_length(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        await new_account(store)
        for number, size in enumerate((1, 100, PROVIDER_KEY_BYTES_MAX)):
            await store.put_provider_key(1, f"p{number}", "k" * size, now_ms=NOW_MS, by=OWNER)
        assert [len(secret) for secret in sealed_keys(tmp_path).values()] == [SEALED_BYTES] * 3


async def test_a_sealed_key_opens_only_for_its_account_and_its_provider(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        await new_account(store)
        await new_account(store, "mk_other")
        await put(store, "openai", 1)
        await put(store, "anthropic", 2)
        await put(store, "openai", 3, account=2)
        await put(store, "gemini", 4, account=2)
        await put(store, "mistral", 5, account=2)
    swap = "UPDATE provider_secret SET sealed = (SELECT sealed FROM provider_secret WHERE provider_key = ?) "
    change(tmp_path / "meta.db", swap + "WHERE provider_key = ?", 1, 2)
    change(tmp_path / "meta.db", swap + "WHERE provider_key = ?", 1, 3)
    change(tmp_path / "meta.db", "UPDATE provider_key SET account = 1 WHERE number = ?", 4)
    change(tmp_path / "meta.db", "UPDATE provider_key SET provider = 'groq' WHERE number = ?", 5)
    async with open_store(tmp_path, settings=SETTINGS) as store:
        assert await provider_key(store, "openai") == SECRET.format(1)
        for account, provider in ((1, "anthropic"), (2, "openai"), (1, "gemini"), (2, "groq")):
            for _ in range(2):
                with pytest.raises(CorruptRow):
                    await provider_key(store, provider, account=account)
        await put(store, "anthropic", 5)
        assert await provider_key(store, "anthropic") == SECRET.format(5), "storing it again mends it"
    (finding,) = verify(tmp_path).findings
    assert (finding.severity, "3 stored provider keys fail" in finding.what) == ("damage", True)
    assert "gemini of account 1, groq of account 2, openai of account 2" in finding.what


async def test_a_rotation_of_the_server_key_takes_provider_keys_along(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        await new_account(store)
        for number, provider in enumerate(("openai", "anthropic", "gemini")):
            await put(store, provider, number)
        await store.delete_provider_key(1, "gemini", now_ms=NOW_MS, by=OWNER)
    before = sealed_keys(tmp_path)
    change(tmp_path / "meta.db", "UPDATE provider_secret SET sealed = flip(sealed) WHERE provider_key = ?", 2)
    rotation = rotate_server_key(tmp_path, now_ms=NOW_MS)
    assert (rotation.provider_keys, rotation.damaged_provider_keys) == (1, (2,))
    assert files_with(tmp_path, before["openai"]) == []
    async with open_store(tmp_path, settings=SETTINGS) as store:
        assert await provider_key(store, "openai") == SECRET.format(0)
        assert await provider_key(store, "gemini") is None
        with pytest.raises(CorruptRow):
            await provider_key(store, "anthropic")


async def test_the_ledger_names_a_provider_key_by_a_mark_that_is_never_used_again(tmp_path: Path) -> None:
    """The same key stored again in the same millisecond is another one, which a restore must not take for the old."""
    async with open_store(tmp_path / "data", settings=SETTINGS) as store:
        await new_account(store)
        await put(store, "openai")
        await store.delete_provider_key(1, "openai", now_ms=NOW_MS, by=OWNER)
        await put(store, "openai")
        await store.back_up(tmp_path / "backup")
        erased = read_ledger(tmp_path / "data" / "erasure.log").provider_keys
        ((mark,),) = query(tmp_path / "data" / "meta.db", "SELECT mark FROM provider_key")
        assert isinstance(mark, bytes)
        assert (len(erased), mark_id(mark) in erased) == (1, False)
    restore(tmp_path / "backup", tmp_path / "data", now_ms=NOW_MS, replace=True)
    async with open_store(tmp_path / "data", settings=SETTINGS) as store:
        assert await provider_key(store, "openai") == SECRET.format(0)
