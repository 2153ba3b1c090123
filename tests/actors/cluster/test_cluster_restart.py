"""PostgreSQL dies and comes back: leases end, reads may go on, nodes join anew, and epochs only grow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.actors.cluster.house import PARTS, NodeInTest, connected, prepare, rows, wait_settled
from tests.patience import wait_until
from tests.postgres import PostgresServer, running_postgres


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One that these tests may kill; each leaves it running."""
    with running_postgres() as server:
        yield server


async def test_nodes_outlive_the_death_of_their_database(
    server: PostgresServer, tmp_path: Path, nursery: trio.Nursery
) -> None:
    url = server.create_database()
    prepare(url)
    nodes = [NodeInTest(name, url, tmp_path, ttl_s=1.0) for name in ("a", "b")]
    for node in nodes:
        await nursery.start(node.run)
    await wait_settled(*nodes)
    before = {part: epoch for node in nodes for part, epoch in node.owned().items()}
    of_first = list(nodes[0].owned())
    server.kill()
    await wait_until(lambda: not any(node.owned() for node in nodes))  # nothing is acknowledged from here on
    assert all(nodes[0].cluster.owner_of(part).here for part in of_first)  # nobody was told that they are lost
    assert all(nodes[0].cluster.owner_of(part).stale_s >= 0 for part in of_first)
    await trio.to_thread.run_sync(server.start)
    await wait_settled(*nodes)
    after = {part: epoch for node in nodes for part, epoch in node.owned().items()}
    assert all(after[part] > before[part] for part in range(PARTS))
    assert [(part, epoch) for part, _, epoch in rows(url)] == sorted(after.items())
    for node in nodes:
        await node.leave()


async def test_broken_connections_alone_cost_no_lease(
    server: PostgresServer, tmp_path: Path, nursery: trio.Nursery
) -> None:
    url = server.create_database()
    prepare(url)
    node = NodeInTest("a", url, tmp_path, ttl_s=30.0)
    await nursery.start(node.run)
    beats = node.cluster.statistics()["beats"]
    connection = connected(url)
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    connection.close()
    node.cluster.membership.look_within(0.0)
    await wait_until(lambda: bool(node.cluster.statistics()["failures"]))
    seen = node.cluster.view
    await wait_until(lambda: node.cluster.view is not seen)
    assert node.owned() == dict.fromkeys(range(PARTS), 1)
    assert node.cluster.statistics()["beats"] >= beats
    await node.leave()
    assert rows(url) == [(part, None, 1) for part in range(PARTS)]


async def test_a_node_leaves_while_the_database_is_gone(
    server: PostgresServer, tmp_path: Path, nursery: trio.Nursery
) -> None:
    url = server.create_database()
    prepare(url)
    node = NodeInTest("a", url, tmp_path, ttl_s=1.0)
    await nursery.start(node.run)
    server.kill()
    await node.leave()
    assert {part for kind, part, _ in node.told if kind == "released"} == set(range(PARTS))
    assert node.owned() == {}
    await trio.to_thread.run_sync(server.start)
