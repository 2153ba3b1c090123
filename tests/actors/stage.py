"""A stage for one actor: its mailbox, the store in memory, an encoder without threads, and no supervisor."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from actors.embedder import open_embedder
from actors.embedding_source import Offload
from actors.inbox_lag import InboxLag
from actors.mailbox import Mailbox
from actors.vault_actor import VaultActor, VaultLimits
from models.ids import VaultRef
from models.memory import Exchange, InboxRow
from models.messages import Applied, Scope, Search, Stats, VaultStats
from tests.actors.house import (
    NOW_MS,
    Gate,
    WatchedStore,
)
from tests.fakes.embedding import HashEmbedding


class Running:
    """An actor in its mailbox, as the supervisor would hold it."""

    def __init__(self, actor: VaultActor, mailbox: Mailbox, sizes: list[int]) -> None:
        self.actor = actor
        self.mailbox = mailbox
        self.sizes = sizes
        self.error: Exception | None = None
        self.ended = trio.Event()

    async def run(self) -> None:
        try:
            await self.actor.run()
        except Exception as error:
            self.error = error
        finally:
            self.ended.set()

    async def ask(self, question: Any) -> Any:
        return await self.mailbox.ask(question, timeout_s=60)

    async def found(self, words: str = "", **scope: Any) -> list[str]:
        query = Search(text=words, vector=b"", scope=Scope(**scope), limit=99, now_ms=NOW_MS)
        return sorted(hit.memory.content for hit in (await self.ask(query)).hits)

    async def pending(self) -> int:
        counted: VaultStats = await self.ask(Stats())
        return counted.pending


@asynccontextmanager
async def running(
    store: WatchedStore,
    vault: VaultRef,
    *,
    encoder: HashEmbedding | None = None,
    gate: Gate | None = None,
    bulk_max: int = 256,
    bulk_running_max: int = 1,
    offload: Offload | None = None,
    rows_sent: int = 0,
    hydrated: dict[int, Applied | None] | None = None,
    mailbox: Mailbox | None = None,
    lag: InboxLag | None = None,
) -> AsyncIterator[Running]:
    """An actor for the length of the block; leaving passivates it.

    Args:
        hydrated: what earlier incarnations made of inbox rows.
        offload: in place of a gate.
    """
    mailbox = mailbox or Mailbox(messages_max=64, reserved_max=64)
    sizes: list[int] = []
    async with (
        open_embedder(
            encoder or HashEmbedding(),
            bulk_max=bulk_max,
            bulk_running_max=bulk_running_max,
            offload=offload or (gate or Gate()).run,
        ) as embedder,
        trio.open_nursery() as actors,
    ):
        actor = VaultActor(
            vault,
            mailbox,
            store,
            embedder,
            VaultLimits(),
            trio.CapacityLimiter(1),
            trio.CapacityLimiter(1),
            lag=lag or InboxLag(messages_max=1_000, bytes_max=1_000_000),
            rows_sent=rows_sent,
            suspects=Counter(),
            hydrated={} if hydrated is None else hydrated,
            resized=sizes.append,
            applied=lambda _: None,
            learned=lambda _row, _stored: None,
        )
        held = Running(actor, mailbox, sizes)
        actors.start_soon(held.run)
        yield held
        mailbox.close()


async def commit(store: WatchedStore, vault: VaultRef, *exchanges: Exchange) -> tuple[InboxRow, ...]:
    rows: list[InboxRow] = []
    await store.accept_nowait(vault, exchanges, rows.extend).wait_durable()
    return tuple(rows)


def inbox(store: WatchedStore, vault: VaultRef) -> int:
    return len(store.disk.vault(vault).inbox)
