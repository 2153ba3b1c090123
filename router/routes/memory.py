"""`/v1/memory/*`: prepare, ingest, search, upload, stats, warmup, delete (contract 1.4 to 1.10)."""

from __future__ import annotations

import time
from typing import Any

from quart import Blueprint, Response, request

from actors.choosing_embedders import choose_embedder, embedder_of
from models.errors import Forbidden, InvalidRequest
from models.memory import Exchange, Message, Role
from models.messages import Barrier, Forget, Forgotten, Hit, Stats, VaultStats
from router.auditing import actor_of, audit_memories, to_the_end
from router.auth import Caller
from router.components import Components
from router.conversations import read_messages, turns_of
from router.memory_answers import prepared, search_item, stats_body, stored_body
from router.memory_ids import MEMORY_IDS, ids_header
from router.memory_queries import deleted_session
from router.options import MemoryOptions
from router.questions import asked_of
from router.recalling import NOTHING
from router.remembering import MODEL_CHARACTERS_MAX
from router.request_ids import current_request_id
from router.request_values import read_flag, whole_number
from router.requests import (
    current_usage,
    json_response,
    offload,
    read_body,
    read_caller,
    read_object,
    read_options,
    request_headers,
)
from router.spans import step
from router.storing import COMMIT_TIMEOUT_S, hand_over, store_upload
from router.uploads import parse_lines

SEARCH_LIMIT_DEFAULT = 10
SEARCH_LIMIT_MAX = 1_000
QUERY_CHARACTERS_MAX = 20_000
TEXT_OVERHEAD_CHARACTERS = 200
"""Counting the tokens of one more text costs as much as that many characters more."""

NOT_WRITTEN = "Not stored: this key or request may not write."


def memory_routes(components: Components) -> Blueprint:
    """The blueprint of the memory API."""
    routes = Blueprint("memory", __name__)
    api = _MemoryApi(components)
    routes.post("/v1/memory/prepare")(api.prepare)
    routes.post("/v1/memory/ingest")(api.ingest)
    routes.post("/v1/memory/search")(api.search)
    routes.post("/v1/memory/upload")(api.upload)
    routes.get("/v1/memory/stats")(api.stats)
    routes.post("/v1/memory/warmup")(api.warmup)
    routes.delete("/v1/memory")(api.delete)
    return routes


