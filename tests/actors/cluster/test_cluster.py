"""Nodes on one database share its partitions, lose them with their lease, and hand them over when they leave."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from actors.cluster.membership import machine_clock
from actors.store.postgres.connection import open_connection
from models.errors import SetupError, StoreUnavailable
from tests.actors.cluster.house import PARTS, NodeInTest, connected, rows, settled, wait_settled
from tests.patience import PATIENCE_S, wait_until

LONG_S = 60.0
"""A lease that no test outlives, for those that say something about epochs, however slow the machine is."""


async def test_one_node_owns_everything_when_the_block_begins(
    cluster_url: str, tmp_path: Path, nursery: trio.Nursery
) -> None:
    node = NodeInTest("a", cluster_url, tmp_path, ttl_s=LONG_S)
    await nursery.start(node.run)
    assert node.owned() == dict.fromkeys(range(PARTS), 1)
    assert [told[0] for told in node.told] == ["acquired"] * PARTS
    assert rows(cluster_url) == [(part, "a", 1) for part in range(PARTS)]
    await node.leave()
    assert rows(cluster_url) == [(part, None, 1) for part in range(PARTS)]
    assert [told[0] for told in node.told[PARTS:]] == ["released"] * PARTS
    connection = connected(cluster_url)
    assert connection.execute("SELECT count(*) FROM node").fetchall() == [(0,)]
    connection.close()


async def test_three_nodes_own_everything_exactly_once_and_know_each_other(
    cluster_url: str, tmp_path: Path, nursery: trio.Nursery
) -> None:
    nodes = [NodeInTest(name, cluster_url, tmp_path) for name in ("a", "b", "c")]
    for node in nodes:
        await nursery.start(node.run)

    def is_known_to_all() -> bool:
        owners = {part: node.name for node in nodes for part in node.owned()}
        return settled(nodes) and all(
            owned.here if owner == node.name else owned.address == f"{owner}:1"
            for node in nodes
            for part, owner in owners.items()
            for owned in [node.cluster.owner_of(part)]
        )

    await wait_until(is_known_to_all)
    assert all(node.owned() for node in nodes)
    for node in nodes:
        await node.leave()


async def test_a_node_that_comes_gets_its_partitions_after_their_vaults_have_left(
    cluster_url: str, tmp_path: Path, nursery: trio.Nursery
) -> None:
    first, second = (NodeInTest(name, cluster_url, tmp_path, ttl_s=4.0) for name in ("a", "b"))
    await nursery.start(first.run)
    order: list[tuple[str, int]] = []
    first.on_released = lambda part: order.append(("released", part))
    second.on_acquired = lambda part: order.append(("acquired", part))
    await nursery.start(second.run)
    await wait_settled(first, second)
    moved = set(second.owned())
    assert moved
    assert all(order.index(("released", part)) < order.index(("acquired", part)) for part in moved)
    assert all(("released", part, 1) in first.told for part in moved)  # still its own while the vaults leave
    assert set(second.owned().values()) == {2}
    assert not [told for told in first.told if told[0] == "lost"]
    await second.leave()
    await wait_settled(first)
    assert all(first.owned()[part] == 3 for part in moved)
    assert all(first.owned()[part] == 1 for part in set(range(PARTS)) - moved)
    await first.leave()


async def test_partitions_of_a_killed_node_are_taken_over_after_its_lease(
    cluster_url: str, tmp_path: Path, nursery: trio.Nursery
) -> None:
    first, second = (NodeInTest(name, cluster_url, tmp_path) for name in ("a", "b"))
    await nursery.start(first.run)
    await nursery.start(second.run)
    await wait_settled(first, second)
    before = second.owned()
    still_owned: list[int | None] = []
    first.on_acquired = lambda part: still_owned.append(second.owns(part))
    await second.kill()
    await wait_settled(first)
    assert set(still_owned) == {None}  # it had fenced itself before anybody else had them
    assert all(first.owned()[part] > epoch for part, epoch in before.items())
    assert first.cluster.statistics()["takeovers"] >= len(before)
    await first.leave()


async def test_a_frozen_node_fences_itself_before_others_take_over_and_joins_anew(
    cluster_url: str, tmp_path: Path, nursery: trio.Nursery
) -> None:
    first, second = (NodeInTest(name, cluster_url, tmp_path) for name in ("a", "b"))
    await nursery.start(first.run)
    await nursery.start(second.run)
    await wait_settled(first, second)
    before, incarnation = second.owned(), second.cluster.statistics()["incarnation"]
    still_owned: list[int | None] = []
    first.on_acquired = lambda part: still_owned.append(second.owns(part))
    second.gate.freeze()
    await wait_until(lambda: len(still_owned) >= len(before))
    assert set(still_owned) == {None}
    stale = second.cluster.owner_of(next(iter(before)))
    assert stale.here  # nobody told it anything else: its reads may go on, with that said
    assert stale.stale_s > 0
    second.gate.thaw()
    await wait_until(lambda: bool(second.cluster.statistics()["incarnation"] > incarnation))
    await wait_settled(first, second)
    assert {part for kind, part, _ in second.told if kind == "lost"} == set(before)
    assert all(second.owned()[part] > before[part] + 1 for part in second.owned())
    await second.leave()
    await first.leave()


async def test_the_local_clock_may_be_anywhere(cluster_url: str, tmp_path: Path, nursery: trio.Nursery) -> None:
    nodes = [
        NodeInTest("a", cluster_url, tmp_path, clock=lambda: machine_clock() + 1e7),
        NodeInTest("b", cluster_url, tmp_path, clock=lambda: machine_clock() - 1e7),
    ]
    for node in nodes:
        await nursery.start(node.run)
    await wait_settled(*nodes)
    for node in nodes:
        assert 0 < node.cluster.statistics()["lease_remaining_s"] <= 2.0
        await node.leave()


@pytest.mark.parametrize("speed", [0.9, 1.1])
async def test_a_frozen_node_fences_itself_in_time_by_a_clock_that_runs_slow_or_fast(
    cluster_url: str, tmp_path: Path, nursery: trio.Nursery, speed: float
) -> None:
    """Clocks of machines differ by far less than the margin of a lease."""
    first = NodeInTest("a", cluster_url, tmp_path)
    second = NodeInTest("b", cluster_url, tmp_path, clock=lambda: machine_clock() * speed)
    await nursery.start(first.run)
    await nursery.start(second.run)
    await wait_settled(first, second)
    still_owned: list[int | None] = []
    before = second.owned()
    first.on_acquired = lambda part: still_owned.append(second.owns(part))
    second.gate.freeze()
    await wait_until(lambda: len(still_owned) >= len(before))
    assert set(still_owned) == {None}
    await second.kill()
    await first.leave()


async def test_a_clock_that_jumps_ahead_fences_the_node(
    cluster_url: str, tmp_path: Path, nursery: trio.Nursery
) -> None:
    """As after the suspension of a machine: no lease is believed in that may be over."""
    ahead = [0.0]
    node = NodeInTest("a", cluster_url, tmp_path, clock=lambda: machine_clock() + ahead[0])
    await nursery.start(node.run)
    node.gate.freeze()
    ahead[0] = 3600.0
    assert node.owned() == {}
    node.gate.thaw()
    await wait_settled(node)
    assert min(node.owned().values()) >= 2
    await node.leave()


async def test_a_partition_lost_by_a_transaction_is_dropped_at_once_and_taken_anew(
    cluster_url: str, tmp_path: Path, nursery: trio.Nursery
) -> None:
    node = NodeInTest("a", cluster_url, tmp_path, ttl_s=LONG_S)
    await nursery.start(node.run)
    ownership = node.cluster.ownership
    ownership.lost_nowait(3, 99)  # of another epoch: says nothing about this one
    assert node.owns(3) == 1
    await trio.to_thread.run_sync(ownership.lost_nowait, 3, 1)
    assert node.owns(3) is None
    await wait_settled(node)
    assert node.owns(3) == 2
    assert [told for told in node.told if told[1] == 3] == [("acquired", 3, 1), ("lost", 3, 0), ("acquired", 3, 2)]
    await node.leave()


async def test_a_partition_that_another_took_by_force_is_found_lost(
    cluster_url: str, tmp_path: Path, nursery: trio.Nursery
) -> None:
    node = NodeInTest("a", cluster_url, tmp_path)
    await nursery.start(node.run)
    connection = connected(cluster_url)
    connection.execute("UPDATE part SET owner = 'sole-1', epoch = epoch + 1 WHERE part = 5")
    connection.close()
    await wait_until(lambda: (node.owns(5) or 0) >= 3)
    assert ("lost", 5, 0) in node.told
    await node.leave()


async def test_a_node_frozen_in_a_transaction_delays_a_takeover_only_until_the_server_ends_it(
    cluster_url: str, tmp_path: Path, nursery: trio.Nursery
) -> None:
    frozen = connected(cluster_url)
    frozen.execute("BEGIN")
    frozen.execute("UPDATE part SET commits = commits + 1 WHERE part = 4")
    node = NodeInTest("a", cluster_url, tmp_path, ttl_s=LONG_S)
    await nursery.start(node.run)
    await wait_settled(node)  # although nobody ended the transaction but the server
    with pytest.raises(Exception, match=r"IdleInTransactionSessionTimeout|AdminShutdown|OperationalError"):
        frozen.execute("COMMIT")
    frozen.close()
    await node.leave()


async def test_operators_pin_and_drain(cluster_url: str, tmp_path: Path, nursery: trio.Nursery) -> None:
    first, second = (NodeInTest(name, cluster_url, tmp_path) for name in ("a", "b"))
    await nursery.start(first.run)
    await nursery.start(second.run)
    await wait_settled(first, second)
    part = next(iter(first.owned()))
    connection = connected(cluster_url)
    connection.execute("UPDATE part SET pinned = 'b' WHERE part = ?", (part,))
    await wait_until(lambda: second.owns(part) is not None)
    connection.execute("UPDATE node SET draining = true WHERE node_id = 'b'")
    await wait_until(lambda: len(first.owned()) == PARTS)
    assert not second.owned()
    connection.close()
    await second.leave()
    await first.leave()


async def test_a_weight_is_a_share(cluster_url: str, tmp_path: Path, nursery: trio.Nursery) -> None:
    heavy, light = (
        NodeInTest("a", cluster_url, tmp_path, weight=1000),
        NodeInTest("b", cluster_url, tmp_path, weight=0.01),
    )
    await nursery.start(heavy.run)
    await nursery.start(light.run)
    await wait_settled(heavy, light)
    assert len(heavy.owned()) == PARTS
    await light.leave()
    await heavy.leave()


async def test_a_name_that_lives_is_refused(cluster_url: str, tmp_path: Path, nursery: trio.Nursery) -> None:
    first, second = (
        NodeInTest("a", cluster_url, tmp_path, ttl_s=LONG_S),
        NodeInTest("a", cluster_url, tmp_path, ttl_s=0.5),
    )
    await nursery.start(first.run)
    with pytest.RaisesGroup(SetupError, flatten_subgroups=True, allow_unwrapped=True):
        await second.run()
    assert first.owned() == dict.fromkeys(range(PARTS), 1)
    await first.leave()


async def test_after_a_crash_a_node_waits_for_the_end_of_its_own_lease(
    cluster_url: str, tmp_path: Path, nursery: trio.Nursery
) -> None:
    first, second = NodeInTest("a", cluster_url, tmp_path), NodeInTest("a", cluster_url, tmp_path)
    await nursery.start(first.run)
    await first.kill()
    still_owned: list[int | None] = []
    second.on_acquired = lambda part: still_owned.append(first.owns(part))
    await nursery.start(second.run)
    await wait_settled(second)
    assert set(still_owned) == {None}
    assert min(second.owned().values()) >= 2
    await second.leave()


async def test_a_database_that_is_not_there_or_not_ours_is_refused(
    cluster_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.cluster.cluster.OPEN_TIMEOUT_S", 0.1)
    nobody = NodeInTest("a", "postgresql://postgres@127.0.0.1:1/none", tmp_path, ttl_s=0.5)
    with pytest.RaisesGroup(StoreUnavailable, flatten_subgroups=True, allow_unwrapped=True):
        await nobody.run()
    monkeypatch.setattr("tests.actors.cluster.house.PARTS", PARTS + 1)
    with pytest.RaisesGroup(SetupError, flatten_subgroups=True, allow_unwrapped=True):
        await NodeInTest("a", cluster_url, tmp_path).run()


async def test_who_waits_for_a_partition_hears_of_it(cluster_url: str, tmp_path: Path, nursery: trio.Nursery) -> None:
    first, second = (NodeInTest(name, cluster_url, tmp_path) for name in ("a", "b"))
    await nursery.start(first.run)
    await nursery.start(second.run)
    await wait_until(lambda: any(second.cluster.owner_of(part).coming for part in range(PARTS)))
    coming = [part for part in range(PARTS) if second.cluster.owner_of(part).coming]
    for part in coming:
        assert (await second.cluster.wait_here(part, timeout_s=PATIENCE_S)).here
    await second.leave()
    await first.leave()


async def test_vaults_that_do_not_leave_hold_nothing_up_for_ever(
    cluster_url: str, tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.cluster.steps.MOVE_TIMEOUT_S", 0.05)
    first, second = (NodeInTest(name, cluster_url, tmp_path) for name in ("a", "b"))
    first.vaults_leave = False
    await nursery.start(first.run)
    await nursery.start(second.run)
    await wait_settled(first, second)
    assert second.owned()
    await second.leave()
    await first.leave()


async def test_vaults_that_fail_to_leave_hold_nothing_up(
    cluster_url: str, tmp_path: Path, nursery: trio.Nursery
) -> None:
    def fail(part: int) -> None:
        raise RuntimeError(f"vaults of {part}")

    node = NodeInTest("a", cluster_url, tmp_path, ttl_s=LONG_S)
    node.on_released = node.on_acquired = fail
    await nursery.start(node.run)
    assert len(node.owned()) == PARTS
    await node.leave()
    assert rows(cluster_url) == [(part, None, 1) for part in range(PARTS)]


async def test_a_cancelled_node_still_hands_over(cluster_url: str, tmp_path: Path) -> None:
    node = NodeInTest("a", cluster_url, tmp_path, ttl_s=LONG_S)
    async with trio.open_nursery() as tasks:
        await tasks.start(node.run)
        tasks.cancel_scope.cancel()
    assert rows(cluster_url) == [(part, None, 1) for part in range(PARTS)]


async def test_a_statement_that_hangs_for_long_is_broken_off(
    cluster_url: str, tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.cluster.cluster.STUCK_S", 0.1)
    node = NodeInTest("a", cluster_url, tmp_path)
    await nursery.start(node.run)
    connection = open_connection(cluster_url)
    connection.execute("BEGIN")
    connection.execute("UPDATE node SET zone = 'y'")
    await wait_until(lambda: bool(node.cluster.statistics()["interrupted"]))
    connection.execute("ROLLBACK")
    connection.close()
    await wait_settled(node)
    await node.leave()


async def test_statistics_count_what_happens(cluster_url: str, tmp_path: Path, nursery: trio.Nursery) -> None:
    node = NodeInTest("a", cluster_url, tmp_path, ttl_s=LONG_S)
    await nursery.start(node.run)
    await wait_settled(node)
    found = node.cluster.statistics()
    assert (found["parts_owned"], found["acquisitions"], found["takeovers"]) == (PARTS, PARTS, 0)
    assert (found["nodes_alive"], found["losses"], found["hand_overs"], found["parts_moving"]) == (1, 0, 0, 0)
    assert found["beats"] >= found["beat_seconds"].count >= 1
    await node.cluster.hand_over()
    assert node.cluster.statistics()["hand_overs"] == PARTS
    assert node.cluster.statistics()["parts_owned"] == 0
    await node.leave()
