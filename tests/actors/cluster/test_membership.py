"""A lease is believed in for 0.8 of its length after the renewal was sent, and never resumed once it was given up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from actors.cluster.identity import connecting
from actors.cluster.membership import FENCE, Identity, Lease, Membership, Sighting, machine_clock
from actors.store.postgres.connection import PostgresConnection
from models.errors import SetupError
from tests.actors.cluster.house import connected
from tests.patience import PATIENCE_S

TTL_S = 600.0


class StoppedClock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class Slow(PostgresConnection):
    """A connection on which something happens between a renewal's sending and its answer."""

    __slots__ = ("meanwhile",)

    def __init__(self, real: PostgresConnection, meanwhile: Callable[[], None]) -> None:
        super().__init__(real._connection)
        self.meanwhile = meanwhile

    def execute(self, statement: str, bindings: Any = ()) -> Any:
        rows = super().execute(statement, bindings)
        if "UPDATE node" in statement:
            self.meanwhile()
        return rows


class TurnByTurn(Membership):
    """Lets `looked` be released when a turn in which it has looked is over: it reads the clock until then."""

    looked: threading.Semaphore
    has_looked = False

    def _wait_until(self, due_s: float) -> None:
        if self.has_looked:
            self.has_looked = False
            self.looked.release()
        super()._wait_until(due_s)


class MemberInTest:
    """A node that does nothing but renew; each turn is waited for."""

    def __init__(self, url: str, clock: Callable[[], float], connect: Callable[[], PostgresConnection]) -> None:
        self.leases: list[Lease] = []
        self.membership = TurnByTurn(
            Identity("a", "a:1", zone="z"), ttl_s=TTL_S, connect=connect, seen=self._seen, clock=clock
        )
        self.membership.looked = threading.Semaphore(0)
        self.membership.start()
        self.wait_look()

    def _seen(self, sighting: Sighting) -> None:
        self.leases.append(self.membership.lease)
        self.membership.has_looked = True

    def wait_look(self) -> None:
        assert self.membership.looked.acquire(timeout=PATIENCE_S)

    def look(self) -> None:
        """One more turn."""
        self.membership.look_within(-TTL_S)
        self.wait_look()

    def stop(self) -> None:
        self.membership.stop_nowait()
        self.membership.wait_stopped()


@pytest.fixture
def database(cluster_url: str) -> Iterator[PostgresConnection]:
    connection = connected(cluster_url)
    yield connection
    connection.close()


def test_a_renewal_extends_the_lease_from_when_it_was_sent(cluster_url: str, database: PostgresConnection) -> None:
    clock = StoppedClock()
    member = MemberInTest(cluster_url, clock, partial(connecting, cluster_url))
    assert member.membership.lease.until_s == 1_000 + FENCE * TTL_S
    member.look()
    assert member.membership.statistics()["beats"] == 1  # a look alone renews nothing
    clock.now_s += TTL_S / 4
    member.look()
    assert member.membership.statistics()["beats"] == 2
    assert member.membership.lease.until_s == clock.now_s + FENCE * TTL_S
    assert len({lease.incarnation for lease in member.leases}) == 1
    remaining = database.execute("SELECT extract(epoch FROM expires_at - now())::float8, zone, addr FROM node")
    ((remaining_s, zone, address),) = remaining.fetchall()
    assert TTL_S - PATIENCE_S < remaining_s <= TTL_S
    assert (zone, address) == ("z", "a:1")
    member.stop()
    assert database.execute("SELECT count(*) FROM node").fetchall() == [(1,)]


