"""A house of actors with everything outside faked: the store in memory, an encoder without model, no threads.

Nothing here needs real time, so tests may use Trio's autojump clock. Tests reach a state with
`trio.testing.wait_all_tasks_blocked` and force failures through `WatchedStore`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.embedder import Embedder, open_embedder
from actors.metering import MemoryMeter
from actors.store.protocol import Materialisation, VaultImage
from actors.supervisor import Supervisor, open_supervisor
from actors.vault_actor import VaultLimits
from models.accounts import SERVER, Actor
from models.errors import VaultUnavailable
from models.ids import VaultRef
from models.memory import Exchange, Message
from models.messages import Applied, Found, Recall, Scope, Search, Stats, VaultStats
from models.settings import VaultSettings
from models.store_settings import StoreSettings
from tests.fakes.embedding import HashEmbedding
from tests.fakes.memory_disk import MemoryDisk
from tests.fakes.store import MemoryStore

NOW_MS = 1_700_000_000_000
POISON = Recall(text="", vector=b"odd", scope=Scope(), chunks_max=1, now_ms=NOW_MS)
"""A message that no caller could send: its vector has no whole number of floats, so the turn crashes."""


async def run_inline(function: Callable[..., Any], *args: Any, limiter: object = None) -> Any:
    """Stands in for `trio.to_thread.run_sync`, without the thread: the autojump clock does not see threads work."""
    await trio.lowlevel.checkpoint()
    return function(*args)


class Gate:
    """Lets an encoder be held: `run` waits until `open` before it works."""

    def __init__(self, *, closed: bool = False) -> None:
        self._opened = trio.Event()
        self.entered = 0
        if not closed:
            self._opened.set()

    async def run(self, function: Callable[..., Any], *args: Any, limiter: object = None) -> Any:
        """As `run_inline`, once the gate is open."""
        self.entered += 1
        await self._opened.wait()
        return await run_inline(function, *args)

    def open(self) -> None:
        """Let everything through."""
        self._opened.set()

    def close(self) -> None:
        """Hold what comes."""
        self._opened = trio.Event()


class WatchedStore(MemoryStore):
    """The store in memory, which counts loads and fails on demand.

    Attributes:
        loads: how often each vault was loaded.
        failing: errors that the next calls of a method raise, by method name.
        refusing: an error that every call of a method raises as long as it stands here.
        before: awaited before a method works, by method name.
    """

    def __init__(self, disk: MemoryDisk, *, settings: StoreSettings | None = None) -> None:
        super().__init__(disk, settings=settings or StoreSettings(), now_ms=lambda: NOW_MS)
        self.loads: dict[int, int] = {}
        self.steps: list[Materialisation] = []
        self.failing: dict[str, deque[Exception]] = {}
        self.refusing: dict[str, Exception] = {}
        self.before: dict[str, Callable[[], Any]] = {}

    async def _pass(self, method: str) -> None:
        if method in self.before:
            await self.before[method]()
        if self.failing.get(method):
            raise self.failing[method].popleft()
        if method in self.refusing:
            raise self.refusing[method]

    async def load_vault(self, vault: VaultRef, *, model_id: str) -> VaultImage:
        self.loads[vault.number] = self.loads.get(vault.number, 0) + 1
        await self._pass("load_vault")
        return await super().load_vault(vault, model_id=model_id)

    async def materialise(self, vault: VaultRef, step: Materialisation) -> None:
        await self._pass("materialise")
        await super().materialise(vault, step)
        self.steps.append(step)

    async def delete_memories(self, vault: VaultRef, seqs: Sequence[int]) -> None:
        await self._pass("delete_memories")
        await super().delete_memories(vault, seqs)

    async def replace_vault(self, vault: VaultRef, *, by: Actor = SERVER) -> VaultRef:
        await self._pass("replace_vault")
        return await super().replace_vault(vault, by=by)


class House:
    """A supervisor with its store and embedder, and what tests do with them again and again."""

    def __init__(self, store: WatchedStore, embedder: Embedder, supervisor: Supervisor) -> None:
        self.store = store
        self.embedder = embedder
        self.supervisor = supervisor

    async def new_vault(self) -> VaultRef:
        """Another empty vault."""
        return await new_vault(self.store)

    async def remember(self, vault: VaultRef, *texts: str, session_id: str | None = None) -> Applied:
        """Submit texts as one exchange and wait until they are taken in."""
        with await self.supervisor.pin(vault) as pin:
            return await pin.submit([exchange(*texts, session_id=session_id)]).wait_applied(timeout_s=30)

    async def found(self, vault: VaultRef, words: str = "", *, scope: Scope | None = None) -> list[str]:
        """The texts that a search returns, in alphabetical order: all of the scope, or those with one of the words."""
        message = Search(text=words, vector=b"", scope=scope or Scope(), limit=1_000, now_ms=NOW_MS)
        reply: Found = await self.supervisor.ask(vault, message, timeout_s=30)
        wanted = set(words.split())
        return sorted(
            hit.memory.content for hit in reply.hits if not wanted or wanted & set(hit.memory.content.split())
        )

    async def stats(self, vault: VaultRef) -> VaultStats:
        """The vault in numbers."""
        counted: VaultStats = await self.supervisor.ask(vault, Stats(), timeout_s=30)
        return counted

    def stored(self, vault: VaultRef) -> list[str]:
        """The texts of the vault's memories on the fake disk, in the order of storing."""
        return stored_texts(self.store.disk, vault)

    def inbox(self, vault: VaultRef) -> int:
        """Rows that wait in the vault's inbox on the fake disk."""
        return len(self.store.disk.vault(vault).inbox)

    def nothing_is_held(self, vault: VaultRef) -> bool:
        """Whether no place in a live vault's mailbox is in use, by a message or by a pin."""
        mailbox = self.supervisor._entries[vault.number].mailbox
        return (mailbox.reserved, mailbox.waiting, mailbox._places.value) == (0, 0, mailbox._messages_max)


