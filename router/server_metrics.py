"""The metrics that are counted where something happens to a request, and the page that shows all of them.

Owns their names. Must never count what a part counts by itself: that is `router.watched_metrics`' business.
"""

from __future__ import annotations

import platform
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import trio

from models.distributions import STEP_SECONDS
from models.errors import MemoryRouterError
from models.version import VERSION
from router.metrics import Counter, Family, Gauge, Group, Histogram, Page

SKIP_REASONS = ("empty", "error", "not_stored", "off", "overloaded", "timeout")
"""Why memory was left out of a request: every value of `X-Memory-Status` but `ok` (design section 12)."""

LIMITS = ("bodies", "concurrency", "connections", "failed_auth", "headers", "memories", "requests")
"""What limits: room for bodies, requests of a key at once, connections of an address, failed authentication, the time
for headers, memories of a vault, and requests of a key a minute."""

OPERATIONS = ("chat", "prepare", "search")
"""What asks a vault."""

OF_ALL_WORKERS = frozenset({"memoryrouter_vaults", "memoryrouter_memories", "memoryrouter_memories_bytes"})
"""What is counted of the whole data directory, whichever worker counts."""

App = Callable[[Any, Any, Any], Awaitable[None]]

LAG_INTERVAL_S = 0.1
"""How often the event loop's lag is measured: a stall of this length is always seen, a shorter one by chance."""

BUILD = Group(
    ("version", "python", "implementation"),
    ("one", "memoryrouter_build_info", "gauge", "1; the running version, and what runs it."),
)


def error_codes() -> set[str]:
    """Every code that an error of ours has."""
    codes, kinds = set(), [MemoryRouterError]
    while kinds:
        kind = kinds.pop()
        codes.add(kind.code)
        kinds += kind.__subclasses__()
    return codes


class Metrics:
    """Every metric of one server. Kept in memory, read at `/metrics`, gone with the process.

    Attributes:
        page: shows these, and what is watched besides.
    """

    def __init__(self) -> None:
        self.requests = Counter(
            "memoryrouter_requests_total", "Requests answered, by route template and status.", ("route", "status")
        )
        self.request_seconds = Histogram(
            "memoryrouter_request_duration_seconds",
            "From a request's head to its answer's; what is streamed comes after.",
            ("route",),
        )
        self.requests_in_progress = Gauge(
            "memoryrouter_requests_in_progress", "Requests under way, streams until their end."
        )
        self.added_seconds = Histogram(
            "memoryrouter_added_seconds",
            "What this server adds to a request with a key: the time until its answer, without the provider's.",
            ("route",),
        )
        self.errors = Counter(
            "memoryrouter_errors_total", "Requests that this server refused or failed, by the error's code.", ("code",)
        )
        self.heads_refused = Counter(
            "memoryrouter_heads_refused_total", "Requests whose head was refused, by status.", ("status",)
        )
        self.recall_seconds = Histogram(
            "memoryrouter_recall_duration_seconds",
            "Asking a vault, embedding the question included.",
            ("operation",),
            bounds=STEP_SECONDS,
        )
        self.memory_skipped = Counter(
            "memoryrouter_memory_skipped_total", "Chats that went on without memory, or were not stored.", ("reason",)
        )
        self.not_stored = Counter(
            "memoryrouter_not_stored_total", "Exchanges of chats that could not be stored, by reason.", ("reason",)
        )
        self.limited = Counter("memoryrouter_limited_total", "What a limit refused or cut off, by limit.", ("limit",))
        self.vaults = Gauge("memoryrouter_vaults", "Vaults that are stored.")
        self.memories = Gauge("memoryrouter_memories", "Memories that are stored.")
        self.memories_bytes = Gauge("memoryrouter_memories_bytes", "Bytes of their rows.")
        self.loop_lag = Histogram(
            "memoryrouter_loop_lag_seconds",
            "How late the event loop woke a task that slept for 0.1 s.",
            bounds=STEP_SECONDS,
        )
        self.page = Page(
            self.requests, self.request_seconds, self.requests_in_progress, self.added_seconds, self.errors,
            self.heads_refused, self.recall_seconds, self.memory_skipped, self.not_stored, self.limited, self.vaults,
            self.memories, self.memories_bytes, self.loop_lag,
        )  # fmt: skip
        build = (VERSION, platform.python_version(), platform.python_implementation())
        self.page.watch(BUILD, lambda: [(build, {"one": 1})])
        for reason in SKIP_REASONS:  # alerts on a rate need the zero before the first event
            self.memory_skipped.increment(reason, by=0)
        for limit in LIMITS:
            self.limited.increment(limit, by=0)
        for code in sorted(error_codes()):
            self.errors.increment(code, by=0)

    def families(self) -> Iterator[Family]:
        """Every metric that the page shows."""
        yield from self.page.families()

    def render(self) -> str:
        """The text of `/metrics`."""
        return self.page.render()

    def wrap(self, app: App) -> App:
        """The ASGI application, with the requests counted that are under way in it."""
        under_way = self.requests_in_progress

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            under_way.value += 1
            try:
                await app(scope, receive, send)
            finally:
                under_way.value -= 1

        return counted

    async def measure_lag(self) -> None:
        """Measure until cancelled how late the event loop wakes a sleeper: what holds the loop up, holds up all."""
        while True:
            due_s = trio.current_time() + LAG_INTERVAL_S
            await trio.sleep_until(due_s)
            self.loop_lag.observe(max(0.0, trio.current_time() - due_s))
