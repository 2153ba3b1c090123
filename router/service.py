"""The house: every lifetime of the server, nested. Read this file first.

    tracing      the exporter of traces, where somebody wants them
      store        the log and the directory of keys: everything durable
        usage        counts of what keys use, journalled until the store has them
          embedder     texts to vectors, for all vaults and requests
            supervisor   Memory Key -> vault actor
              upstream     connections to each provider
                server       Hypercorn around the Quart-Trio application

Each opens inside the one before and closes before it, so shutting down is nothing but leaving the blocks: the server
finishes its requests, the vaults empty their mailboxes, the store commits what is queued.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from actors.embedder import Embedder
from actors.retention import delete_expired
from actors.store.protocol import Store
from actors.supervisor import Supervisor, anybody, open_supervisor
from actors.usage_journal import UsageJournal, open_usage
from actors.usage_shares import usage_files
from actors.vault_actor import VaultLimits
from models.embedding import TextEncoder
from models.settings import Settings
from router.admin import Administration, first_account_key
from router.admin_socket import SOCKET_NAME, open_admin_socket
from router.app import create_app
from router.body_budget import BudgetedBodies
from router.clustering import Member, open_member
from router.components import Components, wall_clock_ms
from router.configured_store import LateOwnership, open_configured_store
from router.dashboard.gate import DashboardGate
from router.dashboard.passing_on import dashboard_at_first
from router.early_replies import ReplyAfterRequest
from router.embedding_models import open_configured_embedders
from router.ending import HARD_EXIT_GRACE_S, open_shutdown_signals
from router.listening import BoundAddress, address_of, bind, warn_of_exposure
from router.notifying import READY, STOPPING, beat, notify
from router.observe import log_event
from router.passing_through import PacedUploads, is_upload
from router.paths import CanonicalPath
from router.readiness import Readiness, watch_readiness
from router.recalling import Recaller
from router.remembering import Rememberer
from router.request_ids import WithRequestId
from router.server import SecondEntrance, log_serving, on_hangup, serve_app
from router.server_metrics import Metrics
from router.siblings import Siblings
from router.stored_elsewhere import TakesExchanges, open_handing_on
from router.streaming import CloseWithRequest
from router.tls import open_tls
from router.tracing import Traced, Untraced, open_tracing
from router.upstream import Upstream, open_upstream
from router.watched_metrics import watch_parts
from router.worker_answers import answering_siblings

if TYPE_CHECKING:
    from router.worker import Worker


async def serve(
    settings: Settings,
    *,
    data_dir: Path,
    announce: Callable[[str], None],
    warn: Callable[[str], None] = lambda _: None,
    encoder: TextEncoder | None = None,
    worker: Worker | None = None,
    task_status: trio.TaskStatus[BoundAddress] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the server until SIGTERM or SIGINT, then drain and return.

    Args:
        data_dir: where everything durable lives; made if it is not there.
        announce: gets the account key's line on the first start; it is never shown again.
        warn: gets what whoever starts the server should see beside the log.
        encoder: embeds texts; unless given, the built-in model is opened.
        worker: this process among several on the data directory, if it is one (`router.workers`).
        task_status: gets the bound address once requests are served.

    Raises:
        SetupError: the port, the data directory, the model or the server key cannot be used.
    """
    drain_s = settings.server.drain_timeout_s
    asked = None if worker is None else worker.wait_stop
    async with open_shutdown_signals(exit_within_s=drain_s * 2 + HARD_EXIT_GRACE_S, asked=asked) as shutdown:
        open_tls(settings.server)  # this and the next line fail before anything is written
        with bind(settings.server) if worker is None else worker.listening as listening:
            address = address_of(listening, tls=bool(settings.server.tls_certificate_file))
            if worker is None:
                warn_of_exposure(settings, warn)
            async with (
                open_components(
                    settings, data_dir, address=address.authority, announce=announce, encoder=encoder, worker=worker
                ) as components,
                trio.open_nursery() as background,
            ):
                beside = trio.CancelScope()  # not the nursery's own: that one holds the running requests too
                background.start_soon(_work_beside, components, beside)

                async def shutdown_requested() -> None:
                    components.readiness.set_ready("server")
                    notify(READY)
                    await shutdown.wait()
                    notify(STOPPING)
                    components.readiness.set_missing("server", "shutting down")
                    beside.cancel(reason="the server shuts down")
                    if components.forwarder is not None:  # the others take over while this node still answers
                        with trio.move_on_after(drain_s):
                            await components.forwarder.hand_over()

                async with (
                    _open_admin_socket(components, data_dir, address.url, worker),
                    _open_entrance(components, worker) as entrance,
                ):
                    await serve_app(
                        application(components),
                        settings.server,
                        shutdown_trigger=shutdown_requested,
                        listening=listening,
                        beside=entrance,
                        trusted_proxies=components.limits.trusted_proxies,
                        limited=components.metrics.limited.increment,
                        refused=components.metrics.heads_refused.increment,
                        serving=log_serving if worker is None else worker.tell_serving,
                        renewals=on_hangup if worker is None else worker.open_renewals,
                        task_status=task_status,
                    )
        log_event("server_stopped")


@asynccontextmanager
async def _open_admin_socket(
    components: Components, data_dir: Path, url: str, worker: Worker | None
) -> AsyncIterator[None]:
    """Answer the command line on the data directory's socket, unless another worker does."""
    if worker is not None and not worker.is_first:
        yield
        return
    async with open_admin_socket(data_dir / SOCKET_NAME, administration(components, url).perform):
        yield


