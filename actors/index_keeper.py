"""The large parts of a vault's index beside its turns: segments are built in a thread, and kept on the disk.

Owns the build under way and the calls for snapshots. Must never look into the vault: it is handed jobs and segments,
and posts what it built to the mailbox. Whatever fails here costs a rebuild, never a memory: the exact tail answers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from actors.mailbox import Mailbox
from actors.segments import BuildJob, Segment
from actors.store.protocol import VaultStore
from models.errors import MemoryRouterError
from models.ids import VaultRef
from models.messages import Built

logger = logging.getLogger(__name__)

SNAPSHOT_TIMEOUT_S = 900.0
"""Of reading all: those of a million memories are 1.6 GB, and building them anew takes ten minutes at the least."""


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
        """These are the segments of the index now: save the new ones, remove the others from the disk."""
        if any(not segment.saved for segment in segments) or len(segments) != len(self._kept):
            self._kept = tuple(segments)
            self._kept_changed = True
            self._start_due()

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
            segments = self._kept
            try:
                for segment in segments:
                    if not segment.saved:
                        segment.saved = True  # before, so that a change meanwhile is saved again
                        await self._store.save_segment(self._vault, segment)
                await self._store.prune_segments(self._vault, keep=[segment.number for segment in segments])
            except MemoryRouterError as error:
                logger.warning("snapshot_not_written", extra={"vault": self._vault.number, "code": error.code})
        self._saving = False


async def _cancel_with(job: BuildJob) -> None:
    try:
        await trio.sleep_forever()
    finally:
        job.cancel()  # harmless after its end
