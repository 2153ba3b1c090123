"""How long tests wait, in one place, and how they let a clock of their own pass.

A limit here is reached by a failure only, never by a slow machine: the product's own budgets, such as the 300 ms that a
recall may hold up a chat, are raised for every test that is not about them. Tests that are about a deadline put Trio's
clock ahead (`pass_time_until`), so that no stall of the machine can come before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from models.settings import ProxySettings, VaultSettings

PATIENCE_S = 120.0
"""For everything that must happen in a test: an answer, the start of a program, its end."""

LET_THREADS_RUN_S = 0.0005
"""Between two looks. A condition that is looked at without a pause keeps the interpreter from threads that are to bring
it about: leases that are renewed by one have run out for want of it."""

PATIENT_PROXY = ProxySettings(recall_budget_ms=60_000, commit_wait_ms=60_000)
PATIENT_VAULTS = VaultSettings(ask_timeout_ms=120_000)
PATIENT_ENVIRONMENT = {
    "MEMORYROUTER_PROXY__RECALL_BUDGET_MS": str(PATIENT_PROXY.recall_budget_ms),
    "MEMORYROUTER_PROXY__COMMIT_WAIT_MS": str(PATIENT_PROXY.commit_wait_ms),
    "MEMORYROUTER_VAULTS__ASK_TIMEOUT_MS": str(PATIENT_VAULTS.ask_timeout_ms),
}
"""The same for a program in a process of its own."""


async def wait_until(condition: Callable[[], bool]) -> None:
    """Let other tasks, and threads, run until this holds."""
    gives_up_s = time.monotonic() + PATIENCE_S  # in real time: Trio's clock may be one that stands still
    while not condition():
        assert time.monotonic() < gives_up_s, "it never came to that"
        await trio.lowlevel.checkpoint()
        time.sleep(LET_THREADS_RUN_S)  # noqa: ASYNC251  # Trio's own would not end where its clock stands still


async def pass_time_until(clock: MockClock, happened: Callable[[], bool], *, step_s: float) -> None:
    """Put a clock that stands still ahead by `step_s` whenever nothing else goes on, until this holds.

    Work in threads is not seen: where some is under way, other deadlines than the one that is waited for may pass.
    """
    gives_up_s = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < gives_up_s, "it never came to that"
        await wait_all_tasks_blocked(0.01)
        clock.jump(step_s)
