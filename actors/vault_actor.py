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
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar, assert_never

import numpy as np
import trio
from msgspec.structs import replace

from actors.analysis import Analysis, analyse, unanalysed, usable_vectors
from actors.embedder import Embedder
from actors.forgetting import Forgetting
from actors.hydration import load_index, load_memories
from actors.imprint_keeper import ImprintKeeper
from actors.inbox_lag import InboxLag
from actors.index_keeper import IndexKeeper
from actors.mailbox import Envelope, Mailbox
from actors.moving import Move
from actors.recent_questions import RecentQuestions
from actors.single_memories import SingleMemories
from actors.slices import Pause, free, read_in_turn
from actors.step_writer import StepWriter
from actors.store.protocol import VaultStore
from actors.text_embedding import TextEmbedding
from actors.vault import Vault
from actors.vault_limits import VaultLimits
from models.errors import DeadlineExceeded, MemoryRouterError, StoreUnavailable, VaultUnavailable
from models.ids import VaultRef
from models.memory import InboxRow, Message
from models.messages import (
    AnyMessage,
    Applied,
    Apply,
    Barrier,
    Built,
    ChangeMemory,
    Embedded,
    FindTwin,
    Forget,
    ForgetMatching,
    ForgetMemory,
    GetMemory,
    ListMemories,
    ListSessions,
    Mend,
    Page,
    Paged,
    Recall,
    Rehydrate,
    Reply,
    Search,
    Sift,
    Stats,
    describe,
)

__all__ = ["LifeCycle", "VaultActor", "VaultLimits"]

logger = logging.getLogger(__name__)

POISON_CRASHES = 2
"""Crashes with the same row in hand after which it is set aside, so that one row cannot close its vault for ever."""

STORE_TIMEOUT_S = 30.0
LOAD_TIMEOUT_S = 900.0
"""A million memories take ten seconds, minutes on a busy machine: a limit that strikes each time shuts them in."""


Answer = TypeVar("Answer")


