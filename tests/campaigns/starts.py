"""A start whose end is open: the program may serve, or refuse with an exit code and a reason."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from tests.patience import PATIENCE_S, PATIENT_ENVIRONMENT
from tests.running import ROOT, ServerProcess

EXIT_SETUP = 2


class Start:
    """How a start went.

    Attributes:
        server: the process; its `url` is "" when it refused to serve.
        code: its exit code when it refused.
    """

    def __init__(self, server: ServerProcess, code: int | None) -> None:
        self.server = server
        self.code = code

    @property
    def serves(self) -> bool:
        """Whether it answers requests."""
        return self.code is None

    @property
    def reasons(self) -> list[str]:
        """What it wrote to stderr beside its log."""
        return [entry["event"] for entry in self.server.log if "level" not in entry]

    @property
    def complaint_entries(self) -> list[dict[str, Any]]:
        """What it logged as errors."""
        return [entry for entry in self.server.log if entry.get("level") in {"error", "critical"}]

    @property
    def complaints(self) -> list[str]:
        """The events among them."""
        return [entry["event"] for entry in self.complaint_entries]

    def problem(self) -> str:
        """What is wrong with a refusal, or "": it must be exit code 2 with one clear line."""
        if self.serves or (
            self.code == EXIT_SETUP and len(self.reasons) == 1 and self.reasons[0].startswith("error: ")
        ):
            return ""
        return f"exit code {self.code}, {self.server.log}"


@asynccontextmanager
async def attempted_start(data_dir: Path, *, environment: Mapping[str, str] | None = None) -> AsyncIterator[Start]:
    """Start the program and wait until it serves or has ended; killed at the end if it still runs."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MEMORYROUTER_")}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "router", "serve", "--data-dir", str(data_dir), "--port", "0"],
        cwd=ROOT,
        env=own | PATIENT_ENVIRONMENT | dict(environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    server = ServerProcess(process)
    async with trio.open_nursery() as reading:
        reading.start_soon(server.read_stdout)
        reading.start_soon(server.read_stderr)
        try:
            with suppress(AssertionError):  # it has ended without serving
                await server.wait_serving()
            yield Start(server, None if server.url else await server.wait())
        finally:
            if process.returncode is None:
                process.kill()
            with trio.move_on_after(PATIENCE_S, shield=True):
                await server.wait()
            reading.cancel_scope.cancel(reason="the process has ended")
