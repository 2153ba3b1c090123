"""The parent of several workers on one data directory: `server.workers` processes of one command, behind one port.

It binds the port, locks the data directory and makes it ready, and starts the workers, which inherit both. From then on
it only looks after them: one that dies is started again, one that finds the settings wrong at the start ends them all,
and signals reach them as words over a link, so that neither a terminal nor a service manager that signals every process
can make a first signal look like the second. Owns the processes. Must never serve a request, and holds neither a store
nor a model.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from models.errors import SetupError
from models.settings import Settings
from router.ending import HARD_EXIT_GRACE_S, open_shutdown_signals
from router.listening import address_of, bind, warn_of_exposure
from router.notifying import READY, STOPPING, beat, notify
from router.observe import log_event
from router.tls import open_tls
from router.worker_link import (
    AccountMade,
    Beat,
    Drained,
    Link,
    Opened,
    Order,
    Refused,
    Renew,
    Serving,
    State,
    Stop,
    decode_to_parent,
    link_pair,
)
from router.worker_restarts import Restarts
from router.worker_start import start_worker, worker_command

LOOK_INTERVAL_S = 1.0
SILENT_LOOKS_MAX = 10
"""A worker that was not heard of between so many looks does not answer: requests for its vaults get 503. Looks are
counted, not seconds: when the whole machine stood still, nobody was silent."""

KILL_LOOKS = 60
"""One that was not heard of between so many is killed, and started again: it may hold what the others wait for."""

EXIT_NOT_STARTED = -1000
"""In place of the exit code of a process that there was not; no signal has that number."""

LAST_WORD_S = 15.0
"""Between a worker's last word and its end; then it is ended."""

KILL_TIMEOUT_S = 10.0
EXIT_GRACE_S = 5.0
"""Beyond the time after which a worker gives itself up."""


