"""What the in-memory store keeps: vaults and keys. It outlives the store, as a disk outlives a process."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import NotFound
from models.ids import Principal, VaultRef


class StoredVault:
    """One live vault. Bodies are kept encoded, so that nobody shares a dict with the store."""

    __slots__ = ("account", "created_ms", "imprint", "inbox", "memories", "next_seq", "reference", "vectors")

    def __init__(self, reference: VaultRef, *, account: int, created_ms: int) -> None:
        self.reference = reference
        self.account = account
        self.created_ms = created_ms
        self.inbox: dict[int, bytes] = {}
        self.memories: dict[int, bytes] = {}
        self.vectors: dict[int, tuple[str, NDArray[np.float16]]] = {}
        self.imprint: bytes | None = None
        self.next_seq = 1


class StoredKey(msgspec.Struct):
    """A key and what is known of it."""

    principal: Principal
    key_hash: bytes
    created_ms: int
    revoked_ms: int | None = None


class MemoryDisk:
    """What survives when a `MemoryStore` is closed or crashes: pass it to the next one."""

    __slots__ = ("accounts", "commits", "keys", "vaults", "vaults_made")

    def __init__(self) -> None:
        self.accounts = 0
        self.vaults_made = 0
        self.vaults: dict[int, StoredVault] = {}
        self.keys: list[StoredKey] = []
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
