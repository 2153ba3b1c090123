"""The store as the actors see it: one protocol, one conformance suite, several implementations.

The log of a vault is the truth. `accept_nowait` appends to the inbox, and a committed inbox row *is* the
acknowledgement. `materialise` turns inbox rows into memories and embeddings and removes them in one transaction, so the
effect is exactly once. Every call names the vault's partition (`VaultRef.shard`).

Implementations: SQLite (`actors.store.sqlite`), an in-memory twin for tests, PostgreSQL later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors.segments import Segment
from actors.store.snapshots import LoadedSegments
from models.ids import Principal, VaultRef
from models.memory import Exchange, InboxRow, Memory
from models.messages import Page, Paged

Vectors = dict[int, NDArray[np.float16]]
"""Embeddings by memory seq: one (chunks, dims) array a memory, rows in the order of its spans."""


class Commit(Protocol):
    """The fate of one `accept_nowait`."""

    @property
    def durable(self) -> bool:
        """Whether the rows are committed and synced."""

    async def wait_durable(self) -> None:
        """Return once the rows are durable.

        Raises:
            StorageFull: the disk is full; nothing was stored.
            StoreUnavailable: the commit failed; nothing was stored.
            NotFound: the vault does not exist, or was shredded before the commit; nothing was stored.
        """


class VaultImage(msgspec.Struct, frozen=True):
    """All that the store holds of one vault, as of one moment.

    Attributes:
        memories: by seq, ascending.
        vectors: embeddings by the asked model; a memory without an entry (or with fewer rows than spans) has yet to be
            embedded.
        inbox: committed rows that are not materialised yet, by row id, ascending.
        next_seq: the seq that the next materialised memory gets.
        damaged: rows left out because they fail their checksum. They stay in the store, and are counted and logged.
    """

    created_ms: int
    memories: list[Memory]
    vectors: Vectors
    inbox: list[InboxRow]
    next_seq: int
    damaged: int = 0


class Materialisation(msgspec.Struct, frozen=True):
    """One atomic step from inbox to memories.

    Attributes:
        row_ids: inbox rows that end here.
        memories: what they became; empty when all their messages were known already.
        vectors: embeddings of these memories, or of earlier ones that lacked them, by `model_id`.
        next_seq: the vault's next seq after this step.
    """

    row_ids: tuple[int, ...]
    memories: tuple[Memory, ...]
    vectors: Vectors
    model_id: str
    next_seq: int


class KeyRow(msgspec.Struct, frozen=True):
    """A key as it may be shown: never the key itself."""

    key_number: int
    account_number: int
    kind: str
    name: str
    shown: str
    created_ms: int
    revoked_ms: int | None


class VaultStore(Protocol):
    """The vaults' logs."""

    def accept_nowait(
        self,
        vault: VaultRef,
        exchanges: Sequence[Exchange],
        on_durable: Callable[[list[InboxRow]], None],
        *,
        on_failed: Callable[[], None] | None = None,
    ) -> Commit:
        """Queue exchanges for the next group commit of the vault's shard, all in one transaction.

        A plain function: the hand-off of a finished conversation must not be cancellable. Exactly one of the callbacks
        is called, in Trio's thread, before any waiter of the `Commit` runs: `on_durable` once the rows are durable,
        `on_failed` when nothing was stored. Callbacks of one shard come in commit order.

        Raises:
            Overloaded: the shard's queue is full (count or bytes).
            TooLarge: the exchanges of this one call are over the queue's limits; a retry cannot succeed.
            ShuttingDown: the store is closing.
        """

    async def load_vault(self, vault: VaultRef, *, model_id: str) -> VaultImage:
        """Read one vault. An unknown or emptied vault gives an empty image. Rows that fail their checksum are left out.

        Raises:
            CorruptRow: the vault's own key fails its checksum.
            StoreUnavailable: the shard cannot be read.
        """

    async def materialise(self, vault: VaultRef, step: Materialisation) -> None:
        """Insert memories and embeddings and remove inbox rows, in one transaction.

        Raises:
            StorageFull, StoreUnavailable: nothing was changed.
            NotFound: the vault does not exist (any more).
        """

    async def delete_memories(self, vault: VaultRef, seqs: Sequence[int]) -> None:
        """Delete these memories and their embeddings for good (secure_delete).

        Raises:
            StorageFull, StoreUnavailable: nothing was changed.
            NotFound: the vault does not exist (any more).
        """

    async def set_aside(self, vault: VaultRef, row_ids: Sequence[int]) -> None:
        """Take inbox rows out of the way without deleting them: nobody can take them in.

        Raises:
            StorageFull, StoreUnavailable: they are still in the inbox.
        """

    async def load_page(self, vault: VaultRef, page: Page, *, model_id: str) -> Paged:
        """Materialised memories in the order of their seqs, behind `page.after_seq`, at most `page.limit`.

        Raises:
            StoreUnavailable: the shard cannot be read.
        """

    async def load_segments(self, vault: VaultRef, *, model_id: str, dims: int) -> LoadedSegments:
        """The verified segments of the vault's index that are on the disk, the newest first. A cache: may be empty.

        Raises:
            NotFound: the vault does not exist any more.
        """

    async def save_segment(self, vault: VaultRef, segment: Segment) -> None:
        """Write a segment to the disk, sealed.

        Raises:
            NotFound, StorageFull, StoreUnavailable: it is not written.
        """

    async def prune_segments(self, vault: VaultRef, *, keep: Sequence[int]) -> None:
        """Remove the segments from the disk whose numbers are not among these.

        Raises:
            StoreUnavailable: a file cannot be removed.
        """

    async def load_imprint(self, vault: VaultRef) -> bytearray | None:
        """What `save_imprint` wrote last, verified, or None. A cache: may be gone, or of any age.

        Raises:
            NotFound: the vault does not exist any more.
        """

    async def save_imprint(self, vault: VaultRef, parts: Sequence[memoryview]) -> None:
        """Write what may save reading the vault's memories again to the disk, sealed, in place of the one before.

        A cancellation ends it within a fraction of a second, and the one before stays.

        Raises:
            NotFound, StorageFull, StoreUnavailable: it is not written.
        """

    async def remove_imprint(self, vault: VaultRef) -> None:
        """Remove it from the disk, for good: it holds words of what is about to be deleted.

        Raises:
            StoreUnavailable: it is still there.
        """

    async def vaults_with_inbox(self) -> list[VaultRef]:
        """Vaults that have committed but unmaterialised rows: what to re-queue after a start."""

    def statistics(self) -> dict[str, Any]:
        """Counters and queue depths for metrics."""


