"""Fences: who may write, under which number, and what became of a transaction that got no answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.store.postgres.connection import PostgresConnection, open_connection
from actors.store.postgres.fences import DirectoryFence, Entered, Fence, PartFence
from actors.store.postgres.ownership import SoleOwnership
from models.errors import NotOwner


@pytest.fixture
def connection(prepared_url: str) -> Iterator[PostgresConnection]:
    opened = open_connection(prepared_url)
    yield opened
    opened.close()


def entered(connection: PostgresConnection, fence: Fence, end: str, *, doubtful: int | None = None) -> Entered:
    """One transaction."""
    connection.execute("BEGIN")
    result = fence.enter(connection, 0, doubtful=doubtful)
    connection.execute(end)
    return result


def test_the_directorys_commits_are_numbered_over_all_writers(connection: PostgresConnection) -> None:
    ours, theirs = DirectoryFence(), DirectoryFence()
    assert [entered(connection, fence, "COMMIT").number for fence in (ours, theirs, ours)] == [1, 2, 3]


def test_another_writers_commit_of_the_same_number_is_not_taken_for_the_lost_one(
    connection: PostgresConnection,
) -> None:
    ours, theirs = DirectoryFence(), DirectoryFence()
    lost = entered(connection, ours, "ROLLBACK")
    assert entered(connection, theirs, "COMMIT").number == lost.number
    assert entered(connection, ours, "COMMIT", doubtful=lost.number) == Entered(2, doubtful_happened=False)


def test_the_lost_commit_is_found_under_those_of_others(connection: PostgresConnection) -> None:
    ours, theirs = DirectoryFence(), DirectoryFence()
    unheard = entered(connection, ours, "COMMIT")
    entered(connection, theirs, "COMMIT")
    assert entered(connection, ours, "COMMIT", doubtful=unheard.number) == Entered(3, doubtful_happened=True)


def test_a_partitions_count_tells_what_became_of_the_lost_one(connection: PostgresConnection) -> None:
    ownership = SoleOwnership()
    ownership.take_all(connection)
    fence = PartFence(ownership)
    lost = entered(connection, fence, "ROLLBACK")
    assert entered(connection, fence, "COMMIT", doubtful=lost.number) == Entered(1, doubtful_happened=False)
    assert entered(connection, fence, "COMMIT", doubtful=1) == Entered(2, doubtful_happened=True)


def test_an_owner_of_an_earlier_epoch_is_refused_and_told(connection: PostgresConnection) -> None:
    old, new = SoleOwnership(), SoleOwnership()
    old.take_all(connection)
    epoch = old.epoch_nowait(0)
    new.take_all(connection)
    assert new.epoch_nowait(0) == epoch + 1
    with pytest.raises(NotOwner):
        entered(connection, PartFence(old), "COMMIT")
    connection.execute("ROLLBACK")
    with pytest.raises(NotOwner):
        old.epoch_nowait(0)
    assert old.epoch_nowait(1), "only that partition is known to be lost"
    assert entered(connection, PartFence(new), "COMMIT").number == 1


def test_a_loss_of_an_earlier_epoch_does_not_end_a_later_one(connection: PostgresConnection) -> None:
    ownership = SoleOwnership()
    ownership.take_all(connection)
    stale = ownership.epoch_nowait(0)
    ownership.take_all(connection)
    ownership.lost_nowait(0, stale)
    assert ownership.epoch_nowait(0) == stale + 1
