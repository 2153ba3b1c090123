"""What is set for the process as a whole, once, by the command that serves; never for servers inside of tests."""

from __future__ import annotations

import gc
import sys

SWITCH_INTERVAL_S = 0.0005
"""How long a thread that computes may keep the interpreter from the one that answers. Python's 5 ms would cost a
request as often as it waits for the network: while another user's upload was parsed, a `prepare` took 0.2 s longer."""


def settle_interpreter() -> None:
    """Prepare for serving: to be called when everything is imported.

    What is imported never becomes garbage. Left to the collector, its 75 000 objects are walked through again and
    again, 40 ms each time, in which nobody is answered.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
