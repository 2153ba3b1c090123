"""What a vault has finished goes to the store: steps from inbox to memories, written in order beside the vault's turns.

Owns the steps that are not written yet. Must never look into the vault. A step may be lost at any moment: its rows are
still in the inbox, and whoever hydrates the vault next makes the same step of them.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
import numpy as np
import trio
from numpy.typing import NDArray

from actors.restart import retry_delays
from actors.store.protocol import Materialisation, VaultStore
from models.errors import NotFound, NotOwner, StorageFull, StoreUnavailable
from models.ids import VaultRef

logger = logging.getLogger(__name__)

WRITE_TIMEOUT_S = 120.0
"""A step whose fate is unknown after this long ends the vault's actor; the next one reads what became of it."""

WRITE_ATTEMPTS_MAX = 10
"""About 25 s: a store that refuses a step for longer may hold it already, so the actor ends and loads again."""

WRITE_GRACE_S = 5.0
"""How long the end waits for the write under way: the next actor of the vault must not read before it."""


class StepWriter:
    """The steps of one vault on their way to the store."""

    def __init__(
        self,
        vault: VaultRef,
        store: VaultStore,
        *,
        written: Callable[[Sequence[int]], None],
        embedder: str | None = None,
    ) -> None:
        """Make a writer; `running` lets it write.

        Args:
            written: told which inbox rows have become memories in the store.
            embedder: the name that a vault without one remembers from its first step on.
        """
        self._embedder = embedder
        self._vault = vault
        self._written = written
        self._store = store
        self._steps: list[Materialisation] = []
        self._arrived = trio.Event()
        self._settled = trio.Event()
        self._settled.set()
        self._writing = trio.Lock()  # held while the store works on a step

    @property
    def settled(self) -> bool:
        """Whether every step is written."""
        return self._settled.is_set()

    async def wait_settled(self) -> None:
        """Return once every step is written."""
        await self._settled.wait()

    def put(self, step: Materialisation | None) -> None:
        """Take a step, or nothing; steps that wait are merged into one transaction."""
        if step is not None:
            self._steps.append(step)
            self._arrived.set()
            if self._settled.is_set():
                self._settled = trio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write for the length of the block. Leaving it, even by a crash, lets the write under way finish.

        Raises:
            StoreUnavailable: the store refused a step `WRITE_ATTEMPTS_MAX` times.
            trio.TooSlowError: the store did not finish a step within `WRITE_TIMEOUT_S`.
        """
        async with trio.open_nursery() as writing:
            writing.start_soon(self._write_all)
            try:
                yield
            finally:  # a cancellation from outside does not wait
                with trio.move_on_after(WRITE_GRACE_S):
                    await self._writing.acquire()
                writing.cancel_scope.cancel(reason="the vault's actor ends")

    async def _write_all(self) -> None:
        while True:
            while self._steps:
                step = msgspec.structs.replace(merge_steps(self._steps), embedder=self._embedder)
                self._steps = []
                await self._write(step)
            self._settled.set()
            self._arrived = trio.Event()
            await self._arrived.wait()

    async def _write(self, step: Materialisation) -> None:
        """Write one step: on a full disk until there is room, on a failing store `WRITE_ATTEMPTS_MAX` times.

        While it is not certain who owns the vault it waits: what is in memory can still be read, and whoever finds that
        another node has it ends the actor.
        """
        delays = retry_delays()
        failures = 0
        while True:
            try:
                async with self._writing:
                    with trio.fail_after(WRITE_TIMEOUT_S):
                        await self._store.materialise(self._vault, step)
                self._written(step.row_ids)
                return
            except NotFound:
                return  # the vault was erased: nothing of it is kept, and the supervisor ends its actor
            except (NotOwner, StorageFull, StoreUnavailable) as error:
                logger.warning("materialise_failed", extra={"vault": self._vault.number, "code": error.code})
                failures += isinstance(error, StoreUnavailable)
                if failures >= WRITE_ATTEMPTS_MAX:
                    raise
            await trio.sleep(next(delays))


def merge_steps(steps: Sequence[Materialisation]) -> Materialisation:
    """Several steps in a row as one transaction."""
    vectors: dict[int, NDArray[np.float16]] = {}
    for step in steps:
        vectors.update(step.vectors)
    return Materialisation(
        row_ids=tuple(row_id for step in steps for row_id in step.row_ids),
        memories=tuple(memory for step in steps for memory in step.memories),
        vectors=vectors,
        model_id=steps[-1].model_id,
        next_seq=steps[-1].next_seq,
    )