def segments_are_saved(supervisor: Supervisor, vault: VaultRef) -> bool:
    """Whether the index of a live vault is on the disk as it is now, and no segment that is no part of it any more."""
    actor = supervisor._entries[vault.number].actor
    keeper = actor._keeper if actor is not None else None
    return keeper is not None and bool(keeper._kept) and not (keeper._saving or keeper._kept_changed)


@asynccontextmanager
async def open_house(
    disk: MemoryDisk | None = None,
    *,
    encoder: HashEmbedding | None = None,
    gate: Gate | None = None,
    drain_timeout_s: float = 5.0,
    limits: VaultLimits | None = None,
    meter: MemoryMeter | None = None,
    **settings: Any,
) -> AsyncIterator[House]:
    """A running house; keyword arguments beyond the named ones are `VaultSettings`.

    Args:
        disk: what an earlier house left behind.
        gate: holds the encoder.
        meter: counts what vaults learn.
    """
    store = WatchedStore(disk or MemoryDisk())
    try:
        async with (
            open_embedder(encoder or HashEmbedding(), offload=(gate or Gate()).run) as embedder,
            open_supervisor(
                store,
                embedder,
                VaultSettings(**settings),
                limits or VaultLimits(analysed_inline_max=1_000_000),
                drain_timeout_s=drain_timeout_s,
                meter=meter,
            ) as supervisor,
        ):
            yield House(store, embedder, supervisor)
    finally:
        await store.close()


async def new_vault(store: MemoryStore) -> VaultRef:
    """Another empty vault of this store."""
    if not await store.has_account():
        await store.create_account(key_hash=b"account", shown="mk_", created_ms=NOW_MS)
    key_hash = f"key {len(store.state.keys)}".encode()
    principal = await store.create_key(1, name="user", key_hash=key_hash, shown="mk_", created_ms=NOW_MS)
    return principal.vault


def stored_texts(disk: MemoryDisk, vault: VaultRef) -> list[str]:
    """The texts of a vault's memories on the fake disk, in the order of storing."""
    decode = msgspec.msgpack.Decoder(dict[str, Any]).decode
    return [decode(body)["content"] for _, body in sorted(disk.vault(vault).memories.items())]


def message(content: str, **fields: Any) -> Message:
    """A user's message of the final exchange, unless told otherwise."""
    return Message(**{"role": "user", "content": content, "final": True, **fields})


def exchange(*texts: str, accepted_ms: int = NOW_MS, session_id: str | None = None) -> Exchange:
    """One exchange of user messages."""
    messages = tuple(message(text, session_id=session_id) for text in texts)
    return Exchange(messages=messages, source="ingest", accepted_ms=accepted_ms)


def question(text: str, encoder: HashEmbedding | None = None, **fields: Any) -> Recall:
    """A recall by words, and by meaning too when an encoder is given."""
    vector = b"" if encoder is None else encoder.encode([text])[0].astype(np.float32).tobytes()
    options = {"scope": Scope(), "chunks_max": 30, "now_ms": NOW_MS, **fields}
    return Recall(text=text, vector=vector, **options)


async def crash(house: House, vault: VaultRef) -> None:
    """Let a vault's actor crash in the middle of a turn."""
    with pytest.raises(VaultUnavailable):
        await house.supervisor.ask(vault, POISON, timeout_s=5)


async def quarantine(house: House, vault: VaultRef) -> None:
    """Let a vault's actor crash as often as it takes."""
    for _ in range(4):
        await crash(house, vault)
    await wait_all_tasks_blocked()
