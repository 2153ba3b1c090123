"""A server of several workers as a tree of processes, each of which may be struck; and clients of a chosen worker."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import trio

from router.unix_sockets import connect_unix
from router.worker_link import socket_path
from tests.campaigns.moments import pass_time
from tests.campaigns.starts import Start, attempted_start
from tests.campaigns.wire import Wire, WireTransport
from tests.patience import PATIENCE_S
from tests.running import ServerProcess

LOOK_S = 0.02
IN_USE = "is in use by another process"
"""What a start says while processes of the run before still work off what they have."""


class Crew:
    """One start of the server.

    Attributes:
        server: the process that starts the workers.
    """

    def __init__(self, server: ServerProcess, data_dir: Path, workers: int) -> None:
        self.server = server
        self.workers = workers
        self._data_dir = data_dir
        self._was_frozen = False

    @property
    def url(self) -> str:
        """Where any worker takes what comes."""
        return self.server.url

    def at(self, worker: int) -> httpx.AsyncClient:
        """Connections to one worker, by the entrance that the others use."""

        async def connect(_: httpx.URL) -> Wire:
            try:
                return Wire(await connect_unix(socket_path(self._data_dir, worker)), "127.0.0.1")
            except OSError as error:
                raise httpx.ConnectError("the worker is not there") from error

        return httpx.AsyncClient(base_url="http://127.0.0.1", transport=WireTransport(connect), timeout=None)

    def lives(self, worker: int) -> int:
        """How often a worker has come to serve."""
        return sum(entry["worker"] == worker for entry in self._entries("worker_serving"))

    def deaths(self) -> int:
        """How many workers have ended."""
        return len(self._entries("worker_ended"))

    def strike(self, worker: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a worker a signal."""
        pids = [entry["pid"] for entry in self._entries("worker_started") if entry["worker"] == worker]
        _signal(pids[-1], number)

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until this holds; the log is read meanwhile."""
        with trio.fail_after(PATIENCE_S):
            while not condition():
                await pass_time(LOOK_S)

    async def kill(self, *workers: int) -> None:
        """kill -9 of workers, and wait until each serves again."""
        lives = {worker: self.lives(worker) for worker in workers}
        for worker in workers:
            self.strike(worker)
        await self.wait(lambda: all(self.lives(worker) > before for worker, before in lives.items()))

    def kill_all_nowait(self) -> None:
        """kill -9 of every process, the first one first, so that it starts none."""
        if self.server.process.returncode is None:
            self.server.process.kill()
        for entry in self._entries("worker_started"):
            _signal(entry["pid"], signal.SIGKILL)

    async def freeze(self, worker: int, seconds: float) -> None:
        """Let a worker stand still for so long, perhaps with a lock that others wait for in vain."""
        self._was_frozen = True
        self.strike(worker, signal.SIGSTOP)
        await pass_time(seconds)
        self.strike(worker, signal.SIGCONT)

    def complaints(self) -> list[dict[str, Any]]:
        """What the log calls an error, but for the ends of workers, and what others say while one stands still."""
        errors = [entry for entry in self.server.log if entry.get("level") in {"error", "critical"}]
        return [
            entry
            for entry in errors
            if entry["event"] != "worker_ended"
            and not (self._was_frozen and ("BusyError" in entry["event"] or entry.get("code") == "store_unavailable"))
        ]

    def _entries(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.server.log if entry["event"] == event]


def _signal(pid: int, number: signal.Signals) -> None:
    """A signal for a worker, if there still is one of this number."""
    with suppress(OSError):
        if b"router.worker_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, number)


@asynccontextmanager
async def open_crew(data_dir: Path, workers: int, *, environment: Mapping[str, str]) -> AsyncIterator[Crew]:
    """A start on this directory, as soon as nothing of the one before is left; at the end nothing of this one is."""
    own = {**environment, "MEMORYROUTER_SERVER__WORKERS": str(workers)}
    gives_up_s = trio.current_time() + PATIENCE_S
    while True:
        async with attempted_start(data_dir, environment=own) as start:
            if start.serves:
                crew = Crew(start.server, data_dir, workers)
                try:
                    yield crew
                finally:
                    crew.kill_all_nowait()
                return
            _require_busy(start)
        assert trio.current_time() < gives_up_s, "what was struck never ended"
        await pass_time(LOOK_S)


def _require_busy(start: Start) -> None:
    assert not start.problem(), start.problem()
    assert IN_USE in start.reasons[0], start.server.log
