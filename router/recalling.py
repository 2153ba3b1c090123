"""From a conversation to a context: the question, its embedding, the vault's answer, the rendered block.

Owns the question's text and the cache of blocks for tool loops. `recall` raises; whether a failure may be passed over
is the route's business (promise 4).
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, tzinfo
from functools import lru_cache

import msgspec
import trio

from actors.embedder import Embedder
from actors.supervisor import Supervisor
from models.embedding import TextEncoder
from models.errors import DeadlineExceeded, MemoryRouterError
from models.ids import VaultRef
from models.messages import Found, Hit, Recall, Recalled, Search
from models.rendering import ContextItem, entry_header, render_context
from models.text import clean, normalised
from models.words import terms
from router.observe import log_event
from router.options import MemoryOptions
from router.providers.base import Turn

QUESTION_CHARACTERS_MAX = 2_000
"""Longer questions are cut from the front: the model reads 256 tokens, and what is asked usually comes last."""

TERSE_TERMS_MAX = 2
"""A last turn with so few words ("and there?", "why?") is understood with the turns before it."""

ENTRY_HEADER_TOKENS = 32
"""`[MEMORY - 2 days ago (Wed, Jun 3, 9:14 AM)] ` with its blank line, rounded up."""

BLOCKS_MAX = 4_096
COUNTED_PARTS_MAX = 4_096
_QUESTION_MARKS = ("?", "\uff1f", "\u061f")


class Recollection(msgspec.Struct, frozen=True):
    """What came of a recall.

    Attributes:
        context: the block to inject, or None when nothing is relevant.
        hits: what it was made of, best first; empty where the block comes from the cache.
        chunks: how many they are.
        tokens: its length as the embedding model counts.
        embedding_ms, total_ms: how long it took.
    """

    context: str | None = None
    hits: tuple[Hit, ...] = ()
    chunks: int = 0
    tokens: int = 0
    embedding_ms: float = 0.0
    total_ms: float = 0.0


NOTHING = Recollection()


def question_text(turns: Sequence[Turn]) -> str:
    """The words to search by: the last user turn, with what was said before it where it says too little alone."""
    texts = [text for turn in turns if (text := clean(turn.text))]
    users = [position for position, turn in enumerate(turns) if turn.role == "user" and clean(turn.text)]
    if not users:
        return ""
    question = clean(turns[users[-1]].text)
    if len(terms(question[:QUESTION_CHARACTERS_MAX])) <= TERSE_TERMS_MAX:
        question = "\n".join(texts[-3:])
    return question[-QUESTION_CHARACTERS_MAX:]


def context_item(hit: Hit) -> ContextItem:
    """A hit as it is shown in a context."""
    return ContextItem(text=hit.matched, role=hit.memory.role, timestamp_ms=hit.memory.timestamp_ms)


def without_echo(hits: Sequence[Hit], question: str) -> tuple[Hit, ...]:
    """The hits without the question itself: asked before, it is the best match for itself and answers nothing."""
    if not question.rstrip().endswith(_QUESTION_MARKS):
        return tuple(hits)
    asked = normalised(question)
    return tuple(hit for hit in hits if normalised(hit.matched) != asked)


class ContextTokens:
    """Counts a context's tokens by its parts.

    The model's tokeniser splits at white space and punctuation first, so the parts' counts add up to the whole's, and
    nearly all parts are known: a memory carries its count, and the words of headers repeat. Counting whole contexts of
    thirty memories took a quarter of the time of `prepare`.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self._count = lru_cache(maxsize=COUNTED_PARTS_MAX)(encoder.count_tokens)
        self.frame_tokens = encoder.count_tokens(render_context([], 0, UTC))

    def context_tokens(self, hits: Sequence[Hit], now_ms: int, time_zone: tzinfo) -> int:
        """Tokens of the context that these hits make."""
        headers = (entry_header(context_item(hit), now_ms, time_zone) for hit in hits)
        words = sum(self._count(word) for header in headers for word in header.split())
        return self.frame_tokens + words + sum(map(self.hit_tokens, hits))

    def hit_tokens(self, hit: Hit) -> int:
        """Tokens of a hit's text."""
        whole = len(hit.matched) == len(hit.memory.content)
        return hit.memory.tokens if whole else self._count(hit.matched)


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
    ) -> None:
        self._context_tokens_max = context_tokens_max
        self._counter = ContextTokens(embedder.encoder)
        self._embedder = embedder
        self._supervisor = supervisor
        self._block_cache_s = block_cache_s
        self._clock = clock
        self._blocks: OrderedDict[tuple[object, ...], tuple[float, Recollection]] = OrderedDict()

    async def recall(
        self, vault: VaultRef, question: str, options: MemoryOptions, *, now_ms: int, timeout_s: float
    ) -> Recollection:
        """The context for a question.

        Raises:
            DeadlineExceeded, Overloaded: not within `timeout_s`.
            MemoryRouterError: the vault's own error.
        """
        began_s = time.perf_counter()
        if not question or not options.chunks_max:
            return NOTHING
        with _deadline(timeout_s) as remaining_s:
            vector, embedding_ms = await self._embed(question)
            message = Recall(
                text=question,
                vector=vector,
                scope=options.scope,
                chunks_max=options.chunks_max,
                now_ms=now_ms,
            )
            recalled: Recalled = await self._supervisor.ask(vault, message, timeout_s=remaining_s())
        hits = self._within_budget(without_echo(recalled.hits, question))
        items = [context_item(hit) for hit in hits]
        context = render_context(items, now_ms, options.time_zone) if items else None
        return Recollection(
            context=context,
            hits=hits,
            chunks=len(hits),
            tokens=self._counter.context_tokens(hits, now_ms, options.time_zone) if context else 0,
            embedding_ms=embedding_ms,
            total_ms=(time.perf_counter() - began_s) * 1000,
        )

    def _within_budget(self, hits: Sequence[Hit]) -> tuple[Hit, ...]:
        """The best hits whose entries fit into the token budget together; all of them without one."""
        if not self._context_tokens_max:
            return tuple(hits)
        left = self._context_tokens_max - self._counter.frame_tokens
        fitting = []
        for hit in hits:
            left -= ENTRY_HEADER_TOKENS + self._counter.hit_tokens(hit)
            if left < 0:
                break
            fitting.append(hit)
        return tuple(fitting)

    async def search(
        self,
        vault: VaultRef,
        question: str,
        options: MemoryOptions,
        *,
        limit: int,
        now_ms: int,
        timeout_s: float,
    ) -> tuple[Hit, ...]:
        """Memories for a question, best first.

        Raises:
            DeadlineExceeded, Overloaded: not within `timeout_s`.
            MemoryRouterError: the vault's own error.
        """
        with _deadline(timeout_s) as remaining_s:
            vector, _ = await self._embed(question)
            message = Search(text=question, vector=vector, scope=options.scope, limit=limit, now_ms=now_ms)
            found: Found = await self._supervisor.ask(vault, message, timeout_s=remaining_s())
        return found.hits

    async def _embed(self, question: str) -> tuple[bytes, float]:
        """The question as a vector, or b"" where the model fails on it: its words remain."""
        began_s = time.perf_counter()
        vector = b""
        try:
            matrix = await self._embedder.encode([question], lane="interactive")
            vector = matrix[0].astype("<f4").tobytes()
        except MemoryRouterError:
            raise
        except Exception as error:  # the edge of the model, whatever it raises: recall must not end with it
            log_event("question_not_embedded", level=logging.ERROR, error=error)
        return vector, (time.perf_counter() - began_s) * 1000

    # Blocks of tool loops: the same block must stand in the same message for as long as the loop lasts.

    def cached_block(self, key: tuple[object, ...]) -> Recollection | None:
        """The recollection that an earlier request of this loop used, if it is recent."""
        expires_s, recollection = self._blocks.get(key, (0.0, NOTHING))
        return recollection if expires_s > self._clock() else None

    def cache_block(self, key: tuple[object, ...], recollection: Recollection) -> None:
        """Keep what this request used, for the turns of the loop that may follow.

        Args:
            key: begins with the number of the vault.
        """
        now_s = self._clock()
        self._blocks[key] = (now_s + self._block_cache_s, _without_costs(recollection))
        self._blocks.move_to_end(key)
        while self._blocks:
            oldest = next(iter(self._blocks))
            if len(self._blocks) <= BLOCKS_MAX and self._blocks[oldest][0] > now_s:
                return
            del self._blocks[oldest]

    def forget_blocks(self, vault: VaultRef) -> None:
        """Memories of this vault are being deleted: no loop may quote them any more."""
        for key in [key for key in self._blocks if key[0] == vault.number]:
            del self._blocks[key]


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
