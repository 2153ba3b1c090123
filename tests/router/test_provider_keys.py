"""Stored provider keys as requests need them: remembered, and what fails is told, not replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, assert_no_checkpoints

from actors.store.sqlite import open_store
from models.accounts import OPERATOR
from models.errors import CorruptRow, InvalidRequest, StoreUnavailable
from models.provider_settings import Secret
from models.settings import StoreSettings
from router.auth import LOOKUP_TIMEOUT_S
from router.provider_keys import find_stored_keys, read_key
from tests.patience import pass_time_until


async def test_asking_again_reads_nothing_whether_there_is_a_key_or_not(tmp_path: Path) -> None:
    """The cost of a request without a stored key: a look into a dictionary."""
    async with open_store(tmp_path, settings=StoreSettings(shards=1)) as store:
        await store.create_account(key_hash=b"a", shown="mk_", created_ms=1)
        await store.put_provider_key(1, "openai", "sk-stored", now_ms=2, by=OPERATOR)
        first = await find_stored_keys(store, 1, ["openai", "anthropic"])
        assert (dict(first.found), dict(first.failed)) == ({"openai": Secret("sk-stored")}, {})
        assert first.key_of("anthropic") == Secret()
        for _ in range(2):
            with assert_no_checkpoints():
                assert await find_stored_keys(store, 1, ["openai", "anthropic"]) == first
        with assert_no_checkpoints():
            assert not (await find_stored_keys(store, 1, [])).found


class Failing:
    """A directory in which one provider's key is damaged, one cannot be read now, and one never comes."""

    async def find_provider_key(self, account: int, provider: str) -> Secret | None:
        """See the protocol."""
        match provider:
            case "damaged":
                raise CorruptRow("a row of table 7")
            case "unreadable":
                raise StoreUnavailable("the disk is busy.")
            case "silent":
                await trio.sleep_forever()
        return Secret(f"{account} {provider}")


async def test_what_fails_is_kept_apart_from_what_is_found(mock_clock: MockClock) -> None:
    """Each reason comes out where that key is asked for; what is behind a silent store is not awaited."""
    directory: Any = Failing()
    answers = []

    async def find() -> None:
        answers.append(await find_stored_keys(directory, 7, ["one", "damaged", "unreadable", "silent", "behind"]))

    async with trio.open_nursery() as finding:
        finding.start_soon(find)
        await pass_time_until(mock_clock, lambda: bool(answers), step_s=LOOKUP_TIMEOUT_S)
    (keys,) = answers
    assert keys.key_of("one") == Secret("7 one")
    with pytest.raises(CorruptRow, match="The key that is stored for the provider damaged is damaged") as damaged:
        keys.key_of("damaged")
    assert "PUT /v1/providers/damaged/key" in damaged.value.hint
    for provider in ("unreadable", "silent", "behind"):
        with pytest.raises(StoreUnavailable):
            keys.key_of(provider)


def test_a_key_is_read_without_what_surrounds_it() -> None:
    """Copied keys end with a line break."""
    assert read_key({"key": " sk-1\n"}) == "sk-1"
    with pytest.raises(InvalidRequest):
        read_key({"key": "sk-1\nsk-2"})
