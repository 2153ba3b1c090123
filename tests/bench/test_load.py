"""The generator counts what came, from when it was due, and every failure."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bench._harness import free_port
from bench._load import Arrivals, Load, run_load
from bench._targets import Target, chat_requests

EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def load(port: int, model: str = "mock", **changed: object) -> Load:
    """A short load."""
    target = Target(name="", url=f"http://127.0.0.1:{port}/v1")
    values = {
        "url": target.url,
        "request": chat_requests(target, model, stream=bool(changed.get("streams"))),
        "warm_up_s": 0.0,
        "seconds": 30.0,  # ended by `requests_max`
        **changed,
    }
    return Load(**values)  # type: ignore[arg-type]  # the values are those of the tests below


# Arithmetic, without a clock.


def test_arrivals_are_due_at_their_rate_and_taken_once() -> None:
    arrivals = Arrivals(10.0, begin_s=100.0, end_s=101.0)
    assert arrivals.take(99.9) == []
    assert arrivals.take(100.05) == [100.0]
    assert arrivals.next_s == pytest.approx(100.1)
    assert arrivals.take(100.35) == pytest.approx([100.1, 100.2, 100.3])
    assert len(arrivals.take(200.0)) == 6
    assert (arrivals.next_s, arrivals.take(300.0)) == (None, [])


def test_arrivals_do_not_drift() -> None:
    """The last of many is due when the rate says, not after a million roundings."""
    arrivals = Arrivals(3.0, begin_s=0.0, end_s=30_000.0)
    assert arrivals.take(29_999.0)[-1] == pytest.approx(29_999.0, abs=1e-6)


def test_a_stall_counts_for_all_that_were_due_in_it() -> None:
    """One server, one request at a time, 10 ms each, that stands still for a second: by a clock of the test's own."""
    arrivals, now_s, latencies_s = Arrivals(50.0, begin_s=0.0, end_s=4.0), 0.0, []
    waiting: list[float] = []
    while waiting or arrivals.next_s is not None:
        waiting += arrivals.take(now_s)
        if not waiting:
            now_s = arrivals.next_s or now_s
            continue
        due_s = waiting.pop(0)
        now_s = max(now_s, due_s) + (1.0 if due_s == pytest.approx(2.0) else 0.01)
        latencies_s.append(now_s - due_s)
    assert len(latencies_s) == 200
    assert max(latencies_s) == pytest.approx(1.0)
    assert sum(latency_s > 0.1 for latency_s in latencies_s) > 80, "a closed loop would have seen one"


# Over sockets.


def test_closed_loop_answers_as_many_as_are_asked_for(provider: int) -> None:
    outcome = run_load(load(provider, connections=3, requests_max=30))
    assert (len(outcome.latencies_s), outcome.attempts, outcome.errors, outcome.reconnects) == (30, 30, {}, 0)
    assert len(outcome.first_bytes_s) == 30
    assert {"requests_per_s", "p50_ms", "p99_ms"} <= set(outcome.row())


def test_open_loop_counts_from_when_a_request_was_due(provider: int) -> None:
    """Twenty that take 10 ms each on one connection, due within 100 ms: the last waits at least another 100 ms."""
    outcome = run_load(load(provider, "slow-10", rate_per_s=200.0, seconds=0.1))
    assert len(outcome.latencies_s) == 20
    assert outcome.latencies_s[-1] >= 0.104
    assert sorted(outcome.latencies_s)[10] >= 0.05


def test_what_was_never_sent_is_an_error(provider: int) -> None:
    outcome = run_load(load(provider, "hang", rate_per_s=100.0, seconds=0.05, timeout_s=0.1))
    assert sum(outcome.errors.values()) == 5
    assert outcome.latencies_s == []


def test_the_warm_up_is_not_recorded(provider: int) -> None:
    outcome = run_load(load(provider, warm_up_s=0.1, requests_max=5))
    assert len(outcome.latencies_s) == 5
    assert outcome.attempts > 5


def test_streams_are_counted_by_events_and_stamped_chunks(provider: int) -> None:
    outcome = run_load(load(provider, "pace-1-4", streams=True, requests_max=2))
    assert (outcome.events, len(outcome.delays_s), len(outcome.first_bytes_s)) == (12, 8, 2)
    assert all(delay_s >= 0 for delay_s in outcome.delays_s)
    assert "chunk_delay_p50_ms" in outcome.row(streams=True)


@pytest.mark.parametrize(("model", "kind"), [("fault-429", "status 429"), ("cut-1", "closed")])
def test_errors_are_counted_by_kind(provider: int, model: str, kind: str) -> None:
    outcome = run_load(load(provider, model, requests_max=2))
    assert (outcome.errors, outcome.latencies_s, outcome.row()["errors"]) == ({kind: 2}, [], 2)


def test_an_answer_that_takes_too_long_is_an_error(provider: int) -> None:
    assert run_load(load(provider, "hang", requests_max=1, timeout_s=0.05)).errors == {"timeout": 1}


def test_answers_with_a_mark_in_their_head_are_counted(provider: int) -> None:
    assert run_load(load(provider, requests_max=2, mark=b"content-type: application/json")).marked == 2
    assert run_load(load(provider, requests_max=2, mark=b"x-memory-status: ok")).marked == 0
    assert run_load(load(provider, requests_max=2)).marked == 0


def test_nobody_there_is_an_error() -> None:
    outcome = run_load(load(free_port(), requests_max=2))
    assert outcome.errors == {"not connected": 2}


@contextmanager
def serving(answer: Callable[[socket.socket], None], connections: int) -> Iterator[int]:
    """A port on which so many connections are answered, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(connections):
                connection, _ = listener.accept()
                with connection:
                    answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_a_kept_connection_that_the_server_closes_is_opened_again() -> None:
    def once(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(EMPTY)

    with serving(once, 3) as port:
        outcome = run_load(load(port, requests_max=3))
    assert (len(outcome.latencies_s), outcome.errors) == (3, {})


def test_only_plain_http_can_be_asked() -> None:
    with pytest.raises(ValueError, match="http://"):
        run_load(Load(url="https://127.0.0.1/v1", request=lambda number: b""))
