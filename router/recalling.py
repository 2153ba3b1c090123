"""From a conversation to a context: the question, its embedding, the vault's answer, the rendered block.

Owns the cache of blocks for tool loops. `recall` raises; whether a failure may be passed over is the route's business
(promise 4).
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, tzinfo
from functools import lru_cache
from typing import Any

import msgspec
import trio

from actors.choosing_embedders import embedder_of
from actors.embedder import Embedder
from actors.embedding_source import EmbedderUnavailable
from actors.mailbox import TurnTimes
from actors.supervisor import Supervisor
from models.embedding import TextModel
from models.errors import DeadlineExceeded, MemoryRouterError
from models.ids import VaultRef
from models.messages import Found, Hit, Recall, Recalled, Search
from models.packing import Entry, Piece, pack
from models.rendering import THEN, ContextItem, header, render_context
from models.text import normalised
from models.time_intervals import time_intervals
from router.memory_ids import ids_of
from router.observe import log_event
from router.options import MemoryOptions
from router.questions import Asked
from router.spans import Step, record_part, step

BLOCKS_MAX = 4_096
COUNTED_PARTS_MAX = 4_096
STALL_SHARE_MAX = 0.5
"""Of the time that is left, for embedding a question by a model that may stall; the rest is for searching by words."""

_QUESTION_MARKS = ("?", "\uff1f", "\u061f")


class Recollection(msgspec.Struct, frozen=True):
    """What came of a recall.

    Attributes:
        context: the block to inject, or None when nothing is relevant.
        hits: what it was made of, best first; empty where the block comes from the cache.
        chunks: how many they are.
        tokens: its length as the embedding model counts.
        ids: the public ids of the memories in it, best first.
        embedding_ms, total_ms: how long it took.
        deletions: how many deletions its vault had seen, as far as is remembered, when it began.
    """

    context: str | None = None
    hits: tuple[Hit, ...] = ()
    chunks: int = 0
    tokens: int = 0
    ids: tuple[str, ...] = ()
    embedding_ms: float = 0.0
    total_ms: float = 0.0
    deletions: int = 0


NOTHING = Recollection()


def context_item(entry: Sequence[Piece]) -> ContextItem:
    """An entry as it is shown in a context."""
    first, further = entry[0], entry[1:]
    return ContextItem(
        text=first.text,
        role=first.memory.role,
        timestamp_ms=first.memory.timestamp_ms,
        then=tuple(context_item([piece]) for piece in further),
    )


def echo_of(question: str) -> str | None:
    """What a memory of the question itself says, as `normalised`; None for what is no question.

    Asked before, it is the best match for itself and answers nothing.
    """
    return normalised(question) if question.rstrip().endswith(_QUESTION_MARKS) else None


class ContextTokens:
    """Counts a context's tokens by its parts.

    The model's tokeniser splits at white space and punctuation first, so the parts' counts add up to the whole's, and
    nearly all parts are known: a memory carries its count, and the words of headers repeat. Counting whole contexts of
    thirty memories took a quarter of the time of `prepare`.
    """

    def __init__(self, model: TextModel) -> None:
        self._count = lru_cache(maxsize=COUNTED_PARTS_MAX)(model.count_tokens)
        self.frame_tokens = model.count_tokens(render_context([], 0, UTC))

    def context_tokens(self, entries: Iterable[Entry], now_ms: int, time_zone: tzinfo) -> int:
        """Tokens of the context that these entries make."""
        pieces = ((piece, place > 0) for entry in entries for place, piece in enumerate(entry))
        return self.frame_tokens + sum(
            self.piece_tokens(piece, now_ms, time_zone, continues=continues) for piece, continues in pieces
        )

    def piece_tokens(self, piece: Piece, now_ms: int, time_zone: tzinfo, *, continues: bool) -> int:
        """Tokens of a piece with what stands before it: the header of an entry, or who goes on speaking."""
        memory = piece.memory
        before = THEN[memory.role] if continues else header(memory.role, memory.timestamp_ms, now_ms, time_zone)
        words = sum(map(self._count, before.split()))
        whole = len(piece.text) == len(memory.content)
        return words + (memory.tokens if whole else self._count(piece.text))


class Recaller:
    """Asks vaults on behalf of requests."""

    def __init__(
        self,
        embedder: Embedder,
        supervisor: Supervisor,
        *,
        block_cache_s: float,
        context_tokens_max: int = 0,
        clock: Callable[[], float],
        took: Callable[[float, str], None] = lambda seconds, operation: None,
    ) -> None:
        """Make one.

        Args:
            block_cache_s: how long a block is kept for a tool loop.
            context_tokens_max: of any context; 0 for no bound but the request's.
            took: told the seconds of each "recall" and "search", however it ended.
        """
        self._took = took
        self._context_tokens_max = context_tokens_max
        self._counter = ContextTokens(embedder.model)
        self._supervisor = supervisor
        self._block_cache_s = block_cache_s
        self._clock = clock
        self._blocks: OrderedDict[tuple[object, ...], tuple[float, Recollection]] = OrderedDict()
        self._deletions: OrderedDict[int, int] = OrderedDict()  # by vault number, of the latest vaults
        self._forgotten: Callable[[VaultRef], None] = lambda _: None

    async def recall(
        self,
        vault: VaultRef,
        asked: Asked,
        options: MemoryOptions,
        *,
        now_ms: int,
        timeout_s: float,
        explain: bool = False,
    ) -> Recollection:
        """The context for a question.

        Args:
            explain: let each hit say what placed it.

        Raises:
            DeadlineExceeded, Overloaded: not within `timeout_s`.
            MemoryRouterError: the vault's own error.
        """
        began_s = time.perf_counter()
        deletions = self._deletions.get(vault.number, 0)
        if not asked.text or not options.chunks_max:
            return NOTHING
        with self._timed("recall"), _deadline(timeout_s) as remaining_s:
            embedder = self._supervisor.embedder_nowait(vault) or await embedder_of(self._supervisor, vault)
            vector, embedding_ms = await self._embed(embedder, asked.meaning, remaining_s)
            message = Recall(
                text=asked.words,
                vector=vector,
                model_id=embedder.model_id,
                scope=options.scope,
                chunks_max=options.chunks_max,
                now_ms=now_ms,
                intervals=time_intervals(asked.text, now_ms=now_ms, tz=options.time_zone),
                explain=explain,
                meaning=asked.meaning if options.stores_role("user") and embedder.reads_alike else None,
            )
            recalled: Recalled = await self._ask(vault, message, timeout_s=remaining_s())
        entries = self._packed(recalled.hits, asked.text, options, now_ms)
        shown = {piece.memory.seq for entry in entries for piece in entry if piece.is_hit}
        hits = tuple(hit for hit in recalled.hits if hit.memory.seq in shown)
        items = [context_item(entry) for entry in entries]
        return Recollection(
            context=render_context(items, now_ms, options.time_zone) if items else None,
            hits=hits,
            chunks=len(hits),
            ids=ids_of(hits, entries),
            tokens=self._counter.context_tokens(entries, now_ms, options.time_zone) if items else 0,
            embedding_ms=embedding_ms,
            total_ms=(time.perf_counter() - began_s) * 1000,
            deletions=deletions,
        )

    def _packed(self, hits: Sequence[Hit], question: str, options: MemoryOptions, now_ms: int) -> list[Entry]:
        """What of these hits goes into a context: within the smaller of the budgets of the settings and the request."""
        budgets = [budget for budget in (self._context_tokens_max, options.context_tokens_max) if budget]

        def cost(piece: Piece, continues: bool) -> int:
            return self._counter.piece_tokens(piece, now_ms, options.time_zone, continues=continues)

        return pack(
            hits,
            hits_max=options.chunks_max,
            tokens_max=min(budgets) - self._counter.frame_tokens if budgets else None,
            cost=cost,
            left_out=echo_of(question),
        )

    async def search(
        self,
        vault: VaultRef,
        question: str,
        options: MemoryOptions,
        *,
        limit: int,
        now_ms: int,
        timeout_s: float,
        explain: bool = False,
    ) -> tuple[Hit, ...]:
        """Memories for a question, best first.

        Args:
            explain: let each hit say what placed it.

        Raises:
            DeadlineExceeded, Overloaded: not within `timeout_s`.
            MemoryRouterError: the vault's own error.
        """
        with self._timed("search"), _deadline(timeout_s) as remaining_s:
            embedder = self._supervisor.embedder_nowait(vault) or await embedder_of(self._supervisor, vault)
            vector, _ = await self._embed(embedder, question, remaining_s)
            message = Search(
                text=question,
                vector=vector,
                model_id=embedder.model_id,
                scope=options.scope,
                limit=limit,
                now_ms=now_ms,
                intervals=time_intervals(question, now_ms=now_ms, tz=options.time_zone),
                explain=explain,
            )
            found: Found = await self._ask(vault, message, timeout_s=remaining_s())
        return found.hits

    @contextmanager
    def _timed(self, operation: str) -> Iterator[None]:
        """Tell how long a block took, however it ended."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self._took(time.perf_counter() - began_s, operation)

    async def _ask(self, vault: VaultRef, message: Recall | Search, *, timeout_s: float) -> Any:
        """Ask a vault; where the request is traced, also when it took the question up and when it had the answer."""
        with step("recall") as recalling:
            if recalling is None:
                return await self._supervisor.ask(vault, message, timeout_s=timeout_s)
            began_s, times = trio.current_time(), TurnTimes()
            try:
                return await self._supervisor.ask(vault, message, timeout_s=timeout_s, times=times)
            finally:
                record_turn(recalling, began_s, times)

    async def _embed(self, embedder: Embedder, question: str, remaining_s: Callable[[], float]) -> tuple[bytes, float]:
        """The question as a vector, or b"" where the model fails on it or is too slow: its words remain."""
        began_s = time.perf_counter()
        vector = b""
        try:
            if embedder.may_stall:
                with trio.move_on_after(remaining_s() * STALL_SHARE_MAX), step("embed"):
                    vector = await _vector(embedder, question)
            else:
                with step("embed"):
                    vector = await _vector(embedder, question)
        except MemoryRouterError:
            raise
        except EmbedderUnavailable as error:
            log_event("question_not_embedded", level=logging.WARNING, embedder=embedder.name, reason=str(error))
        except Exception as error:  # the edge of the model, whatever it raises: recall must not end with it
            log_event("question_not_embedded", level=logging.ERROR, error=error)
        return vector, (time.perf_counter() - began_s) * 1000

    # Blocks of tool loops: the same block must stand in the same message for as long as the loop lasts.

    def cached_block(self, key: tuple[object, ...]) -> Recollection | None:
        """The recollection that an earlier request of this loop used, if it is recent."""
        expires_s, recollection = self._blocks.get(key, (0.0, NOTHING))
        return recollection if expires_s > self._clock() else None

    def cache_block(self, key: tuple[object, ...], recollection: Recollection) -> None:
        """Keep what this request used, for the turns of the loop that may follow; not if something was deleted since.

        Args:
            key: begins with the number of the vault.
        """
        if recollection.context is not None and recollection.deletions != self._deletions.get(_vault_of(key), 0):
            return
        now_s = self._clock()
        self._blocks[key] = (now_s + self._block_cache_s, _without_costs(recollection))
        self._blocks.move_to_end(key)
        while self._blocks:
            oldest = next(iter(self._blocks))
            if len(self._blocks) <= BLOCKS_MAX and self._blocks[oldest][0] > now_s:
                return
            del self._blocks[oldest]

    def when_forgotten(self, listener: Callable[[VaultRef], None]) -> None:
        """Whom else to tell that memories of a vault may not be quoted any more."""
        self._forgotten = listener

    def forget_blocks(self, vault: VaultRef) -> None:
        """Memories of this vault were deleted or changed: no loop may quote them any more."""
        self._forgotten(vault)
        self._deletions[vault.number] = self._deletions.get(vault.number, 0) + 1
        self._deletions.move_to_end(vault.number)
        if len(self._deletions) > BLOCKS_MAX:
            self._deletions.popitem(last=False)
        for key in [key for key in self._blocks if key[0] == vault.number]:
            del self._blocks[key]


