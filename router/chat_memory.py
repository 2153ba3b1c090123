"""The memory half of one proxied chat: recall before it, hand-over after it, and what the headers say of both.

Memory never breaks the chat (promise 4): whatever goes wrong here becomes a status, a metric and a log line, never an
error. Knows nothing of the provider or of Quart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING

import trio

from actors.choosing_embedders import choose_embedder
from actors.supervisor import Pin, Receipt, Supervisor
from models.errors import DeadlineExceeded, MemoryRouterError, NotOwner, Overloaded, QuotaExceeded
from models.ids import Principal
from models.memory import LOCAL_RECALL_MODEL, Exchange, Message, charged_to
from models.text import clean
from router.dashboard.chats import ChatWatch
from router.memory_ids import MEMORY_IDS, ids_header
from router.memory_quota import MemoryQuota, Reservation
from router.observe import log_event
from router.options import MemoryOptions
from router.providers.base import ChatRequest, Reply, Turn
from router.providers.json_bytes import whole_text
from router.questions import asked_of
from router.recalling import NOTHING, Recaller, Recollection
from router.remembering import MODEL_CHARACTERS_MAX, Rememberer, messages_of
from router.server_metrics import Metrics

if TYPE_CHECKING:
    from router.stored_elsewhere import HandingOn

CHOICE_TIMEOUT_S = 1.0
"""For a new vault to begin anew with the embedder that a chat names; it holds nothing yet."""


class ChatMemory:
    """One request's memory. `begin` first, then `hand_off` at most once; `close` in any case."""

    def __init__(
        self,
        chat: ChatRequest,
        turns: Sequence[Turn],
        options: MemoryOptions,
        principal: Principal,
        *,
        supervisor: Supervisor,
        recaller: Recaller,
        rememberer: Rememberer,
        quota: MemoryQuota,
        metrics: Metrics,
        now_ms: Callable[[], int],
        request_id: str,
        content_max_chars: int,
        watch: ChatWatch | None = None,
        handing_on: HandingOn | None = None,
    ) -> None:
        self._chat = chat
        self._turns = turns
        self._options = options
        self._principal = principal
        self._vault = principal.vault
        self._supervisor = supervisor
        self._recaller = recaller
        self._rememberer = rememberer
        self._quota = quota
        self._room = Reservation()
        self._metrics = metrics
        self._now_ms = now_ms
        self._request_id = request_id
        self._content_max_chars = content_max_chars
        self._watch = watch
        self._handing_on = handing_on
        self._is_elsewhere = False
        self._block_key = self._find_block_key()
        self._pin: Pin | None = None
        self._no_pin = DeadlineExceeded.code
        self._messages: list[Message] = []
        self._handed_off = False
        self.status = "off"
        self.recollection = NOTHING

    def _find_block_key(self) -> tuple[object, ...] | None:
        """Where the cache keeps this turn's block. `local/recall` has no tool loops, and needs more than a block."""
        anchor = None if self._chat.model == LOCAL_RECALL_MODEL else self._chat.anchor_hash()
        return None if anchor is None else (self._vault.number, self._options.scope, anchor)

    async def begin(self, *, budget_s: float) -> None:
        """Reserve a place for the exchange and recall, both within `budget_s`; what does not succeed is left out."""
        reads, stores = self._options.access.read, self._options.stores
        known = self._known_block() if reads else None
        recalls = reads and known is None
        if reads:
            self._use(known or NOTHING)
        if stores or recalls:
            await self._reserve_and_recall(budget_s, stores=stores, recalls=recalls)
        if recalls:
            self._keep_block()
        if self.status != "ok":
            self._metrics.memory_skipped.increment(self.status)
        if self._watch is not None:
            self._watch.recalled(self.recollection, status=self.status, mode=self._options.access.mode, stores=stores)
        if stores and self._pin is None and not self._is_elsewhere:
            self.not_durable(self._no_pin)

    async def _reserve_and_recall(self, budget_s: float, *, stores: bool, recalls: bool) -> None:
        with trio.move_on_after(budget_s) as budget:
            if stores:
                await self._reserve()
            if recalls:
                await self._recall(budget_s)
        if recalls and budget.cancelled_caught:
            self._fail(DeadlineExceeded("Memory took longer than its budget."))

    def _use(self, recollection: Recollection) -> None:
        self.recollection = recollection
        self.status = "empty" if recollection.context is None else "ok"

    async def _reserve(self) -> None:
        """Pin the vault, and leave out of the exchange what the vault knows."""
        messages = messages_of(self._turns, self._options, content_max_chars=self._content_max_chars)
        self._messages = messages
        now_ms, further, room = self._now_ms(), int(self._options.store_response), None
        await self._choose_embedder()
        try:
            self._pin = await self._supervisor.pin(self._vault)
            room = await self._quota.reserve(self._principal, messages, source="proxy", now_ms=now_ms, further=further)
        except MemoryRouterError as error:
            self._no_pin = error.code
            is_elsewhere = isinstance(error, NotOwner) and error.owner_address  # else nobody is known to own it
            self._is_elsewhere = bool(is_elsewhere) and self._handing_on is not None
            return
        finally:
            if room is None:
                self._let_go()
        self._room = room
        self._messages = await self._rememberer.unknown(self._vault, messages, source="proxy", now_ms=now_ms)

    async def _choose_embedder(self) -> None:
        """A chat chooses a vault's embedder only where nobody has: it must not wait until a vault has loaded anew."""
        name = self._options.embedder
        if name is None:
            return
        try:
            await choose_embedder(self._supervisor, self._vault, name, timeout_s=CHOICE_TIMEOUT_S, only_new=True)
        except MemoryRouterError as error:
            log_event("embedder_not_chosen", level=logging.WARNING, code=error.code, vault=self._vault.number)

    def _let_go(self) -> None:
        """Nothing of this exchange will be handed over any more; what was goes its way."""
        if self._pin is not None:
            self._pin.close()
            self._pin = None
        self._room.close()

    async def _recall(self, budget_s: float) -> None:
        try:
            recollection = await self._recaller.recall(
                self._vault,
                asked_of(self._turns),
                self._options,
                now_ms=self._now_ms(),
                timeout_s=budget_s,
            )
        except MemoryRouterError as error:
            self._fail(error)
            return
        self._use(recollection)

    def _known_block(self) -> Recollection | None:
        """What the turn that began this tool loop was given."""
        if self._block_key is None or not self._chat.in_tool_loop:
            return None
        return self._recaller.cached_block(self._block_key)

    def _keep_block(self) -> None:
        """Remember what this turn was given, be it nothing: in its tool loop the prompt must not change any more."""
        if self._block_key is not None:
            self._recaller.cache_block(self._block_key, self.recollection)

    def _fail(self, error: MemoryRouterError) -> None:
        if isinstance(error, DeadlineExceeded):
            self.status = "timeout"
        elif isinstance(error, Overloaded):
            self.status = "overloaded"
        else:
            self.status = "error"
        log_event("recall_skipped", level=logging.WARNING, code=error.code, vault=self._vault.number)

    @property
    def time_zone(self) -> tzinfo:
        """How times are shown to this caller."""
        return self._options.time_zone

    @property
    def block(self) -> str:
        """What to inject; "" for nothing."""
        return self.recollection.context or ""

    def hand_off(self, reply: Reply | None, *, model: str) -> Receipt | None:
        """Put the exchange into the committer's queue; the first call counts. A plain function: it cannot be cancelled.

        Args:
            reply: the complete reply, or None when there is none: then the user's turn alone is stored.

        Returns:
            What to wait for, or None when nothing is being stored.

        Raises:
            MemoryRouterError: the store takes nothing now.
        """
        if self._handed_off or (self._pin is None and not self._is_elsewhere):
            return None
        self._handed_off = True
        messages = [*self._messages, *self._reply_messages(reply)]
        if self._watch is not None:
            self._watch.handed_over(len(messages))
        if not messages:
            return None
        exchange = Exchange(
            messages=tuple(messages),
            source="proxy",
            accepted_ms=self._now_ms(),
            model=whole_text(model[:MODEL_CHARACTERS_MAX]),
            request_id=self._request_id,
        )
        exchange = charged_to(self._principal, exchange)
        if self._handing_on is not None:
            quotes = bool(self.recollection.chunks)
            return self._handing_on.submit(self._pin, self._principal, exchange, quotes=quotes)
        assert self._pin is not None
        return self._pin.submit([exchange])

    def _reply_messages(self, reply: Reply | None) -> list[Message]:
        if reply is None or not reply.complete or not self._options.store_response:
            return []
        if self.recollection.chunks and self._erased_meanwhile():
            return []  # it may repeat what was deleted while it was written; what the user said is theirs to say
        content = clean(reply.text)[: self._content_max_chars]
        session_id = self._options.session_id
        return [Message(role="assistant", content=content, session_id=session_id, final=True)] if content else []

    def _erased_meanwhile(self) -> bool:
        """Whether the vault that was recalled from is gone, and the exchange goes into the one in its place."""
        return self._pin is not None and self._supervisor.current(self._pin.vault) != self._pin.vault

    def not_durable(self, reason: str) -> None:
        """The end of the reply went out although the exchange is not known to be durable. Never silent."""
        self.status = "not_stored"
        self._not_stored(reason)

    def _not_stored(self, reason: str) -> None:
        if self._watch is not None:
            self._watch.not_stored(reason)
        self._metrics.not_stored.increment(reason)
        self._metrics.memory_skipped.increment("not_stored")
        level = logging.INFO if reason == QuotaExceeded.code else logging.ERROR
        log_event("not_stored", level=level, reason=reason, vault=self._vault.number)

    def close(self, *, model: str) -> None:
        """The request is over: the user's turn is stored if nothing was handed off before, and the vault let go."""
        try:
            self.hand_off(None, model=model)
        except MemoryRouterError as error:
            self._not_stored(error.code)
        self._let_go()

    @property
    def tokens_injected(self) -> int:
        """Tokens of the block that the provider is given."""
        return self.recollection.tokens if self.status in ("ok", "not_stored") else 0

    def headers(self) -> list[tuple[str, str]]:
        """What every proxied response says of memory (contract 2.4)."""
        recollection, injected = self.recollection, self.tokens_injected
        headers = [
            ("X-Memory-Status", self.status),
            ("X-Memory-Mode", self._options.access.mode),
            ("X-Memory-Tokens-Retrieved", str(recollection.tokens)),
            ("X-Memory-Chunks-Retrieved", str(recollection.chunks)),
            ("X-Memory-Tokens-Injected", str(injected)),
            ("X-Memory-Injection-Format", "xml" if injected else "none"),
            (MEMORY_IDS, ids_header(recollection.ids)),
            ("X-Embedding-Ms", f"{recollection.embedding_ms:.1f}"),
            ("X-MR-Processing-Ms", f"{recollection.total_ms:.1f}"),
        ]
        embedder = self._supervisor.embedder_nowait(self._vault) if self._options.embedder else None
        if embedder is not None:
            headers.append(("X-Embedding-Model", embedder.name))
        if self._options.session_id is not None:
            headers.append(("X-Session-ID", header_safe(self._options.session_id)))
        return headers


def header_safe(value: str) -> str:
    """A value that cannot break a header: printable ASCII, the rest as `?`."""
    return "".join(character if " " <= character <= "~" else "?" for character in value)
