"""The isolation campaign finds the leaks that it is there to find: each is built into a server on purpose."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.accounts import KeyRecord
from models.ids import Principal, VaultRef
from models.messages import ForgetMemory, GetMemory, ListMemories, Recall, Scope, Search
from models.provider_settings import Secret
from models.selection import MemoryFilter
from router.components import Components
from tests.campaigns.isolation.houses import Tamper, open_inside
from tests.campaigns.isolation.ledger import Ledger, Permit
from tests.campaigns.isolation.provider import provider_key
from tests.campaigns.isolation.world import World
from tests.campaigns.test_isolation import campaign

ENOUGH = 6_000
"""Retrievals within which each of these leaks has shown; most do within some hundred."""


# --- the ledger alone ---


def test_a_canary_of_another_vault_is_a_leak_wherever_it_stands() -> None:
    for place in (b'{"content": "%b"}', b"x-memory-ids: %b", b'data: {"delta": "%b"}\n\n', b'{"error": "no %b here"}'):
        ledger = Ledger()
        told = ledger.tell(account=1, vault=2)

        ledger.check("search", Permit(began=ledger.now(), vault=3), place % told.canary.encode())

        assert ledger.leaks == [f"search: vault 3 was shown {told.canary}"]


def test_own_canaries_are_none() -> None:
    ledger = Ledger()
    told = ledger.tell(account=1, vault=2, session=1)

    ledger.check("search", Permit(began=ledger.now(), vault=2, session=1), told.canary.encode())
    ledger.check("search", Permit(began=ledger.now(), vault=2), told.canary.encode())

    assert ledger.leaks == []
    assert ledger.seen["search"] == 2


def test_what_was_deleted_before_the_request_is_a_leak_and_what_is_being_deleted_is_not() -> None:
    ledger = Ledger()
    told = ledger.tell(account=1, vault=2)
    ledger.settle(told, stored=True)
    deletion = ledger.begin_deletion(2, lambda other: True)
    before = Permit(began=ledger.now(), vault=2)
    deletion.end()

    ledger.check("list", before, told.canary.encode())
    assert ledger.leaks == []

    ledger.check("list", Permit(began=ledger.now(), vault=2), told.canary.encode())
    assert ledger.leaks == [f"list: {told.canary} was shown after its deletion"]


def test_what_is_stored_while_a_deletion_runs_may_stay() -> None:
    ledger = Ledger()
    told = ledger.tell(account=1, vault=2)
    deletion = ledger.begin_deletion(2, lambda other: True)
    ledger.settle(told, stored=True)
    late = ledger.tell(account=1, vault=2)
    deletion.end()
    ledger.settle(late, stored=True)

    assert (told.gone, late.gone) == (None, None)
    assert ledger.missing(2, []) == []


def test_another_session_a_refused_text_and_an_unknown_canary_are_leaks() -> None:
    ledger = Ledger()
    other, refused = ledger.tell(account=1, vault=2, session=2), ledger.tell(account=1, vault=2, session=1)
    ledger.settle(refused, stored=False)
    unknown = refused.canary.replace("v2", "v1")

    for canary in (other.canary, refused.canary, unknown):
        ledger.check("get", Permit(began=ledger.now(), vault=2, session=1), canary.encode())

    assert len(ledger.leaks) == 3


def test_keys_in_replies_are_leaks() -> None:
    ledger = Ledger()

    ledger.check("chat", Permit(began=ledger.now()), provider_key(3, "openai", 7).encode())
    ledger.check("chat", Permit(began=ledger.now()), b"mk_abcdefghijklmnopqrstuvwxyz012345")
    ledger.check("mint", Permit(began=ledger.now(), mints=True), b"mk_abcdefghijklmnopqrstuvwxyz012345")

    assert ledger.leaks == ["chat: a provider's key was shown", "chat: a Memory Key was shown"]


def test_what_was_acknowledged_is_missed() -> None:
    ledger = Ledger()
    told = ledger.tell(account=1, vault=2)
    ledger.settle(told, stored=True)

    assert ledger.missing(2, []) == [told.canary]
    assert ledger.missing(2, [told.number]) == []


# --- servers that leak ---

Ask = Callable[[VaultRef, Any], tuple[VaultRef, Any]]


def _asking(components: Components, change: Ask) -> None:
    """Change what vaults are asked."""
    supervisor: Any = components.supervisor
    ask = supervisor.ask

    async def changed(vault: VaultRef, message: Any, **options: Any) -> Any:
        return await ask(*change(vault, message), **options)

    supervisor.ask = changed


def foreign_vault(kind: type) -> Tamper:
    """Every tenth question of this kind goes to the vault that was asked before."""

    def tamper(components: Components) -> None:
        counter, last = itertools.count(1), list[VaultRef]()

        def change(vault: VaultRef, message: Any) -> tuple[VaultRef, Any]:
            asked = last[-1] if last and isinstance(message, kind) and next(counter) % 10 == 0 else vault
            last[:] = [vault]
            return asked, message

        _asking(components, change)

    return tamper


def sessions_ignored(components: Components) -> None:
    """A search sees the whole vault."""
    _asking(
        components,
        lambda vault, message: (
            vault, msgspec.structs.replace(message, scope=Scope()) if isinstance(message, Search) else message
        ),
    )  # fmt: skip


def filters_ignored(components: Components) -> None:
    """A list sees the whole vault."""
    _asking(
        components,
        lambda vault, message: (
            vault,
            msgspec.structs.replace(message, wanted=MemoryFilter()) if isinstance(message, ListMemories) else message,
        ),
    )


def deletions_forgotten(components: Components) -> None:
    """A memory that is deleted by its id stays."""
    supervisor: Any = components.supervisor
    ask = supervisor.ask

    async def changed(vault: VaultRef, message: Any, **options: Any) -> Any:
        return None if isinstance(message, ForgetMemory) else await ask(vault, message, **options)

    supervisor.ask = changed


class _Store:
    """The store, of which one method is another."""

    def __init__(self, store: Any, **methods: Any) -> None:
        self._store = store
        vars(self).update(methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def keys_never_end(components: Components) -> None:
    """Whoever was let in once is let in for ever."""
    store: Any = components.store
    find, known = store.find_key, dict[bytes, Principal]()

    async def remembered(key_hash: bytes) -> Principal | None:
        found: Principal | None = await find(key_hash)
        if found is not None:
            known[key_hash] = found
        return known.get(key_hash)

    components.store = _Store(store, find_key=remembered)


def accounts_see_each_others_keys(components: Components) -> None:
    """The list of keys is everybody's."""
    store: Any = components.store
    list_keys = store.list_keys

    async def everybodys(_: int | None = None, **options: Any) -> list[KeyRecord]:
        found: list[KeyRecord] = await list_keys(None, **options)
        return found

    components.store = _Store(store, list_keys=everybodys)


