"""The end of a vault's way from one embedding model to another: vectors of the old one are removed from the store.

Owns when that may be: every memory has its vectors of the new model, and those are durable. Must never touch the vault.
"""

from __future__ import annotations

import logging

import trio

from actors.step_writer import StepWriter
from actors.store.protocol import VaultStore
from models.errors import MemoryRouterError
from models.ids import VaultRef

logger = logging.getLogger(__name__)


class Move:
    """One vault's move to the embedder of this name."""

    def __init__(self, ref: VaultRef, store: VaultStore, writer: StepWriter, *, name: str, model_id: str) -> None:
        self._ref = ref
        self._store = store
        self._writer = writer
        self._name = name
        self._model_id = model_id
        self._embedded = trio.Event()

    def embedded(self) -> None:
        """Every memory has been embedded; the last vectors are with the writer."""
        self._embedded.set()

    async def finish(self) -> None:
        """Remove the old vectors once that may be; where the store fails, the next incarnation does it."""
        await self._embedded.wait()
        await self._writer.wait_settled()
        try:
            await self._store.finish_move(self._ref, name=self._name, model_id=self._model_id)
        except MemoryRouterError as error:
            logger.warning("move_not_finished", extra={"vault": self._ref.number, "code": error.code})
        else:
            logger.info("vault_moved", extra={"vault": self._ref.number, "embedder": self._name})