class Directory(Protocol):
    """Accounts, keys and which vault a key opens. Keys come in as SHA-256 hashes; the store never sees one."""

    async def has_account(self) -> bool:
        """Whether the first start has happened."""

    async def create_account(self, *, key_hash: bytes, shown: str, created_ms: int) -> Principal:
        """A new account with its account key and that key's own vault."""

    async def find_key(self, key_hash: bytes) -> Principal | None:
        """The principal of a live key, else None (unknown or revoked). Cached; writes invalidate the cache."""

    async def create_key(
        self, account_number: int, *, name: str, key_hash: bytes, shown: str, created_ms: int
    ) -> Principal:
        """A new user key with a new, empty vault."""

    async def list_keys(self, account_number: int | None = None) -> list[KeyRow]:
        """Keys of one account, or of all, oldest first."""

    async def revoke_key(self, key_number: int, *, revoked_ms: int) -> bool:
        """Make a key invalid from now on; False when it is unknown or revoked already. Its vault is kept."""

    async def replace_account_key(self, *, key_hash: bytes, shown: str, created_ms: int) -> Principal:
        """Revoke the first account's keys of kind "account" and give it a new one on the same vault."""

    async def replace_vault(self, vault: VaultRef) -> VaultRef:
        """Shred a vault: destroy its data key, point its keys at a new empty vault, then delete its rows.

        Returns once the old data key is gone from the database and its WAL. Rows are unreadable from then on and are
        removed in the background, also after a crash.
        """


class Store(VaultStore, Directory, Protocol):
    """Both halves; what `open_store` yields."""
