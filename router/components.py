"""The parts of a running server, as the routes see them: built once in `router.service`, never global."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from actors.embedder import Embedder
    from actors.store.protocol import Store
    from actors.supervisor import Supervisor
    from models.settings import Settings
    from router.observe import Metrics
    from router.recalling import Recaller
    from router.remembering import Rememberer
    from router.upstream import Upstream


OFFLOAD_THREADS = 2
"""Threads for large bodies. They hold the interpreter's lock most of the time, so more would not be faster."""


def wall_clock_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class Readiness:
    """Why the server is not ready, part by part; empty when it is."""

    def __init__(self) -> None:
        self._missing: dict[str, str] = {"server": "starting"}

    def set_missing(self, part: str, reason: str) -> None:
        """This part is not ready."""
        self._missing[part] = reason

    def set_ready(self, part: str) -> None:
        """This part is ready."""
        self._missing.pop(part, None)

    @property
    def missing(self) -> dict[str, str]:
        """Reason by part."""
        return dict(self._missing)


class Components:
    """Everything a route may use."""

    __slots__ = (
        "embedder", "metrics", "now_ms", "offload_limiter", "readiness", "recaller", "rememberer", "settings", "store",
        "supervisor", "upstream",
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
        self.now_ms = now_ms
        self.offload_limiter = trio.CapacityLimiter(OFFLOAD_THREADS)
