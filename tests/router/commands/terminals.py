"""The program on a real terminal: a pseudo terminal of the operating system, read and typed into without waiting."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.patience import PATIENCE_S
from tests.running import ROOT

CTRL_C = "\x03"
CTRL_D = "\x04"
_ON_A_TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # the one that Ctrl-C comes from
from router.cli import main
main()
"""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A program that believes to talk to a person.

    Attributes:
        seen: all that it has shown.
    """

    def __init__(self, process: subprocess.Popen[bytes], ours: int) -> None:
        self._process = process
        self._ours = ours
        self.seen = ""

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def read_until(self, text: str, *, times: int = 1) -> str:
        """Return what is shown once this text is in it, so often, whatever its colours."""
        while self.text.count(text) < times:
            assert self._read(), f"{text!r} never came: {self.text!r}"
        return self.text

    def end(self) -> tuple[int, str]:
        """Read to the end; the exit code and all that was shown."""
        while self._read():
            pass
        return self._process.wait(PATIENCE_S), self.text

    @property
    def text(self) -> str:
        """What is shown, without colours and cursor movements."""
        return _ESCAPES.sub("", self.seen).replace("\r\n", "\n").replace("\x01", "").replace("\x02", "")

    def _read(self) -> bool:
        gives_up_s = time.monotonic() + PATIENCE_S
        ready = select.select([self._ours], [], [], max(0.0, gives_up_s - time.monotonic()))[0]
        assert ready, f"nothing more came after {self.text!r}"
        try:
            data = os.read(self._ours, 65_536)
        except OSError:  # the other end was closed
            return False
        self.seen += data.decode()
        return bool(data)


@contextmanager
def open_terminal(
    *arguments: str, columns: int = 100, environment: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """Run the program with these arguments on a terminal; it is killed at the end if it still runs."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    unset = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
    own = {name: value for name, value in os.environ.items() if name not in unset}
    process = subprocess.Popen(
        [sys.executable, "-c", _ON_A_TERMINAL, *arguments],
        env={**own, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **(environment or {})},
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)


def show(*arguments: str, columns: int = 100, environment: Mapping[str, str] | None = None) -> tuple[str, str]:
    """What a command that ends by itself, and well, shows: as text, and with everything that drives the terminal."""
    with open_terminal(*arguments, columns=columns, environment=environment) as terminal:
        code, text = terminal.end()
        assert code == 0, text
        return text, terminal.seen
