"""What a node says it owns goes by its lease; where the others are goes by what it saw last."""

from __future__ import annotations

import pytest

from actors.cluster.membership import Lease
from actors.cluster.ownership import Held, LeasedOwnership, Owned
from actors.cluster.placement import Candidate
from actors.cluster.view import Node, PartRow, Placement, View
from actors.store.ownership import Ownership
from models.errors import NotOwner

ALICE = Node("alice", 1, "a:1", "", "", 1.0, draining=False, leaving=False, remaining_s=3.0)
BOB = Node("bob", 2, "b:1", "", "", 1.0, draining=False, leaving=False, remaining_s=3.0)
DEAD = Node("dead", 3, "d:1", "", "", 1.0, draining=False, leaving=False, remaining_s=-1.0)


class Alice:
    """Her ownership, lease and clock; she is to own partition 0 and bob 1."""

    def __init__(self) -> None:
        self.lease = Lease(incarnation=1, until_s=100.0)
        self.now_s = 99.0
        self.lost: list[tuple[int, int]] = []
        self.ownership = LeasedOwnership(
            "alice",
            2,
            lease=lambda: self.lease,
            clock=lambda: self.now_s,
            lost=lambda part, held: self.lost.append((part, held.epoch)),
        )

    def see(self, *rows: PartRow) -> None:
        """What the tables say."""
        nodes = {node.node_id: node for node in (ALICE, BOB, DEAD)}
        placement = Placement((Candidate("alice"), Candidate("bob")), (0, 1))
        self.ownership.saw(View(nodes=nodes, parts=rows), placement)

    def owns(self, part: int) -> bool:
        listed = part in self.ownership.owned_nowait()
        try:
            self.ownership.epoch_nowait(part)
        except NotOwner:
            assert not listed
            return False
        assert listed
        return True


@pytest.fixture
def alice() -> Alice:
    return Alice()


def test_it_is_what_the_store_asks_for(alice: Alice) -> None:
    ownership: Ownership = alice.ownership
    assert ownership.owner == "alice"


def test_a_partition_is_ours_under_its_incarnation_while_the_lease_lasts(alice: Alice) -> None:
    assert not alice.owns(0)
    alice.ownership.hold(0, Held(epoch=7, incarnation=1))
    assert alice.ownership.epoch_nowait(0) == 7
    alice.now_s = 100.0
    assert not alice.owns(0)
    alice.lease = Lease(incarnation=1, until_s=200.0)
    assert alice.owns(0)
    alice.lease = Lease(incarnation=2, until_s=200.0)  # joined anew: others may have had it meanwhile
    assert not alice.owns(0)
    alice.lease = Lease()
    assert not alice.owns(0)


def test_a_lost_partition_is_dropped_at_once_but_not_a_later_epoch_of_it(alice: Alice) -> None:
    alice.ownership.hold(0, Held(epoch=7, incarnation=1))
    alice.ownership.lost_nowait(0, 6)
    assert alice.owns(0)
    alice.ownership.lost_nowait(0, 7)
    assert not alice.owns(0)
    alice.ownership.lost_nowait(0, 7)
    assert alice.lost == [(0, 7)]


def test_while_vaults_leave_commits_go_on_and_requests_belong_to_the_next_owner(alice: Alice) -> None:
    alice.see(PartRow("alice", 1, 4, None), PartRow("alice", 1, 7, None))
    alice.ownership.hold(1, Held(epoch=7, incarnation=1))
    assert alice.ownership.owner_of(1) == Owned(here=True, address="", epoch=7)
    alice.ownership.begin_to_move(1)
    assert alice.owns(1)
    assert alice.ownership.owner_of(1) == Owned(here=False, address="b:1", epoch=7)
    assert alice.ownership.drop(1, 6) is None
    assert alice.ownership.drop(1, 7) == Held(epoch=7, incarnation=1, moving=True)
    assert alice.ownership.begin_to_move(1) is None


def test_others_are_found_by_the_living_owner_else_by_placement(alice: Alice) -> None:
    assert alice.ownership.owner_of(1) == Owned(here=False, address="", epoch=0)
    alice.see(PartRow("bob", 2, 5, None), PartRow("bob", 2, 6, None))
    assert alice.ownership.owner_of(0) == Owned(here=False, address="b:1", epoch=5, coming=True)
    assert alice.ownership.owner_of(1) == Owned(here=False, address="b:1", epoch=6)
    with pytest.raises(NotOwner) as refused:
        alice.ownership.epoch_nowait(1)
    assert refused.value.owner_address == "b:1"
    alice.see(PartRow("dead", 3, 5, None), PartRow("dead", 3, 6, None))
    assert alice.ownership.owner_of(0) == Owned(here=False, address="", epoch=5, coming=True)
    assert alice.ownership.owner_of(1) == Owned(here=False, address="b:1", epoch=6)
    with pytest.raises(ValueError, match="there are 2 partitions"):
        alice.ownership.owner_of(2)


def test_after_the_lease_what_nobody_took_away_is_stale(alice: Alice) -> None:
    alice.ownership.hold(0, Held(epoch=7, incarnation=1))
    alice.now_s = 130.0
    assert alice.ownership.owner_of(0) == Owned(here=True, address="", epoch=7, stale_s=30.0)
    alice.lease = Lease()  # the database has said that it is over
    assert not alice.ownership.owner_of(0).here
