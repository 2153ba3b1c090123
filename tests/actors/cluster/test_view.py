"""What a look at the tables asks a node to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from actors.cluster.placement import Candidate
from actors.cluster.view import Node, PartRow, Placement, Plan, View, placed, planned

ALICE = Node("alice", 1, "a:1", "", "", 1.0, draining=False, leaving=False, remaining_s=3.0)
BOB = msgspec.structs.replace(ALICE, node_id="bob", incarnation=2, address="b:1")
DEAD = msgspec.structs.replace(ALICE, node_id="dead", incarnation=3, remaining_s=0.0)
FREE = PartRow(None, None, 4, None)
OURS = PartRow("alice", 1, 4, None)
THEIRS = PartRow("bob", 2, 4, None)
NOTHING = Plan((), (), (), (), ())


def seen(row: PartRow, *nodes: Node) -> View:
    return View(nodes={node.node_id: node for node in nodes or (ALICE, BOB, DEAD)}, parts=(row,))


def plan(row: PartRow, choice: str | None, held: Mapping[int, int] | None = None, busy: Collection[int] = ()) -> Plan:
    """What alice does about partition 0."""
    candidates = (Candidate("alice"), Candidate("bob"))
    place = -1 if choice is None else ["alice", "bob"].index(choice)
    return planned(seen(row), Placement(candidates, (place,)), "alice", 1, held or {}, busy)


def test_what_is_free_is_taken_by_whom_placement_names() -> None:
    assert plan(FREE, "alice") == Plan(((0, 4),), (), (), (), ())
    assert plan(FREE, "bob") == NOTHING
    assert plan(FREE, None) == NOTHING


def test_the_partition_of_a_dead_node_or_of_an_earlier_incarnation_is_free() -> None:
    for owner, incarnation in (("dead", 3), ("bob", 1), ("nobody", 1), ("alice", 9), ("sole-1", None)):
        assert plan(PartRow(owner, incarnation, 4, None), "alice") == Plan(((0, 4),), (), (), (), ())


def test_the_partition_of_a_living_node_is_waited_for() -> None:
    assert plan(THEIRS, "alice") == Plan((), (), (), (), (0,))
    assert not plan(THEIRS, "alice").settled


def test_what_is_held_stays_or_moves_as_placement_says() -> None:
    assert plan(OURS, "alice", {0: 4}) == NOTHING
    assert plan(OURS, "bob", {0: 4}) == Plan((), (0,), (), (), ())
    assert plan(OURS, None, {0: 4}) == NOTHING
    assert plan(OURS, "bob", {0: 4}, busy={0}) == NOTHING


def test_what_is_held_is_lost_by_a_newer_epoch_or_another_owner_but_not_by_an_older_view() -> None:
    lost = Plan((), (), (0,), (), ())
    assert plan(msgspec.structs.replace(OURS, epoch=5), "alice", {0: 4}) == lost
    assert plan(THEIRS, "alice", {0: 4}) == lost
    assert plan(FREE, "alice", {0: 4}) == lost
    assert plan(FREE, "alice", {0: 5}) == NOTHING
    assert plan(THEIRS, "alice", {0: 5}) == NOTHING


def test_what_is_ours_by_the_table_alone_is_taken_again_or_given_up() -> None:
    assert plan(OURS, "alice") == Plan(((0, 4),), (), (), (), ())
    assert plan(OURS, "bob") == Plan((), (), (), ((0, 4),), ())
    assert plan(OURS, "alice", busy={0}) == plan(OURS, "bob", busy={0}) == NOTHING


def test_a_pin_holds_while_its_node_may_own_anything() -> None:
    assert plan(msgspec.structs.replace(FREE, pinned="alice"), "bob").take == ((0, 4),)
    assert plan(msgspec.structs.replace(FREE, pinned="dead"), "bob") == NOTHING
    assert plan(msgspec.structs.replace(FREE, pinned="dead"), "alice").take == ((0, 4),)


def test_candidates_live_stay_and_do_not_drain_unless_all_do() -> None:
    draining = msgspec.structs.replace(ALICE, draining=True)
    leaving = msgspec.structs.replace(BOB, leaving=True)
    assert [one.node_id for one in seen(FREE, BOB, ALICE, DEAD).candidates()] == ["alice", "bob"]
    assert [one.node_id for one in seen(FREE, draining, BOB).candidates()] == ["bob"]
    assert [one.node_id for one in seen(FREE, draining, leaving).candidates()] == ["alice"]
    assert seen(FREE, leaving, DEAD).candidates() == ()


def test_without_candidates_nobody_is_placed() -> None:
    assert placed((), 3).choice(0, FREE) is None


def test_the_next_look_is_at_the_end_of_the_soonest_lease_of_others() -> None:
    soon = msgspec.structs.replace(BOB, remaining_s=0.5)
    assert seen(FREE, ALICE, soon, DEAD).soonest_end_s(without="alice") == 0.5
    assert seen(FREE, ALICE, DEAD).soonest_end_s(without="alice") == float("inf")
