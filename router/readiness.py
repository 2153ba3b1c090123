"""Which parts of the server are ready: what `/readyz` says, and what it is decided by.

A part that fails takes the whole server out of the balancer's hands, so only that fails which would make requests fail
that another attempt later would not: starting, shutting down, a store that serves nothing. Whatever still lets chats,
searches and deletions work only degrades; a full disk is of that kind, unless who asks says that it wants to write.
Must never name a vault, an account or a provider: anybody may ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import msgspec

from router.cluster_figures import unowned_parts

if TYPE_CHECKING:
    from router.components import Components

NEEDED_FOR_WRITES = frozenset({"disk"})
"""Parts whose degradation fails readiness for who wants to write."""


class PartState(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a part is.

    Attributes:
        reason: why it is not wholly ready.
    """

    status: Literal["ready", "degraded", "not ready"]
    reason: str = ""


READY = PartState("ready")


class Readiness:
    """Why the server is not ready, part by part."""

    def __init__(self) -> None:
        self._checks: dict[str, Callable[[], PartState | None]] = {}
        self._missing: dict[str, str] = {"server": "starting"}

    def set_missing(self, part: str, reason: str) -> None:
        """This part is not ready, until `set_ready`."""
        self._missing[part] = reason

    def set_ready(self, part: str) -> None:
        """This part is ready."""
        self._missing.pop(part, None)

    def watch(self, part: str, check: Callable[[], PartState | None]) -> None:
        """Ask a part whenever somebody wants to know; None says that there is no such part."""
        self._checks[part] = check

    def parts(self, *, writes: bool = False) -> dict[str, PartState]:
        """Each part by name.

        Args:
            writes: what only keeps the server from storing anything new fails it, too.
        """
        states = {"server": READY}
        states |= {part: state for part, check in self._checks.items() if (state := check()) is not None}
        states |= {part: PartState("not ready", reason) for part, reason in self._missing.items()}
        for part in NEEDED_FOR_WRITES & states.keys() if writes else ():
            if states[part].status == "degraded":
                states[part] = PartState("not ready", states[part].reason)
        return states


def watch_readiness(components: Components) -> None:
    """Let readiness ask the parts that may degrade."""
    readiness = components.readiness
    readiness.watch("store", lambda: _store(components))
    readiness.watch("disk", lambda: _disk(components))
    readiness.watch("embedder", lambda: _embedder(components))
    readiness.watch("vaults", lambda: _vaults(components))
    readiness.watch("upstream", lambda: _upstream(components))
    readiness.watch("workers", lambda: _workers(components))
    if components.settings.store.kind == "postgres":
        readiness.watch("cluster", lambda: _cluster(components))


def _store(components: Components) -> PartState:
    statistics = components.store.statistics()
    shards, damaged = len(statistics["shards"]), statistics["shards_damaged"]
    if statistics["meta"]["damaged"]:
        return PartState("not ready", "meta.db refuses to serve; see the log")
    if damaged:
        some_serve = damaged < shards or components.siblings is not None  # a worker has a share of them
        status: Literal["degraded", "not ready"] = "degraded" if some_serve else "not ready"
        return PartState(status, f"{damaged} of {shards} shard files refuse to serve; see the log")
    return READY


def _disk(components: Components) -> PartState:
    if components.store.statistics()["disk_full"]:
        return PartState("degraded", "the disk is full: nothing new is stored; reading, chats and deletions work")
    return READY


def _embedder(components: Components) -> PartState:
    if not components.supervisor.embedders.default.is_open:
        return PartState("degraded", "the default embedding model is not open: words are searched, meaning is not")
    return READY


def _vaults(components: Components) -> PartState:
    statistics = components.supervisor.statistics()
    reasons = []
    if statistics["resuming"]:
        reasons.append(f"{statistics['resuming']} vaults are still to be taken up after the start")
    if statistics["resting"]:
        reasons.append(f"{statistics['resting']} vaults rest after repeated crashes")
    return PartState("degraded", "; ".join(reasons)) if reasons else READY


def _upstream(components: Components) -> PartState:
    suspended = sum(numbers["breaker_open"] for numbers in components.upstream.statistics().values())
    if suspended:
        return PartState("degraded", f"{suspended} providers failed repeatedly and are left alone for now")
    return READY


def _workers(components: Components) -> PartState | None:
    down = [] if components.siblings is None else components.siblings.down()
    if down:
        names = ", ".join(map(str, down))
        return PartState("degraded", f"worker {names} is being started again: its vaults answer 503 until it is back")
    return None if components.siblings is None else READY


def _cluster(components: Components) -> PartState:
    if components.cluster is None:
        return PartState("not ready", "this node has not joined the cluster")
    if components.cluster.statistics()["lease_remaining_s"] <= 0:
        return PartState("not ready", "the lease is over: PostgreSQL does not answer, or another node has this name")
    unowned = len(unowned_parts(components.cluster))
    if unowned:
        return PartState("degraded", f"{unowned} partitions have no owner: their vaults answer 503 until they have one")
    return READY
