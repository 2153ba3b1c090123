"""`POST /v1/chat/completions`: recall, inject, stream the provider's bytes through, hand over the exchange."""

from __future__ import annotations

import time
from functools import partial

import trio
from quart import Blueprint, Response, g, request

from models.errors import MemoryRouterError, NoProviderKey
from models.ids import VaultRef
from models.memory import LOCAL_RECALL_MODEL
from models.times import absolute_time
from models.settings import Secret
from router.auth import Caller
from router.chat_memory import ChatMemory
from router.components import Components
from router.headers import HeaderList, request_headers
from router.local_recall import RecalledItem, completion, completion_events, reply_text
from router.options import MemoryOptions
from router.providers.base import ChatRequest, Reply
from router.providers.openai_chat import OPENAI_CHAT, ChatCompletionsRequest
from router.providers.routing import Route, RoutingTable
from router.request_ids import current_request_id
from router.requests import read_body, read_caller, read_options
from router.streaming import Relay, exits, stream_response, wait_durable
from router.upstream import UpstreamResponse


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
        chat = OPENAI_CHAT.parse_request(await read_body(self._parts))
        options = read_options(self._parts, caller, chat.options)
        if chat.model == LOCAL_RECALL_MODEL:
            route, api_key = None, Secret()
        else:
            route = self._table.resolve(chat.model)
            api_key = self._provider_key(caller, route)
        memory = self._memory_of(chat, options, caller.principal.vault)
        exits().callback(partial(memory.close, model=chat.model))
        await memory.begin(budget_s=self._parts.settings.proxy.recall_budget_ms / 1000)
        provider = route.provider if route is not None else "local"
        facts = [("X-Provider-Detected", provider), ("X-MR-Overhead-Ms", f"{_ms_since(began_s):.1f}")]
        g.response_headers = dict([*memory.headers(), *facts])
        if route is None:
            return await self._answer_locally(chat, memory, facts)
        headers = request_headers(request.headers.items(), provider=route.provider, api_key=api_key)
        body = chat.encode(model=route.model, block=memory.block, injection=options.injection)
        return await self._forward(chat, memory, route, headers, body, facts)

    def _provider_key(self, caller: Caller, route: Route) -> Secret:
        """The caller's own key, else the configured one. Servers on plain HTTP (Ollama, vLLM) may need none."""
        key = caller.provider_key or route.settings.api_key
        if not key and route.settings.base_url.startswith("https:"):
            raise NoProviderKey(
                f"No API key configured for provider: {route.provider}.",
                hint="Send it in X-Provider-Key, or set it in config.toml or the environment.",
            )
        return key

    def _memory_of(self, chat: ChatRequest, options: MemoryOptions, vault: VaultRef) -> ChatMemory:
        parts = self._parts
        return ChatMemory(
            chat,
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
        body = await reply.read(bytes_max=self._parts.settings.proxy.reply_bytes_max)
        text_chars_max = self._parts.settings.memory.content_max_chars
        said = OPENAI_CHAT.parse_reply(body, text_chars_max=text_chars_max) if reply.status < 300 else None
        await self._store(memory, said, model=chat.model)
        response = Response(body, reply.status)
        response.headers.clear()
        for name, value in [*reply.headers, *memory.headers(), *facts]:
            response.headers.add(name, value)
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

    async def _answer_locally(self, chat: ChatCompletionsRequest, memory: ChatMemory, facts: HeaderList) -> Response:
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
        ]
        text = reply_text(items)
        await self._store(memory, Reply(text=text, complete=True), model=chat.model)
        prompt = "\n".join(turn.text for turn in chat.turns())
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


def _ms_since(began_s: float) -> float:
    return (time.perf_counter() - began_s) * 1000