class _MemoryApi:
    """The handlers, over the components."""

    def __init__(self, components: Components) -> None:
        self._parts = components
        self._ask_timeout_s = components.settings.vaults.ask_timeout_ms / 1000

    async def prepare(self) -> Response:
        """A ready-to-inject context for a conversation; `context: null` when nothing is relevant."""
        began_s = time.perf_counter()
        caller, body, options = await self._read()
        messages = read_messages(body, self._parts.settings.memory, session_id=options.session_id, cut=True)
        explain = read_flag(body.get("explain"), "explain")
        recollection = NOTHING
        if options.access.read:
            recollection = await self._parts.recaller.recall(
                caller.principal.vault,
                asked_of(turns_of(messages)),
                options,
                now_ms=self._parts.now_ms(),
                timeout_s=self._ask_timeout_s,
                explain=explain,
            )
        tokens = recollection.tokens
        current_usage().use_memory(retrieved=tokens, billable=tokens)
        answer = prepared(recollection, billed=self._parts.meter.billed(tokens), total_ms=_since(began_s))
        if explain:
            answer["memories"] = [search_item(hit) for hit in recollection.hits]
        headers = {**await self._model_headers(caller, options), MEMORY_IDS: ids_header(recollection.ids)}
        return json_response(answer, headers=headers)

    async def ingest(self) -> Response:
        """Remember a finished exchange. 202 means durable, and findable by its words."""
        caller, body, options = await self._read()
        messages = read_messages(body, self._parts.settings.memory, session_id=options.session_id)
        model = body.get("model")
        if model is not None and not isinstance(model, str):
            raise InvalidRequest("model must be a string.", field="model")
        if model:
            current_usage().name_model(model)
        if options.stores:
            await self._choose_embedder(caller, options)
            wanted = [message for message in messages if options.stores_role(message.role)]
            await self._remember(caller, wanted, model)
        answer = await self._ingested(messages, accepted=options.stores)
        return json_response(answer, 202, await self._model_headers(caller, options))

    async def _remember(self, caller: Caller, messages: list[Message], model: str | None) -> None:
        vault, now_ms = caller.principal.vault, self._parts.now_ms()
        messages = await self._parts.rememberer.unknown(vault, messages, source="ingest", now_ms=now_ms)
        if not messages:
            return
        exchange = Exchange(
            messages=tuple(messages),
            source="ingest",
            accepted_ms=now_ms,
            model=model and model[:MODEL_CHARACTERS_MAX],
            request_id=current_request_id(),
        )
        async with hand_over(self._parts, caller.principal, [exchange]) as receipt:
            with step("commit"):
                await receipt.wait_durable(timeout_s=COMMIT_TIMEOUT_S)

    async def _ingested(self, messages: list[Message], *, accepted: bool) -> dict[str, Any]:
        answer = {
            "accepted": accepted,
            "queued": accepted,
            "retrieval_tokens": await self._count_tokens(messages, role="user"),
            "response_tokens": await self._count_tokens(messages, role="assistant"),
        }
        if accepted:
            return {**answer, "message": "Stored; embeddings follow in the background."}
        return {**answer, "message": NOT_WRITTEN, "reason": NOT_WRITTEN}

    async def _count_tokens(self, messages: list[Message], *, role: Role | None = None) -> int:
        """The tokens of all messages, or of those of one role."""
        texts = [message.content for message in messages if role in (None, message.role)]
        count = self._parts.embedder.model.count_tokens
        characters = sum(map(len, texts)) + len(texts) * TEXT_OVERHEAD_CHARACTERS
        return await offload(self._parts, characters, lambda: sum(map(count, texts)))

    async def search(self) -> Response:
        """The best memories for a query, best first, without a cut-off."""
        began_s = time.perf_counter()
        caller, body, options = await self._read()
        query = body.get("query")
        if not isinstance(query, str) or not query.strip():
            raise InvalidRequest("query must be a non-empty string.", field="query")
        limit = body.get("limit")
        limit = SEARCH_LIMIT_DEFAULT if limit is None else whole_number(limit, "limit", 1, SEARCH_LIMIT_MAX)
        explain = read_flag(body.get("explain"), "explain")
        hits: tuple[Hit, ...] = ()
        if options.access.read:
            hits = await self._parts.recaller.search(
                caller.principal.vault,
                query[:QUERY_CHARACTERS_MAX],
                options,
                limit=limit,
                now_ms=self._parts.now_ms(),
                timeout_s=self._ask_timeout_s,
                explain=explain,
            )
        current_usage().use_memory(retrieved=sum(hit.memory.tokens for hit in hits))
        items = [search_item(hit) for hit in hits]
        answer = {"memories": items, "count": len(items), "metrics": {"total_ms": _since(began_s)}}
        return json_response(answer, headers=await self._model_headers(caller, options))

    async def upload(self) -> Response:
        """Store JSON lines, all or none. 200 means every line is durable and findable by its words."""
        caller = await read_caller(self._parts)
        options = read_options(self._parts, caller, {})
        if not options.access.write:
            raise Forbidden("This key or request may not write.", hint="Send the key without :read or :off.")
        messages = await self._uploaded(options)
        await self._choose_embedder(caller, options)
        applied = await store_upload(self._parts, caller.principal, messages, request_id=current_request_id())
        answer = stored_body(
            applied,
            items=len(messages),
            tokens=await self._count_tokens(messages),
            key=caller.principal.shown,
            session_id=options.session_id,
        )
        return json_response(answer, headers=await self._model_headers(caller, options))

    async def _uploaded(self, options: MemoryOptions) -> list[Message]:
        """The lines of the current request's body."""
        body = await read_body(self._parts)
        if not body.strip():
            raise InvalidRequest("Empty request body.", field="body", hint="Send one JSON object a line.")
        return await offload(
            self._parts,
            len(body),
            parse_lines,
            body,
            session_id=options.session_id,
            limits=self._parts.settings.memory,
            depth_max=self._parts.settings.limits.json_depth_max,
        )

    async def stats(self) -> Response:
        """The vault, or one session of it, in numbers: the union of the three published shapes."""
        caller = await read_caller(self._parts)
        options = read_options(self._parts, caller, {})
        message = Stats(session_id=options.session_id)
        counted: VaultStats = await self._parts.supervisor.ask(
            caller.principal.vault, message, timeout_s=self._ask_timeout_s
        )
        return json_response(stats_body(counted, key=caller.principal.shown))

    async def warmup(self) -> Response:
        """Bring the vault into memory."""
        began_s = time.perf_counter()
        caller = await read_caller(self._parts)
        vault = caller.principal.vault
        await self._parts.supervisor.ask(vault, Barrier(), timeout_s=COMMIT_TIMEOUT_S)
        counted: VaultStats = await self._parts.supervisor.ask(vault, Stats(), timeout_s=self._ask_timeout_s)
        took_ms = _since(began_s)
        return json_response(
            {
                "status": "warm",
                "key": caller.principal.shown,
                "vaults": [{"vault": "core", "vectors": counted.chunks - counted.pending, "timeMs": took_ms}],
                "totalVectors": counted.chunks,
                "warmupTimeMs": took_ms,
                "memories_loaded": counted.memories,
                "warmup_ms": took_ms,
            }
        )

    async def delete(self) -> Response:
        """Forget the whole vault, or exactly one session of it."""
        caller, body, options = await self._read()
        if not options.access.write:
            raise Forbidden("This key or request may not delete.", hint="Send the key without :read or :off.")
        reset = request.args.get("reset", "").lower() == "true"
        session_id = deleted_session(request_headers(), request.args, body)
        cleared = session_id is not None
        with to_the_end():
            await self._forget(caller, options, session_id, reset=reset)
        return json_response(
            {
                "key": caller.principal.shown,
                "sessionCleared": cleared,
                "deleted": True,
                "d1Synced": True,
                "reset": reset,
                "message": "The session's memories are deleted." if cleared else "All memories are deleted.",
            }
        )

    async def _forget(self, caller: Caller, options: MemoryOptions, session_id: str | None, *, reset: bool) -> None:
        """Delete; a vault's successor keeps its embedder, unless it is reset: then it has what the request names."""
        vault = caller.principal.vault
        if session_id is None:
            kept = None if reset else (await embedder_of(self._parts.supervisor, vault)).name
            await self._parts.supervisor.erase(vault, by=actor_of(caller))
            name = options.embedder if reset else kept
            if name is not None:
                await choose_embedder(self._parts.supervisor, vault, name, timeout_s=COMMIT_TIMEOUT_S)
        else:
            await self._forget_session(caller, session_id)

    async def _forget_session(self, caller: Caller, session_id: str) -> None:
        vault = caller.principal.vault
        try:
            forgotten: Forgotten = await self._parts.supervisor.ask(
                vault, Forget(session_id), timeout_s=COMMIT_TIMEOUT_S
            )
        finally:  # some of it may be deleted even if not all is
            self._parts.recaller.forget_blocks(vault)
        await audit_memories(self._parts, caller, "memories.deleted", memories=forgotten.count, by="session")

    async def _choose_embedder(self, caller: Caller, options: MemoryOptions) -> None:
        """What is about to be stored names an embedder: the vault's from now on."""
        if options.embedder is not None:
            vault = caller.principal.vault
            await choose_embedder(self._parts.supervisor, vault, options.embedder, timeout_s=COMMIT_TIMEOUT_S)

    async def _model_headers(self, caller: Caller, options: MemoryOptions) -> dict[str, str]:
        """To who names an embedder: which one the vault uses."""
        if options.embedder is None:
            return {}
        embedder = await embedder_of(self._parts.supervisor, caller.principal.vault)
        return {"X-Embedding-Model": embedder.name}

    async def _read(self) -> tuple[Caller, dict[str, Any], MemoryOptions]:
        caller = await read_caller(self._parts)
        body = await read_object(self._parts)
        return caller, body, read_options(self._parts, caller, body)


def _since(began_s: float) -> float:
    return round((time.perf_counter() - began_s) * 1000, 2)
