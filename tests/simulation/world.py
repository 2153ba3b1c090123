"""The whole system in one process, without a disk, a network, threads or real time: the same seed, the same run.

Real: supervisor, actors, embedder, the routes' parts. Twins: the store in memory, the hashing encoder. Trio's mock
clock jumps whenever everybody waits, and Trio's scheduler draws from the seed. A world outlives its lives, as a disk
outlives processes: each life opens the house on what the last one left, lets people and weather loose, and closes or
crashes.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from actors.embedder import Embedder, open_embedder
from actors.supervisor import Supervisor, open_supervisor
from actors.vault_actor import VaultLimits
from models.errors import MemoryRouterError, StorageFull, StoreUnavailable
from models.ids import VaultRef
from models.messages import Scope, Search, Stats, VaultStats
from models.settings import VaultSettings
from models.store_settings import StoreSettings
from router.recalling import Recaller
from router.remembering import Rememberer
from router.server_metrics import Metrics
from tests.actors.house import POISON, run_inline
from tests.campaigns.checker import Acknowledged, Fault, Held, Operation
from tests.fakes.embedding import HashEmbedding
from tests.fakes.memory_disk import MemoryDisk
from tests.fakes.store import MemoryStore

NAMES = ("anna", "ben", "carla", "dora")
BEGAN_MS = 1_700_000_000_000
ASK_TIMEOUT_S = 60.0
QUIET_S = 300.0
"""After this long without clients and weather everything is embedded, written out, and let go."""


class Life:
    """One process: what its clients use.

    Attributes:
        ended: cancelled when the process is killed.
        acknowledgements_left: it is killed with the one that makes this zero, before its client can go on.
    """

    def __init__(self, store: MemoryStore, embedder: Embedder, supervisor: Supervisor) -> None:
        self.ended = trio.CancelScope()
        self.acknowledgements_left = -1
        self.store = store
        self.supervisor = supervisor
        self.metrics = Metrics()
        self.rememberer = Rememberer(supervisor)
        self.recaller = Recaller(embedder, supervisor, block_cache_s=600, clock=trio.current_time)

    def crash(self) -> None:
        """kill -9, as far as clients and the disk can tell."""
        self.store.crash()
        self.ended.cancel(reason="the process was killed")

    def acknowledge(self, operation: Operation) -> None:
        """A client has seen the answer."""
        operation.acknowledge()
        self.acknowledgements_left -= 1
        if self.acknowledgements_left == 0:
            self.crash()

    async def contents(self, vault: VaultRef, *, limit: int) -> list[str]:
        """The texts that a search finds."""
        message = Search(text="note", vector=b"", scope=Scope(), limit=limit, now_ms=BEGAN_MS)
        found = await self.supervisor.ask(vault, message, timeout_s=ASK_TIMEOUT_S)
        return [hit.memory.content for hit in found.hits]

    async def stats(self, vault: VaultRef) -> VaultStats:
        """A vault in numbers."""
        counted: VaultStats = await self.supervisor.ask(vault, Stats(), timeout_s=ASK_TIMEOUT_S)
        return counted


class World:
    """What lasts: the disk, the model, the trace.

    Attributes:
        trace: everything that anybody did, in order: two runs of one seed have the same.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.disk = MemoryDisk()
        self.model = Acknowledged()
        self.trace: list[tuple[Any, ...]] = []
        self._number = 0

    def note(self, *what: object) -> None:
        """Write into the trace."""
        self.trace.append((round(trio.current_time(), 6), *what))

    def now_ms(self) -> int:
        """The wall clock."""
        return BEGAN_MS + int(trio.current_time() * 1000)

    def next_number(self) -> int:
        """Makes texts unique."""
        self._number += 1
        return self._number

    @asynccontextmanager
    async def open_life(self) -> AsyncIterator[Life]:
        """The house on this disk: small, so that vaults come and go, and leaks show."""
        store = MemoryStore(self.disk, settings=StoreSettings(shards=2, queue_rows_max=64), now_ms=self.now_ms)
        vaults = VaultSettings(
            mailbox_messages_max=4, exchanges_max=3, idle_timeout_s=5, residency_min_s=1, memory_max_bytes=60_000,
            quarantine_s=5,
        )  # fmt: skip
        pauses = random.Random(self.random.random())

        async def encode(function: Callable[..., Any], *args: Any, limiter: object = None) -> Any:
            await trio.sleep(pauses.choice((0, 0.01, 2)))
            return await run_inline(function, *args)

        try:
            async with (
                open_embedder(HashEmbedding(), batch_texts_max=4, bulk_max=3, offload=encode) as embedder,
                open_supervisor(store, embedder, vaults, VaultLimits(), drain_timeout_s=10) as supervisor,
            ):
                yield Life(store, embedder, supervisor)
        finally:
            await store.close()

    async def settle_in(self, life: Life) -> None:
        """The first start: an account, and a key for everybody."""
        await life.store.create_account(key_hash=b"account", shown="mk_", created_ms=BEGAN_MS)
        for name in NAMES:
            await life.store.create_key(1, name=name, key_hash=name.encode(), shown="mk_", created_ms=BEGAN_MS)
            self.model.add_vault(name)

    async def vault(self, life: Life, name: str) -> VaultRef:
        """Where somebody's key leads now."""
        principal = await life.store.find_key(name.encode())
        assert principal is not None
        return principal.vault

    async def compare(self, life: Life) -> list[Fault]:
        """What every vault holds against the model; nothing may be under way."""
        self.model.restart()
        held: dict[str, Held | None] = {}
        for name in NAMES:
            vault = await self.vault(life, name)
            texts = tuple(await life.contents(vault, limit=100_000))
            held[name] = Held(texts, (await life.stats(vault)).memories)
            self.note(name, "holds", len(texts))
        return self.model.verify(held)

    async def check_quiet(self, life: Life) -> None:
        """Some time after the last request everything is embedded and written out, and nothing is held.

        A vault that was quarantined may have left memory with work undone; its next request finds it.
        """
        await trio.sleep(QUIET_S)
        for name in NAMES:
            await life.stats(await self.vault(life, name))
        await trio.sleep(QUIET_S)
        for name in NAMES:
            pending = (await life.stats(await self.vault(life, name))).pending
            assert pending == 0, f"{name} has {pending} memories that are never embedded"
        await trio.sleep(QUIET_S)
        assert [vault.number for vault in await life.store.vaults_with_inbox()] == [], "rows stay in the inbox"
        assert life.supervisor.statistics()["live"] == 0, "something is held in memory"


