"""A program in a worker's place, for tests of the parent: says what a worker says, serves nothing, notes what it hears.

    python -m tests.fakes.worker_program MODE FILE ORDER

MODE is what worker 1 does otherwise than it should: it `refuses` (`refuses_late`: once it is admitted), `dies` (in its
first two lives), `hangs` (in as many), `lingers` (at the end of as many), `fails` (when it ends), or `serves` after
all. FILE gets a line for each thing that happens, from all.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import trio

from router.notifying import OWN_VARIABLES
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
    decode_to_worker,
    read_order,
)

SECOND = 1
LIVES = 2


class FakeWorker:
    """One life of one."""

    def __init__(self, order: Order, mode: str, file: Path) -> None:
        self._mode = mode if order.index == SECOND else ""
        self._index = order.index
        self._file = file
        self._link = Link(socket.socket(fileno=order.link))
        self._is_admitted = self._is_serving = self._is_stopping = False

    def note(self, *words: object) -> None:
        """Write a line, at once and whole."""
        with self._file.open("ab", buffering=0) as file:
            file.write(" ".join(map(str, (self._index, *words))).encode() + b"\n")

    async def live(self) -> int:
        """Serve until the end; the exit code."""
        told = sorted(OWN_VARIABLES & os.environ.keys())
        self.note("began", *told)
        if self._mode == "refuses":
            self._link.send_nowait(Refused("The model is broken.", "Mend it."))
            return 2
        if self._index == 0:
            self._link.send_nowait(AccountMade("mk_shown_once"))
        self._link.send_nowait(Opened())
        while data := await self._link.receive():
            self._hear(data)
            if self._mode == "refuses_late" and self._is_admitted:
                self._link.send_nowait(Refused("The port is taken.", "Take another."))
                return 2
            if self._mode in ("dies", "lingers", "hangs") and self._is_serving and self._lives() <= LIVES:
                if self._mode == "hangs":
                    await trio.sleep_forever()
                if self._mode == "lingers":
                    self._link.close()
                    await trio.sleep_forever()
                return 9
        self.note("ended")
        return 7 if self._mode == "fails" else 0

    def _lives(self) -> int:
        return self._file.read_text().splitlines().count(f"{self._index} began")

    def _hear(self, data: bytes) -> None:
        match decode_to_worker(data):
            case State(alive, restarts):
                self.note("state", alive, restarts)
                self._is_admitted = True
                if self._mode != "refuses_late":
                    self._link.send_nowait(Beat() if self._is_serving else Serving())
                    self._is_serving = True
            case Renew():
                self.note("renew")
            case Stop() if not self._is_stopping:
                self._is_stopping = True
                self.note("stop")
                self.note("drained")
                self._link.send_nowait(Drained())


if __name__ == "__main__":
    worker = FakeWorker(read_order(int(sys.argv[3])), sys.argv[1], Path(sys.argv[2]))
    sys.exit(trio.run(worker.live))
