"""This node's lease: one row of the table `node`, renewed by a thread of its own on a connection of its own.

The database's clock alone decides whether a lease lasts. Here only differences on this machine's monotonic clock
count: the node believes in its lease until `FENCE` of its length after it *sent* the last renewal that was confirmed.
It asks nobody for that, so a thread that hangs and a network that is gone change nothing.
A lease that was given up is never resumed, not even if the renewal succeeds late: somebody may have judged by the row
that was there before. The node joins anew, with an incarnation that owns nothing yet.

Must never wait for anything but the database, and never write to `part`.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from actors.cluster.view import View, read_view
from actors.store.database import DATABASE_ERRORS
from actors.store.postgres.connection import PostgresConnection
from models.errors import MemoryRouterError

FENCE = 0.8
"""Part of the lease for which the node believes in it: the rest is for clocks that run at different speeds."""
BEATS_PER_LEASE = 4
JITTER = 0.15
"""By up to this part a heartbeat comes early, so that nodes which started together do not stay together."""
RETRIES_PER_LEASE = 20
AFTER_AN_END_S = 0.02
"""How long after the end of another's lease one looks: by then the database says so, too."""
JOIN_TIMEOUT_S = 5.0
"""How long stopping waits for the thread; what it does is harmless by then."""

_log = logging.getLogger(__name__)


