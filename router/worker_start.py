"""How a worker's process is started: this program once more, with an order that it inherits.

Must never hand on what the service manager says to the parent alone, nor let a terminal's Ctrl-C reach a worker.
"""

from __future__ import annotations

import os
import site
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from router.notifying import OWN_VARIABLES
from router.worker_link import Order, write_order

MODULE = "router.worker_process"


def worker_command() -> list[str]:
    """This program as a worker; the descriptor of the order comes behind it."""
    # -P: a folder `router` in the current directory is none of ours.
    return [sys.executable, "-P", "-m", MODULE]


def worker_environment() -> dict[str, str]:
    """This process's, without what the service manager says to it, and with the way to this program's code."""
    environment = {name: value for name, value in os.environ.items() if name not in OWN_VARIABLES}
    code = str(Path(__file__).resolve().parent.parent)
    if not hasattr(sys, "_MEIPASS") and code not in site.getsitepackages():  # neither packed nor installed
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (code, os.environ.get("PYTHONPATH"))))
    return environment


async def start_worker(command: Sequence[str], order: Order) -> trio.Process:
    """A process that does what the order says.

    Raises:
        OSError: it cannot be started.
    """
    descriptor = write_order(order)
    try:
        return await trio.lowlevel.open_process(
            [*command, str(descriptor)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(order.listening, order.link, order.lock, descriptor),
            env=worker_environment(),
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
