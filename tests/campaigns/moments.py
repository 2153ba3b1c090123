"""Seeds, the number of cycles, and real time: what campaigns need and ordinary tests must not use.

A campaign strikes a running process at moments that nobody chose, so it lets real time pass; no test waits for a state
in this way.
"""

from __future__ import annotations

import os
import random
import secrets

import trio

_LONG = int(os.environ.get("MEMORYROUTER_TEST_LONG") or 0)
LONG = _LONG > 0


def cycles(short: int, long: int) -> int:
    """How often a campaign strikes: `short` in every test run, `long` with MEMORYROUTER_TEST_LONG=1, and with a larger
    number that often."""
    if _LONG > 1:
        return _LONG
    return long if LONG else short


def new_seed() -> int:
    """A seed of its own for each run; MEMORYROUTER_TEST_SEED repeats one."""
    given = os.environ.get("MEMORYROUTER_TEST_SEED")
    return int(given) if given else secrets.randbelow(2**32)


def dice(seed: int, *parts: object) -> random.Random:
    """A generator for one part of a campaign, the same for the same seed and parts."""
    return random.Random("/".join(map(str, (seed, *parts))))


async def pass_time(seconds: float) -> None:
    """Let real time pass."""
    with trio.move_on_after(seconds):
        await trio.sleep_forever()
