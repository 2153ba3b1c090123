"""The parts of a running server, as the routes see them: built once in `router.service`, never global."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

from router.body_budget import BodyBudget
from router.dashboard.state import DashboardState
from router.limits import RequestLimits
from router.memory_quota import MemoryQuota
from router.tracing import Traced, Untraced
from router.usage import Meter

if TYPE_CHECKING:
    from actors.cluster.cluster import Cluster
    from actors.embedder import Embedder
    from actors.store.protocol import Store
    from actors.supervisor import Supervisor
    from actors.usage_journal import UsageJournal
    from models.ids import VaultRef
    from models.settings import Settings
    from router.forwarding import Forwarder
    from router.readiness import Readiness
    from router.recalling import Recaller
    from router.remembering import Rememberer
    from router.server_metrics import Metrics
    from router.siblings import Siblings
    from router.stored_elsewhere import HandingOn
    from router.upstream import Upstream


OFFLOAD_THREADS = 2
"""Threads for large bodies. They hold the interpreter's lock most of the time, so more would not be faster."""


def wall_clock_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class Components:
    """Everything a route may use."""

    __slots__ = (
        "body_budget", "cluster", "dashboard", "embedder", "forwarder", "handing_on", "limits", "meter", "metrics",
        "now_ms", "offload_limiter", "quota", "readiness", "recaller", "rememberer", "settings", "siblings", "store",
        "supervisor", "tracing", "upstream",
    )  # fmt: skip

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        embedder: Embedder,
        supervisor: Supervisor,
        upstream: Upstream,
        recaller: Recaller,
        rememberer: Rememberer,
        metrics: Metrics,
        readiness: Readiness,
        usage: UsageJournal | None = None,
        tracing: Traced | Untraced | None = None,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self.settings = settings
        self.store = store
        self.embedder = embedder
        self.supervisor = supervisor
        self.upstream = upstream
        self.recaller = recaller
        self.rememberer = rememberer
        self.metrics = metrics
        self.readiness = readiness
        self.cluster: Cluster | None = None  # this and the forwarder: once the node has joined, where there is one
        self.forwarder: Forwarder | None = None
        self.handing_on: HandingOn | None = None
        self.siblings: Siblings | None = None  # where this is one of several workers
        self.tracing = tracing or Untraced()
        self.now_ms = now_ms
        self.limits = RequestLimits(settings.limits, clock=time.monotonic)
        self.quota = MemoryQuota(
            supervisor,
            memories_max=settings.limits.memories_max,
            refused=partial(metrics.limited.increment, "memories"),
        )
        self.body_budget = BodyBudget(max(settings.limits.buffered_bodies_max_bytes, settings.server.body_max_bytes))
        self.dashboard = DashboardState(settings.dashboard, now_ms=now_ms)
        self.meter = Meter(
            usage,
            billing_multiplier=settings.usage.billing_multiplier,
            now_ms=now_ms,
            heard=self.dashboard.note_tokens,
        )
        self.offload_limiter = trio.CapacityLimiter(OFFLOAD_THREADS)

    async def retire(self, vault: VaultRef) -> None:
        """Forget a vault that was shredded: nothing in memory may know what it held.

        Raises:
            StoreUnavailable: it is still in memory; see `Supervisor.retire`.
        """
        await self.supervisor.retire(vault)
        self.recaller.forget_blocks(vault)
