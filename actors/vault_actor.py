"""The actor of one vault: hydrate, take one message at a time, passivate.

Only a turn touches the vault. Two child tasks work beside the turns on what a turn has handed them: one has texts
embedded and posts the vectors to the same mailbox, one writes finished steps to the store. Reads therefore never wait
behind embedding or behind a commit; a memory that is not embedded yet is found by its words.

Whatever the actor holds can be read from the store again, so it may end at any moment: its next incarnation begins
with what is durable.
"""

from __future__ import annotations

import enum
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import assert_never

import msgspec
import numpy as np
import trio

from actors.analysis import Analysis, analyse, unanalysed, usable_vectors
from actors.embedder import Embedder
from actors.forgetting import forget_session
from actors.hydration import load_index, load_memories
from actors.imprint_keeper import MEMORIES_MIN, ImprintKeeper
from actors.inbox_lag import InboxLag
from actors.index_keeper import IndexKeeper
from actors.mailbox import Envelope, Mailbox
from actors.segmented_index import THRESHOLD
from actors.slices import Pause, free, read_in_turn
from actors.step_writer import StepWriter
from actors.store.protocol import VaultStore
from actors.text_embedding import EMBED_CHUNKS_MAX, TextEmbedding
from actors.vault import Vault
from models.errors import DeadlineExceeded, MemoryRouterError, StoreUnavailable, VaultUnavailable
from models.ids import VaultRef
from models.memory import InboxRow, Message
from models.messages import (
    AnyMessage,
    Applied,
    Apply,
    Barrier,
    Built,
    Embedded,
    Forget,
    Forgotten,
    Page,
    Paged,
    Recall,
    Reply,
    Search,
    Sift,
    Stats,
    describe,
)

logger = logging.getLogger(__name__)

OFFLOAD_CHARACTERS_MIN = 20_000
"""Texts longer than this are split and stemmed in a thread; below, the hop costs more than it saves."""

POISON_CRASHES = 2
"""Crashes with the same row in hand after which it is set aside, so that one row cannot close its vault for ever."""

STORE_TIMEOUT_S = 30.0
LOAD_TIMEOUT_S = 900.0
"""A million memories take ten seconds, minutes on a busy machine: a limit that strikes each time shuts them in."""


class LifeCycle(enum.Enum):
    """Where a vault's actor is in its life; quarantine and the end belong to the supervisor's entry."""

    HYDRATING = "hydrating"
    ACTIVE = "active"
    PASSIVATING = "passivating"
    STOPPED = "stopped"


class VaultLimits(msgspec.Struct, frozen=True):
    """What a vault needs to know of the settings."""

    repeat_window_s: float = 600
    chunk_tokens_max: int = 200
    relevance_min: float = 0.12
    hnsw_threshold: int = THRESHOLD
    imprint_memories_min: int = MEMORIES_MIN


