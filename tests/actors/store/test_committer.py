"""Group commit: batches, savepoints, full disks, failing disks, waiters that leave, and the end of the thread."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio
import trio.testing

from actors.store.committer import Committer
from actors.store.connections import open_writer
from actors.store.tickets import Batch, Chore, Ticket
from actors.store.writer import Writer
from models.errors import (
    NotFound,
    Overloaded,
    ShuttingDown,
    StoreUnavailable,
)
from models.store_settings import StoreSettings
from tests.actors.store.jobs import SETTINGS, Gate, bodies, insert, open_committer
from tests.patience import PATIENCE_S


async def test_all_that_waits_goes_into_one_commit(committer: Committer, path: Path) -> None:
    gate = Gate()
    committer.submit_nowait(Ticket(gate.work))
    gate.wait_entered()
    tickets = [committer.submit_nowait(Ticket(insert(str(number)))) for number in range(200)]
    gate.open()
    for ticket in tickets:
        await ticket.wait()
    assert committer.statistics()["batches"] <= 2
    assert committer.statistics()["commits"] == 201
    assert bodies(path) == [str(number) for number in range(200)]


async def test_a_batch_stops_at_its_row_cap(committer: Committer) -> None:
    gate = Gate()
    committer.submit_nowait(Ticket(gate.work))
    await trio.to_thread.run_sync(gate.open)
    tickets = [committer.put_nowait(Ticket(insert(str(number)), rows=100)) for number in range(9)]
    await tickets[-1].wait()
    assert committer.statistics()["batches"] >= 3  # three jobs of 100 rows reach the cap of 256


async def test_row_ids_grow_over_commits(committer: Committer) -> None:
    row_ids = [await committer.run(Ticket(insert("a"))) for _ in range(3)]
    gate = Gate()
    committer.submit_nowait(Ticket(gate.work))
    tickets = [committer.submit_nowait(Ticket(insert("b"))) for _ in range(3)]
    gate.open()
    row_ids += [await ticket.wait() for ticket in tickets]
    assert row_ids == sorted(set(row_ids))


async def test_a_failing_job_fails_alone_and_leaves_nothing(committer: Committer, path: Path) -> None:
    def fail_halfway(batch: Batch) -> None:
        insert("half")(batch)
        raise NotFound("no such vault")

    def break_the_schema(batch: Batch) -> None:
        insert("also half")(batch)
        batch.connection.execute("INSERT INTO inbox VALUES (NULL, NULL, NULL)")

    gate = Gate()
    committer.submit_nowait(Ticket(gate.work))
    first = committer.submit_nowait(Ticket(insert("first")))
    typed = committer.submit_nowait(Ticket(fail_halfway))
    untyped = committer.submit_nowait(Ticket(break_the_schema))
    last = committer.submit_nowait(Ticket(insert("last")))
    gate.open()
    await last.wait()
    assert first.durable
    with pytest.raises(NotFound):
        await typed.wait()
    with pytest.raises(StoreUnavailable):
        await untyped.wait()
    assert bodies(path) == ["first", "last"]
    assert committer.statistics()["failures"] == 2


async def test_two_waiters_of_one_failure_get_errors_of_their_own(committer: Committer) -> None:
    def fail(_batch: Batch) -> None:
        raise NotFound("no such vault", hint="look again")

    ticket = committer.submit_nowait(Ticket(fail))
    caught = []
    for _ in range(2):
        with pytest.raises(NotFound) as raised:
            await ticket.wait()
        caught.append(raised.value)
    assert caught[0] is not caught[1]
    assert (caught[0].message, caught[0].hint) == ("no such vault", "look again")


async def test_waiters_may_leave_while_the_commit_goes_on(committer: Committer, path: Path) -> None:
    gate = Gate()
    committer.submit_nowait(Ticket(gate.work))
    async with trio.open_nursery() as waiters:
        for number in range(20):
            waiters.start_soon(committer.run, Ticket(insert(str(number))))
        await trio.testing.wait_all_tasks_blocked()
        waiters.cancel_scope.cancel()
    gate.open()
    await committer.run(Ticket(insert("last")))
    assert sorted(bodies(path)) == sorted([*map(str, range(20)), "last"])
    assert committer.statistics()["queue_rows"] == 0


async def test_a_full_queue_refuses_by_rows_and_by_bytes(path: Path) -> None:
    settings = StoreSettings(queue_rows_max=3, queue_bytes_max=100)
    async with open_committer(partial(open_writer, path), settings=settings) as committer:
        gate = Gate()
        committer.put_nowait(Ticket(gate.work))
        committer.submit_nowait(Ticket(insert("a"), rows=2, size_bytes=10))
        with pytest.raises(Overloaded):
            committer.submit_nowait(Ticket(insert("b"), rows=2))
        with pytest.raises(Overloaded):
            committer.submit_nowait(Ticket(insert("c"), rows=1, size_bytes=91))
        assert committer.statistics()["queue_bytes"] == 10
        last = committer.submit_nowait(Ticket(insert("d"), size_bytes=90))
        gate.open()
        await last.wait()
        await committer.submit_nowait(Ticket(insert("e"), rows=3)).wait()
    assert bodies(path) == ["a", "d", "e"]


async def test_callbacks_come_in_commit_order_before_waiters_and_only_on_success(committer: Committer) -> None:
    events: list[str] = []

    def fail(_batch: Batch) -> None:
        raise NotFound("no")

    async def wait(ticket: Ticket[Any], name: str) -> None:
        await ticket.wait()
        events.append(f"woken {name}")

    gate = Gate()
    committer.submit_nowait(Ticket(gate.work))
    gate.wait_entered()
    failing = committer.submit_nowait(Ticket(fail, on_durable=lambda _: events.append("never")))
    async with trio.open_nursery() as waiters:
        for name in "abc":
            note = partial(lambda name, _: events.append(f"durable {name}"), name)
            waiters.start_soon(wait, committer.submit_nowait(Ticket(insert(name), on_durable=note)), name)
        await trio.testing.wait_all_tasks_blocked()
        gate.open()
    assert events[:3] == ["durable a", "durable b", "durable c"]
    assert sorted(events[3:]) == ["woken a", "woken b", "woken c"]
    with pytest.raises(NotFound):
        await failing.wait()


async def test_a_callback_that_fails_harms_nobody(committer: Committer) -> None:
    def burst(_result: int) -> None:
        raise ValueError("a bug in a callback")

    bursting = committer.submit_nowait(Ticket(insert("a"), on_durable=burst, after_commit=burst))
    await committer.run(Ticket(insert("b")))
    assert bursting.durable


async def test_after_commit_runs_in_the_committers_thread_before_anyone_is_told(committer: Committer) -> None:
    threads: list[str] = []
    ticket = Ticket(insert("a"), after_commit=lambda _: threads.append(threading.current_thread().name))
    await committer.run(ticket)
    assert threads == ["committer test"]


async def test_closing_commits_what_is_queued_and_empties_the_wal(path: Path) -> None:
    async with open_committer(partial(open_writer, path), settings=SETTINGS) as committer:
        gate = Gate()
        committer.submit_nowait(Ticket(gate.work))
        tickets = [committer.submit_nowait(Ticket(insert(str(number)))) for number in range(250)]
        gate.open()
    assert all(ticket.durable for ticket in tickets)
    assert len(bodies(path)) == 250
    assert not path.with_name("shard.db-wal").exists()
    with pytest.raises(ShuttingDown):
        committer.submit_nowait(Ticket(insert("late")))


async def test_closing_in_a_cancelled_scope_still_commits(path: Path) -> None:
    with trio.CancelScope() as scope:
        async with open_committer(partial(open_writer, path), settings=SETTINGS) as committer:
            committer.submit_nowait(Ticket(insert("a")))
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert bodies(path) == ["a"]


def test_a_thread_that_outlives_the_run_still_commits(path: Path) -> None:
    """Trio's run may end while the committer works; nobody is told, nothing is lost, nothing crashes."""
    gate = Gate()
    threads: list[threading.Thread] = []

    async def abandon() -> None:
        committer = Committer("test", Writer("test", partial(open_writer, path)), settings=SETTINGS)
        committer.start()
        committer.submit_nowait(Ticket(gate.work))
        committer.submit_nowait(Ticket(insert("a")))
        committer.end_nowait()
        threads.extend(thread for thread in threading.enumerate() if thread.name == "committer test")

    trio.run(abandon)
    gate.open()
    threads[0].join(PATIENCE_S)
    assert not threads[0].is_alive()
    assert bodies(path) == ["a"]


