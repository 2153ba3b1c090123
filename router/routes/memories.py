"""`/v1/memories`: single memories of the caller's own vault, listed, stored, changed and deleted; and undo."""

from __future__ import annotations

from typing import Any

import msgspec
import trio
from quart import Blueprint, Response, request

from models.errors import Forbidden, InvalidRequest, NotFound
from models.memory import Exchange, Memory, memory_id
from models.messages import (
    AboutMemories,
    ChangeMemory,
    FindTwin,
    ForgetMatching,
    ForgetMemory,
    ForgottenPart,
    GetMemory,
    Listed,
    ListedSessions,
    ListMemories,
    ListSessions,
)
from models.selection import MemoryFilter
from router.auditing import audit_memories, to_the_end
from router.auth import Caller
from router.components import Components
from router.memory_items import memory_item, session_item
from router.memory_queries import (
    read_change,
    read_filter,
    require_filter,
    require_known,
    require_milliseconds,
    scope_filter,
)
from router.options import MemoryOptions
from router.paging import decode_place, encode_cursor, list_body, read_limit
from router.providers.request_parts import OPTION_FIELDS
from router.public_ids import memory_number_of
from router.remembering import MODEL_CHARACTERS_MAX
from router.request_ids import current_request_id
from router.request_values import parse_time, read_flag, read_switch
from router.requests import json_response, read_caller, read_object, read_options
from router.spans import step
from router.storing import COMMIT_TIMEOUT_S, hand_over
from router.uploads import parse_memory

ORDERS = {"desc": True, "asc": False}


def memories_routes(components: Components) -> Blueprint:
    """The blueprint of single memories."""
    routes = Blueprint("memories", __name__)
    api = _MemoriesApi(components)
    routes.get("/v1/memories")(api.list)
    routes.post("/v1/memories")(api.store)
    routes.delete("/v1/memories")(api.delete_matching)
    routes.post("/v1/memories/undo")(api.undo)
    routes.get("/v1/sessions")(api.list_sessions)
    routes.get("/v1/memories/<public_id>")(api.get)
    routes.patch("/v1/memories/<public_id>")(api.change)
    routes.delete("/v1/memories/<public_id>")(api.delete)
    return routes


