"""The streams and arguments that a shell may hand to the program: closed, full, or in no text of this locale."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from tests.patience import PATIENCE_S
from tests.router.test_cli import PROJECT, run_beside


def run_with_streams(redirected: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """The program with streams as a shell makes them, such as `>&-` for a closed stdout."""
    command = shlex.join([sys.executable, "-m", "router", *arguments])
    return subprocess.run(
        ["/bin/sh", "-c", f"{command} {redirected}"],
        cwd=PROJECT, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("redirected", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_swallows_what_is_written(redirected: str) -> None:
    done = run_with_streams(redirected, "config")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    done = run_with_streams(">/dev/full", "config")
    assert done.returncode == 1
    assert done.stderr == b"error: the output cannot be written: No space left on device.\n"


def test_an_argument_that_is_no_text_is_a_mistake() -> None:
    done = run_beside("search", "\udcff", "--key", "mk_" + "x" * 32, "--url", "http://127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr == "error: an argument has bytes that are no text in this locale.\n"


def test_a_letter_that_stdout_cannot_write_stands_as_its_escape() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from router.commands.terminal import *; settle_streams(); print('\u20ac\u0645')"],
        cwd=PROJECT, capture_output=True, timeout=PATIENCE_S, check=False, env={"PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (b"\\u20ac\\u0645\n", b"")