class Seat:
    """The place of one worker, whoever has it.

    Attributes:
        link: to its process; None while it has none.
        opened, serving, drained: how far that has come.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.restarts = Restarts()
        self.process: trio.Process | None = None
        self.link: Link | None = None
        self.opened = self.serving = self.drained = False
        self._silent_looks = 0

    @property
    def alive(self) -> bool:
        """Whether it serves, and has been heard of."""
        return self.serving and self._silent_looks <= SILENT_LOOKS_MAX

    @property
    def has_tried(self) -> bool:
        """Whether nobody needs to wait for it at the start."""
        return self.opened or self.restarts.count > 0

    def vacate(self) -> None:
        """Nobody has it."""
        self.process = self.link = None
        self.opened = self.serving = self.drained = False

    def heard(self) -> None:
        """Its process has said something."""
        self._silent_looks = 0

    def look(self) -> bool:
        """Some time has passed; whether that makes it too long that a process which served has said nothing."""
        self._silent_looks += 1
        return self.serving and self._silent_looks == KILL_LOOKS


class Crew:
    """All workers: keeps each seat taken until it is told to stop."""

    def __init__(
        self,
        settings: Settings,
        data_dir: Path,
        *,
        listening: socket.socket,
        lock: int,
        announce: Callable[[str], None],
        command: Sequence[str],
    ) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._listening = listening
        self._lock = lock
        self._announce = announce
        self._command = tuple(command)
        self._seats = [Seat(index) for index in range(settings.server.workers)]
        self._changed = trio.Event()
        self._stopping = trio.Event()
        self._starting = trio.Lock()
        self._admitted = self._has_begun = False
        self.failed = False

    async def work(self, *, serving: Callable[[], None], wait_stop: Callable[[], Awaitable[object]]) -> None:
        """Run the workers until `wait_stop` returns; then until each has finished its requests and ended.

        Args:
            serving: is told once, when all of them serve.

        Raises:
            SetupError: a worker cannot be opened with these settings.
        """
        async with trio.open_nursery() as tasks:
            for seat in self._seats:
                tasks.start_soon(self._keep_taken, seat)
            async with trio.open_nursery() as beside:
                beside.start_soon(self._look_around)
                beside.start_soon(self._begin, serving)
                if self._settings.server.tls_certificate_file:  # without TLS it ends the server, as one process
                    beside.start_soon(self._pass_renewals)
                await wait_stop()
                await self._stop()
                beside.cancel_scope.cancel(reason="the workers have ended")

    @property
    def all_alive(self) -> bool:
        """Whether every worker serves and beats."""
        return all(seat.alive for seat in self._seats)

    def kill_nowait(self) -> None:
        """End every process at once. Any thread may call it."""
        for seat in self._seats:
            process = seat.process
            if process is not None and process.returncode is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)

    # The beginning and the end.

    async def _begin(self, serving: Callable[[], None]) -> None:
        """Admit the workers to the port, all together; and say when they serve."""
        await self._wait(lambda: all(seat.has_tried for seat in self._seats))
        self._admitted = True
        self._tell_state()
        await self._wait(lambda: all(seat.serving for seat in self._seats))
        self._has_begun = True
        serving()
        await beat(lives=lambda: self.all_alive)

    async def _stop(self) -> None:
        """Let all of them finish what they have. Each still answers the others until none has a client any more."""
        self._stopping.set()
        async with self._starting:  # who is just being started inherits it
            self._listening.close()
        self._tell(Stop())
        await self._wait(lambda: all(seat.link is None or seat.drained for seat in self._seats))
        for seat in self._seats:
            if seat.link is not None:
                seat.link.hang_up()

    async def _wait(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # One worker.

    async def _keep_taken(self, seat: Seat) -> None:
        while not self._stopping.is_set():
            seat.restarts.started(trio.current_time())
            code = await self._live(seat)
            seat.vacate()
            pause_s = seat.restarts.died(trio.current_time())
            self._tell_changed()
            self._tell_state()
            if self._stopping.is_set():
                self.failed |= code not in (0, EXIT_NOT_STARTED)
                log_event("worker_ended", worker=seat.index, code=code)
                return
            log_event("worker_ended", level=logging.ERROR, worker=seat.index, code=code, again_in_s=pause_s)
            with trio.move_on_after(pause_s):
                await self._stopping.wait()

    async def _live(self, seat: Seat) -> int:
        """One process from its start to its end; its exit code, negative for a signal."""
        ours, theirs = link_pair()
        link = Link(ours)
        try:
            with theirs:
                process = await self._start(seat, theirs)
            if process is None:
                return EXIT_NOT_STARTED
            seat.process, seat.link = process, link
            seat.heard()
            if self._stopping.is_set():
                link.send_nowait(Stop())
            log_event("worker_started", worker=seat.index, pid=process.pid)
            try:
                while data := await link.receive():
                    self._heard(seat, data)
                with trio.move_on_after(LAST_WORD_S):
                    await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    with trio.move_on_after(KILL_TIMEOUT_S, shield=True):
                        await process.wait()
        finally:
            link.close()
        return -signal.SIGKILL if process.returncode is None else process.returncode

    async def _start(self, seat: Seat, link: socket.socket) -> trio.Process | None:
        """A new process; None if it is too late for one, or the system gives none."""
        async with self._starting:
            if self._stopping.is_set():
                return None
            order = Order(
                index=seat.index,
                count=len(self._seats),
                settings=self._settings,
                data_dir=str(self._data_dir),
                listening=self._listening.fileno(),
                link=link.fileno(),
                lock=self._lock,
            )
            try:
                return await start_worker(self._command, order)
            except OSError as error:
                reason = error.strerror or ""
                log_event("worker_refused", level=logging.ERROR, worker=seat.index, reason=reason)
                return None

    def _heard(self, seat: Seat, data: bytes) -> None:
        """What a worker has said.

        Raises:
            SetupError: it cannot be opened or served, and the server has not begun to serve yet.
        """
        seat.heard()
        match decode_to_parent(data):
            case AccountMade(key):
                self._announce(key)
            case Opened():
                seat.opened = True
                if self._admitted:
                    self._tell_state()
            case Serving():
                seat.serving = True
                self._tell_state()
            case Drained():
                seat.drained = True
                if not self._stopping.is_set() and seat.link is not None:  # somebody has signalled it alone
                    seat.link.hang_up()
            case Refused(message, hint):
                if not self._has_begun:
                    raise SetupError(message, hint=hint)
                log_event("worker_refused", level=logging.ERROR, worker=seat.index, reason=message)
            case Beat():
                return
        self._tell_changed()

    # What all of them are told.

    async def _look_around(self) -> None:
        """Notice who is silent, and let nobody miss who lives."""
        while True:
            await trio.sleep(LOOK_INTERVAL_S)
            for seat in self._seats:
                if seat.look() and seat.process is not None:
                    log_event("worker_hangs", level=logging.ERROR, worker=seat.index)
                    seat.process.kill()
            self._tell_state()
            if self._stopping.is_set():  # again, for one that was frozen when it was said first
                self._tell(Stop())

    async def _pass_renewals(self) -> None:
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            async for _ in signals:
                self._tell(Renew())

    def _tell_state(self) -> None:
        if self._admitted:
            alive = tuple(seat.index for seat in self._seats if seat.alive)
            self._tell(State(alive, tuple(seat.restarts.count for seat in self._seats)))

    def _tell(self, message: State | Renew | Stop) -> None:
        for seat in self._seats:
            if seat.link is not None:
                seat.link.send_nowait(message)


async def serve_with_workers(
    settings: Settings,
    *,
    data_dir: Path,
    announce: Callable[[str], None],
    warn: Callable[[str], None] = lambda _: None,
    command: Sequence[str] = (),
) -> int:
    """Run `server.workers` processes until SIGTERM or SIGINT, then let them drain; returns the exit code.

    Args:
        data_dir, announce, warn: as of `router.service.serve`.
        command: that starts a worker, but for its last argument; this program by default.

    Raises:
        SetupError: the port, the data directory, the model or the server key cannot be used.
    """
    from actors.store.worker_files import prepare_shared

    crew: Crew | None = None

    def kill_workers() -> None:
        if crew is not None:
            crew.kill_nowait()

    within_s = settings.server.drain_timeout_s * 2 + HARD_EXIT_GRACE_S + EXIT_GRACE_S
    async with open_shutdown_signals(exit_within_s=within_s, before_exit=kill_workers) as shutdown:
        open_tls(settings.server)  # this and the next line fail before anything is written
        with bind(settings.server) as listening:
            address = address_of(listening, tls=bool(settings.server.tls_certificate_file))
            warn_of_exposure(settings, warn)
            preparing = partial(
                prepare_shared,
                data_dir,
                settings=settings.store,
                workers=settings.server.workers,
                server_key_file=settings.store.key_path,
            )
            lock = await trio.to_thread.run_sync(preparing)
            try:
                crew = Crew(
                    settings,
                    data_dir,
                    listening=listening,
                    lock=lock,
                    announce=announce,
                    command=command or worker_command(),
                )

                def tell_serving() -> None:
                    log_event("serving", url=address.url, workers=settings.server.workers)
                    notify(READY)

                async def wait_stop() -> None:
                    await shutdown.wait()
                    notify(STOPPING)

                await crew.work(serving=tell_serving, wait_stop=wait_stop)
            finally:
                os.close(lock)
    log_event("server_stopped")
    return int(crew.failed)
