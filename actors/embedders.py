"""The configured embedding models by name, and which of them a vault uses.

Owns the choice: what a vault remembers, as long as that is configured, else the default. A vault's vectors are all of
one model; the vault is asked to load itself anew (`Rehydrate`) when that model changes. Must never embed anything.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from actors.embedder import Embedder
from actors.store.protocol import VaultStore
from models.ids import VaultRef

logger = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 1.0
"""How long a vault waits for its model while it loads. Then it begins by words alone, and the vectors follow."""


class Embedders:
    """All embedders by name."""

    def __init__(self, embedders: Sequence[Embedder], *, default: str | None = None) -> None:
        """Gather embedders.

        Args:
            default: the name of the one that vaults use which remember none; the first unless given.
        """
        self._by_name: Mapping[str, Embedder] = {embedder.name: embedder for embedder in embedders}
        self.default = embedders[0] if default is None else self._by_name[default]

    @property
    def several(self) -> bool:
        """Whether there is a choice."""
        return len(self._by_name) > 1

    def find(self, name: str | None) -> Embedder | None:
        """The embedder of this name, if it is configured."""
        return None if name is None else self._by_name.get(name)

    async def of_vault(self, vault: VaultRef, store: VaultStore) -> Embedder:
        """The one that a vault uses.

        Raises:
            StoreUnavailable: what it remembers cannot be read.
        """
        return self.find(await store.remembered_embedder(vault)) or self.default

    async def settle(self, vault: VaultRef, store: VaultStore) -> Embedder:
        """The one that a vault which is about to load uses from now on, opened if that is quickly done.

        A vault that remembers one which is no longer configured moves to the default, and remembers that.

        Raises:
            StoreUnavailable, StorageFull: the store cannot be read or written.
        """
        name = await store.remembered_embedder(vault)
        embedder = self.find(name)
        if embedder is None:
            embedder = self.default
            if name is not None:
                logger.warning("vault_changes_embedder", extra={"vault": vault.number, "after": embedder.name})
                await store.choose_embedder(vault, embedder.name)
        if not embedder.is_open:
            with trio.move_on_after(OPEN_TIMEOUT_S):
                await embedder.wait_open()
        return embedder

    def all(self) -> list[Embedder]:
        """Each of them once."""
        return list(self._by_name.values())

    async def serve(self) -> None:
        """Serve all until cancelled."""
        async with trio.open_nursery() as serving:
            for embedder in self._by_name.values():
                serving.start_soon(embedder.serve, _log_failure)


def _log_failure(name: str, reason: str) -> None:
    logger.error("embedder_not_opened", extra={"embedder": name, "reason": reason})


@asynccontextmanager
async def open_embedders(embedders: Sequence[Embedder], *, default: str) -> AsyncIterator[Embedders]:
    """Run embedders for the length of the block."""
    opened = Embedders(embedders, default=default)
    async with trio.open_nursery() as serving:
        serving.start_soon(opened.serve)
        yield opened
        serving.cancel_scope.cancel(reason="the embedders close")