class CrashLog(logging.Handler):
    """Counts crashes of actors, and those of them that the weather has caused."""

    def __init__(self) -> None:
        super().__init__()
        self.crashes = 0
        self.poisonings = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Hear a log record."""
        self.crashes += record.msg == "vault_crashed"
        self.poisonings += record.msg == "vault_turn_failed" and getattr(record, "kind", "") == "Recall"


async def weather(world: World, life: Life, random_: random.Random) -> None:
    """Bad things at random moments, until cancelled."""
    while True:
        await trio.sleep(random_.expovariate(1 / 3))
        kind = random_.choice(("fail", "fail", "slow", "poison", "calm"))
        if kind == "fail":
            error: MemoryRouterError = random_.choice((StorageFull, StoreUnavailable))("The weather is bad.")
            life.store.fail_commit(error, nth=random_.randrange(1, 4))
        elif kind == "slow":
            life.store.hold_commits()
            await trio.sleep(random_.choice((0.1, 1, 6)))
            life.store.release_commits()
        elif kind == "poison":
            await poison(life, await world.vault(life, random_.choice(NAMES)), random_.choice((1, 1, 5)))
        else:
            await trio.sleep(random_.choice((1, 20)))
        world.note("weather", kind)


async def poison(life: Life, vault: VaultRef, times: int) -> None:
    """Crash a vault's actor, perhaps so often that it is quarantined."""
    for _ in range(times):
        try:
            await life.supervisor.ask(vault, POISON, timeout_s=1)
        except MemoryRouterError:
            continue
