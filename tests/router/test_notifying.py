"""The service manager hears when the server is ready, that it lives, and when it stops."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from router.notifying import ALIVE, BEATS_PER_TIMEOUT, READY, STOPPING, beat, notify, watchdog_interval_s
from tests.patience import PATIENCE_S
from tests.running import open_process


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """A service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hearing:
        hearing.bind(address)
        hearing.settimeout(PATIENCE_S)
        yield hearing


@pytest.mark.parametrize("abstract", [False, True])
def test_a_state_goes_to_the_socket_that_is_named(tmp_path: Path, *, abstract: bool) -> None:
    path = str(tmp_path / "notify")
    with listening(f"\0{path}" if abstract else path) as hearing:
        notify(READY, environ={"NOTIFY_SOCKET": f"@{path}" if abstract else path})
        assert hearing.recv(100) == b"READY=1"


def test_nobody_to_tell_and_nobody_there_are_no_errors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notify(READY, environ={})
    assert caplog.messages == []
    notify(READY, environ={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    notify(READY, environ={"NOTIFY_SOCKET": "/" + "x" * 200})
    assert caplog.messages == ["service_manager_not_told"] * 2


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30 / BEATS_PER_TIMEOUT),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30 / BEATS_PER_TIMEOUT),
    ],
)
def test_a_watchdog_is_fed_only_if_this_process_is_asked_to(environ: dict[str, str], interval_s: float | None) -> None:
    assert watchdog_interval_s(environ=environ) == interval_s


async def test_the_loop_says_that_it_goes_round(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = str(tmp_path / "notify")
    with listening(path) as hearing:
        with trio.move_on_after(30):
            await beat(environ={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000000"})
        assert [hearing.recv(100).decode() for _ in range(BEATS_PER_TIMEOUT)] == [ALIVE] * BEATS_PER_TIMEOUT
    await beat(environ={})


async def test_a_server_says_when_it_is_ready_and_when_it_stops(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with listening(path) as hearing:
        environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3600000000"}
        async with open_process(tmp_path / "data", environment=environment) as server:
            before = {hearing.recv(100).decode() for _ in range(2)}
            server.signal(signal.SIGTERM)
            assert await server.wait() == 0
        assert before == {READY, ALIVE}
        assert hearing.recv(100).decode() == STOPPING