def provider_keys_mixed_up(components: Components) -> None:
    """An account's requests go out with the first provider key that anybody has stored."""
    store: Any = components.store
    find = store.find_provider_key

    async def anybodys(_: int, provider: str) -> Secret | None:
        for account in range(1, 9):
            found: Secret | None = await find(account, provider)
            if found:
                return found
        return None

    components.store = _Store(store, find_provider_key=anybodys)


def blocks_shared(components: Components) -> None:
    """Tool loops of different vaults share their memory when they begin with the same words."""
    recaller: Any = components.recaller
    cached = recaller.cached_block

    def anybodys(key: tuple[object, ...]) -> Any:
        same = [other for other in recaller._blocks if other[2:] == key[2:]]
        return cached(same[-1] if same else key)

    recaller.cached_block = anybodys


@pytest.mark.parametrize(
    ("tamper", "leak"),
    [
        (foreign_vault(Search), "was shown"),
        (foreign_vault(Recall), "was shown"),
        (foreign_vault(GetMemory), "get: vault"),
        (foreign_vault(ListMemories), "list: vault"),
        (sessions_ignored, "search: session"),
        (filters_ignored, "list: session"),
        (deletions_forgotten, "after its deletion"),
        (keys_never_end, "which is over, was answered"),
        (accounts_see_each_others_keys, "was shown the name"),
        (provider_keys_mixed_up, "was sent sk-|models: account"),
        (blocks_shared, "sent to openai"),
    ],
    ids=[
        "search", "recall", "get", "list", "sessions", "filters", "deletions", "keys", "accounts", "provider keys",
        "blocks",
    ],
)  # fmt: skip
async def test_a_server_that_leaks_is_caught(tmp_path: Path, tamper: Tamper, leak: str) -> None:
    world = World(7, leaks_on_purpose=True)

    await campaign(tmp_path / "data", world, open_inside(tamper), retrievals=ENOUGH, kinds=False)

    assert any(re.search(leak, found) for found in world.ledger.leaks), world.ledger.leaks
