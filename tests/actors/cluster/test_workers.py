"""Which worker owns which shard, and what the others are told of it."""

from __future__ import annotations

import pytest

from actors.cluster.ownership import Owned
from actors.cluster.workers import EPOCH, Share, WorkerOwnership
from actors.store.ownership import Ownership
from models.errors import NotOwner


def ownership(index: int = 0, *, dead: tuple[int, ...] = ()) -> WorkerOwnership:
    """One of three workers on seven shards."""
    return WorkerOwnership(
        Share(index, 3), 7, address_of=lambda worker: f"worker-{worker}.sock", alive=lambda worker: worker not in dead
    )


def test_every_shard_has_one_owner() -> None:
    owners = [[index for index in range(3) if Share(index, 3).owns(shard)] for shard in range(7)]
    assert owners == [[0], [1], [2], [0], [1], [2], [0]]


@pytest.mark.parametrize(("index", "count"), [(3, 3), (-1, 3), (0, 0)])
def test_a_share_that_does_not_exist_cannot_be_made(index: int, count: int) -> None:
    with pytest.raises(ValueError, match="no worker"):
        Share(index, count)


def test_own_shards_are_here_and_others_at_their_workers_address() -> None:
    here: Ownership = ownership(1)
    assert here.owner == "worker-1"
    assert here.epoch_nowait(4) == EPOCH
    with pytest.raises(NotOwner) as refused:
        here.epoch_nowait(5)
    assert refused.value.owner_address == "worker-2.sock"
    assert list(here.owned_nowait()) == [1, 4]
    here.lost_nowait(4, EPOCH)
    assert here.epoch_nowait(4) == EPOCH, "nothing is ever lost"


async def test_requests_are_told_where_they_belong() -> None:
    here = ownership(1, dead=(2,))
    assert here.address == "worker-1.sock"
    assert here.owner_of(4) == await here.wait_here(4, timeout_s=1) == Owned(here=True, address="", epoch=EPOCH)
    assert here.owner_of(3) == Owned(here=False, address="worker-0.sock", epoch=EPOCH)
    assert here.owner_of(5) == Owned(here=False, address="", epoch=EPOCH), "until it is started again"
    assert (here.is_gone("worker-0.sock"), here.is_gone("worker-2.sock")) == (False, True)
    await here.hand_over()
    assert here.owner_of(4).here
    with pytest.raises(ValueError, match="7 shards"):
        here.owner_of(7)


async def test_there_is_another_look_now_and_then(autojump_clock: object) -> None:
    await ownership().wait_changed()
