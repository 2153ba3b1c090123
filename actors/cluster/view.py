"""What the tables `node` and `part` said at one moment, and what follows from it for this node.

Pure but for `read_view`, which runs two statements. A view may be outdated by the time it is used: whatever it leads to
must be checked again by the database (`actors.cluster.claims`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from actors.cluster.placement import NOBODY, Candidate, place
from actors.store.database import Connection


class Node(msgspec.Struct, frozen=True):
    """One row of `node`.

    Attributes:
        remaining_s: until its lease ends, on the database's clock when it was read; it is dead from 0 down.
        draining: the operator wants it to own nothing.
        leaving: it is about to end.
    """

    node_id: str
    incarnation: int
    address: str
    zone: str
    version: str
    weight: float
    draining: bool
    leaving: bool
    remaining_s: float

    @property
    def alive(self) -> bool:
        """Whether its lease lasted when it was read."""
        return self.remaining_s > 0


class PartRow(msgspec.Struct, frozen=True):
    """One row of `part`, without its counter."""

    owner: str | None
    incarnation: int | None
    epoch: int
    pinned: str | None


class View(msgspec.Struct, frozen=True):
    """Both tables; partition p is `parts[p]`."""

    nodes: Mapping[str, Node]
    parts: tuple[PartRow, ...]

    def owner_alive(self, row: PartRow) -> Node | None:
        """The partition's owner, if it has one that lives."""
        node = self.nodes.get(row.owner) if row.owner is not None else None
        return node if node is not None and node.alive and node.incarnation == row.incarnation else None

    def candidates(self) -> tuple[Candidate, ...]:
        """Nodes that may own partitions, by name. Those that drain are among them only if there is no other."""
        alive = sorted((node for node in self.nodes.values() if node.alive and not node.leaving), key=_name)
        eager = [node for node in alive if not node.draining] or alive
        return tuple(Candidate(node.node_id, node.weight) for node in eager)

    def soonest_end_s(self, *, without: str) -> float:
        """Until the next lease of another node ends, unless it is renewed."""
        return min(
            (node.remaining_s for node in self.nodes.values() if node.alive and node.node_id != without),
            default=float("inf"),
        )


class Placement(msgspec.Struct, frozen=True):
    """Who should own each partition, but for pins."""

    candidates: tuple[Candidate, ...]
    choices: tuple[int, ...]

    def choice(self, part: int, row: PartRow) -> str | None:
        """Who should own it: the node that it is pinned to, if that is a candidate, else who is placed there."""
        if row.pinned is not None and any(candidate.node_id == row.pinned for candidate in self.candidates):
            return row.pinned
        place = self.choices[part]
        return None if place == NOBODY else self.candidates[place].node_id


class Plan(msgspec.Struct, frozen=True):
    """What a node has to do about partitions.

    Attributes:
        take: may be taken over: (partition, its epoch in the view).
        move: owned here, but somebody else's by placement.
        lost: held to be ours, but not any more.
        renounce: ours by the table, but nobody here knows of it, and somebody else's by placement: (partition, epoch).
        awaited: ours by placement, still with a living owner.
    """

    take: tuple[tuple[int, int], ...]
    move: tuple[int, ...]
    lost: tuple[int, ...]
    renounce: tuple[tuple[int, int], ...]
    awaited: tuple[int, ...]

    @property
    def settled(self) -> bool:
        """Whether nothing is to be done."""
        return not (self.take or self.move or self.lost or self.renounce or self.awaited)


def placed(candidates: tuple[Candidate, ...], parts: int) -> Placement:
    """Placement of so many partitions. Takes a millisecond for each 100 000 pairs of node and partition."""
    return Placement(candidates=candidates, choices=tuple(place(candidates, parts).tolist()))


def planned(
    view: View, placement: Placement, me: str, incarnation: int, held: Mapping[int, int], busy: Collection[int]
) -> Plan:
    """What is to be done by the node `me`.

    Args:
        incarnation: under which it takes partitions.
        held: epochs of the partitions that it owns, as far as it knows.
        busy: partitions that something is being done about.
    """
    take, move, lost, renounce, awaited = [], [], [], [], []
    for part, row in enumerate(view.parts):
        choice = placement.choice(part, row)
        ours = row.owner == me and row.incarnation == incarnation
        if part in held:
            if row.epoch > held[part] or (row.epoch == held[part] and not ours):
                lost.append(part)
            elif choice not in (me, None) and part not in busy:
                move.append(part)
        elif part in busy:
            continue
        elif choice == me:
            if ours or view.owner_alive(row) is None:
                take.append((part, row.epoch))
            else:
                awaited.append(part)
        elif ours and choice is not None:
            renounce.append((part, row.epoch))
    return Plan(tuple(take), tuple(move), tuple(lost), tuple(renounce), tuple(awaited))


def read_view(connection: Connection) -> View:
    """Read both tables. Blocks.

    Raises:
        DATABASE_ERRORS: the database does not answer.
    """
    nodes = {row[0]: Node(*row) for row in connection.execute(_NODES).fetchall()}
    parts = tuple(PartRow(*row) for row in connection.execute(_PARTS).fetchall())
    return View(nodes=nodes, parts=parts)


def _name(node: Node) -> str:
    return node.node_id


_NODES = """
SELECT node_id, incarnation, addr, zone, version, weight, draining, leaving,
  extract(epoch FROM expires_at - clock_timestamp())::double precision
FROM node
"""
_PARTS = "SELECT owner, incarnation, epoch, pinned FROM part ORDER BY part"