class VaultActor:
    """One incarnation of one vault."""

    def __init__(
        self,
        ref: VaultRef,
        mailbox: Mailbox,
        store: VaultStore,
        embedder: Embedder,
        limits: VaultLimits,
        hydrations: trio.CapacityLimiter,
        builds: trio.CapacityLimiter,
        *,
        lag: InboxLag,
        rows_sent: int,
        suspects: Counter[int],
        hydrated: dict[int, Applied | None],
        resized: Callable[[int], None],
        applied: Callable[[Applied], None],
    ) -> None:
        """Make an actor; `run` lets it live.

        Args:
            hydrations: how many vaults may load at once.
            builds: how many segments of indexes may be built at once.
            lag: told which inbox rows wait, and which have become memories.
            rows_sent: the last inbox row whose `Apply` went into the mailbox before this incarnation.
            suspects: how often each inbox row was in hand when an earlier incarnation crashed; counted on here.
            hydrated: what hydrations made of inbox rows, as `Entry.hydrated`; kept up here.
            resized: told the vault's size in bytes whenever it may have changed.
            applied: told what became of rows from the log.
        """
        self._ref = ref
        self._mailbox = mailbox
        self._store = store
        self._embedder = embedder
        self._limits = limits
        self._hydrations = hydrations
        self._lag = lag
        self._suspects = suspects
        self._hydrated = hydrated
        self._resized = resized
        self._applied = applied
        self._repeat_window_ms = int(limits.repeat_window_s * 1000)
        self._vault = Vault(
            dims=embedder.dims,
            repeat_window_ms=self._repeat_window_ms,
            relevance_min=limits.relevance_min,
            model_id=embedder.model_id,
            hnsw_threshold=limits.hnsw_threshold,
        )
        self._keeper = IndexKeeper(ref, store, mailbox, builds, model_id=embedder.model_id, dims=embedder.dims)
        self._imprints = ImprintKeeper(ref, store, memories_min=limits.imprint_memories_min)
        self._read_through = max([rows_sent, *hydrated])  # rows up to here were in the store when hydration read it
        self._embedding = TextEmbedding(ref, embedder, mailbox)
        self._writer = StepWriter(ref, store, written=lag.remove)
        self.life_cycle = LifeCycle.HYDRATING

    @property
    def busy(self) -> bool:
        """Whether passivating now would leave work half done; the store would resume it, but at a cost."""
        return self.life_cycle is LifeCycle.HYDRATING or self._vault.pending > 0 or not self._writer.settled

    async def run(self) -> None:
        """Hydrate, serve the mailbox until its send side closes, and end."""
        async with self._hydrations:
            await self._hydrate()
        async with (
            self._writer.running(),
            self._keeper.running(),
            self._imprints.running(),
            trio.open_nursery() as children,
        ):
            self._enter(LifeCycle.ACTIVE)
            children.start_soon(self._embedding.run)
            async for envelope in self._mailbox.receive:
                await self._take(envelope)
            self._enter(LifeCycle.PASSIVATING)
            children.cancel_scope.cancel(reason="the vault passivates")
        await self._imprints.finish(self._vault)
        await free(self._vault.holdings())
        self._enter(LifeCycle.STOPPED)

    def _enter(self, life_cycle: LifeCycle) -> None:
        logger.debug(
            "vault_life_cycle",
            extra={"vault": self._ref.number, "before": self.life_cycle.value, "after": life_cycle.value},
        )
        self.life_cycle = life_cycle

    # Turns.

    async def _take(self, envelope: Envelope) -> None:
        """One turn. An error of the message is its reply; any other is the actor's end, of which the caller is told."""
        envelope.taken()
        if envelope.expired:
            envelope.reply(DeadlineExceeded("The request waited too long in the vault's mailbox."))
            return
        try:
            envelope.reply(await self._handle(envelope.message))
        except MemoryRouterError as error:
            envelope.reply(error)
        except Exception:
            logger.error("vault_turn_failed", extra={"vault": self._ref.number, "kind": describe(envelope.message)})
            raise
        finally:
            envelope.drop()

    async def _handle(self, message: AnyMessage) -> Reply:
        match message:
            case Recall():
                return await read_in_turn(self._vault.recall, message, chunks=self._vault.chunks)
            case Search():
                return await read_in_turn(self._vault.search, message, chunks=self._vault.chunks)
            case Sift():
                return self._vault.sift(message.exchange)
            case Apply():
                return await self._apply(message.rows)
            case Embedded():
                self._attach(message)
                return None
            case Built():
                self._vault.install(message.segment)
                self._after_change()
                return None
            case Page():
                return await self._page(message)
            case Forget():
                return await self._forget(message.session_id)
            case Stats():
                return self._vault.stats(message.session_id)
            case Barrier():
                return None
            case _:
                assert_never(message)

    async def _apply(self, rows: Iterable[InboxRow]) -> Applied:
        """Take rows in. Those that a hydration has read from the store are not taken twice, only reported.

        Raises:
            VaultUnavailable: some were set aside or damaged; the others are taken in.
        """
        pause = Pause()
        outcomes = [
            await self._take_in(row, pause) if row.row_id > self._read_through else self._hydrated.pop(row.row_id, None)
            for row in rows
        ]
        self._after_change()
        taken = [outcome for outcome in outcomes if outcome is not None]
        total = Applied(
            stored=sum(outcome.stored for outcome in taken),
            duplicates=sum(outcome.duplicates for outcome in taken),
            chunks=sum(outcome.chunks for outcome in taken),
        )
        self._applied(total)
        if len(taken) < len(outcomes):
            raise VaultUnavailable("The vault could not take in all of this; the server's log says more.")
        return total

    async def _take_in(self, row: InboxRow, pause: Pause) -> Applied | None:
        """Make memories of a row, or set it aside, loudly, when it has brought the actor down again and again."""
        if self._suspects[row.row_id] >= POISON_CRASHES:
            logger.critical("row_set_aside", extra={"vault": self._ref.number, "row": row.row_id})
            with trio.fail_after(STORE_TIMEOUT_S):
                await self._store.set_aside(self._ref, [row.row_id])
            self._lag.remove([row.row_id])
            return None
        try:
            return await self._remember(row, pause)
        except Exception:
            self._suspects[row.row_id] += 1
            raise

    async def _remember(self, row: InboxRow, pause: Pause) -> Applied:
        """Make memories of one row's new messages, in slices."""
        new = self._vault.begin_row(row)
        chunks = 0
        for message in new:
            memory = self._vault.add(row, message, await self._analyse(message))
            brought = usable_vectors(message, self._embedder.encoder)
            if brought is not None and memory.spans:
                self._vault.attach(memory.seq, brought)
            chunks += len(memory.spans)
            await pause.after_slice()
        self._vault.end_row(row)
        return Applied(stored=len(new), duplicates=len(row.exchange.messages) - len(new), chunks=chunks)

    async def _analyse(self, message: Message) -> Analysis:
        encoder, tokens_max = self._embedder.encoder, self._limits.chunk_tokens_max
        try:
            if len(message.content) < OFFLOAD_CHARACTERS_MIN:
                return analyse(message, encoder, tokens_max)
            return await trio.to_thread.run_sync(analyse, message, encoder, tokens_max)
        except Exception as error:  # the edge of the tokeniser: one strange text must not close its vault for ever
            logger.error("analysis_failed", extra={"vault": self._ref.number, "error": type(error).__name__})
            return unanalysed(message.content)

    def _attach(self, message: Embedded) -> None:
        for seq, data in message.vectors.items():
            rows = np.frombuffer(data, dtype="<f2").reshape(-1, self._embedder.dims)
            self._vault.attach(seq, rows)
        self._after_change()

    async def _forget(self, session_id: str) -> Forgotten:
        """Delete a session: first let everything under way settle, so that nothing deleted is written afterwards."""
        self._writer.put(self._vault.take_step(self._embedder.model_id, unfinished=True))
        count = await forget_session(
            session_id,
            ref=self._ref,
            vault=self._vault,
            store=self._store,
            writer=self._writer,
            imprints=self._imprints,
        )
        self._after_change()
        return Forgotten(count=count)

    async def _page(self, message: Page) -> Paged:
        """A page of an export, from the store: first what is under way is written, so that nothing is left out."""
        self._writer.put(self._vault.take_step(self._embedder.model_id, unfinished=True))
        with trio.move_on_after(STORE_TIMEOUT_S):
            await self._writer.wait_settled()
            return await self._store.load_page(self._ref, message, model_id=self._embedder.model_id)
        raise StoreUnavailable("The store did not answer in time; ask for this page again.")

    def _after_change(self) -> None:
        """Hand on what a turn has left to do: a finished step to the writer, texts to the embedder, the size."""
        self._writer.put(self._vault.take_step(self._embedder.model_id))
        if self._embedding.wants and (texts := self._vault.next_to_embed(chunks_max=EMBED_CHUNKS_MAX)):
            self._embedding.put_nowait(texts)
        self._keeper.build_nowait(self._vault.plan_build())
        self._keeper.keep_nowait(self._vault.segments)
        self._imprints.keep_nowait(self._vault)
        self._resized(self._vault.nbytes)

    # Hydration.

    async def _hydrate(self) -> None:
        """Read the vault from the store: memories first, then the inbox rows that became none yet."""
        known = self._lag.rows
        with trio.fail_after(LOAD_TIMEOUT_S):
            image = await self._store.load_vault(self._ref, model_id=self._embedder.model_id)
        self._lag.correct(known, image.inbox)
        self._vault.begin(created_ms=image.created_ms, next_seq=image.next_seq)
        await load_memories(self._vault, image, self._imprints, repeat_window_ms=self._repeat_window_ms)
        await load_index(self._vault, image.vectors, self._keeper, threshold=self._limits.hnsw_threshold)
        pause = Pause()
        for row in image.inbox:
            self._hydrated[row.row_id] = await self._take_in(row, pause)
        await free([image.memories])
        self._read_through = max(self._read_through, self._vault.last_row_id)
        self._after_change()
