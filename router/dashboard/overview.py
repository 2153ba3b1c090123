"""The first screen in numbers: what the account did lately, what it holds, how the server fares.

Asked every two seconds by every open page, so nothing here grows with the number of vaults: what has to be added up
over all of them is kept for a while, the longer the more it costs. Numbers of the account are of that account alone;
those of the server are the ones that `/metrics` shows to every account key.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

import msgspec
import trio

from actors.store.cache import RecentlyUsed
from models.accounts import AccountSize
from models.errors import MemoryRouterError
from models.times import format_time
from models.version import VERSION
from router.components import Components
from router.dashboard.recent import ACCOUNTS_MAX, HOUR_S, MINUTE_S, AccountFigures, ProviderFigures, Span, Told
from router.provider_keys import find_stored_keys

T = TypeVar("T")

KEPT_S = 2.0
COST_SHARE_MAX = 0.01
"""Of one thread's time that adding up may take, however many pages ask."""

OVERVIEW = "overview"
"""The question to other workers, with the account's number behind it."""

SIZE_TIMEOUT_S = 5.0
"""For adding up; then the numbers of before are shown, or none."""


class Kept(Generic[T]):
    """A value that is worked out anew when it is old, by one asker; the others get the old one meanwhile."""

    def __init__(self, work_out: Callable[[], Awaitable[T]], *, clock: Callable[[], float]) -> None:
        self._work_out = work_out
        self._clock = clock
        self._value: T | None = None
        self._good_until_s = 0.0
        self._busy = False

    async def get(self) -> T | None:
        """The value, which may be of some time ago; None where it never could be worked out."""
        began_s = self._clock()
        if self._busy or began_s < self._good_until_s:
            return self._value
        self._busy = True
        try:
            with suppress(MemoryRouterError), trio.move_on_after(SIZE_TIMEOUT_S):
                self._value = await self._work_out()
        finally:
            took_s = self._clock() - began_s
            self._good_until_s = self._clock() + max(KEPT_S, took_s / COST_SHARE_MAX)
            self._busy = False
        return self._value


class WorkerFigures(msgspec.Struct, frozen=True):
    """What one worker knows of itself for the overview.

    Attributes:
        queues: name, what waits in it, and how much may.
        suspended: providers that it leaves alone.
    """

    pending: int
    vaults_active: int
    memory_bytes: int | None
    queues: list[tuple[str, int, int | None]]
    suspended: list[str]


class ToldOverview(msgspec.Struct, frozen=True):
    """A worker's share of an account's overview."""

    account: Told
    worker: WorkerFigures


def told_overview(components: Components, account: int) -> bytes:
    """This worker's share, for the one in which the dashboard lives."""
    told = ToldOverview(components.dashboard.recent.of(account).told(), _own_figures(components))
    return msgspec.msgpack.encode(told)


def _own_figures(components: Components) -> WorkerFigures:
    statistics, links = components.supervisor.statistics(), components.upstream.statistics()
    store, settings = components.store.statistics(), components.settings
    lanes = components.supervisor.embedders.default.lanes()
    rows = sum(shard["queue_rows"] for shard in store["shards"])
    return WorkerFigures(
        pending=statistics["inbox_messages"],
        vaults_active=statistics["live"],
        memory_bytes=resident_bytes(),
        queues=[
            ("commits", rows, settings.store.queue_rows_max * len(store["shards"])),
            *((f"embedding, {name}", lane["waiting"], lane["waiting_max"]) for name, lane in lanes.items()),
            ("vaults' mailboxes", statistics["messages_waiting"], None),
            ("request bodies", components.body_budget.statistics()["waiting"], None),
            ("provider calls", sum(link["waiting"] for link in links.values()), None),
        ],
        suspended=[name for name, link in links.items() if link["breaker"] != "closed"],
    )


def _together(workers: Sequence[WorkerFigures]) -> WorkerFigures:
    """The whole server's; a queue that one has and another has not counts as it is."""
    queues: dict[str, tuple[int, int | None]] = {}
    for name, waiting, capacity in (queue for worker in workers for queue in worker.queues):
        before, room = queues.get(name, (0, 0))
        queues[name] = before + waiting, None if capacity is None or room is None else room + capacity
    memory = [worker.memory_bytes for worker in workers if worker.memory_bytes is not None]
    return WorkerFigures(
        pending=sum(worker.pending for worker in workers),
        vaults_active=sum(worker.vaults_active for worker in workers),
        memory_bytes=sum(memory) if memory else None,
        queues=[(name, waiting, capacity) for name, (waiting, capacity) in queues.items()],
        suspended=sorted({name for worker in workers for name in worker.suspended}),
    )


