"""What an operator sees and wants of a cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.cluster.operations import drain, move, status
from actors.store.postgres.connection import PostgresConnection
from models.errors import Conflict, NotFound, StoreUnavailable
from tests.actors.cluster.house import PARTS, connected

NODES = (("alice", "a:1", 60.0, False), ("bob", "b:1", 60.0, False), ("carol", "c:1", -1.0, False))


@pytest.fixture
def database(cluster_url: str) -> Iterator[PostgresConnection]:
    """Two living nodes and a dead one; alice owns everything."""
    connection = connected(cluster_url)
    for name, address, remaining_s, leaving in NODES:
        connection.execute(
            "INSERT INTO node (node_id, incarnation, addr, leaving, expires_at)"
            " VALUES (?, 1, ?, ?, now() + ? * interval '1 second')",
            (name, address, leaving, remaining_s),
        )
    connection.execute("UPDATE part SET owner = 'alice', incarnation = 1, epoch = 3")
    yield connection
    connection.close()


def test_status_tells_what_is_and_what_should_be(cluster_url: str, database: PostgresConnection) -> None:
    found = status(cluster_url)
    assert [(node.node_id, node.state, node.address, node.parts) for node in found.nodes] == [
        ("alice", "alive", "a:1", PARTS),
        ("bob", "alive", "b:1", 0),
        ("carol", "dead", "c:1", 0),
    ]
    placed = {node.node_id: node.parts_placed for node in found.nodes}
    assert placed["alice"] + placed["bob"] == PARTS
    assert placed["bob"] > 0
    assert not found.settled
    for part in found.parts:
        database.execute("UPDATE part SET owner = ? WHERE part = ?", (part.placed, part.part))
    assert status(cluster_url).settled
    database.execute("UPDATE node SET expires_at = now() WHERE node_id = 'bob'")
    found = status(cluster_url)
    assert not found.settled
    assert {part.placed for part in found.parts} == {"alice"}
    assert sum(part.owner is None for part in found.parts) == placed["bob"]


def test_a_drained_node_is_placed_nothing_until_that_is_undone(cluster_url: str, database: PostgresConnection) -> None:
    before = status(cluster_url)
    found = drain(cluster_url, "alice")
    assert [(node.state, node.parts_placed) for node in found.nodes[:2]] == [("draining", 0), ("alive", PARTS)]
    with pytest.raises(Conflict):
        drain(cluster_url, "bob")  # nobody would be left
    assert drain(cluster_url, "alice", draining=False).parts == before.parts
    with pytest.raises(NotFound, match="alice, bob"):
        drain(cluster_url, "carol")


def test_a_partition_is_pinned_and_unpinned(cluster_url: str, database: PostgresConnection) -> None:
    part = next(part for part in status(cluster_url).parts if part.placed == "alice")
    moved = move(cluster_url, part.part, "bob")
    assert (moved.owner, moved.placed, moved.pinned, moved.epoch) == ("alice", "bob", "bob", 3)
    assert move(cluster_url, part.part, None) == part
    for number, name in ((PARTS, "bob"), (-1, "bob"), (0, "carol"), (0, "nobody")):
        with pytest.raises(NotFound):
            move(cluster_url, number, name)


def test_a_database_without_a_cluster_says_so(postgres_url: str) -> None:
    with pytest.raises(StoreUnavailable, match="holds no cluster"):
        status(postgres_url)
    with pytest.raises(StoreUnavailable, match="does not answer"):
        status("postgresql://postgres@127.0.0.1:1/none")
