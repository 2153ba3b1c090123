"""The parent of several workers: it starts them, starts them again, ends with what keeps them from serving, and stops
them in order. Here they are programs that only talk to it; `test_worker_processes.py` has real ones."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from models.errors import SettingError, SetupError
from models.server_settings import ServerSettings
from models.settings import Settings, StoreSettings
from router import workers
from router.notifying import ALIVE, READY, STOPPING
from router.workers import SILENT_LOOKS_MAX, Seat, serve_with_workers
from tests.fakes.certificates import SelfSigned
from tests.patience import PATIENCE_S, wait_until
from tests.running import ROOT, settings_for


class Parent:
    """A parent in this process, and what its two workers note.

    Attributes:
        announced: account keys that it has shown.
        code: its exit code, once it has ended.
        command: that starts a worker.
    """

    def __init__(self, folder: Path, mode: str, settings: Settings | None = None) -> None:
        self.announced: list[str] = []
        self.code: int | None = None
        self._file = folder / "notes"
        self._data_dir = folder / "data"
        self.command = [sys.executable, "-m", "tests.fakes.worker_program", mode, str(self._file)]
        self._settings = settings or two_workers()

    @property
    def notes(self) -> list[str]:
        """What has happened in the workers."""
        return self._file.read_text().splitlines() if self._file.exists() else []

    async def serve(self) -> None:
        """Run until the end."""
        self.code = await serve_with_workers(
            self._settings, data_dir=self._data_dir, announce=self.announced.append, command=self.command
        )

    async def wait_noted(self, line: str, *, times: int = 1) -> None:
        """Return once this line is there so often."""
        await wait_until(lambda: self.notes.count(line) >= times)


def two_workers(*, port: int = 0, shards: int = 2, certificate: SelfSigned | None = None) -> Settings:
    """Settings of a parent of two."""
    server = ServerSettings(host="127.0.0.1", port=port, workers=2)
    if certificate is not None:
        files = {"tls_certificate_file": str(certificate.certificate), "tls_key_file": str(certificate.key)}
        server = replace(server, **files)
    return settings_for(server=server, store=StoreSettings(shards=shards))


async def serving(caplog: pytest.LogCaptureFixture) -> None:
    """Return once the parent says so."""
    await wait_until(lambda: "serving" in caplog.messages)


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


async def test_workers_are_admitted_together_and_leave_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each still answers the others until none of them has a client."""
    parent = Parent(tmp_path, "serves")
    async with trio.open_nursery() as tasks:
        tasks.start_soon(parent.serve)
        await serving(caplog)
        assert parent.announced == ["mk_shown_once"]
        await parent.wait_noted("0 state (0, 1) (0, 0)")
        await parent.wait_noted("1 state (0, 1) (0, 0)")
        signal.raise_signal(signal.SIGTERM)
    assert parent.code == 0
    assert caplog.messages.count("serving") == 1
    assert caplog.messages[-1] == "server_stopped"
    kinds = [note.split()[1] for note in parent.notes]
    last = {kind: place for place, kind in enumerate(kinds)}
    assert last["began"] < kinds.index("state"), "none is admitted before all are open"
    assert last["drained"] < kinds.index("ended"), "none goes before all have finished"
    assert kinds.count("drained") == kinds.count("ended") == 2


@pytest.mark.parametrize(
    ("mode", "reason"), [("refuses", "The model is broken"), ("refuses_late", "The port is taken")]
)
async def test_what_keeps_a_worker_from_serving_ends_the_start(tmp_path: Path, mode: str, reason: str) -> None:
    """With the one error, and nothing is left of the others: also when it shows no earlier than at the port."""
    parent = Parent(tmp_path, mode)
    with pytest.RaisesGroup(pytest.RaisesExc(SetupError, match=reason), flatten_subgroups=True, allow_unwrapped=True):
        await parent.serve()
    again = Parent(tmp_path, "serves")
    async with trio.open_nursery() as tasks:
        tasks.start_soon(again.serve)  # nobody holds the data directory
        await again.wait_noted("1 state (0, 1) (0, 0)")
        signal.raise_signal(signal.SIGINT)
    assert again.code == 0


