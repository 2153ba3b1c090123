"""Programs of rivals as processes of their own: started, waited for, and ended with all that they started.

Owns each process and its session. What they write goes into a file beside their settings, never onto the terminal.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

READY_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 15.0
POLL_S = 0.01
_URL = re.compile(r"^url: (http://[\w.:-]+)", re.MULTILINE)


class NotStarted(Exception):
    """A program ended, or did not answer in time; the message has the end of what it wrote."""


def environment(run_dir: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """What a rival finds: a home of its own, nothing of this machine's settings, telemetry off where it can be."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(run_dir),
        "TMPDIR": str(run_dir),
        "NO_PROXY": "*",
        "DO_NOT_TRACK": "1",
        "ANONYMIZED_TELEMETRY": "False",
        "MEM0_TELEMETRY": "False",
        "MEM0_DIR": str(run_dir),
        "PYTHONDONTWRITEBYTECODE": "1",
        **variables,
    }


@contextmanager
def running(
    command: Sequence[str],
    run_dir: Path,
    variables: Mapping[str, str],
    *,
    stdin: int | IO[str] = subprocess.DEVNULL,
    stdout: int | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """A program in a session of its own, until the block ends.

    Args:
        stdout: `subprocess.PIPE` to read it; into the file `output.txt` unless given, as what it writes of errors.
    """
    with (run_dir / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=run_dir,
            env=environment(run_dir, variables),
            stdin=stdin,
            stdout=output if stdout is None else stdout,
            stderr=output,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    """End the session: first by asking."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_TIMEOUT_S)
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what it started and left
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()


def wait_ready(process: subprocess.Popen[str], run_dir: Path, ready: Callable[[], bool]) -> float:
    """Ask again and again whether it is ready; the seconds that it took.

    Raises:
        NotStarted: it ended, or did not become ready in time.
    """
    began_s = time.perf_counter()
    while not ready():
        waited_s = time.perf_counter() - began_s
        if process.poll() is not None or waited_s > READY_TIMEOUT_S:
            written = (run_dir / "output.txt").read_text(errors="replace")[-1500:]
            raise NotStarted(f"{run_dir.name} is not ready after {waited_s:.0f} s: {written}")
        time.sleep(POLL_S)
    return time.perf_counter() - began_s


def printed_url(run_dir: Path) -> str | None:
    """The address that a program printed, as soon as it did."""
    found = _URL.search((run_dir / "output.txt").read_text(errors="replace"))
    return found[1] if found else None
