"""What the in-memory store keeps: vaults and the directory. It outlives the store, as a disk outlives a process."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import NotFound
from models.ids import VaultRef


class StoredVault:
    """One live vault. Bodies are kept encoded, so that nobody shares a dict with the store."""

    __slots__ = (
        "account",
        "created_ms",
        "embedder",
        "imprint",
        "inbox",
        "memories",
        "moves",
        "next_seq",
        "reference",
        "retention_days",
        "vectors",
    )

    def __init__(self, reference: VaultRef, *, account: int, created_ms: int) -> None:
        self.reference = reference
        self.account = account
        self.created_ms = created_ms
        self.inbox: dict[int, bytes] = {}
        self.memories: dict[int, bytes] = {}
        self.vectors: dict[int, tuple[str, NDArray[np.float16]]] = {}
        self.imprint: bytes | None = None
        self.next_seq = 1
        self.retention_days: int | None = None
        self.embedder: str | None = None
        self.moves = False


class MemoryDisk:
    """What survives when a `MemoryStore` is closed or crashes: pass it to the next one."""

    __slots__ = ("commits", "directory", "vaults")

    def __init__(self) -> None:
        self.vaults: dict[int, StoredVault] = {}
        self.directory: Any = None  # what `tests.fakes.directory_state` makes of it
        self.commits = 0

    def vault(self, reference: VaultRef) -> StoredVault:
        """The live vault behind a reference.

        Raises:
            NotFound: there is none.
        """
        vault = self.vaults.get(reference.number)
        if vault is None or vault.reference != reference:
            raise NotFound(f"Vault {reference.number} does not exist (any more).")
        return vault
