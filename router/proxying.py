"""One proxied request, whatever its wire format: recall, inject, call the provider, stream through, hand over.

Owns the order of these steps. Knows formats by their protocols only: which path and credential belong to which format
is the route's to say. Memory never breaks the chat (promise 4).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

import msgspec
import trio
from quart import Response, g, request
from quart.wrappers.response import ResponseBody

from models.errors import InvalidRequest, MemoryRouterError, Overloaded, UpstreamError
from models.ids import Principal
from models.memory import LOCAL_RECALL_MODEL
from router.auth import Caller
from router.chat_memory import ChatMemory
from router.components import Components
from router.headers import HeaderList
from router.options import MemoryOptions
from router.plans import CallOf, Plan, Planner
from router.provider_keys import find_stored_keys
from router.providers.base import ChatRequest, Reply, Turn, WireFormat
from router.request_ids import current_request_id
from router.requests import current_usage, offload, read_caller, read_json, read_options, watch_chat
from router.spoken_words import spoken_turns
from router.streaming import Relay, exits, stream_response, wait_durable
from router.translating import Adapted, adapt
from router.upstream import UpstreamResponse
from router.usage import MeteredCollector, RequestUsage, hidden_usage

FALLBACK_STATUSES = frozenset({408, 429, 500, 502, 503, 504, 529})
"""Answers after which another model may do better. Any other says that the request itself is wrong."""


class Answer(msgspec.Struct, frozen=True):
    """A reply that this server gives itself: its words, and the same as a body of the request's format."""

    text: str
    body: bytes
    content_type: str


Answerer = Callable[[ChatRequest, Sequence[Turn], ChatMemory], Answer]


class _Exchange(msgspec.Struct, frozen=True):
    """What the steps of one request share."""

    wire_format: WireFormat
    chat: ChatRequest
    memory: ChatMemory
    options: MemoryOptions
    body_bytes: int
    usage: RequestUsage


class _Answered(msgspec.Struct, frozen=True):
    """A provider's answer, its headers read, its body not."""

    reply: UpstreamResponse
    plan: Plan
    adapted: Adapted


