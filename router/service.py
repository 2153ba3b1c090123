"""The house: every lifetime of the server, nested. Read this file first.

    store        the log and the directory of keys: everything durable
      embedder     texts to vectors, for all vaults and requests
        supervisor   Memory Key -> vault actor
          upstream     one HTTP client per provider
            server       Hypercorn around the Quart-Trio application

Each opens inside the one before and closes before it, so shutting down is nothing but leaving the blocks: the server
finishes its requests, the vaults empty their mailboxes, the store commits what is queued.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from actors.embedder import Embedder, open_embedder
from actors.store.protocol import Store
from actors.store.sqlite import open_store
from actors.supervisor import Supervisor, open_supervisor
from actors.vault_actor import VaultLimits
from models.embedding import TextEncoder, open_embedding_model
from models.settings import Settings
from router.admin import Administration, create_account
from router.admin_socket import SOCKET_NAME, open_admin_socket
from router.app import create_app
from router.components import Components, Readiness, wall_clock_ms
from router.early_replies import ReplyAfterRequest
from router.observe import Metrics, log_event
from router.passing_through import PacedUploads
from router.paths import CanonicalPath
from router.recalling import Recaller
from router.remembering import Rememberer
from router.request_ids import WithRequestId
from router.server import HARD_EXIT_GRACE_S, BoundAddress, bind, open_shutdown_signals, serve_app
from router.streaming import CloseWithRequest
from router.upstream import Upstream, open_upstream

MODELS_FOLDER = "models"


async def serve(
    settings: Settings,
    *,
    data_dir: Path,
    announce: Callable[[str], None],
    encoder: TextEncoder | None = None,
    task_status: trio.TaskStatus[BoundAddress] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the server until SIGTERM or SIGINT, then drain and return.

    Args:
        data_dir: where everything durable lives; made if it is not there.
        announce: gets the account key's line on the first start; it is never shown again.
        encoder: embeds texts; unless given, the built-in model is opened.
        task_status: gets the bound address once requests are served.

    Raises:
        SetupError: the port, the data directory, the model or the server key cannot be used.
    """
    drain_s = settings.server.drain_timeout_s
    async with open_shutdown_signals(exit_within_s=drain_s * 2 + HARD_EXIT_GRACE_S) as shutdown:
        with bind(settings.server) as listening:  # fails before anything is written
            async with open_store(
                data_dir, settings=settings.store, server_key_file=server_key_file(settings)
            ) as store:
                if not await store.has_account():
                    announce(await create_account(store, created_ms=wall_clock_ms()))
                async with (
                    open_embedder(
                        encoder or await _open_model(data_dir, settings),
                        batch_texts_max=settings.embedding.batch_texts_max,
                        interactive_max=settings.embedding.queue_interactive_max,
                        bulk_max=settings.embedding.queue_bulk_max,
                    ) as embedder,
                    open_supervisor(
                        store, embedder, settings.vaults, vault_limits(settings), drain_timeout_s=drain_s
                    ) as supervisor,
                    open_upstream(settings.providers.by_name) as upstream,
                    open_admin_socket(data_dir / SOCKET_NAME, Administration(store, now_ms=wall_clock_ms).perform),
                    trio.open_nursery() as background,
                ):
                    components = assemble(settings, store, embedder, supervisor, upstream)
                    resuming = trio.CancelScope()  # not the nursery's own: that one holds the running requests too
                    background.start_soon(_within, resuming, supervisor.resume)

                    async def shutdown_requested() -> None:
                        components.readiness.set_ready("server")
                        await shutdown.wait()
                        components.readiness.set_missing("server", "shutting down")
                        resuming.cancel(reason="the server shuts down")

                    await serve_app(
                        WithRequestId(
                            CanonicalPath(CloseWithRequest(ReplyAfterRequest(PacedUploads(create_app(components)))))
                        ),
                        settings.server,
                        shutdown_trigger=shutdown_requested,
                        listening=listening,
                        task_status=task_status,
                    )
        log_event("server_stopped")


def assemble(
    settings: Settings, store: Store, embedder: Embedder, supervisor: Supervisor, upstream: Upstream
) -> Components:
    """What the routes see of the open parts, with everything watched that has statistics."""
    metrics = Metrics()
    metrics.watch("store", store.statistics)
    metrics.watch("embedder", embedder.statistics)
    metrics.watch("vaults", supervisor.statistics)
    metrics.watch("upstream", upstream.statistics)
    return Components(
        settings=settings,
        store=store,
        embedder=embedder,
        supervisor=supervisor,
        upstream=upstream,
        recaller=Recaller(
            embedder,
            supervisor,
            block_cache_s=settings.proxy.block_cache_s,
            context_tokens_max=settings.recall.context_tokens_max,
            clock=time.monotonic,
        ),
        rememberer=Rememberer(supervisor),
        metrics=metrics,
        readiness=Readiness(),
    )


def server_key_file(settings: Settings) -> Path | None:
    """Where the server's key is, if not in the data directory."""
    return Path(settings.store.server_key_file) if settings.store.server_key_file else None


async def _open_model(data_dir: Path, settings: Settings) -> TextEncoder:
    """Load the embedding model; the first start prepares its graph, which takes about a second."""
    return await trio.to_thread.run_sync(
        lambda: open_embedding_model(data_dir / MODELS_FOLDER, threads=settings.embedding.threads)
    )


async def _within(scope: trio.CancelScope, function: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await function()


def vault_limits(settings: Settings) -> VaultLimits:
    """What vaults need to know of the settings."""
    return VaultLimits(
        repeat_window_s=settings.ingest.repeat_window_s,
        chunk_tokens_max=settings.memory.chunk_tokens_max,
        relevance_min=settings.recall.relevance_min,
        hnsw_threshold=settings.index.hnsw_threshold,
    )


def _wrapped(app: Any) -> Any:
    """The application in its wrappers; a request goes through them from the last to the first."""
    for wrap in (PacedUploads, ReplyAfterRequest, CloseWithRequest, CanonicalPath, WithRequestId):
        app = wrap(app)
    return app
