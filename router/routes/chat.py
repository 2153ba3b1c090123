"""`POST /v1/chat/completions`: recall, inject, stream the provider's bytes through, hand over the exchange."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from functools import partial

import trio
from quart import Blueprint, Response, g, request
from quart.wrappers.response import ResponseBody

from models.errors import MemoryRouterError, NoProviderKey
from models.ids import VaultRef
from models.memory import LOCAL_RECALL_MODEL
from models.settings import Secret
from models.times import absolute_time
from router.auth import Caller
from router.chat_memory import ChatMemory
from router.components import Components
from router.headers import HeaderList, request_headers
from router.local_recall import RecalledItem, completion, completion_events, reply_text
from router.options import MemoryOptions
from router.providers.base import ChatRequest, Reply, Turn
from router.providers.openai_chat import OPENAI_CHAT, ChatCompletionsRequest
from router.providers.routing import Route, RoutingTable
from router.request_ids import current_request_id
from router.requests import offload, read_body, read_caller, read_options
from router.streaming import Relay, exits, stream_response, wait_durable
from router.upstream import UpstreamResponse

_SENTENCE_END = re.compile(r"[.!?\uff1f\u3002\uff01]\s+\S|\n")


def chat_routes(components: Components) -> Blueprint:
    """The blueprint of the chat proxy."""
    routes = Blueprint("chat", __name__)
    api = _ChatApi(components)
    routes.post("/v1/chat/completions")(api.completions)
    return routes


class _ChatApi:
    """The handlers, over the components."""

    def __init__(self, components: Components) -> None:
        self._parts = components
        self._table = RoutingTable(components.settings.providers.by_name, default=components.settings.providers.default)
        self._commit_wait_s = components.settings.proxy.commit_wait_ms / 1000

    async def completions(self) -> Response:
        """One chat completion, streamed or not."""
        began_s = time.perf_counter()
        caller = await read_caller(self._parts)
        g.response_headers = {"X-Memory-Status": "off"}  # until memory has had its say
        raw = await read_body(self._parts)
        chat = await offload(self._parts, len(raw), OPENAI_CHAT.parse_request, raw)
        options = read_options(self._parts, caller, chat.options)
        if chat.model == LOCAL_RECALL_MODEL:
            route, headers = None, []
        else:
            route = self._table.resolve(chat.model)
            api_key = self._provider_key(caller, route)
            headers = request_headers(request.headers.items(), provider=route.provider, api_key=api_key)
        turns = await offload(self._parts, len(raw), chat.turns)
        memory = self._memory_of(chat, turns, options, caller.principal.vault)
        exits().callback(partial(memory.close, model=chat.model))
        await memory.begin(budget_s=self._parts.settings.proxy.recall_budget_ms / 1000)
        provider = route.provider if route is not None else "local"
        facts = [("X-Provider-Detected", provider), ("X-MR-Overhead-Ms", f"{_ms_since(began_s):.1f}")]
        g.response_headers = dict([*memory.headers(), *facts])
        if route is None:
            return await self._answer_locally(chat, turns, memory, facts)
        encode = partial(chat.encode, model=route.model, block=memory.block, injection=options.injection)
        body = await offload(self._parts, len(raw), encode)
        try:
            return await self._forward(chat, memory, route, headers, body, facts)
        except MemoryRouterError:
            # What the user said is stored all the same, and before the client hears of the failure.
            await self._store(memory, None, model=chat.model)
            g.response_headers = dict([*memory.headers(), *facts])
            raise

    def _provider_key(self, caller: Caller, route: Route) -> Secret:
        """The caller's own key, else the configured one. Servers on plain HTTP (Ollama, vLLM) may need none."""
        key = caller.provider_key or route.settings.api_key
        if not key and route.settings.base_url.startswith("https:"):
            raise NoProviderKey(
                f"No API key configured for provider: {route.provider}.",
                hint="Send it in X-Provider-Key, or set it in config.toml or the environment.",
            )
        return key

    def _memory_of(
        self, chat: ChatRequest, turns: Sequence[Turn], options: MemoryOptions, vault: VaultRef
    ) -> ChatMemory:
        parts = self._parts
        return ChatMemory(
            chat,
            turns,
            options,
            vault,
            supervisor=parts.supervisor,
            recaller=parts.recaller,
            rememberer=parts.rememberer,
            metrics=parts.metrics,
            now_ms=parts.now_ms,
            request_id=current_request_id(),
            content_max_chars=parts.settings.memory.content_max_chars,
        )

    async def _forward(
        self,
        chat: ChatCompletionsRequest,
        memory: ChatMemory,
        route: Route,
        headers: HeaderList,
        body: bytes,
        facts: HeaderList,
    ) -> Response:
        """Call the provider. Leaving the request, in whatever way, closes the call and hands over what there is."""
        asked_s = time.perf_counter()
        reply = await exits().enter_async_context(
            self._parts.upstream.stream(route.provider, route.chat_path, headers=headers, body=body)
        )
        facts = [*facts, ("X-Provider-Response-Ms", f"{_ms_since(asked_s):.1f}")]
        if reply.status >= 300 or not (chat.stream and reply.is_event_stream):
            return await self._whole(chat, memory, reply, facts)
        relay = Relay(
            reply,
            wire_format=OPENAI_CHAT,
            collector=chat.collector(text_chars_max=self._parts.settings.memory.content_max_chars),
            hand_off=partial(memory.hand_off, model=chat.model),
            on_not_durable=memory.not_durable,
            commit_wait_s=self._commit_wait_s,
            event_bytes_max=self._parts.settings.proxy.event_bytes_max,
        )
        return stream_response(relay, status=reply.status, headers=[*reply.headers, *memory.headers(), *facts])

    async def _whole(
        self, chat: ChatCompletionsRequest, memory: ChatMemory, reply: UpstreamResponse, facts: HeaderList
    ) -> Response:
        """A reply in one piece: a completion, an error, or something that only the client understands."""
        body, is_whole = await _read_up_to(reply, self._parts.settings.proxy.reply_bytes_max)
        said = None
        if is_whole and reply.status < 300:
            text_chars_max = self._parts.settings.memory.content_max_chars
            parse = partial(OPENAI_CHAT.parse_reply, body, text_chars_max=text_chars_max)
            said = await offload(self._parts, len(body), parse)
        await self._store(memory, said, model=chat.model)
        response = Response(body if is_whole else _Rest(body, reply), reply.status)
        response.headers.clear()
        for name, value in [*reply.headers, *memory.headers(), *facts]:
            response.headers.add(name, value)
        if is_whole:
            response.content_length = len(body)
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

    async def _answer_locally(
        self, chat: ChatCompletionsRequest, turns: Sequence[Turn], memory: ChatMemory, facts: HeaderList
    ) -> Response:
        """`local/recall`: the vault's best memories as a reply, without any provider."""
        now_ms = self._parts.now_ms()
        items = [
            RecalledItem(
                text=hit.matched,
                role=hit.memory.role,
                when=absolute_time(hit.memory.timestamp_ms, now_ms, memory.time_zone),
                timestamp_ms=hit.memory.timestamp_ms,
            )
            for hit in memory.recollection.hits
            if not (hit.memory.role == "user" and _only_asks(hit.matched))
        ]
        text = reply_text(items)
        await self._store(memory, Reply(text=text, complete=True), model=chat.model)
        prompt = "\n".join(turn.text for turn in turns)
        completion_id, created_s = f"chatcmpl-{current_request_id()}", now_ms // 1000
        if chat.stream:
            events = completion_events(
                text,
                prompt=prompt,
                completion_id=completion_id,
                created_s=created_s,
                include_usage=chat.include_usage,
            )
            body, kind = b"".join(events), "text/event-stream; charset=utf-8"
        else:
            body = completion(text, prompt=prompt, completion_id=completion_id, created_s=created_s)
            kind = "application/json"
        return Response(body, 200, headers=dict([*memory.headers(), *facts]), content_type=kind)


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


def _only_asks(text: str) -> bool:
    """Whether a text is one question and nothing else: it was worth storing, and answers nothing."""
    text = text.strip()
    return text.endswith(("?", "\uff1f", "\u061f")) and not _SENTENCE_END.search(text)


def _ms_since(began_s: float) -> float:
    return (time.perf_counter() - began_s) * 1000
