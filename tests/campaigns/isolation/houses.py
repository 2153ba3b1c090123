"""Servers for the campaign: the whole application in this process, without sockets; and a process that is killed.

Both are small, so that vaults come and go all the time: hardly any idle time, the least memory, few places for
questions. What they are configured with changes with the seed and the cycle.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import trio

from actors.store.sqlite import open_store
from actors.supervisor import open_supervisor
from actors.usage_files import FOLDER, UsageFiles
from actors.usage_journal import open_usage
from models.memory_settings import EmbeddingSettings, IndexSettings, RecallSettings, SessionSettings
from models.settings import Settings, StoreSettings
from router.admin import create_account
from router.admin_socket import SOCKET_NAME, open_admin_socket
from router.components import Components, wall_clock_ms
from router.embedding_models import open_configured_embedders
from router.service import administration, application, assemble, vault_limits
from router.upstream import open_upstream
from tests.campaigns.isolation.chats import FALLBACK
from tests.campaigns.isolation.doors import AsgiDoor, Door, WireDoor
from tests.campaigns.isolation.provider import provider_environment, provider_settings
from tests.campaigns.moments import dice
from tests.fakes.embedding import HashEmbedding
from tests.patience import PATIENT_VAULTS
from tests.running import open_process, settings_for

MEMORY_BYTES = 16 << 20
DRAIN_S = 10
IDLE_S = (0.03, 0.3, 5.0)


class Start(msgspec.Struct, frozen=True):
    """One start of a server: what is configured anew each time.

    Attributes:
        questions_max: that may wait for the embedder; with few, clients are told to come back.
        hnsw_threshold: 0 has every vault searched by HNSW.
    """

    strict: bool
    idle_s: float
    questions_max: int
    hnsw_threshold: int
    provider_url: str


def start_of(seed: int, cycle: int, provider_url: str) -> Start:
    """The start of a cycle."""
    random_ = dice(seed, cycle, "start")
    return Start(
        strict=random_.random() < 0.4,
        idle_s=random_.choice(IDLE_S),
        questions_max=random_.choice((16, 2)),
        hnsw_threshold=random_.choice((16_384, 16_384, 0)),
        provider_url=provider_url,
    )


class Open(msgspec.Struct, frozen=True):
    """A server that runs.

    Attributes:
        account_key: that of the first start, else "".
        end: ends it at once.
        log: what it has written, while it is not this process's own.
    """

    door: Door
    account_key: str
    end: Callable[[], None]
    log: Iterable[object] = ()


House = Callable[[Path, Start], AbstractAsyncContextManager[Open]]
Tamper = Callable[[Components], None]
"""Breaks a server on purpose."""


def settings_of(start: Start) -> Settings:
    """Settings of the server in this process."""
    return settings_for(
        store=StoreSettings(shards=2, ballast_bytes=1 << 20),
        vaults=msgspec.structs.replace(
            PATIENT_VAULTS, idle_timeout_s=start.idle_s, residency_min_s=0, memory_max_bytes=MEMORY_BYTES
        ),
        embedding=EmbeddingSettings(batch_texts_max=4, queue_interactive_max=start.questions_max, queue_bulk_max=8),
        index=IndexSettings(hnsw_threshold=start.hnsw_threshold),
        recall=RecallSettings(relevance_min=0.0),
        sessions=SessionSettings(isolation="strict" if start.strict else "tag"),
        providers=provider_settings(start.provider_url),
        fallbacks=FALLBACK,
    )


def open_inside(tamper: Tamper | None = None) -> House:
    """Servers in this process; each as `router.service` builds it, but for Hypercorn."""

    @asynccontextmanager
    async def open_one(data_dir: Path, start: Start) -> AsyncIterator[Open]:
        with trio.CancelScope() as life:
            async with _open_components(data_dir, settings_of(start)) as (components, key):
                if tamper is not None:
                    tamper(components)
                async with open_admin_socket(data_dir / SOCKET_NAME, administration(components).perform):
                    yield Open(AsgiDoor(application(components)), key, life.cancel)

    return open_one


@asynccontextmanager
async def _open_components(data_dir: Path, settings: Settings) -> AsyncIterator[tuple[Components, str]]:
    """The parts of a server, and the account key of its first start."""
    async with open_store(data_dir, settings=settings.store) as store:
        key = "" if await store.has_account() else await create_account(store, created_ms=wall_clock_ms())
        async with (
            open_usage(store, UsageFiles(data_dir / FOLDER), settings.usage, now_ms=wall_clock_ms) as usage,
            open_configured_embedders(settings, data_dir, encoder=HashEmbedding()) as embedders,
            open_supervisor(
                store, embedders, settings.vaults, vault_limits(settings), drain_timeout_s=DRAIN_S, meter=usage
            ) as supervisor,
            open_upstream(settings.providers.by_name) as upstream,
            trio.open_nursery() as background,
        ):
            components = assemble(settings, store, embedders.default, supervisor, upstream, usage)
            components.readiness.set_ready("server")
            background.start_soon(supervisor.resume)
            yield components, key
            background.cancel_scope.cancel(reason="this server ends")


@asynccontextmanager
async def open_outside(data_dir: Path, start: Start) -> AsyncIterator[Open]:
    """The program in a process of its own, with the real model; its end is a kill -9."""
    environment = {
        "MEMORYROUTER_STORE__SHARDS": "2",
        "MEMORYROUTER_STORE__BALLAST_BYTES": "1048576",
        "MEMORYROUTER_VAULTS__IDLE_TIMEOUT_S": str(start.idle_s),
        "MEMORYROUTER_VAULTS__RESIDENCY_MIN_S": "0",
        "MEMORYROUTER_VAULTS__MEMORY_MAX_BYTES": str(MEMORY_BYTES),
        "MEMORYROUTER_EMBEDDING__BATCH_TEXTS_MAX": "4",
        "MEMORYROUTER_EMBEDDING__QUEUE_INTERACTIVE_MAX": str(start.questions_max),
        "MEMORYROUTER_EMBEDDING__QUEUE_BULK_MAX": "8",
        "MEMORYROUTER_INDEX__HNSW_THRESHOLD": str(start.hnsw_threshold),
        "MEMORYROUTER_RECALL__RELEVANCE_MIN": "0",
        "MEMORYROUTER_SESSIONS__ISOLATION": "strict" if start.strict else "tag",
        **provider_environment(start.provider_url),
    }
    async with open_process(data_dir, environment=environment) as server:
        key = server.account_key if any(line.startswith("account key") for line in server.stdout) else ""
        door = WireDoor(server.url)
        try:
            yield Open(door, key, partial(server.signal, signal.SIGKILL), server.log)
        finally:
            with trio.CancelScope(shield=True):
                await door.aclose()