@asynccontextmanager
async def _open_entrance(components: Components, worker: Worker | None) -> AsyncIterator[SecondEntrance | None]:
    """Where other workers come in; waits until all of them are ready to be asked."""
    server, forwarder = components.settings.server, components.forwarder
    if worker is None or forwarder is None:
        yield None
        return
    # Where each worker counts the connections of an address, none may come to it uncounted.
    keys = None if server.connections_per_address_max else components.store
    async with worker.open_entrance(
        connections_max=server.connections_max,
        drain_s=server.drain_timeout_s,
        keys=keys,
        handed_over=forwarder.note_handed_over,
    ) as entrance:
        await worker.wait_admitted()
        yield entrance


@asynccontextmanager
async def open_components(
    settings: Settings,
    data_dir: Path,
    *,
    address: str,
    announce: Callable[[str], None],
    encoder: TextEncoder | None,
    worker: Worker | None = None,
) -> AsyncIterator[Components]:
    """Open everything that requests use, one inside the other, for the length of the block; arguments as of `serve`.

    Args:
        address: `host:port` at which the server listens.

    Raises:
        SetupError: the data directory, the model or the server key cannot be used.
    """
    ownership = LateOwnership()
    share = None if worker is None else worker.share
    async with (
        open_tracing(settings.tracing) as tracing,
        open_configured_store(settings, data_dir, ownership, share=share) as store,
    ):
        if worker is None or worker.is_first:
            account_key = await first_account_key(store, created_ms=wall_clock_ms())
            if account_key is not None:
                announce(account_key)
        async with (
            open_usage(store, usage_files(data_dir, share), settings.usage, now_ms=wall_clock_ms) as usage,
            open_configured_embedders(settings, data_dir, encoder=encoder) as embedders,
            open_supervisor(
                store,
                embedders,
                settings.vaults,
                vault_limits(settings),
                drain_timeout_s=settings.server.drain_timeout_s,
                meter=usage,
                check_owned=ownership.epoch_nowait if settings.store.kind == "postgres" or worker else anybody,
            ) as supervisor,
            open_upstream(settings.providers.by_name) as upstream,
        ):
            components = assemble(settings, store, embedders.default, supervisor, upstream, usage, tracing)
            components.dashboard.data_dir = data_dir
            async with open_member(
                settings,
                data_dir,
                address=address,
                store=store,
                ownership=ownership,
                supervisor=supervisor,
                retire=components.retire,
                worker=worker,
            ) as member:
                if member is not None:
                    components.cluster, components.forwarder = member.cluster, member.forwarder
                    components.siblings = None if worker is None else siblings_of(worker, member)
                async with open_handing_on(components) as components.handing_on:
                    yield components


def assemble(
    settings: Settings,
    store: Store,
    embedder: Embedder,
    supervisor: Supervisor,
    upstream: Upstream,
    usage: UsageJournal | None,
    tracing: Traced | Untraced | None = None,
) -> Components:
    """What the routes see of the open parts, with everything watched that counts or may degrade."""
    metrics = Metrics()
    components = Components(
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
            took=metrics.recall_seconds.observe,
        ),
        rememberer=Rememberer(supervisor),
        metrics=metrics,
        readiness=Readiness(),
        usage=usage,
        tracing=tracing,
    )
    watch_parts(components, usage)
    watch_readiness(components)
    components.recaller.when_forgotten(components.dashboard.chats.forget_vault)
    return components


async def _work_beside(components: Components, scope: trio.CancelScope) -> None:
    """What goes on beside the requests: resuming what an earlier run has left, telling the service manager that the
    loop goes round, and deleting what has expired."""
    with scope:
        async with trio.open_nursery() as tasks:
            if components.forwarder is None:  # a node does it for each partition that comes, a worker for its own
                tasks.start_soon(components.supervisor.resume)
            tasks.start_soon(beat)
            tasks.start_soon(components.metrics.measure_lag)
            await delete_expired(
                components.store,
                components.supervisor,
                default_days=components.settings.memory.retention_days,
                audit_keep_days=components.settings.audit.keep_days,
                now_ms=components.now_ms,
                deleted=components.recaller.forget_blocks,
            )


def siblings_of(worker: Worker, member: Member) -> Siblings:
    """The other workers, as the routes see them."""
    return Siblings(
        worker.share,
        forwarder=member.forwarder,
        address_of=worker.address_of,
        alive=worker.alive,
        restarts=lambda: worker.restarts,
        parts=member.parts,
    )


def vault_limits(settings: Settings) -> VaultLimits:
    """What vaults need to know of the settings."""
    return VaultLimits(
        repeat_window_s=settings.ingest.repeat_window_s,
        chunk_tokens_max=settings.memory.chunk_tokens_max,
        relevance_min=settings.recall.relevance_min,
        screens=settings.screening.mode == "flag",
        hnsw_threshold=settings.index.hnsw_threshold,
    )


def administration(components: Components, url: str = "") -> Administration:
    """What the operator's commands do beside a running server, which listens at `url`."""
    return Administration(
        components.store,
        components.settings,
        components.upstream,
        now_ms=components.now_ms,
        retire=components.retire,
        url=url,
    )


def application(components: Components) -> Any:
    """The application in its wrappers; a request goes through them from the last to the first."""
    app: Any = TakesExchanges(create_app(components), components)
    app = BudgetedBodies(app, components.body_budget, is_streamed=is_upload)
    for wrap in (PacedUploads, ReplyAfterRequest, CloseWithRequest):
        app = wrap(app)
    if components.settings.dashboard.enabled:
        timeout_s = components.settings.server.body_timeout_s
        app = dashboard_at_first(DashboardGate(app), components.siblings, body_timeout_s=timeout_s)
    app = WithRequestId(components.tracing.wrap(components.metrics.wrap(CanonicalPath(app))))
    return answering_siblings(app, components)
