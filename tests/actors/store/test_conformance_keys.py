"""What every store promises of a key's life: made, changed, rotated, switched off, expired, deleted, reattached."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from actors.store.protocol import Store
from models.accounts import OPERATOR, Actor, KeyChange, KeyRecord
from models.errors import Conflict, InvalidRequest, MemoryRouterError, NotFound
from models.ids import Principal, hash_key
from models.key_limits import KeyLimits
from tests.actors.store.conftest import Clock
from tests.actors.store.samples import new_account, new_vault, remembered, texts_of

OWNER = Actor("key:1", account_number=1, request_id="req_1")
LIMITS = KeyLimits(requests_per_minute=60, memories_max=1000)


async def make(store: Store, clock: Clock, key: str, *, account: int = 1, **options: Any) -> Principal:
    """A user key."""
    return await store.create_key(
        account, name=key, key_hash=hash_key(key), shown=key[:7], created_ms=clock.ms, by=OWNER, **options
    )


async def rotate(store: Store, clock: Clock, number: int, new: str, *, grace_ms: int = 1000) -> KeyRecord:
    """Rotate a key of account 1."""
    return await store.rotate_key(
        1, number, key_hash=hash_key(new), shown=new[:7], now_ms=clock.ms, grace_ms=grace_ms, by=OWNER
    )


async def opens(store: Store, key: str) -> int | None:
    """The number of the vault that a key opens."""
    found = await store.find_key(hash_key(key))
    return None if found is None else int(found.vault.number)


@pytest.fixture
async def account(store: Store) -> Principal:
    return await new_account(store)


async def test_a_key_is_found_and_listed_with_all_that_was_said_of_it(
    store: Store, clock: Clock, account: Principal
) -> None:
    made = await make(store, clock, "mk_user", limits=LIMITS, expires_ms=clock.ms + 10)
    assert await store.find_key(hash_key("mk_user")) == made
    assert made.limits == LIMITS
    assert await store.get_key(1, made.key_number) == KeyRecord(
        number=2,
        account_number=1,
        kind="user",
        name="mk_user",
        shown="mk_user",
        vault=made.vault,
        created_ms=clock.ms,
        expires_ms=clock.ms + 10,
        limits=LIMITS,
    )


async def test_an_expired_key_opens_nothing_also_when_it_was_looked_up_before(
    store: Store, clock: Clock, account: Principal
) -> None:
    made = await make(store, clock, "mk_user", expires_ms=clock.ms + 10)
    assert await opens(store, "mk_user") == made.vault.number
    clock.ms += 9
    assert await opens(store, "mk_user") == made.vault.number
    clock.ms += 1
    assert await opens(store, "mk_user") is None
    assert await opens(store, "mk_user") is None
    later = KeyChange(expires_ms=clock.ms + 1)
    assert (await store.change_key(1, 2, later, now_ms=clock.ms, by=OWNER)).state(clock.ms) == "live"
    assert await opens(store, "mk_user") == made.vault.number, "and opens again once it is put off"


async def test_a_key_is_switched_off_and_on_again_with_the_next_look_up(
    store: Store, clock: Clock, account: Principal
) -> None:
    made = await make(store, clock, "mk_user")
    assert await opens(store, "mk_user") == made.vault.number
    off = await store.change_key(1, 2, KeyChange(disabled=True), now_ms=clock.ms, by=OWNER)
    assert (off.disabled_ms, off.state(clock.ms)) == (clock.ms, "disabled")
    assert await opens(store, "mk_user") is None
    again = await store.change_key(1, 2, KeyChange(disabled=True, name="new"), now_ms=clock.ms + 5, by=OWNER)
    assert (again.disabled_ms, again.name) == (clock.ms, "new"), "since when it was first"
    assert [key.state(clock.ms) for key in await store.list_keys(1)] == ["live", "disabled"]
    on = await store.change_key(1, 2, KeyChange(disabled=False), now_ms=clock.ms, by=OWNER)
    assert on.disabled_ms is None
    assert await opens(store, "mk_user") == made.vault.number


async def test_what_a_change_does_not_name_stays(store: Store, clock: Clock, account: Principal) -> None:
    await make(store, clock, "mk_user", limits=LIMITS, expires_ms=clock.ms + 10)
    before = await store.get_key(1, 2)
    assert await store.change_key(1, 2, KeyChange(), now_ms=clock.ms, by=OWNER) == before
    unlimited = await store.change_key(
        1, 2, KeyChange(expires_ms=None, limits=KeyLimits(requests_burst=3)), now_ms=clock.ms, by=OWNER
    )
    assert (unlimited.name, unlimited.expires_ms, unlimited.limits) == ("mk_user", None, KeyLimits(requests_burst=3))
    found = await store.find_key(hash_key("mk_user"))
    assert found is not None
    assert found.limits == KeyLimits(requests_burst=3)


async def test_a_rotated_key_opens_the_same_vault_until_its_grace_period_ends(
    store: Store, clock: Clock, account: Principal
) -> None:
    made = await make(store, clock, "mk_user", limits=LIMITS)
    await remembered(store, made.vault, "a")
    assert await opens(store, "mk_user") == made.vault.number
    new = await rotate(store, clock, 2, "mk_new")
    assert (new.number, new.name, new.kind, new.vault, new.limits) == (3, "mk_user", "user", made.vault, LIMITS)
    assert (new.shown, new.created_ms, new.expires_ms, new.rotated_to) == ("mk_new", clock.ms, None, None)
    old = await store.get_key(1, 2)
    assert (old.rotated_to, old.expires_ms, old.revoked_ms) == (3, clock.ms + 1000, None)
    assert await opens(store, "mk_user") == await opens(store, "mk_new") == made.vault.number
    assert (await store.get_vault(1, made.vault.number)).live_keys == 2
    clock.ms += 1000
    assert await opens(store, "mk_user") is None
    assert await opens(store, "mk_new") == made.vault.number
    assert [key.number for key in await store.list_keys(1)] == [1, 3]
    assert [key.number for key in await store.list_keys(1, include_revoked=True)] == [1, 2, 3]
    assert (await store.get_vault(1, made.vault.number)).live_keys == 1
    assert await texts_of(store, made.vault) == (["a"], [])


async def test_a_rotation_without_grace_ends_the_old_key_at_once(
    store: Store, clock: Clock, account: Principal
) -> None:
    made = await make(store, clock, "mk_user", expires_ms=clock.ms + 99)
    assert await opens(store, "mk_user") is not None
    new = await rotate(store, clock, 2, "mk_new", grace_ms=0)
    assert new.expires_ms == clock.ms + 99, "a rotation does not put off what its account decided"
    assert await opens(store, "mk_user") is None
    assert await opens(store, "mk_new") == made.vault.number


async def test_a_grace_period_can_be_cut_short_but_not_put_off(store: Store, clock: Clock, account: Principal) -> None:
    await make(store, clock, "mk_user")
    await rotate(store, clock, 2, "mk_new")
    for later in (None, clock.ms + 1001):
        with pytest.raises(Conflict):
            await store.change_key(1, 2, KeyChange(expires_ms=later), now_ms=clock.ms, by=OWNER)
    await store.change_key(1, 2, KeyChange(name="old"), now_ms=clock.ms, by=OWNER)
    await store.change_key(1, 2, KeyChange(expires_ms=clock.ms), now_ms=clock.ms, by=OWNER)
    assert await opens(store, "mk_user") is None
    with pytest.raises(Conflict):
        await store.change_key(1, 2, KeyChange(expires_ms=clock.ms + 1), now_ms=clock.ms, by=OWNER)


async def test_only_a_live_key_is_rotated_and_only_once(store: Store, clock: Clock, account: Principal) -> None:
    for number, key in enumerate(("mk_a", "mk_b", "mk_c", "mk_d"), 2):
        assert (await make(store, clock, key)).key_number == number
    await rotate(store, clock, 2, "mk_new")
    await store.change_key(1, 3, KeyChange(disabled=True), now_ms=clock.ms, by=OWNER)
    await store.change_key(1, 4, KeyChange(expires_ms=clock.ms), now_ms=clock.ms, by=OWNER)
    await store.delete_key(1, 5, now_ms=clock.ms, with_vault=False, by=OWNER)
    for number in (2, 3, 4, 5):
        with pytest.raises(Conflict):
            await rotate(store, clock, number, "mk_other")
    with pytest.raises(InvalidRequest):
        await rotate(store, clock, 6, "mk_a")
    assert await opens(store, "mk_other") is None
    assert len(await store.list_keys(1, include_revoked=True)) == 6


@pytest.mark.parametrize("end", ["delete", "switch off"])
async def test_the_end_of_a_key_is_the_end_of_those_whose_place_it_took(
    store: Store, clock: Clock, account: Principal, end: str
) -> None:
    await make(store, clock, "mk_a")
    await rotate(store, clock, 2, "mk_b", grace_ms=10_000)
    await rotate(store, clock, 3, "mk_c", grace_ms=10_000)
    assert await opens(store, "mk_a") == await opens(store, "mk_b") == await opens(store, "mk_c") == 2
    if end == "delete":
        await store.delete_key(1, 4, now_ms=clock.ms, with_vault=True, by=OWNER)
        assert await store.list_vaults(1, after=1) == []
    else:
        await store.change_key(1, 4, KeyChange(disabled=True), now_ms=clock.ms, by=OWNER)
    assert [await opens(store, key) for key in ("mk_a", "mk_b", "mk_c")] == [None, None, None]


async def test_an_old_key_is_deleted_alone(store: Store, clock: Clock, account: Principal) -> None:
    await make(store, clock, "mk_a")
    await rotate(store, clock, 2, "mk_b")
    with pytest.raises(Conflict):
        await store.delete_key(1, 2, now_ms=clock.ms, with_vault=True, by=OWNER)
    assert await opens(store, "mk_a") == 2, "nothing of a refused deletion stays"
    await store.delete_key(1, 2, now_ms=clock.ms, with_vault=False, by=OWNER)
    assert await opens(store, "mk_a") is None
    assert await opens(store, "mk_b") == 2


async def test_a_deleted_keys_vault_is_kept_for_another_key(store: Store, clock: Clock, account: Principal) -> None:
    made = await make(store, clock, "mk_user")
    await remembered(store, made.vault, "a")
    deleted = await store.delete_key(1, 2, now_ms=clock.ms, with_vault=False, by=OWNER)
    assert (deleted.revoked_ms, deleted.state(0)) == (clock.ms, "revoked"), "whatever the clock says"
    assert await opens(store, "mk_user") is None
    (kept,) = await store.list_vaults(1, without_keys=True)
    assert (kept.vault, kept.live_keys, kept.memories) == (made.vault, 0, 1)
    again = await make(store, clock, "mk_again", vault_number=made.vault.number)
    assert again.vault == made.vault
    assert await opens(store, "mk_again") == made.vault.number
    assert await store.list_vaults(1, without_keys=True) == []
    assert await texts_of(store, again.vault) == (["a"], [])


@pytest.mark.parametrize("change", [KeyChange(), KeyChange(disabled=True), KeyChange(expires_ms=1)])
async def test_a_vault_with_a_key_is_not_given_to_another(
    store: Store, clock: Clock, account: Principal, change: KeyChange
) -> None:
    """Also while that key is switched off or has expired: both can be undone."""
    made = await make(store, clock, "mk_user")
    await store.change_key(1, 2, change, now_ms=clock.ms, by=OWNER)
    with pytest.raises(Conflict):
        await make(store, clock, "mk_again", vault_number=made.vault.number)
    assert await opens(store, "mk_again") is None


async def test_a_key_is_deleted_with_its_vault(store: Store, clock: Clock, account: Principal) -> None:
    made = await make(store, clock, "mk_user")
    await remembered(store, made.vault, "a")
    await store.delete_key(1, 2, now_ms=clock.ms, with_vault=True, by=OWNER)
    assert await opens(store, "mk_user") is None
    assert await texts_of(store, made.vault) == ([], [])
    assert [vault.vault for vault in await store.list_vaults(1)] == [account.vault]
    with pytest.raises(NotFound):
        await make(store, clock, "mk_again", vault_number=made.vault.number)
    with pytest.raises(NotFound):
        await remembered(store, made.vault, "b")


async def test_an_account_always_has_an_account_key(store: Store, clock: Clock, account: Principal) -> None:
    await make(store, clock, "mk_user")
    delete = partial(store.delete_key, 1, 1, now_ms=clock.ms, with_vault=False, by=OWNER)
    off, over = KeyChange(disabled=True), KeyChange(expires_ms=clock.ms)
    with pytest.raises(Conflict):
        await delete()
    for change in (off, over):
        with pytest.raises(Conflict):
            await store.change_key(1, 1, change, now_ms=clock.ms, by=OWNER)
    second = await store.add_account_key(
        1, name="second", key_hash=hash_key("mk_2"), shown="mk_2", created_ms=clock.ms, by=OWNER
    )
    assert (second.kind, second.name, second.account_number) == ("account", "second", 1)
    assert second.vault != account.vault
    await store.change_key(1, 1, off, now_ms=clock.ms, by=OWNER)
    with pytest.raises(Conflict):
        await store.delete_key(1, second.key_number, now_ms=clock.ms, with_vault=True, by=OWNER)
    await delete()
    rotated = await rotate(store, clock, second.key_number, "mk_3")
    assert rotated.kind == "account"
    await store.delete_key(1, second.key_number, now_ms=clock.ms, with_vault=False, by=OWNER)
    with pytest.raises(Conflict):
        await store.delete_key(1, rotated.number, now_ms=clock.ms, with_vault=False, by=OWNER)


async def test_a_revoked_key_stays_as_it_is(store: Store, clock: Clock, account: Principal) -> None:
    await make(store, clock, "mk_user")
    await store.delete_key(1, 2, now_ms=clock.ms, with_vault=False, by=OWNER)
    with pytest.raises(Conflict):
        await store.change_key(1, 2, KeyChange(name="x"), now_ms=clock.ms, by=OWNER)
    with pytest.raises(NotFound):
        await store.delete_key(1, 2, now_ms=clock.ms, with_vault=True, by=OWNER)
    with pytest.raises(InvalidRequest):
        await make(store, clock, "mk_user")
    assert (await store.get_key(1, 2)).name == "mk_user"


async def test_nothing_outside_its_account_is_found(store: Store, clock: Clock, account: Principal) -> None:
    other = await new_account(store, "mk_other")
    made = await make(store, clock, "mk_user")
    await store.delete_key(1, made.key_number, now_ms=clock.ms, with_vault=False, by=OWNER)
    number, now_ms = other.account_number, clock.ms
    foreign = account.key_number
    for attempt in (
        partial(store.get_key, number, foreign),
        partial(store.change_key, number, foreign, KeyChange(name="x"), now_ms=now_ms, by=OWNER),
        partial(store.delete_key, number, foreign, now_ms=now_ms, with_vault=True, by=OWNER),
        partial(store.rotate_key, number, foreign, key_hash=b"x", shown="x", now_ms=now_ms, grace_ms=0, by=OWNER),
        partial(make, store, clock, "mk_x", account=number, vault_number=made.vault.number),
        partial(make, store, clock, "mk_x", account=99),
        partial(store.add_account_key, 99, name="", key_hash=b"x", shown="", created_ms=now_ms, by=OPERATOR),
        partial(store.replace_account_key, 99, key_hash=b"x", shown="", created_ms=now_ms),
        partial(store.get_key, 1, 99),
    ):
        with pytest.raises(NotFound):
            await attempt()
    assert await opens(store, "mk_account") == account.vault.number
    assert await store.list_keys(99) == []


async def test_lists_go_on_where_the_page_before_ended(store: Store, clock: Clock, account: Principal) -> None:
    await new_account(store, "mk_other")
    for number in range(7):
        await make(store, clock, f"mk_{number}")
    pages = []
    after = 0
    while page := await store.list_keys(1, after=after, limit=3):
        pages.append([key.number for key in page])
        after = page[-1].number
    assert pages == [[1, 3, 4], [5, 6, 7], [8, 9]]
    assert [key.number for key in await store.list_keys(limit=4)] == [1, 2, 3, 4]


async def test_lists_of_keys_go_backwards_too(store: Store, clock: Clock, account: Principal) -> None:
    await new_account(store, "mk_other")
    for number in range(7):
        await make(store, clock, f"mk_{number}")
    await store.delete_key(1, 6, now_ms=clock.ms, with_vault=False, by=OWNER)
    pages = []
    after = 0
    while page := await store.list_keys(1, after=after, limit=3, newest_first=True):
        pages.append([key.number for key in page])
        after = page[-1].number
    assert pages == [[9, 8, 7], [5, 4, 3], [1]]
    found = await store.list_keys(after=8, limit=2, search="MK_", include_revoked=True, newest_first=True)
    assert [key.number for key in found] == [7, 6]


async def test_a_search_takes_every_character_as_it_is(store: Store, clock: Clock, account: Principal) -> None:
    names = ("100% Ärger", "100x ärger", "a_b", "axb", "wow!", "ALICE", "alice's")
    for number, name in enumerate(names):
        await store.create_key(1, name=name, key_hash=bytes([number]), shown="", created_ms=1)
    for search, found in {
        "100%": ["100% Ärger"],
        "_": ["a_b"],
        "!": ["wow!"],
        "lice": ["ALICE", "alice's"],
        "AXB": ["axb"],
        "'": ["alice's"],
        "Ärg": ["100% Ärger"],
        "none": [],
        "": ["account", *names],
    }.items():
        assert [key.name for key in await store.list_keys(1, search=search)] == found
        assert [key.name for key in await store.list_keys(search=search)] == found


async def test_a_look_up_while_nothing_can_be_changed_is_the_one_of_before(
    store: Store, clock: Clock, account: Principal
) -> None:
    """A job that fails leaves no entry and no effect: everything it touches is in one transaction."""
    entries = await store.list_audit()
    vaults = await store.list_vaults(1)
    with pytest.raises(MemoryRouterError):
        await make(store, clock, "mk_account")
    assert await store.list_audit() == entries
    assert await store.list_vaults(1) == vaults
    assert (await new_vault(store, "mk_next")).number == 2, "and takes no vault's number"