def record_turn(recalling: Step, began_s: float, times: TurnTimes) -> None:
    """The two parts of asking a vault, as far as they have come: waiting in its mailbox, and its turn."""
    if times.taken_s:
        record_part(recalling, "mailbox", after_s=times.sent_s - began_s, took_s=times.taken_s - times.sent_s)
    if times.answered_s:
        record_part(recalling, "rank", after_s=times.taken_s - began_s, took_s=times.answered_s - times.taken_s)


def _vault_of(key: tuple[object, ...]) -> int:
    number = key[0]
    assert isinstance(number, int)
    return number


async def _vector(embedder: Embedder, question: str) -> bytes:
    matrix = await embedder.encode([question], lane="interactive")
    vector: bytes = matrix[0].astype("<f4").tobytes()
    return vector


def _without_costs(recollection: Recollection) -> Recollection:
    """What the cache keeps: the text and its size, not the memories behind it, and no time that was spent before."""
    return msgspec.structs.replace(recollection, hits=(), embedding_ms=0.0, total_ms=0.0)


@contextmanager
def _deadline(timeout_s: float) -> Iterator[Callable[[], float]]:
    """Bound a block and yield how many seconds are left of it.

    Raises:
        DeadlineExceeded: the block took longer.
    """
    with trio.move_on_after(timeout_s) as scope:
        yield lambda: max(0.0, scope.deadline - trio.current_time())
    if scope.cancelled_caught:
        raise DeadlineExceeded(f"Recall took longer than {timeout_s:g} s.")
