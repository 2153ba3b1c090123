"""What the serving command sets for its process."""

from __future__ import annotations

import subprocess
import sys

from router.runtime import SWITCH_INTERVAL_S
from tests.running import ROOT

PROGRAM = """
import gc, sys
from router.runtime import settle_interpreter
settle_interpreter()
print(sys.getswitchinterval(), gc.get_freeze_count(), len(gc.get_objects()), gc.isenabled())
"""


def test_threads_let_go_soon_and_the_collector_leaves_modules_alone() -> None:
    """In a process of its own: it would hold for all other tests as well."""
    command = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    interval, frozen, collected, enabled = result.stdout.split()
    assert float(interval) == SWITCH_INTERVAL_S
    assert int(frozen) > 1_000 > int(collected)
    assert enabled == "True"