class Proxy:
    """Serves requests of every wire format over the components."""

    def __init__(self, components: Components) -> None:
        self._parts = components
        self._planner = Planner(components.settings)
        self._commit_wait_s = components.settings.proxy.commit_wait_ms / 1000

    async def serve(self, wire_format: WireFormat, call_of: CallOf, *, local: Answerer) -> Response:
        """Serve the current request.

        Args:
            wire_format: what it is written in.
            call_of: how a provider is asked in that format.
            local: answers `local/recall` from the vault, in that format.

        Raises:
            MemoryRouterError: for the caller, in its wire format.
        """
        began_s = time.perf_counter()
        caller = await read_caller(self._parts)
        g.response_headers = {"X-Memory-Status": "off"}  # until memory has had its say
        raw = await read_json(self._parts)
        chat = await offload(self._parts, len(raw), wire_format.parse_request, raw)
        options = read_options(self._parts, caller, chat.options)
        answer = local if chat.model == LOCAL_RECALL_MODEL else None
        plans: list[Plan] = []
        if answer is None:
            plans = await self._plans(chat.model, caller, call_of)
        usage = current_usage()
        usage.name_model(chat.model)
        turns = await offload(self._parts, len(raw), lambda: spoken_turns(chat.turns()))
        memory = self._memory_of(chat, turns, options, caller.principal)
        exits().callback(partial(memory.close, model=chat.model))
        await memory.begin(budget_s=self._parts.settings.proxy.recall_budget_ms / 1000)
        tokens = memory.recollection.tokens
        usage.use_memory(retrieved=tokens, injected=memory.tokens_injected, billable=memory.tokens_injected)
        provider = plans[0].route.provider if plans else "local"
        facts = [("X-Provider-Detected", provider), ("X-MR-Overhead-Ms", f"{_ms_since(began_s):.1f}")]
        g.response_headers = dict([*memory.headers(), *facts])
        if answer is not None:
            return await self._answer_locally(answer(chat, turns, memory), chat, memory, facts)
        exchange = _Exchange(wire_format, chat, memory, options, len(raw), usage)
        try:
            return await self._forward(exchange, plans, facts)
        except MemoryRouterError:
            # What the user said is stored all the same, and before the client hears of the failure.
            await self._store(memory, None, model=chat.model)
            g.response_headers.update(memory.headers())
            raise

    async def _plans(self, model: str, caller: Caller, call_of: CallOf) -> list[Plan]:
        providers = self._planner.providers(model, caller.provider_key)
        stored = await find_stored_keys(self._parts.store, caller.principal.account_number, providers)
        return self._planner.plans(model, caller, stored, call_of, list(request.headers.items()))

    def _memory_of(
        self, chat: ChatRequest, turns: Sequence[Turn], options: MemoryOptions, principal: Principal
    ) -> ChatMemory:
        parts = self._parts
        return ChatMemory(
            chat,
            turns,
            options,
            principal,
            supervisor=parts.supervisor,
            recaller=parts.recaller,
            rememberer=parts.rememberer,
            quota=parts.quota,
            metrics=parts.metrics,
            now_ms=parts.now_ms,
            request_id=current_request_id(),
            content_max_chars=parts.settings.memory.content_max_chars,
            watch=watch_chat(parts, principal.vault),
            handing_on=parts.handing_on,
        )

    async def _answer_locally(
        self, answer: Answer, chat: ChatRequest, memory: ChatMemory, facts: HeaderList
    ) -> Response:
        await self._store(memory, Reply(text=answer.text, complete=True), model=chat.model)
        headers = dict([*memory.headers(), *facts])
        return Response(answer.body, 200, headers=headers, content_type=answer.content_type)

    async def _forward(self, exchange: _Exchange, plans: Sequence[Plan], facts: HeaderList) -> Response:
        """Call the provider. Leaving the request, in whatever way, closes the call and hands over what there is."""
        asked_s = time.perf_counter()
        with exchange.usage.provider_time():
            answered = await self._call_in_turn(exchange, plans)
        reply, chat, memory = answered.reply, exchange.chat, exchange.memory
        facts = [
            *facts[1:],
            ("X-Provider-Detected", answered.plan.route.provider),
            ("X-Provider-Response-Ms", f"{_ms_since(asked_s):.1f}"),
            ("X-MR-Attempts", str(reply.attempts)),
        ]
        if reply.status >= 300 or not (chat.stream and reply.media_type == chat.stream_type):
            return await self._whole(exchange, answered, facts)
        chunks = answered.adapted.chunks(reply)
        collector = chat.collector(text_chars_max=self._parts.settings.memory.content_max_chars)
        metered = MeteredCollector(collector, exchange.usage, partial(hidden_usage, chunks))
        relay = Relay(
            chunks,
            wire_format=exchange.wire_format,
            splitter=chat.splitter(event_bytes_max=self._parts.settings.proxy.event_bytes_max),
            collector=metered,
            hand_off=partial(memory.hand_off, model=chat.model),
            on_not_durable=memory.not_durable,
            commit_wait_s=self._commit_wait_s,
        )
        exits().callback(lambda: metered.close(is_cut=relay.outcome == "cut"))
        return stream_response(relay, status=reply.status, headers=[*reply.headers, *memory.headers(), *facts])

    async def _call_in_turn(self, exchange: _Exchange, plans: Sequence[Plan]) -> _Answered:
        """The first usable answer, open until the request is over. A plan is tried when the one before has failed; of
        the last that can be tried any answer counts."""
        waiting = deque(plans)
        plan = waiting.popleft()
        adapted = await self._adapt(exchange, plan)
        while True:
            async with AsyncExitStack() as closing:
                try:
                    reply = await closing.enter_async_context(
                        self._parts.upstream.stream(
                            plan.route.provider, plan.call.path, headers=plan.headers, body=adapted.body
                        )
                    )
                except (UpstreamError, Overloaded):
                    following = await self._next(exchange, waiting)
                    if following is None:
                        raise
                else:
                    failed = reply.status in FALLBACK_STATUSES
                    following = await self._next(exchange, waiting) if failed else None
                    if following is None:
                        exits().push_async_callback(closing.pop_all().aclose)
                        return _Answered(reply, plan, adapted)
                plan, adapted = following

    async def _next(self, exchange: _Exchange, waiting: deque[Plan]) -> tuple[Plan, Adapted] | None:
        """The next plan in whose format the request can be said."""
        while waiting:
            plan = waiting.popleft()
            try:
                return plan, await self._adapt(exchange, plan)
            except InvalidRequest:
                continue
        return None

    async def _adapt(self, exchange: _Exchange, plan: Plan) -> Adapted:
        encode = partial(
            exchange.chat.encode,
            model=plan.route.model,
            block=exchange.memory.block,
            injection=exchange.options.injection,
        )
        body = await offload(self._parts, exchange.body_bytes, encode)
        return await offload(self._parts, len(body), adapt, body, plan, now_s=self._parts.now_ms() // 1000)

    async def _whole(self, exchange: _Exchange, answered: _Answered, facts: HeaderList) -> Response:
        """A reply in one piece: a completion, an error, or something that only the client understands."""
        reply, memory = answered.reply, exchange.memory
        with exchange.usage.provider_time():
            body, is_whole = await _read_up_to(reply, self._parts.settings.proxy.reply_bytes_max)
        said = None
        if is_whole:
            body = await offload(self._parts, len(body), answered.adapted.reply, body, status=reply.status)
        elif answered.adapted.translation is not None:
            raise UpstreamError("The provider's reply is too long to be translated.")
        if is_whole and reply.status < 300:
            text_chars_max = self._parts.settings.memory.content_max_chars
            parse = partial(exchange.wire_format.parse_reply, body, text_chars_max=text_chars_max)
            said = await offload(self._parts, len(body), parse)
            exchange.usage.hear(None if said is None else said.usage)
        await self._store(memory, said, model=exchange.chat.model)
        response = Response(body if is_whole else _Rest(body, reply), reply.status)
        response.headers.clear()
        for name, value in [*reply.headers, *memory.headers(), *facts]:
            response.headers.add(name, value)
        if is_whole:
            response.headers.add("content-length", str(len(body)))
        return response

    async def _store(self, memory: ChatMemory, said: Reply | None, *, model: str) -> None:
        """Hand the exchange over and wait, within bounds, until it is durable."""
        try:
            receipt = memory.hand_off(said, model=model)
        except MemoryRouterError as error:
            memory.not_durable(error.code)
            return
        reason = await wait_durable(receipt, deadline=trio.current_time() + self._commit_wait_s)
        if reason is not None:
            memory.not_durable(reason)


class _Rest(ResponseBody):
    """A reply that is too long to be read along: what has been read of it, then what comes."""

    def __init__(self, beginning: bytes, reply: UpstreamResponse) -> None:
        self._beginning = beginning
        self._reply = reply

    async def __aenter__(self) -> _Rest:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._reply.aclose()

    def __aiter__(self) -> _Rest:
        return self

    async def __anext__(self) -> bytes:
        beginning, self._beginning = self._beginning, b""
        return beginning or await anext(self._reply)


async def _read_up_to(reply: UpstreamResponse, bytes_max: int) -> tuple[bytes, bool]:
    """The reply's body and True, or its beginning and False if it is longer than that."""
    body = bytearray()
    async for chunk in reply:
        body += chunk
        if len(body) > bytes_max:
            return bytes(body), False
    return bytes(body), True


def _ms_since(began_s: float) -> float:
    return (time.perf_counter() - began_s) * 1000