def test_a_renewal_that_is_answered_too_late_is_no_renewal(cluster_url: str) -> None:
    """The database extended the lease, but somebody may have judged by what was there before."""
    clock, late_s = StoppedClock(), [0.0]

    def meanwhile() -> None:
        clock.now_s += late_s[0]

    def connect() -> PostgresConnection:
        return Slow(connecting(cluster_url), meanwhile)

    member = MemberInTest(cluster_url, clock, connect)
    first = member.membership.lease
    clock.now_s += TTL_S / 4
    late_s[0] = FENCE * TTL_S - TTL_S / 4 - 1.0  # just in time
    member.look()
    assert member.membership.lease.incarnation == first.incarnation
    assert member.membership.lease.until_s == 1_000 + TTL_S / 4 + FENCE * TTL_S
    clock.now_s = member.membership.lease.until_s - 1.0
    late_s[0] = 1.0  # just too late
    member.look()
    assert member.membership.lease.incarnation > first.incarnation
    assert member.membership.statistics()["lapses"] == 1
    member.stop()


@pytest.mark.parametrize(
    "end",
    [
        "UPDATE node SET expires_at = clock_timestamp()",
        "DELETE FROM node",
        "UPDATE node SET incarnation = incarnation + 1, expires_at = clock_timestamp()",
    ],
)
def test_a_lease_that_the_database_has_ended_is_joined_anew(
    cluster_url: str, database: PostgresConnection, end: str
) -> None:
    clock = StoppedClock()
    member = MemberInTest(cluster_url, clock, partial(connecting, cluster_url))
    first = member.membership.lease.incarnation
    database.execute(end)
    clock.now_s += TTL_S / 4
    member.look()
    assert member.membership.lease.incarnation > first
    member.stop()


def test_joining_anew_ends_leaving_but_not_draining(cluster_url: str, database: PostgresConnection) -> None:
    clock = StoppedClock()
    member = MemberInTest(cluster_url, clock, partial(connecting, cluster_url))
    database.execute("UPDATE node SET leaving = true, draining = true, expires_at = clock_timestamp()")
    clock.now_s += TTL_S / 4
    member.look()
    assert database.execute("SELECT leaving, draining FROM node").fetchall() == [(False, True)]
    member.stop()


def test_a_hung_statement_is_broken_off(cluster_url: str, database: PostgresConnection) -> None:
    """As on a network that swallows everything; here the row is locked."""
    clock = StoppedClock()
    member = MemberInTest(cluster_url, clock, partial(connecting, cluster_url))
    database.execute("BEGIN")
    database.execute("UPDATE node SET zone = 'y'")
    clock.now_s += TTL_S / 4
    member.membership.look_within(-TTL_S)
    other = connected(cluster_url)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    while other.execute(waiting).fetchall() != [(1,)]:
        database.execute("SELECT 1")
    member.membership.interrupt()
    while not member.membership.statistics()["failures"]:
        database.execute("SELECT 1")
    database.execute("ROLLBACK")
    member.membership.look_within(-TTL_S)
    clock.now_s += TTL_S / 20
    member.wait_look()
    assert member.membership.lease.until_s > clock.now_s
    other.close()
    member.stop()


@pytest.mark.parametrize("looks", [0, 1], ids=["before it joins", "while it joins"])
def test_no_lease_is_taken_on_tables_that_a_newer_version_has_changed(
    cluster_url: str, database: PostgresConnection, looks: int
) -> None:
    """Nor is a row left behind, by which others would wait for the node."""
    rows: list[int] = []

    def check(connection: PostgresConnection) -> None:
        ((count,),) = connection.execute("SELECT count(*) FROM node").fetchall()
        rows.append(count)
        if len(rows) > looks:
            raise SetupError("The database has schema 1000.")

    membership = Membership(
        Identity("a", "a:1"),
        ttl_s=TTL_S,
        connect=partial(connecting, cluster_url),
        seen=lambda _: None,
        check_schema=check,
    )
    membership.start()
    while membership.failure is None:
        database.execute("SELECT 1")
    membership.stop_nowait()
    membership.wait_stopped()
    assert isinstance(membership.failure, SetupError)
    assert membership.lease == Lease()
    assert rows[: looks + 1] == [0, 1][: looks + 1]
    assert database.execute("SELECT count(*) FROM node").fetchall() == [(0,)]


def test_the_machine_clock_goes_forward() -> None:
    before = machine_clock()
    assert machine_clock() >= before
