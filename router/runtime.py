"""What is set for the process as a whole, once, by the command that serves; never for servers inside of tests."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from router.observe import log_event

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

SWITCH_INTERVAL_S = 0.0005
"""How long a thread that computes may keep the interpreter from the one that answers. Python's 5 ms would cost a
request as often as it waits for the network: while another user's upload was parsed, a `prepare` took 0.2 s longer."""


def begin_imports() -> None:
    """To be called before the bulk of the program is imported: the collector rests until `settle_interpreter`.

    While only modules are made it finds next to nothing (2 400 objects of 90 000, less than 1 MB), and looking for it
    takes 90 ms of a start.
    """
    gc.disable()


def settle_interpreter() -> None:
    """Prepare for serving: to be called when everything is imported.

    What is imported never becomes garbage. Left to the collector, its 90 000 objects are walked through again and
    again, 40 ms each time, in which nobody is answered.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()
    gc.enable()


@contextmanager
def uncaught_errors_logged() -> Iterator[None]:
    """Errors that nobody catches in a thread or a destructor are logged by type and place, for the length of the block.

    Python would print their own text, which may quote what they choked on: a message, a key.
    """
    before = threading.excepthook, sys.unraisablehook
    threading.excepthook, sys.unraisablehook = _log_uncaught_in_thread, _log_unraisable
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = before


def _log_uncaught_in_thread(happened: threading.ExceptHookArgs) -> None:
    log_event("uncaught_error_in_thread", level=logging.CRITICAL, error=happened.exc_value)


def _log_unraisable(happened: UnraisableHookArgs) -> None:
    log_event("unraisable_error", level=logging.ERROR, error=happened.exc_value)
