"""What the database lets a node take, whatever the node believes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest

from actors.cluster.claims import Claims
from actors.cluster.identity import connecting
from actors.cluster.membership import machine_clock
from actors.store.postgres.connection import PostgresConnection
from models.errors import StoreUnavailable
from tests.actors.cluster.house import connected

US, THEM = 7, 8
"""Incarnations."""


@pytest.fixture
def database(cluster_url: str) -> Iterator[PostgresConnection]:
    """A connection of the test's own; in `node` there are two that live."""
    connection = connected(cluster_url)
    for node_id, incarnation in (("us", US), ("them", THEM)):
        connection.execute(
            "INSERT INTO node (node_id, incarnation, addr, expires_at) VALUES (?, ?, 'x:1', now() + interval '1 hour')",
            (node_id, incarnation),
        )
    yield connection
    connection.close()


@pytest.fixture
async def claims(cluster_url: str, database: PostgresConnection) -> AsyncIterator[Claims]:
    """Of the node `us`."""
    claims = Claims("us", connect=partial(connecting, cluster_url), clock=machine_clock)
    claims.start()
    yield claims
    claims.stop_nowait()
    claims.wait_stopped()


def own(database: PostgresConnection, owner: str | None, incarnation: int | None, epoch: int = 5) -> None:
    """Partition 0 belongs to somebody."""
    database.execute(
        "UPDATE part SET owner = ?, incarnation = ?, epoch = ? WHERE part = 0", (owner, incarnation, epoch)
    )


def row(database: PostgresConnection) -> tuple[str | None, int]:
    """Owner and epoch of partition 0."""
    owner, epoch = database.execute("SELECT owner, epoch FROM part WHERE part = 0").fetchall()[0]
    return owner, epoch


async def test_what_nobody_owns_is_taken(claims: Claims, database: PostgresConnection) -> None:
    own(database, None, None)
    assert await claims.take(0, epoch=5, incarnation=US) == 6
    assert row(database) == ("us", 6)


async def test_what_a_living_node_owns_is_not_taken(claims: Claims, database: PostgresConnection) -> None:
    own(database, "them", THEM)
    assert await claims.take(0, epoch=5, incarnation=US) is None
    assert row(database) == ("them", 5)


@pytest.mark.parametrize(
    "death",
    [
        "UPDATE node SET expires_at = now() WHERE node_id = 'them'",
        "UPDATE node SET incarnation = 9 WHERE node_id = 'them'",
        "DELETE FROM node WHERE node_id = 'them'",
    ],
)
async def test_what_a_dead_incarnation_owned_is_taken(claims: Claims, database: PostgresConnection, death: str) -> None:
    own(database, "them", THEM)
    database.execute(death)
    assert await claims.take(0, epoch=5, incarnation=US) == 6


async def test_an_owner_without_incarnation_is_dead(claims: Claims, database: PostgresConnection) -> None:
    own(database, "sole-1", None)
    assert await claims.take(0, epoch=5, incarnation=US) == 6


async def test_ones_own_is_taken_again_when_an_answer_was_lost(claims: Claims, database: PostgresConnection) -> None:
    own(database, "us", US)
    assert await claims.take(0, epoch=5, incarnation=US) == 6


async def test_an_epoch_that_has_passed_takes_nothing(claims: Claims, database: PostgresConnection) -> None:
    own(database, None, None)
    assert await claims.take(0, epoch=4, incarnation=US) is None
    assert row(database) == (None, 5)


@pytest.mark.parametrize(
    "death", ["UPDATE node SET expires_at = now() WHERE node_id = 'us'", "DELETE FROM node WHERE node_id = 'us'"]
)
async def test_a_dead_node_takes_nothing(claims: Claims, database: PostgresConnection, death: str) -> None:
    own(database, None, None)
    database.execute(death)
    assert await claims.take(0, epoch=5, incarnation=US) is None
    assert row(database) == (None, 5)


async def test_only_ones_own_epoch_is_given_up(claims: Claims, database: PostgresConnection) -> None:
    own(database, "us", US)
    await claims.give_up(0, epoch=4, incarnation=US)
    await claims.give_up(0, epoch=5, incarnation=THEM)
    assert row(database) == ("us", 5)
    await claims.give_up(0, epoch=5, incarnation=US)
    assert row(database) == (None, 5)  # the epoch stays: it only ever grows


async def test_a_locked_row_is_not_waited_for(claims: Claims, database: PostgresConnection) -> None:
    own(database, None, None)
    database.execute("BEGIN")
    database.execute("UPDATE part SET commits = commits + 1 WHERE part = 0")
    with pytest.raises(StoreUnavailable):
        await claims.take(0, epoch=5, incarnation=US)
    assert await claims.take(1, epoch=0, incarnation=US) == 1  # and the next one is not held up
    database.execute("ROLLBACK")
    assert await claims.take(0, epoch=5, incarnation=US) == 6


async def test_a_connection_that_broke_while_it_was_idle_is_replaced(
    claims: Claims, database: PostgresConnection
) -> None:
    own(database, None, None)
    await claims.announce_leaving(US)
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    assert await claims.take(0, epoch=5, incarnation=US) == 6
    await claims.remove(US)
    assert database.execute("SELECT node_id FROM node").fetchall() == [("them",)]


async def test_after_the_end_nothing_is_certain(claims: Claims, database: PostgresConnection) -> None:
    own(database, None, None)
    claims.abandon_nowait()
    with pytest.raises(StoreUnavailable):
        await claims.take(0, epoch=5, incarnation=US)
    assert row(database) == (None, 5)
