"""What an operator sees of a cluster, and wants of it: read from the tables, and written into them.

Each function opens a connection of its own and blocks; the nodes find what they are to do at their next look. Must
never touch what decides ownership: `owner`, `incarnation`, `epoch` and leases are the nodes' own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from actors.cluster.identity import connecting
from actors.cluster.view import Node, View, placed, read_view
from actors.store.database import DATABASE_ERRORS, ConnectionFailed
from actors.store.postgres.connection import PostgresConnection
from models.errors import Conflict, NotFound, StoreUnavailable


class NodeStatus(msgspec.Struct, frozen=True):
    """A node as the tables show it.

    Attributes:
        state: `alive`, `draining`, `leaving`, or `dead` if its lease is over.
        lease_remaining_s: until then, on the database's clock; negative afterwards.
        parts: partitions that it owns.
        parts_placed: partitions that it should own.
    """

    node_id: str
    state: str
    address: str
    zone: str
    version: str
    weight: float
    lease_remaining_s: float
    parts: int
    parts_placed: int


class PartStatus(msgspec.Struct, frozen=True):
    """A partition as the tables show it.

    Attributes:
        owner: a living node, or None.
        placed: the node that should own it, or None.
        pinned: the node that the operator wants, or None.
    """

    part: int
    owner: str | None
    placed: str | None
    epoch: int
    pinned: str | None


class ClusterStatus(msgspec.Struct, frozen=True):
    """All of them.

    Attributes:
        settled: whether each partition is owned by the node that should own it.
    """

    nodes: tuple[NodeStatus, ...]
    parts: tuple[PartStatus, ...]
    settled: bool


def status(url: str) -> ClusterStatus:
    """Nodes by name and partitions by number.

    Raises:
        StoreUnavailable: the database does not answer, or holds no cluster.
    """
    with _connected(url) as connection:
        return status_of(read_view(connection))


def status_of(view: View) -> ClusterStatus:
    """The same from what was read."""
    placement = placed(view.candidates(), len(view.parts))
    parts = []
    for part, row in enumerate(view.parts):
        owner = view.owner_alive(row)
        choice = placement.choice(part, row)
        parts.append(
            PartStatus(
                part=part,
                owner=owner.node_id if owner else None,
                placed=choice,
                epoch=row.epoch,
                pinned=row.pinned,
            )
        )
    nodes = tuple(_node_status(view.nodes[name], parts) for name in sorted(view.nodes))
    settled = all(part.owner is not None and part.owner == part.placed for part in parts)
    return ClusterStatus(nodes=nodes, parts=tuple(parts), settled=settled)


def drain(url: str, node_id: str, *, draining: bool = True) -> ClusterStatus:
    """Have a node give its partitions to the others, or end that. It lasts until the node leaves the cluster.

    Raises:
        NotFound: there is no such node.
        Conflict: no other living node could take over.
        StoreUnavailable: the database does not answer.
    """
    with _connected(url) as connection:
        view = read_view(connection)
        _living(view, node_id)
        others = [node for node in view.nodes.values() if node.alive and not (node.draining or node.leaving)]
        if draining and not any(node.node_id != node_id for node in others):
            raise Conflict("No other living node could take over its partitions.")
        connection.execute("UPDATE node SET draining = ? WHERE node_id = ?", (draining, node_id))
        return status_of(read_view(connection))


def move(url: str, part: int, node_id: str | None) -> PartStatus:
    """Pin a partition to a node, or to none: then it goes where placement puts it.

    A pin to a node that dies, drains or leaves has no effect until it is back.

    Raises:
        NotFound: there is no such partition or living node.
        StoreUnavailable: the database does not answer.
    """
    with _connected(url) as connection:
        view = read_view(connection)
        if not 0 <= part < len(view.parts):
            raise NotFound(f"There are the partitions 0 to {len(view.parts) - 1}.")
        if node_id is not None:
            _living(view, node_id)
        connection.execute("UPDATE part SET pinned = ? WHERE part = ?", (node_id, part))
        return status_of(read_view(connection)).parts[part]


def _living(view: View, node_id: str) -> None:
    node = view.nodes.get(node_id)
    if node is None or not node.alive:
        alive = ", ".join(sorted(node.node_id for node in view.nodes.values() if node.alive)) or "none"
        raise NotFound(f"No living node has this name. There are: {alive}.")


def _node_status(node: Node, parts: list[PartStatus]) -> NodeStatus:
    if not node.alive:
        state = "dead"
    elif node.leaving:
        state = "leaving"
    else:
        state = "draining" if node.draining else "alive"
    return NodeStatus(
        node_id=node.node_id,
        state=state,
        address=node.address,
        zone=node.zone,
        version=node.version,
        weight=node.weight,
        lease_remaining_s=round(node.remaining_s, 3),
        parts=sum(part.owner == node.node_id for part in parts),
        parts_placed=sum(part.placed == node.node_id for part in parts),
    )


@contextmanager
def _connected(url: str) -> Iterator[PostgresConnection]:
    try:
        connection = connecting(url)
    except DATABASE_ERRORS as error:
        raise StoreUnavailable("The cluster's database does not answer.") from error
    try:
        yield connection
    except ConnectionFailed as error:
        raise StoreUnavailable("The cluster's database does not answer.") from error
    except DATABASE_ERRORS as error:
        raise StoreUnavailable("The database holds no cluster yet: no server was started on it.") from error
    finally:
        connection.close()
