"""The large parts of a vault's index beside its turns: segments are built in a thread, and kept on the disk.

Owns the build under way and the calls for snapshots. Must never look into the vault: it is handed jobs and segments,
and posts what it built to the mailbox. Whatever fails here costs a rebuild, never a memory: the exact tail answers.

On the disk are only segments all of whose vectors belong to memories. Before one is deleted, the files with its vectors
go; when nothing was deleted for a while, the vault is told to build those segments anew (`Mend`).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from actors.mailbox import Mailbox
from actors.segments import BuildJob, Segment
from actors.store.protocol import VaultStore
from models.errors import MemoryRouterError, StoreUnavailable
from models.ids import VaultRef
from models.messages import Built, Mend

logger = logging.getLogger(__name__)

SNAPSHOT_TIMEOUT_S = 900.0
"""Of reading all: those of a million memories are 1.6 GB, and building them anew takes ten minutes at the least."""

MEND_AFTER_S = 30.0
"""How long nothing was deleted before segments are built anew: a build takes 8 s of a core, for one deletion or for a
thousand. A segment that is mostly tombstones does not wait."""


class IndexKeeper:
    """Builds and keeps the segments of one vault. Most vaults have none, so it starts a task only when it has work."""

    def __init__(
        self,
        vault: VaultRef,
        store: VaultStore,
        mailbox: Mailbox,
        builds: trio.CapacityLimiter,
        *,
        model_id: str,
        dims: int,
    ) -> None:
        self._vault = vault
        self._store = store
        self._mailbox = mailbox
        self._builds = builds
        self._model_id = model_id
        self._dims = dims
        self._job: BuildJob | None = None  # planned, but not begun
        self._building = False
        self._kept: tuple[Segment, ...] = ()
        self._kept_changed = False  # since they were last looked at for saving
        self._saving = False
        self._disk = trio.Lock()
        self._dead = 0  # tombstones in all segments
        self._mend_at = math.inf
        self._waiting_to_mend = False
        self._children: trio.Nursery | None = None  # while running

    async def load(self) -> tuple[Segment, ...]:
        """The segments that are on the disk, verified, the newest first; none if they cannot be read."""
        with trio.move_on_after(SNAPSHOT_TIMEOUT_S):
            try:
                loaded = await self._store.load_segments(self._vault, model_id=self._model_id, dims=self._dims)
                return loaded.segments
            except MemoryRouterError as error:
                logger.warning("snapshots_not_read", extra={"vault": self._vault.number, "code": error.code})
        return ()

    def build_nowait(self, job: BuildJob | None) -> None:
        """Build this, or nothing. An index plans one job at a time."""
        if job is not None:
            assert self._job is None, "the index plans the next job when it has the segment of the last"
            self._job = job
            self._start_due()

    def keep_nowait(self, segments: Sequence[Segment]) -> None:
        """These are the segments of the index now: save the clean ones that are new, remove all others from the disk;
        have those that are not clean built anew in a while."""
        clean = tuple(segment for segment in segments if segment.clean)
        if clean != self._kept or not all(segment.saved for segment in clean):
            self._kept = clean
            self._kept_changed = True
        dead = sum(len(segment) - segment.live for segment in segments)
        if dead != self._dead:
            self._dead = dead
            self._mend_at = trio.current_time() + MEND_AFTER_S if dead else math.inf
        self._start_due()

    @asynccontextmanager
    async def forgetting(self, doomed: Sequence[Segment], *, timeout_s: float) -> AsyncIterator[None]:
        """Have the files of these segments shredded, and none written for the length of the block.

        Raises:
            StoreUnavailable: a file is still there.
        """
        with trio.move_on_after(timeout_s) as waiting:
            await self._disk.acquire()  # a file that is being written is waited for
        if waiting.cancelled_caught:
            raise StoreUnavailable("A part of the index is being written; ask again.")
        try:
            for segment in doomed:
                segment.saved = False
            kept = [segment.number for segment in self._kept if segment.saved]
            with trio.move_on_after(timeout_s) as removing:
                await self._store.prune_segments(self._vault, keep=kept)
            if removing.cancelled_caught:
                raise StoreUnavailable("Parts of the index could not be removed in time; ask again.")
            yield
        finally:
            self._disk.release()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work for the length of the block. What is asked for before it begins waits for it."""
        async with trio.open_nursery() as children:
            self._children = children
            self._start_due()
            try:
                yield
            finally:
                self._children = None
                self._kept = ()  # the vault frees them
            children.cancel_scope.cancel(reason="the vault passivates")

    def _start_due(self) -> None:
        """Start a task for each kind of work that is due and has none."""
        if self._children is None:
            return
        if self._job is not None and not self._building:
            self._building = True
            self._children.start_soon(self._build)
        if self._kept_changed and not self._saving:
            self._saving = True
            self._children.start_soon(self._save)
        if self._mend_at < math.inf and not self._waiting_to_mend:
            self._waiting_to_mend = True
            self._children.start_soon(self._mend)

    async def _build(self) -> None:
        while self._job is not None:
            job, self._job = self._job, None
            facts: dict[str, float] = {"vault": self._vault.number, "rows": job.rows, "merged": len(job.merged)}
            logger.info("index_build_started", extra=facts)
            began_s = time.perf_counter()
            segment = await self._run(job)
            facts |= {"seconds": round(time.perf_counter() - began_s, 1), "built": job.done if segment else 0}
            logger.info("index_build_ended", extra=facts)
            try:
                await self._mailbox.post(Built(segment))
            except trio.ClosedResourceError:
                return  # passivating: whoever hydrates next builds it again
        self._building = False

    async def _run(self, job: BuildJob) -> Segment | None:
        """Run a job in a thread; a cancellation ends it within a fraction of a second."""
        async with trio.open_nursery() as watching:
            watching.start_soon(_cancel_with, job)
            segment = await trio.to_thread.run_sync(job.run, limiter=self._builds)
            watching.cancel_scope.cancel(reason="the build has ended")
        return segment

    async def _save(self) -> None:
        while self._kept_changed:
            self._kept_changed = False
            try:
                for segment in self._kept:
                    await self._save_segment(segment)
                async with self._disk:
                    await self._store.prune_segments(self._vault, keep=[segment.number for segment in self._kept])
            except MemoryRouterError as error:
                logger.warning("snapshot_not_written", extra={"vault": self._vault.number, "code": error.code})
        self._saving = False

    async def _save_segment(self, segment: Segment) -> None:
        async with self._disk:
            if segment.clean and not segment.saved:  # still
                segment.saved = True  # before, so that a change meanwhile is saved again
                try:
                    await self._store.save_segment(self._vault, segment)
                except MemoryRouterError:
                    segment.saved = False  # the next change tries again
                    raise

    async def _mend(self) -> None:
        """Wait until nothing was deleted for a while."""
        while self._mend_at < math.inf:
            await trio.sleep_until(self._mend_at)
            if trio.current_time() >= self._mend_at:
                self._mend_at = math.inf
                try:
                    await self._mailbox.post(Mend())
                except trio.ClosedResourceError:
                    return
        self._waiting_to_mend = False


async def _cancel_with(job: BuildJob) -> None:
    try:
        await trio.sleep_forever()
    finally:
        job.cancel()  # harmless after its end