class LifeCycle(enum.Enum):
    """Where a vault's actor is in its life; quarantine and the end belong to the supervisor's entry."""

    HYDRATING = "hydrating"
    ACTIVE = "active"
    PASSIVATING = "passivating"
    STOPPED = "stopped"


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
        learned: Callable[[InboxRow, int], None],
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
            learned: told how many new memories a row became, each time that it is taken in; after a crash, again.
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
        self._applied, self._learned = applied, learned
        self._repeat_window_ms = int(limits.repeat_window_s * 1000)
        self._model = embedder.model  # as it is now: when one that is not open yet opens, another incarnation begins
        self._chunk_tokens_max = embedder.chunk_tokens_max(limits.chunk_tokens_max)
        dims = max(1, self._model.dims)
        self._vault = Vault(
            dims=dims,
            repeat_window_ms=self._repeat_window_ms,
            relevance_min=limits.relevance_min,
            model_id=self._model.id,
            hnsw_threshold=limits.hnsw_threshold,
            screens=limits.screens,
        )
        self._asked = RecentQuestions()
        self._keeper = IndexKeeper(ref, store, mailbox, builds, model_id=self._model.id, dims=dims)
        self._imprints = ImprintKeeper(ref, store, memories_min=limits.imprint_memories_min)
        self._read_through = max([rows_sent, *hydrated])  # rows up to here were in the store when hydration read it
        self._embedding = TextEmbedding(ref, embedder, mailbox)
        self._writer = StepWriter(ref, store, written=lag.remove, embedder=embedder.name or None)
        forgetting = Forgetting(
            ref, self._vault, store, writer=self._writer, imprints=self._imprints, keeper=self._keeper,
            reload=self._reload,
        )  # fmt: skip
        self._memories = SingleMemories(
            ref, self._vault, store, forgetting, analyse=self._analyse, write=self._write_unfinished
        )
        self._move: Move | None = None
        self.reloads = False
        self.life_cycle = LifeCycle.HYDRATING

    @property
    def busy(self) -> bool:
        """Whether passivating now would leave work half done; the store would resume it, but at a cost."""
        embeds = self._vault.pending > 0 and not self._embedding.stalled
        return self.life_cycle is LifeCycle.HYDRATING or embeds or not self._writer.settled

    async def run(self) -> None:
        """Hydrate, serve the mailbox until its send side closes, and end; earlier, with `reloads`, to begin anew."""
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
            if self._move is not None:
                children.start_soon(self._move.finish)
            async for envelope in self._mailbox.receive:
                await self._take(envelope)
                if self.reloads:
                    break
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
                self._asked.note(message, model_id=self._model.id)
                return await read_in_turn(self._vault.recall, message, chunks=self._vault.chunks)
            case Search():
                return await read_in_turn(self._vault.search, message, chunks=self._vault.chunks)
            case Sift():
                before = self._vault.duplicates
                sifted = self._vault.sift(message)
                self._applied(Applied(0, self._vault.duplicates - before, 0))
                return sifted
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
                return await self._changed(self._memories.forget_session(message.session_id))
            case Stats():
                counted = self._vault.stats(message.session_id)
                model = self._model
                return replace(counted, embedder=self._embedder.name, model_id=model.id, dims=model.dims)
            case Barrier() | Rehydrate():
                self.reloads |= isinstance(message, Rehydrate)
                return None
            case (
                ListMemories() | ListSessions() | GetMemory() | FindTwin() | ChangeMemory() | ForgetMemory()
                | ForgetMatching() | Mend()
            ):  # fmt: skip
                return await self._changed(self._memories.answer(message))
            case _:
                assert_never(message)

    async def _changed(self, change: Awaitable[Answer]) -> Answer:
        """What may change the vault; whether it succeeds or not, what there is to do is handed on."""
        self._asked.clear()
        try:
            return await change
        finally:
            self._after_change()

    def _reload(self) -> None:
        """Begin anew after this turn."""
        self.reloads = True

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
            flagged=sum(outcome.flagged for outcome in taken),
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
        chunks = flagged = 0
        for message in new:
            memory = self._vault.add(row, message, await self._analyse(message))
            vectors = usable_vectors(message, self._model) if memory.spans else None
            if vectors is None:
                vectors = self._asked.take(memory)
            if vectors is not None:
                self._vault.attach(memory.seq, vectors)
            chunks += len(memory.spans)
            flagged += memory.flags > 0
            await pause.after_slice()
        self._vault.end_row(row)
        self._learned(row, len(new))
        return Applied(len(new), len(row.exchange.messages) - len(new), chunks, flagged)

    async def _analyse(self, message: Message) -> Analysis:
        model, tokens_max = self._model, self._chunk_tokens_max
        try:
            if len(message.content) <= self._limits.analysed_inline_max:
                return analyse(message, model, tokens_max)
            return await trio.to_thread.run_sync(analyse, message, model, tokens_max)
        except Exception as error:  # the edge of the tokeniser: one strange text must not close its vault for ever
            logger.error("analysis_failed", extra={"vault": self._ref.number, "error": type(error).__name__})
            return unanalysed(message.content)

    def _attach(self, message: Embedded) -> None:
        of_our_model = message.model_id == self._model.id  # else of an earlier incarnation, before the vault moved
        for seq, data in message.vectors.items() if of_our_model else ():
            rows = np.frombuffer(data, dtype="<f2").reshape(-1, self._model.dims)
            self._vault.attach(seq, rows)
        self._after_change()

    def _write_unfinished(self) -> None:
        """Put all that the store lacks to the writer, also what waits for its vectors."""
        self._writer.put(self._vault.take_step(self._model.id, unfinished=True))

    async def _page(self, message: Page) -> Paged:
        """A page of an export, from the store: first what is under way is written, so that nothing is left out."""
        self._write_unfinished()
        with trio.move_on_after(STORE_TIMEOUT_S):
            await self._writer.wait_settled()
            return await self._store.load_page(self._ref, message, model_id=self._model.id)
        raise StoreUnavailable("The store did not answer in time; ask for this page again.")

    def _after_change(self) -> None:
        """Hand on what a turn has left to do: a finished step to the writer, texts to the embedder, the size."""
        stalled = self._embedding.stalled  # then the inbox must not wait for vectors: they may be days away
        self._writer.put(self._vault.take_step(self._model.id, unfinished=stalled))
        if self._move is not None and not self._vault.pending:
            self._move.embedded()
        embedding, vault = self._embedding, self._vault
        while embedding.wants(vault.pending) and (texts := vault.next_to_embed(chunks_max=embedding.chunks_max)):
            embedding.put_nowait(texts)
        self._keeper.build_nowait(self._vault.plan_build())
        self._keeper.keep_nowait(self._vault.segments)
        self._imprints.keep_nowait(self._vault)
        self._resized(self._vault.nbytes)

    # Hydration.

    async def _hydrate(self) -> None:
        """Read the vault from the store: memories first, then the inbox rows that became none yet."""
        known = self._lag.rows
        with trio.fail_after(LOAD_TIMEOUT_S):
            image = await self._store.load_vault(self._ref, model_id=self._model.id)
        self._lag.correct(known, image.inbox)
        if image.moving and self._model.id:
            self._move = Move(self._ref, self._store, self._writer, name=self._embedder.name, model_id=self._model.id)
        self._vault.begin(created_ms=image.created_ms, next_seq=image.next_seq)
        await load_memories(self._vault, image, self._imprints, repeat_window_ms=self._repeat_window_ms)
        await load_index(self._vault, image.vectors, self._keeper, threshold=self._limits.hnsw_threshold)
        pause = Pause()
        for row in image.inbox:
            self._hydrated[row.row_id] = await self._take_in(row, pause)
        await free([image.memories])
        self._read_through = max(self._read_through, self._vault.last_row_id)
        self._after_change()