async def test_a_worker_that_dies_is_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The others hear that it is away and that it is back; nothing else happens to them."""
    parent = Parent(tmp_path, "dies")
    async with trio.open_nursery() as tasks:
        tasks.start_soon(parent.serve)
        await parent.wait_noted("1 began", times=3)
        await parent.wait_noted("0 state (0, 1) (0, 2)")
        signal.raise_signal(signal.SIGTERM)
    assert parent.code == 0
    notes = parent.notes
    assert notes.count("0 began") == 1
    assert notes.index("0 state (0,) (0, 2)") < notes.index("0 state (0, 1) (0, 2)")
    ended = [(record.code, record.again_in_s) for record in caplog.records if record.levelname == "ERROR"]  # type: ignore[attr-defined]
    assert ended == [(9, 0.1), (9, 0.2)]


async def test_a_worker_that_has_said_its_last_word_and_does_not_end_is_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "LAST_WORD_S", 0.05)
    parent = Parent(tmp_path, "lingers")
    async with trio.open_nursery() as tasks:
        tasks.start_soon(parent.serve)
        await parent.wait_noted("0 state (0, 1) (0, 2)")
        signal.raise_signal(signal.SIGTERM)
    codes = [record.code for record in caplog.records if record.levelname == "ERROR"]  # type: ignore[attr-defined]
    assert codes == [-signal.SIGKILL] * 2


async def test_a_worker_that_does_not_end_well_shows_in_the_exit_code(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parent = Parent(tmp_path, "fails")
    async with trio.open_nursery() as tasks:
        tasks.start_soon(parent.serve)
        await serving(caplog)
        signal.raise_signal(signal.SIGTERM)
    assert parent.code == 1


async def test_a_hangup_reaches_every_worker(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parent = Parent(tmp_path, "serves", two_workers(certificate=SelfSigned(tmp_path)))
    async with trio.open_nursery() as tasks:
        tasks.start_soon(parent.serve)
        await serving(caplog)
        signal.raise_signal(signal.SIGHUP)
        for worker in range(2):
            await parent.wait_noted(f"{worker} renew")
        signal.raise_signal(signal.SIGTERM)
    assert parent.code == 0


async def test_the_service_manager_hears_the_parent_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ready when all of them are; and workers are not told whom to tell."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hearing:
        hearing.bind(path)
        hearing.settimeout(PATIENCE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "3600000000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        parent = Parent(tmp_path, "serves")
        async with trio.open_nursery() as tasks:
            tasks.start_soon(parent.serve)
            heard = [await trio.to_thread.run_sync(hearing.recv, 100) for _ in range(2)]
            signal.raise_signal(signal.SIGTERM)
        heard.append(hearing.recv(100))
    assert [data.decode() for data in heard] == [READY, ALIVE, STOPPING]
    assert {note for note in parent.notes if " began" in note} == {"0 began", "1 began"}


@pytest.mark.parametrize("kind", ["port", "directory", "shards"])
async def test_what_a_single_server_refuses_the_parent_refuses_before_any_worker(tmp_path: Path, kind: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = two_workers(
            port=taken.getsockname()[1] if kind == "port" else 0, shards=1 if kind == "shards" else 2
        )
        if kind == "directory":
            (tmp_path / "data").write_text("no directory")
        parent = Parent(tmp_path, "serves", settings)
        expected = {"port": "already in use", "directory": "cannot be written", "shards": "server.workers"}[kind]
        error = SettingError if kind == "shards" else SetupError
        with pytest.RaisesGroup(pytest.RaisesExc(error, match=expected), flatten_subgroups=True, allow_unwrapped=True):
            await parent.serve()
    assert parent.notes == []


async def test_a_process_that_cannot_be_started_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For want of memory or of processes: others may go on meanwhile."""
    parent = Parent(tmp_path, "serves")
    program = tmp_path / "program"
    command, parent.command = parent.command, [str(program), *parent.command[1:]]
    async with trio.open_nursery() as tasks:
        tasks.start_soon(parent.serve)
        await wait_until(lambda: caplog.messages.count("worker_refused") >= 2)
        script = trio.Path(tmp_path / "script")
        await script.write_text(f'#!/bin/sh\nexec {command[0]} "$@"\n')
        await script.chmod(0o700)
        await script.rename(program)
        await serving(caplog)
        signal.raise_signal(signal.SIGTERM)
    assert parent.code == 0


def test_a_worker_that_says_nothing_is_not_alive_until_it_does() -> None:
    seat = Seat(0)
    assert not seat.alive
    seat.serving = True
    for _ in range(SILENT_LOOKS_MAX):
        seat.look()
    assert seat.alive
    seat.look()
    assert not seat.alive
    seat.heard()
    assert seat.alive
    seat.vacate()
    assert not seat.alive


async def test_a_worker_that_hangs_is_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "LOOK_INTERVAL_S", 0.01)
    monkeypatch.setattr(workers, "KILL_LOOKS", 20)
    parent = Parent(tmp_path, "hangs")
    async with trio.open_nursery() as tasks:
        tasks.start_soon(parent.serve)
        await parent.wait_noted("1 began", times=3)
        signal.raise_signal(signal.SIGTERM)
    assert "worker_hangs" in caplog.messages


def test_the_parent_loads_neither_a_model_nor_a_web_server() -> None:
    """It stays small beside its workers."""
    program = (
        "import sys, router.workers, actors.store.worker_files; "
        "heavy = set('numpy onnxruntime tokenizers hnswlib quart hypercorn h11 actors.vault router.service'.split()); "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


async def test_nobody_is_started_once_the_end_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies on the way out stays away."""
    monkeypatch.setattr(workers, "LOOK_INTERVAL_S", 0.01)
    parent = Parent(tmp_path, "fails")
    async with trio.open_nursery() as tasks:
        tasks.start_soon(parent.serve)
        await parent.wait_noted("1 state (0, 1) (0, 0)", times=3)
        signal.raise_signal(signal.SIGTERM)
    assert parent.notes.count("1 began") == 1
