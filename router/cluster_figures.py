"""What of the cluster is told in numbers: to metrics, to readiness, and to the operator's page of the dashboard.

Everything is of the last look that this node had at the tables, at most a quarter of a lease ago. Must never ask the
database: what is shown has to be there when that is away; and must never load its driver where the store is files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import trio

from models.distributions import Distribution

if TYPE_CHECKING:
    from actors.cluster.cluster import Cluster
    from router.components import Components

ASTRAY_SHOWN_MAX = 100
"""Partitions that are named one by one."""


def cluster_statistics(components: Components) -> Iterator[Mapping[str, Any]]:
    """What the cluster counts, and `parts_unowned`; nothing where there is no cluster."""
    cluster = components.cluster
    if cluster is not None:
        yield {**cluster.statistics(), "parts_unowned": len(unowned_parts(cluster))}


def unowned_parts(cluster: Cluster) -> list[int]:
    """Partitions that no living node owned when the tables were read, but for those that this node has taken since."""
    view, held = cluster.view, cluster.ownership.held()
    if view is None:
        return []
    return [part for part, row in enumerate(view.parts) if part not in held and view.owner_alive(row) is None]


async def cluster_shown(components: Components) -> dict[str, Any]:
    """The JSON of `GET /dashboard/api/cluster` (docs/dashboard.md)."""
    cluster = components.cluster
    if cluster is None:
        workers = {} if components.siblings is None else {"workers": components.siblings.shown()}
        return {"store": components.settings.store.kind, "clustered": False, **workers}
    statistics = cluster.statistics()
    beats: Distribution = statistics.pop("beat_seconds")
    forwarding = {} if components.forwarder is None else components.forwarder.counters
    return {
        "store": components.settings.store.kind,
        "clustered": True,
        "node_id": cluster.node_id,
        "settled": cluster.settled,
        "ttl_s": components.settings.cluster.ttl_s,
        "lease_remaining_s": round(statistics.pop("lease_remaining_s"), 3),
        "heartbeat_ms": round(beats.total / beats.count * 1000, 3) if beats.count else None,
        "counted": {**statistics, **forwarding},
        **await _tables_shown(cluster),
    }


async def _tables_shown(cluster: Cluster) -> dict[str, Any]:
    """Nodes, and partitions that are not where they should be."""
    from actors.cluster.operations import status_of

    if cluster.view is None:
        return {"nodes": [], "parts": {"total": 0, "unowned": 0, "astray": 0, "pinned": 0}, "astray": []}
    found = await trio.to_thread.run_sync(status_of, cluster.view)  # many nodes and partitions take some time
    astray = [part for part in found.parts if part.owner is None or part.owner != part.placed]
    return {
        "nodes": [
            {
                "id": node.node_id,
                "state": node.state,
                "address": node.address,
                "zone": node.zone,
                "version": node.version,
                "weight": node.weight,
                "lease_remaining_s": node.lease_remaining_s,
                "parts": node.parts,
                "parts_placed": node.parts_placed,
            }
            for node in found.nodes
        ],
        "parts": {
            "total": len(found.parts),
            "unowned": len(unowned_parts(cluster)),
            "astray": len(astray),
            "pinned": sum(part.pinned is not None for part in found.parts),
        },
        "astray": [
            {"part": part.part, "owner": part.owner, "placed": part.placed, "epoch": part.epoch, "pinned": part.pinned}
            for part in astray[:ASTRAY_SHOWN_MAX]
        ],
    }
