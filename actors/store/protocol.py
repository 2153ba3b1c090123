"""The store as the actors see it: one protocol, one conformance suite, several implementations.

The log of a vault is the truth. `accept_nowait` appends to the inbox, and a committed inbox row *is* the
acknowledgement. `materialise` turns inbox rows into memories and embeddings and removes them in one transaction, so the
effect is exactly once. Every call names the vault's partition (`VaultRef.shard`).

Implementations: SQLite (`actors.store.sqlite`), PostgreSQL (`actors.store.postgres.store`), a twin in memory for
tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors.segments import Segment
from actors.store.directory_protocol import Directory
from actors.store.snapshots import LoadedSegments
from models.ids import VaultRef
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
        moving: whether there may still be vectors of a model that the vault used before (`choose_embedder`).
    """

    created_ms: int
    memories: list[Memory]
    vectors: Vectors
    inbox: list[InboxRow]
    next_seq: int
    damaged: int = 0
    moving: bool = False


class StoreSize(msgspec.Struct, frozen=True):
    """How much there is in all: live vaults, memories, the bytes of their rows."""

    vaults: int
    memories: int
    content_bytes: int


class Materialisation(msgspec.Struct, frozen=True):
    """One atomic step from inbox to memories.

    Attributes:
        row_ids: inbox rows that end here.
        memories: what they became; empty when all their messages were known already.
        vectors: embeddings of these memories, or of earlier ones that lacked them, by `model_id`.
        next_seq: the vault's next seq after this step.
        embedder: the name of the model's embedder, which the vault remembers from its first step on.
    """

    row_ids: tuple[int, ...]
    memories: tuple[Memory, ...]
    vectors: Vectors
    model_id: str
    next_seq: int
    embedder: str | None = None


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
        """Delete these memories and their embeddings for good (secure_delete). No restored backup brings them back,
        but for what was still in the inbox when that was made.

        Raises:
            StorageFull, StoreUnavailable: nothing was changed.
            NotFound: the vault does not exist (any more).
        """

    async def put_memory(self, vault: VaultRef, memory: Memory) -> None:
        """Write a memory in the place of the one with its seq, which has the same text and so the same embeddings.

        Raises:
            StorageFull, StoreUnavailable: nothing was changed; there may be no such memory.
            NotFound: the vault does not exist (any more).
        """

    async def rewrite_memory(self, vault: VaultRef, seq: int, memory: Memory) -> None:
        """Delete the memory with this seq and its embeddings, and store another one with a new seq, which has none.

        In one transaction. A backup that was made before has the memory as it was.

        Raises:
            StorageFull, StoreUnavailable: nothing was changed; there may be no such memory.
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

    async def remembered_embedder(self, vault: VaultRef) -> str | None:
        """The name of the embedder that the vault uses, or None when it has no memory yet and nobody chose.

        Raises:
            StoreUnavailable: the shard cannot be read.
        """

    async def choose_embedder(self, vault: VaultRef, name: str) -> None:
        """Let the vault remember this embedder from now on. Its vectors stay until `finish_move`.

        Raises:
            StorageFull, StoreUnavailable: nothing was changed.
            NotFound: the vault does not exist (any more).
        """

    async def finish_move(self, vault: VaultRef, *, name: str, model_id: str) -> None:
        """Remove the vault's vectors of all models but this one, if it still remembers the embedder of that name.

        Raises:
            StorageFull, StoreUnavailable: some may be left; do it again.
            NotFound: the vault does not exist (any more).
        """

    async def vaults_moving(self) -> list[VaultRef]:
        """Vaults for which an embedder was chosen and the move is not finished: what to go on with after a start."""

    async def vaults_with_inbox(self) -> list[VaultRef]:
        """Vaults that have committed but unmaterialised rows: what to re-queue after a start."""

    async def size(self) -> StoreSize:
        """How much there is in all. What cannot be read is left out."""

    def statistics(self) -> dict[str, Any]:
        """Counters and queue depths for metrics."""


class Store(VaultStore, Directory, Protocol):
    """Both halves; what `open_store` yields."""