def machine_clock() -> float:
    """Seconds that also count while the machine is suspended, where the system can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Identity(msgspec.Struct, frozen=True):
    """What a node says of itself in its row."""

    node_id: str
    address: str
    zone: str = ""
    version: str = ""
    weight: float = 1.0


class Lease(msgspec.Struct, frozen=True):
    """A lease as this node believes in it. One value, so that any thread reads both at once.

    Attributes:
        incarnation: under which the node joined; 0 is none.
        until_s: end of the belief, on the node's monotonic clock.
    """

    incarnation: int = 0
    until_s: float = float("-inf")


class Sighting(msgspec.Struct, frozen=True):
    """What the thread tells after each look.

    Attributes:
        beat_s: how long the renewal took, if there was one.
    """

    view: View
    incarnation: int
    beat_s: float | None


class Membership:
    """The thread and the lease. `lease` may be read by any thread."""

    def __init__(
        self,
        identity: Identity,
        *,
        ttl_s: float,
        connect: Callable[[], PostgresConnection],
        seen: Callable[[Sighting], None],
        clock: Callable[[], float] = machine_clock,
        before_beat: Callable[[], None] | None = None,
        check_schema: Callable[[PostgresConnection], None] = lambda _: None,
    ) -> None:
        """Nothing happens before `start`.

        Args:
            connect: opens a connection for the thread alone.
            seen: told after each look at the tables, in the thread.
            clock: this machine's; only differences count.
            before_beat: called in the thread before each renewal. For tests: one that blocks freezes the thread.
            check_schema: raises `SetupError` if a newer version has changed the tables; no lease is taken then.
        """
        self._identity = identity
        self._ttl_s = ttl_s
        self._connect = connect
        self._seen = seen
        self._clock = clock
        self._before_beat = before_beat
        self._check_schema = check_schema
        self._thread = threading.Thread(target=self._run, name=f"lease {identity.node_id}", daemon=True)
        self._wake = threading.Event()
        self._stopping = False
        self._random = random.Random(identity.node_id)
        # Written by the thread:
        self.lease = Lease()
        self.failure: MemoryRouterError | None = None
        self.refused = 0
        self.working_since_s: float | None = None
        self._connection: PostgresConnection | None = None
        self._previous = 0
        self._beat_due_s = float("-inf")
        self._counters = {"beats": 0, "failures": 0, "joins": 0, "lapses": 0}
        # Written by both:
        self._lock = threading.Lock()
        self._look_due_s = float("inf")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def look_within(self, seconds: float) -> None:
        """Look at the tables again after so long at most. Any thread."""
        with self._lock:
            self._look_due_s = min(self._look_due_s, self._clock() + seconds)
        self._wake.set()

    def stop_nowait(self) -> None:
        """No renewal from now on; the row stays."""
        self._stopping = True
        self._wake.set()

    def wait_stopped(self) -> None:
        """Wait for the thread's end, or `JOIN_TIMEOUT_S`: it may hang in a statement. Blocks."""
        if self._thread.ident is not None:
            self._thread.join(JOIN_TIMEOUT_S)

    def interrupt(self) -> None:
        """Break the connection of a statement that hangs. Any thread."""
        connection = self._connection
        if connection is not None:
            connection.interrupt()

    def statistics(self) -> dict[str, Any]:
        """Counters since the start, and what is left of the lease."""
        return {**self._counters, "lease_remaining_s": max(0.0, self.lease.until_s - self._clock())}

    # From here on: the thread.

    def _run(self) -> None:
        while not self._stopping:
            with self._lock:
                self._look_due_s = float("inf")
            self._wait_until(self._clock() + self._turn_or_retry())
        self._disconnect()

    def _wait_until(self, due_s: float) -> None:
        """Until then, or until somebody wants to look earlier."""
        while not self._stopping:
            with self._lock:
                wait_s = min(due_s, self._look_due_s) - self._clock()
            if wait_s <= 0:
                return
            self._wake.wait(wait_s)
            self._wake.clear()

    def _turn_or_retry(self) -> float:
        """One turn; returns how long nothing is to be done."""
        self.working_since_s = self._clock()
        try:
            wait_s = self._turn()
            self.failure = None
        except MemoryRouterError as error:  # the URL is none, or psycopg is missing
            self.failure = error
            wait_s = self._failed(error)
        except Exception as error:  # the edge: whatever it was, the thread goes on, and the lease ends by itself
            wait_s = self._failed(error)
        self.working_since_s = None
        return wait_s

    def _failed(self, error: Exception) -> float:
        self._counters["failures"] += 1
        known = isinstance(error, (*DATABASE_ERRORS, MemoryRouterError))
        _log.warning("%s: no heartbeat: %s", self._identity.node_id, error if known else type(error).__name__)
        self._disconnect()
        return self._ttl_s / RETRIES_PER_LEASE * self._random.uniform(0.5, 1.0)

    def _turn(self) -> float:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        beat_s = None
        if self._clock() >= self._beat_due_s or not self.lease.incarnation:
            beat_s = self._beat(connection)
        if not self.lease.incarnation:
            return self._wait_for_our_name(connection)
        view = read_view(connection)
        looked_s = self._clock()
        self._seen(Sighting(view, self.lease.incarnation, beat_s))
        end_s = looked_s + view.soonest_end_s(without=self._identity.node_id)
        end_s += AFTER_AN_END_S * self._random.uniform(1.0, 2.0)
        return min(self._beat_due_s, end_s) - self._clock()

    def _beat(self, connection: PostgresConnection) -> float:
        """Renew the lease, or join; returns how long that took."""
        if self._before_beat is not None:
            self._before_beat()
        sent_s = self._clock()
        self._beat_due_s = sent_s + self._ttl_s / BEATS_PER_LEASE * self._random.uniform(1.0 - JITTER, 1.0)
        if self.lease.incarnation and not self._renew(connection, sent_s):
            self._counters["lapses"] += 1
            self._previous = self.lease.incarnation
            self.lease = Lease()
        if not self.lease.incarnation:
            self._join(connection)
        took_s = self._clock() - sent_s
        self._counters["beats"] += 1
        return took_s

    def _renew(self, connection: PostgresConnection, sent_s: float) -> bool:
        """Extend the lease; false if it is over, in the database or by our own reckoning."""
        lease = self.lease
        connection.execute(_RENEW, (self._identity.node_id, lease.incarnation, self._ttl_s))
        if not connection.changes() or self._clock() >= lease.until_s:
            return False
        self.lease = Lease(lease.incarnation, sent_s + FENCE * self._ttl_s)
        return True

    def _join(self, connection: PostgresConnection) -> None:
        """Put our row there, or in the place of one that is dead or was ours.

        Who changes the tables looks for rows, and lets none be put there until that is done: so one looks afterwards.
        """
        self._check_schema(connection)
        sent_s = self._clock()
        us = self._identity
        about_us = (us.node_id, us.address, us.zone, us.version, us.weight, self._ttl_s, self._previous)
        for (incarnation,) in connection.execute(_JOIN, about_us).fetchall():
            self._check_schema_or_leave(connection, incarnation)
            self.lease = Lease(incarnation, sent_s + FENCE * self._ttl_s)
            self.refused = 0
            self._counters["joins"] += 1
            _log.info("%s: joined as incarnation %d", us.node_id, incarnation)

    def _check_schema_or_leave(self, connection: PostgresConnection, incarnation: int) -> None:
        try:
            self._check_schema(connection)
        except MemoryRouterError:
            connection.execute(_LEAVE, (self._identity.node_id, incarnation))
            raise

    def _wait_for_our_name(self, connection: PostgresConnection) -> float:
        """Somebody lives under our name: most likely ourselves before a crash. Until that lease has ended."""
        self.refused += 1
        rows = connection.execute(_REMAINING, (self._identity.node_id,)).fetchall()
        remaining_s = max((float(row[0]) for row in rows), default=0.0)
        _log.warning("%s: waits for the end of an earlier lease of this name", self._identity.node_id)
        return min(max(0.0, remaining_s) + AFTER_AN_END_S, self._ttl_s / BEATS_PER_LEASE)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


_RENEW = """
UPDATE node SET expires_at = clock_timestamp() + ?3 * interval '1 second'
WHERE node_id = ?1 AND incarnation = ?2 AND expires_at > clock_timestamp()
"""
# An incarnation is a time in microseconds, so that it is new even after the row was removed.
_JOIN = """
INSERT INTO node AS old (node_id, incarnation, addr, zone, version, weight, expires_at)
VALUES (
  ?1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, ?2, ?3, ?4, ?5,
  clock_timestamp() + ?6 * interval '1 second'
)
ON CONFLICT (node_id) DO UPDATE SET
  incarnation = greatest(excluded.incarnation, old.incarnation + 1), addr = excluded.addr, zone = excluded.zone,
  version = excluded.version, weight = excluded.weight, leaving = false, expires_at = excluded.expires_at
WHERE old.expires_at <= clock_timestamp() OR old.incarnation = ?7
RETURNING incarnation
"""
_LEAVE = "DELETE FROM node WHERE node_id = ? AND incarnation = ?"
_REMAINING = """
SELECT extract(epoch FROM expires_at - clock_timestamp())::double precision FROM node WHERE node_id = ?
"""