class Overview:
    """Puts the numbers together."""

    def __init__(self, components: Components) -> None:
        self._parts = components
        self._sizes: RecentlyUsed[int, Kept[AccountSize]] = RecentlyUsed(ACCOUNTS_MAX)

    async def body(self, account: int, *, by_hour: bool = False) -> dict[str, Any]:
        """The JSON of `GET /dashboard/api/overview` (docs/dashboard.md)."""
        parts = self._parts
        now_ms = parts.now_ms()
        figures, server = await self._figures(account)
        now_s = now_ms / 1000
        latencies = figures.latencies(now_s)
        return {
            "now": format_time(now_ms),
            "version": VERSION,
            "started_at": format_time(parts.dashboard.started_ms),
            "uptime_s": max(0, now_ms - parts.dashboard.started_ms) // 1000,
            "requests": {
                "scope": "account",
                "total": figures.requests,
                "errors": figures.errors,
                "per_s": figures.per_second(now_s),
            },
            "latency_ms": {"scope": "account", **{kind: found.body() for kind, found in latencies.items()}},
            "memories": await self._memories(account, server),
            "tokens": _tokens(figures),
            "queues": [
                {"name": name, "waiting": waiting, "capacity": capacity, "scope": "server"}
                for name, waiting, capacity in server.queues
            ],
            "providers": await self._providers(account, figures, server),
            "series": [*_series(figures, now_s, by_hour=by_hour)],
            "memory_bytes": server.memory_bytes,
            "disk": self._disk(),
        }

    async def _figures(self, account: int) -> tuple[AccountFigures, WorkerFigures]:
        """What this server knows: with several workers, all that answer."""
        parts, siblings = self._parts, self._parts.siblings
        own, server = parts.dashboard.recent.of(account), _own_figures(parts)
        if siblings is None:
            return own, server
        answers = await siblings.ask_all(f"{OVERVIEW} {account}")
        others = [_decode(answer) for answer in answers.values()]
        together = AccountFigures.together([own.told(), *(other.account for other in others)])
        return together, _together([server, *(other.worker for other in others)])

    async def _memories(self, account: int, server: WorkerFigures) -> dict[str, Any]:
        kept = self._sizes.get(account)
        if kept is None:
            kept = Kept(lambda: self._parts.store.account_size(account), clock=time.monotonic)
            self._sizes.put(account, kept)
        size = await kept.get()
        return {
            "scope": "account",
            "server_scope": ["pending", "vaults_active"],
            "total": None if size is None else size.memories,
            "bytes": None if size is None else size.content_bytes,
            "vaults": None if size is None else size.vaults,
            "pending": server.pending,
            "vaults_active": server.vaults_active,
        }

    async def _providers(self, account: int, figures: AccountFigures, server: WorkerFigures) -> list[dict[str, Any]]:
        """Those that this account has a key for, or has asked."""
        providers = self._parts.settings.providers.by_name
        stored = await find_stored_keys(self._parts.store, account, providers)
        items = []
        for name, settings in providers.items():
            has_key = name in stored.found or bool(settings.api_key)
            met = figures.providers.get(name)
            if has_key or met is not None:
                suspended = name in server.suspended
                items.append(_provider_item(name, met or ProviderFigures(), suspended=suspended, has_key=has_key))
        return items

    def _disk(self) -> dict[str, int] | None:
        """How full the disk is that the data directory is on."""
        data_dir = self._parts.dashboard.data_dir
        if data_dir is None:
            return None
        try:
            found = os.statvfs(data_dir)
        except OSError:
            return None
        used_bytes = (found.f_blocks - found.f_bfree) * found.f_frsize
        return {"used_bytes": used_bytes, "free_bytes": found.f_bavail * found.f_frsize}


def _tokens(figures: AccountFigures) -> dict[str, Any]:
    return {
        "scope": "account",
        **{name: figures.tokens[name] for name in ("retrieved", "injected", "input", "output")},
    }


def _provider_item(name: str, met: ProviderFigures, *, suspended: bool, has_key: bool) -> dict[str, Any]:
    if suspended:
        state = "open"
    elif not met.requests:
        state = "unknown"
    else:
        state = "failing" if met.failing else "ok"
    return {
        "name": name,
        "scope": "account",
        "state": state,
        "has_key": has_key,
        "requests": met.requests,
        "errors": met.errors,
        "last_error_status": met.last_error_status,
        "last_error_at": None if met.last_error_ms is None else format_time(met.last_error_ms),
        "last_used_at": None if met.last_used_ms is None else format_time(met.last_used_ms),
    }


def _series(figures: AccountFigures, now_s: float, *, by_hour: bool) -> Iterator[dict[str, Any]]:
    spans: Iterator[Span] = figures.hours(now_s) if by_hour else figures.minutes(now_s)
    length_s = HOUR_S if by_hour else MINUTE_S
    for span in spans:
        latencies = span.latencies.get("all")
        yield {
            "t": format_time(span.number * length_s * 1000),
            "requests": span.requests,
            "errors": span.errors,
            "p50_ms": None if latencies is None else latencies.percentile(50),
            "p99_ms": None if latencies is None else latencies.percentile(99),
        }


def resident_bytes() -> int | None:
    """The process's memory, where the system tells."""
    with suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
    return None


_decode = msgspec.msgpack.Decoder(ToldOverview).decode