class _MemoriesApi:
    """The handlers, over the components."""

    def __init__(self, components: Components) -> None:
        self._parts = components
        self._ask_timeout_s = components.settings.vaults.ask_timeout_ms / 1000

    async def list(self) -> Response:
        """Memories in the order of time, the newest first, a page at a time."""
        caller = await read_caller(self._parts)
        options = read_options(self._parts, caller, {})
        query = request.args
        order = query.get("order") or "desc"
        if order not in ORDERS:
            raise InvalidRequest("order must be asc or desc.", field="order")
        message = ListMemories(
            wanted=read_filter(query, options),
            limit=read_limit(query),
            descending=ORDERS[order],
            after=decode_place(query.get("cursor")),
        )
        listed = Listed(memories=())
        if options.access.read:
            listed = await self._ask(caller, message, timeout_s=self._ask_timeout_s)
        items = [memory_item(memory, pending=memory.seq in listed.pending) for memory in listed.memories]
        next_cursor = None if listed.after is None else encode_cursor(*listed.after)
        return json_response(list_body("memories", items, next_cursor))

    async def list_sessions(self) -> Response:
        """Sessions in numbers, the one with the newest memory first; with a session id, that one alone."""
        caller = await read_caller(self._parts)
        options = read_options(self._parts, caller, {})
        scope, query = options.scope, request.args
        limit, after = read_limit(query), decode_place(query.get("cursor"))
        listed = ListedSessions(sessions=())
        if options.access.read and not scope.sessionless_only:
            message = ListSessions(limit, only=None if scope.whole_vault else scope.session_id, after=after)
            listed = await self._ask(caller, message, timeout_s=self._ask_timeout_s)
        next_cursor = None if listed.after is None else encode_cursor(*listed.after)
        return json_response(list_body("sessions", [session_item(one) for one in listed.sessions], next_cursor))

    async def get(self, public_id: str) -> Response:
        """One memory, with its whole content."""
        caller = await read_caller(self._parts)
        options = read_options(self._parts, caller, {})
        _require(options, read=True)
        message = GetMemory(memory_number_of(public_id), scope_filter(options.scope))
        return self._shown(await self._ask(caller, message, timeout_s=self._ask_timeout_s))

    async def store(self) -> Response:
        """Store one memory. 201 means durable, and findable by its words; 200, that the vault knows it already."""
        caller = await read_caller(self._parts)
        body = await read_object(self._parts)
        options = read_options(self._parts, caller, body)
        _require(options, write=True)
        message = parse_memory(body, session_id=options.session_id, limits=self._parts.settings.memory)
        model = body.get("model")
        if message is None:
            raise InvalidRequest("Nothing is left of content without our own context block.", field="content")
        if model is not None and not isinstance(model, str):
            raise InvalidRequest("model must be a string.", field="model")
        message = msgspec.structs.replace(message, final=True)
        now_ms = self._parts.now_ms()
        exchange = Exchange(
            messages=(message,),
            source="ingest",
            accepted_ms=now_ms,
            model=model and model[:MODEL_CHARACTERS_MAX],
            request_id=current_request_id(),
        )
        async with hand_over(self._parts, caller.principal, [exchange]) as receipt:
            with step("commit"):
                stored = (await receipt.wait_applied(timeout_s=COMMIT_TIMEOUT_S)).stored > 0
        twin = FindTwin(message, source="ingest", accepted_ms=now_ms)
        listed = await self._ask(caller, twin, timeout_s=self._ask_timeout_s)
        if not listed.memories:
            raise NotFound("The memory was deleted while it was being stored.")
        if not options.access.read:  # of one that is known the caller may not learn what else is said of it
            return json_response({"id": memory_id(listed.memories[0])}, 201 if stored else 200)
        return self._shown(listed, 201 if stored else 200)

    async def change(self, public_id: str) -> Response:
        """Change one memory. A changed text takes the place of the old one at once, of which nothing is kept."""
        caller = await read_caller(self._parts)
        body = await read_object(self._parts)
        options = read_options(self._parts, caller, _options_of(body))
        _require(options, read=True, write=True)
        change = read_change(body, limits=self._parts.settings.memory)
        message = ChangeMemory(memory_number_of(public_id), change, self._parts.now_ms(), scope_filter(options.scope))
        with to_the_end():
            try:
                listed = await self._ask(caller, message, timeout_s=COMMIT_TIMEOUT_S)
            finally:
                self._parts.recaller.forget_blocks(caller.principal.vault)
            await audit_memories(self._parts, caller, "memories.changed", memories=1)
        return self._shown(listed)

    async def delete(self, public_id: str) -> Response:
        """Delete one memory, for good."""
        caller = await read_caller(self._parts)
        options = read_options(self._parts, caller, {})
        _require(options, write=True)
        message = ForgetMemory(memory_number_of(public_id), scope_filter(options.scope))
        with to_the_end():
            try:
                await self._ask(caller, message, timeout_s=COMMIT_TIMEOUT_S)
            finally:
                self._parts.recaller.forget_blocks(caller.principal.vault)
            await audit_memories(self._parts, caller, "memories.deleted", memories=1, by="id")
        return json_response({"id": f"mem_{message.number}", "deleted": True})

    async def delete_matching(self) -> Response:
        """Delete the memories that fulfil a filter, for good; or only count them."""
        caller = await read_caller(self._parts)
        options = read_options(self._parts, caller, {})
        _require(options, write=True)
        for name in [*await read_object(self._parts), *(name for name, values in request.args.lists() if values[1:])]:
            raise InvalidRequest(f"{name[:100]} must stand in the query, once.", field=name[:100])
        require_filter(request.args, options, besides=("dry_run",))
        wanted = read_filter(request.args, options)
        dry_run = read_switch(request.args.get("dry_run"), "dry_run") is True
        return await self._forget(caller, options, wanted, dry_run=dry_run, by="filter")

    async def undo(self) -> Response:
        """Delete what one request stored, or all that was stored since a time; or only count it."""
        caller = await read_caller(self._parts)
        body = await read_object(self._parts)
        options = read_options(self._parts, caller, body)
        _require(options, write=True)
        require_known(body, ("request_id", "since", "dry_run"))
        require_known(request.args, ("dry_run",))
        request_id, since = body.get("request_id"), body.get("since")
        if (request_id is None) == (since is None):
            raise InvalidRequest("Send either request_id or since.", field="request_id")
        if request_id is not None and (not isinstance(request_id, str) or not request_id):
            raise InvalidRequest("request_id must be a non-empty string.", field="request_id")
        require_milliseconds(since, "since")
        since_ms = parse_time(since, "since", options.time_zone)
        if request_id is None and since_ms is None:
            raise InvalidRequest("since must not be empty.", field="since")
        dry_run = read_flag(body.get("dry_run"), "dry_run")
        dry_run = dry_run or read_switch(request.args.get("dry_run"), "dry_run") is True
        seen = None if options.scope.whole_vault else options.session_id
        wanted = MemoryFilter(session_id=seen, request_id=request_id, stored_since_ms=since_ms)
        return await self._forget(caller, options, wanted, dry_run=dry_run, by="undo")

    async def _forget(
        self, caller: Caller, options: MemoryOptions, wanted: MemoryFilter, *, dry_run: bool, by: str
    ) -> Response:
        if dry_run:
            _require(options, read=True)  # a count tells what is there
        matched = 0
        part = ForgottenPart(count=0, after_seq=0, last_seq=0)
        try:
            while part.after_seq is not None:
                message = ForgetMatching(
                    wanted, counts_only=dry_run, after_seq=part.after_seq, last_seq=part.last_seq or None
                )
                await trio.lowlevel.checkpoint_if_cancelled()  # between two parts the client may give up
                with to_the_end():
                    part = await self._ask(caller, message, timeout_s=COMMIT_TIMEOUT_S)
                matched += part.count
        finally:
            if not dry_run:
                self._parts.recaller.forget_blocks(caller.principal.vault)
                if matched:
                    with to_the_end():
                        await audit_memories(self._parts, caller, "memories.deleted", memories=matched, by=by)
        return json_response({"deleted": 0 if dry_run else matched, "matched": matched, "dry_run": dry_run})

    async def _ask(self, caller: Caller, message: AboutMemories, *, timeout_s: float) -> Any:
        return await self._parts.supervisor.ask(caller.principal.vault, message, timeout_s=timeout_s)

    def _shown(self, listed: Listed, status: int = 200) -> Response:
        memory: Memory = listed.memories[0]
        return json_response(memory_item(memory, pending=memory.seq in listed.pending, whole=True), status)


def _options_of(body: dict[str, Any]) -> dict[str, Any]:
    """The options in the body of a change, whose session_id is where the memory goes, not where it is looked for."""
    return {name: body[name] for name in OPTION_FIELDS if name in body and name != "session_id"}


def _require(options: MemoryOptions, *, read: bool = False, write: bool = False) -> None:
    """
    Raises:
        Forbidden: the key or the request may not do this.
    """
    if (read and not options.access.read) or (write and not options.access.write):
        raise Forbidden("This key or request may not do this.", hint="Send the key without suffix and memory mode.")
