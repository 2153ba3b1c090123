"""What the serving command sets for its process."""

from __future__ import annotations

import subprocess
import sys

import msgspec

from router.runtime import SWITCH_INTERVAL_S
from tests.running import ROOT

PROGRAM = """
import gc, sys
from router.runtime import begin_imports, settle_interpreter
begin_imports()
resting = not gc.isenabled()
settle_interpreter()
print(sys.getswitchinterval(), gc.get_freeze_count(), len(gc.get_objects()), gc.isenabled(), resting)
"""


def test_threads_let_go_soon_and_the_collector_rests_during_imports_and_leaves_modules_alone() -> None:
    """In a process of its own: it would hold for all other tests as well."""
    command = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    interval, frozen, collected, enabled, rested = result.stdout.split()
    assert float(interval) == SWITCH_INTERVAL_S
    assert int(frozen) > 1_000 > int(collected)
    assert (rested, enabled) == ("True", "True")


CANARY = "the-text-of-an-error"
UNCAUGHT = """
import sys, threading
from models.server_settings import LogSettings
from router.observe import configure_logging
from router.runtime import uncaught_errors_logged

class Leaving:
    def __del__(self):
        raise ValueError(sys.argv[1])

def fail():
    raise ValueError(sys.argv[1])

configure_logging(LogSettings(level="debug"))
with uncaught_errors_logged():
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    Leaving()
assert threading.excepthook is threading.__excepthook__
"""


def test_errors_that_nobody_caught_are_told_without_their_text() -> None:
    """In a thread and in a destructor; it may quote what somebody said."""
    command = [sys.executable, "-c", UNCAUGHT, CANARY]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert CANARY not in result.stdout + result.stderr
    lines = [msgspec.json.decode(line) for line in result.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["uncaught_error_in_thread", "unraisable_error"]
    assert all(line["error"].startswith("ValueError at ") for line in lines)
