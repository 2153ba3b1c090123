"""Authentication: where a Memory Key may stand, what it bounds, and which key is the provider's."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio
import trio.testing

from models.accounts import OPERATOR
from models.errors import Forbidden, StoreUnavailable, Unauthenticated
from models.ids import Access, Principal, VaultNumber, VaultRef, hash_key, parse_key
from models.provider_settings import Secret
from router.auth import Caller, authenticate, find_credential, find_provider_key
from tests.fakes.store import MemoryStore, open_memory_store

KEY, OTHER = "mk_first-key", "mk_second-key"


def caller(*, kind: str = "user", suffixed: bool = False) -> Caller:
    vault = VaultRef(number=VaultNumber(1), shard=0)
    principal = Principal(key_number=1, account_number=1, kind=kind, name="n", vault=vault)
    return Caller(principal=principal, access=Access(), suffixed=suffixed, provider_key=Secret())


@pytest.mark.parametrize(
    "headers",
    [
        {"x-memory-key": KEY},
        {"x-memory-key": f"Bearer {KEY}"},
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer   {KEY} "},
        {"authorization": KEY},
        {"x-api-key": KEY},
        {"x-goog-api-key": KEY},
        {"api-key": KEY},
        {"authorization": "Bearer sk-other", "x-api-key": KEY},
        {"authorization": "Basic dXNlcjpwYXNz", "x-goog-api-key": KEY},
        {"x-memory-key": "not-a-key", "authorization": f"Bearer {KEY}"},
    ],
    ids=str,
)
def test_a_memory_key_is_found_in_every_place_that_sdks_use(headers: Mapping[str, str]) -> None:
    """Whatever else stands in the other places does not hide it."""
    assert find_credential(headers, {"key": OTHER}).key_hash == hash_key(KEY)


def test_the_query_is_the_last_place() -> None:
    """Old Google clients put the key there."""
    assert find_credential({}, {"key": KEY}).key_hash == hash_key(KEY)


def test_the_places_have_an_order() -> None:
    """X-Memory-Key, Authorization, x-api-key, x-goog-api-key, api-key, ?key= (design section 8)."""
    names = ["x-memory-key", "authorization", "x-api-key", "x-goog-api-key", "api-key"]
    for first, name in enumerate(names):
        headers = {other: f"mk_{other}" for other in names[first:]}
        assert find_credential(headers, {"key": OTHER}).key_hash == hash_key(f"mk_{name}")


@pytest.mark.parametrize(
    ("suffix", "access"),
    [
        ("", Access()),
        (":read", Access(write=False)),
        (":write", Access(read=False)),
        (":off", Access(read=False, write=False)),
    ],
)
def test_a_suffix_bounds_the_request_and_is_not_part_of_the_key(suffix: str, access: Access) -> None:
    """In whatever place the key stands; `mk-` keys too."""
    for headers in ({"x-memory-key": f"mk-a{suffix}"}, {"authorization": f"Bearer mk-a{suffix}"}):
        credential = find_credential(headers, {})
        assert (credential.key_hash, credential.access) == (hash_key("mk-a"), access)
        assert credential.suffixed is bool(suffix)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer sk-abc"},
        {"authorization": "Bearer mk_"},
        {"authorization": "Bearer mk_a:admin"},
        {"authorization": "Bearer mk_a:"},
        {"authorization": "Bearer mk_a:read:off"},
        {"authorization": "Bearer mk_a b"},
        {"authorization": "Bearer mk_\u00e9"},
        {"authorization": "Bearer MK_a"},
        {"authorization": f"Bearer mk_{'a' * 300}"},
    ],
    ids=str,
)
def test_what_is_no_memory_key_is_refused(headers: Mapping[str, str]) -> None:
    """Missing and malformed keys alike."""
    with pytest.raises(Unauthenticated):
        find_credential(headers, {})


@pytest.mark.parametrize(
    ("headers", "provider_key"),
    [
        ({"x-memory-key": KEY, "authorization": "Bearer sk-1"}, "sk-1"),
        ({"x-memory-key": f"Bearer {KEY}", "authorization": "Bearer sk-1"}, "sk-1"),
        ({"x-memory-key": KEY, "x-api-key": "sk-2"}, "sk-2"),
        ({"x-memory-key": KEY, "x-goog-api-key": "AIza"}, "AIza"),
        ({"x-memory-key": KEY, "api-key": "azure"}, "azure"),
        ({"x-memory-key": KEY, "authorization": "Bearer sk-1", "x-provider-key": "sk-3"}, "sk-3"),
        ({"authorization": f"Bearer {KEY}", "x-provider-key": "Bearer sk-3"}, "sk-3"),
        ({"x-memory-key": KEY, "authorization": f"Bearer {OTHER}"}, ""),
        ({"x-memory-key": KEY, "authorization": f"Bearer {OTHER}", "x-api-key": "sk-2"}, "sk-2"),
        ({"x-memory-key": KEY, "x-provider-key": OTHER}, ""),
        ({"authorization": f"Bearer {KEY}"}, ""),
        ({"authorization": f"Bearer {KEY}", "x-api-key": "sk-2"}, ""),
    ],
    ids=str,
)
def test_a_provider_key_comes_from_its_own_header_or_from_beside_x_memory_key(
    headers: Mapping[str, str], provider_key: str
) -> None:
    """What looks like a Memory Key is never one."""
    assert find_provider_key(headers).reveal() == provider_key


async def test_a_live_key_opens_its_vault_and_a_revoked_one_nothing() -> None:
    """Revoked, unknown and malformed keys get the same status and code."""
    async with open_memory_store() as store:
        created = await store.create_account(key_hash=hash_key(KEY), shown="mk_firs…", created_ms=1)
        user_key = await store.create_key(
            created.account_number, name="u", key_hash=hash_key(OTHER), shown="mk_seco…", created_ms=2
        )
        found = await authenticate({"authorization": f"Bearer {OTHER}:read"}, {}, store)
        assert found.principal == user_key
        assert found.access == Access(write=False)

        await store.delete_key(1, user_key.key_number, now_ms=3, with_vault=False, by=OPERATOR)
        with pytest.raises(Unauthenticated):
            await authenticate({"authorization": f"Bearer {OTHER}"}, {}, store)
        with pytest.raises(Unauthenticated):
            await authenticate({"authorization": "Bearer mk_nobody"}, {}, store)
        assert (await authenticate({"authorization": f"Bearer {KEY}"}, {}, store)).principal.kind == "account"


class HangingDirectory(MemoryStore):
    """A directory whose disk hangs."""

    def __init__(self) -> None:
        """Nothing is needed to hang."""

    async def find_key(self, key_hash: bytes) -> Principal | None:
        await trio.sleep_forever()
        raise AssertionError("unreachable")


async def test_a_lookup_that_hangs_ends_at_its_deadline(autojump_clock: trio.testing.MockClock) -> None:
    """With 503, not with a request that never ends."""
    with pytest.raises(StoreUnavailable):
        await authenticate({"authorization": f"Bearer {KEY}"}, {}, HangingDirectory())


def test_roles() -> None:
    """A suffixed key may not administrate; a user key may only where the settings allow it."""
    caller().require_unsuffixed()
    with pytest.raises(Forbidden):
        caller(suffixed=True).require_unsuffixed()
    caller(kind="account").require_account()
    caller().require_account(user_keys_allowed=True)
    with pytest.raises(Forbidden):
        caller().require_account()


def test_a_caller_prints_no_key() -> None:
    """Neither the Memory Key nor the provider's."""
    shown = repr(Caller(caller().principal, Access(), suffixed=False, provider_key=Secret("sk-secret")))
    assert "sk-secret" not in shown
    assert KEY not in repr(parse_key(KEY))