async def test_a_large_wal_is_copied_into_the_database(committer: Committer, path: Path) -> None:
    before = path.stat().st_size
    for _ in range(3):
        await committer.run(Ticket(insert("x" * 700_000)))
    assert path.stat().st_size > before + 700_000


async def test_chores_go_in_slices_between_commits(committer: Committer, path: Path) -> None:
    finished = trio.Event()
    slices = iter((False, False, True))

    def one_slice(batch: Batch) -> bool:
        insert("slice")(batch)
        return next(slices)

    committer.add_chore_nowait(Chore("counting", one_slice, finished.set))
    with trio.fail_after(PATIENCE_S):
        await finished.wait()
    assert bodies(path) == ["slice"] * 3


async def test_a_chore_that_fails_is_tried_again_and_stops_nobody(committer: Committer, path: Path) -> None:
    finished = trio.Event()
    attempts: list[str] = []

    def fails_first(batch: Batch) -> bool:
        attempts.append("attempt")
        if len(attempts) == 1:
            raise apsw.IOError("once")
        if len(attempts) == 2:
            raise NotFound("twice")
        insert("chore")(batch)
        return True

    committer.add_chore_nowait(Chore("failing", fails_first, finished.set))
    await committer.run(Ticket(insert("job")))
    with trio.fail_after(PATIENCE_S):
        await finished.wait()
    assert bodies(path) == ["job", "chore"]


async def test_commits_and_the_wait_for_them_are_measured(committer: Committer) -> None:
    """A commit once, however many jobs it has; the wait of each job."""
    gate = Gate()
    committer.submit_nowait(Ticket(gate.work))
    gate.wait_entered()
    tickets = [committer.submit_nowait(Ticket(insert(str(number)))) for number in range(20)]
    gate.open()
    for ticket in tickets:
        await ticket.wait()
    statistics = committer.statistics()
    assert statistics["commit_seconds"].count == statistics["batches"] == 2
    assert statistics["wait_seconds"].count == statistics["commits"] == 21
    assert statistics["commit_seconds"].total > 0
    assert 0 < statistics["wait_seconds"].total < 21 * PATIENCE_S
