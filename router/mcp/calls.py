"""What the tools and resources at `/mcp` do: the same questions to the same vault actors as the memory routes ask.

With `screening.mode = "flag"` what looks planted is left out of all that finds, since a model reads it as it reads a
context; only who names its id sees it. Must never reach a vault that is not the caller's. What the key may not do is
refused by whoever calls, before anything here is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import tzinfo
from typing import Any

import msgspec
from msgspec import UNSET

from actors.choosing_embedders import choose_embedder, embedder_of
from models.errors import InvalidRequest, NotFound
from models.memory import Exchange, Memory, memory_id
from models.messages import (
    FindTwin,
    Forget,
    ForgetMemory,
    Forgotten,
    GetMemory,
    Hit,
    Listed,
    ListMemories,
    Stats,
    VaultStats,
)
from models.selection import MemoryFilter
from models.times import parse_time_zone
from models.version import VERSION
from router.auditing import actor_of, audit_memories, to_the_end
from router.auth import Caller
from router.components import Components
from router.mcp.items import TEXT_CHARACTERS_MAX, end_of, local_iso, memory_result, start_of, title_of
from router.mcp.shapes import (
    DELETE_PHRASE,
    AliasArguments,
    AliasItem,
    AliasResult,
    Arguments,
    DateSearchArguments,
    DeleteArguments,
    DeleteResult,
    ForgetArguments,
    ForgetResult,
    InspectArguments,
    InspectResult,
    MemoryResult,
    SearchArguments,
    SearchResult,
    StatusResult,
    StoreArguments,
    StoreResult,
)
from router.mcp.tools import RECENT_MAX, RECENT_URI, STATS_URI
from router.memory_queries import WORDS_CHARACTERS_MAX, deleted_session, scope_filter
from router.options import MemoryOptions
from router.public_ids import memory_number_of
from router.request_ids import current_request_id
from router.requests import current_usage, read_options, request_headers
from router.spans import step
from router.storing import COMMIT_TIMEOUT_S, hand_over
from router.uploads import parse_memory

INSPECTED_CHARACTERS_MAX = 20_000
ALIAS_RESULTS = 10
CANDIDATES_MAX = 1_000
"""A search within a span of time ranks so many memories of the vault, then looks which are of that time."""

FLAGGED_SPARE = 50
"""So many more are looked for where what looks planted is left out."""

PAGES_MAX = 8


class McpCalls:
    """Answers the tools and resources of one caller's request."""

    def __init__(self, components: Components, caller: Caller, options: MemoryOptions) -> None:
        self._parts = components
        self._caller = caller
        self._options = options
        self._vault = caller.principal.vault
        self._now_ms = components.now_ms()
        self._tokens = 0
        self._screens = components.settings.screening.mode == "flag"
        self._ask_timeout_s = components.settings.vaults.ask_timeout_ms / 1000

    async def call(self, name: str, arguments: Arguments) -> msgspec.Struct:
        """What the tool of this name gives.

        Raises:
            MemoryRouterError: why it does not.
        """
        given: Any = arguments
        match name:
            case "search_memories":
                return await self._search(given)
            case "date_search_memories":
                return await self._date_search(given)
            case "store_memory":
                return await self._store(given)
            case "inspect_memory":
                return await self._inspect(given)
            case "delete_memories":
                return await self._delete(given)
            case "forget_all_memories":
                return await self._forget_all(given)
            case "search":
                return await self._alias(given)
            case _:
                return await self._status()

    async def read(self, uri: str) -> Any:
        """The JSON of a resource."""
        if uri == STATS_URI:
            return await self._status()
        assert uri == RECENT_URI
        listed = await self._listed(self._scope(), limit=RECENT_MAX)
        return {"memories": [self._shown(memory, self._options.time_zone) for memory in listed]}

    # Finding.

    async def _search(self, given: SearchArguments) -> SearchResult:
        options = self._options_for(given)
        hits = await self._hits(given.query, options, limit=given.limit)
        return self._within(hits, options, None if given.max_tokens is UNSET else given.max_tokens)

    async def _alias(self, given: AliasArguments) -> AliasResult:
        hits = await self._hits(given.query, self._options, limit=ALIAS_RESULTS)
        self._count(hit.memory for hit in hits)
        return AliasResult(
            results=[
                AliasItem(
                    id=memory_id(hit.memory),
                    title=title_of(hit.memory.content),
                    text=hit.memory.content[:TEXT_CHARACTERS_MAX],
                    score=round(hit.score, 4),
                )
                for hit in hits
            ]
        )

    async def _date_search(self, given: DateSearchArguments) -> SearchResult:
        options = self._options_for(given)
        since_ms = None if given.start_date is UNSET else start_of(given.start_date, options.time_zone)
        until_ms = None if given.end_date is UNSET else end_of(given.end_date, options.time_zone)
        if since_ms is None and until_ms is None:
            raise InvalidRequest("Give start_date, end_date or both.", field="start_date")
        if since_ms is not None and until_ms is not None and since_ms >= until_ms:
            raise InvalidRequest("start_date must be before end_date.", field="start_date")
        wanted = msgspec.structs.replace(self._scope(options), since_ms=since_ms, until_ms=until_ms)
        tokens_max = None if given.max_tokens is UNSET else given.max_tokens
        if given.query is UNSET:
            memories = await self._listed(wanted, limit=given.limit, descending=given.order == "newest")
            return self._within(memories, options, tokens_max)
        hits = await self._hits(given.query, options, limit=CANDIDATES_MAX)
        found: list[Hit | Memory] = [hit for hit in hits if wanted.admits(hit.memory)]
        if len(hits) == CANDIDATES_MAX and len(found) < given.limit:  # words find what stands too low to be ranked
            known = {hit.memory.seq for hit in hits}
            by_words = await self._listed(
                msgspec.structs.replace(wanted, words=given.query[:WORDS_CHARACTERS_MAX]), limit=given.limit
            )
            found += [memory for memory in by_words if memory.seq not in known]
        return self._within(found[: given.limit], options, tokens_max)

    async def _hits(self, query: str, options: MemoryOptions, *, limit: int) -> Sequence[Hit]:
        wanted = limit + FLAGGED_SPARE if self._screens else limit
        hits = await self._parts.recaller.search(
            self._vault, query, options, limit=wanted, now_ms=self._now_ms, timeout_s=self._ask_timeout_s
        )
        return [hit for hit in hits if not (self._screens and hit.memory.flags)][:limit]

    async def _listed(self, wanted: MemoryFilter, *, limit: int, descending: bool = True, **place: Any) -> list[Memory]:
        """Memories in the order of time. A page may be short and not the last, so a few are asked for."""
        found: list[Memory] = []
        if self._screens:
            wanted = msgspec.structs.replace(wanted, flagged=False)
        for _ in range(PAGES_MAX):
            message = ListMemories(wanted=wanted, limit=limit - len(found), descending=descending, **place)
            listed: Listed = await self._ask(message)
            found += listed.memories
            if listed.after is None or len(found) >= limit:
                break
            place = {"after": listed.after}
        return found

    def _within(
        self, found: Sequence[Hit] | Sequence[Memory] | Sequence[Hit | Memory], options: MemoryOptions, most: int | None
    ) -> SearchResult:
        """As many of these, in their order, as do not exceed this number of tokens."""
        shown: list[Hit | Memory] = []
        tokens = 0
        for one in found:
            tokens += (one.memory if isinstance(one, Hit) else one).tokens
            if most is not None and tokens > most:
                break
            shown.append(one)
        self._count(one.memory if isinstance(one, Hit) else one for one in shown)
        memories = [self._shown(one, options.time_zone) for one in shown]
        return SearchResult(memories=memories, count=len(memories), omitted=len(found) - len(shown))

    async def _inspect(self, given: InspectArguments) -> InspectResult:
        options = self._options_for(given)
        message = GetMemory(memory_number_of(given.memory_id), self._scope(options))
        listed: Listed = await self._ask(message)
        memory = listed.memories[0]
        around = msgspec.structs.replace(
            self._scope(options), session_id=memory.session_id, sessionless=memory.session_id is None
        )
        place = (memory.timestamp_ms, memory.number)
        before, after = [], []
        if given.surrounding:
            before = await self._listed(around, limit=given.surrounding, after=place)
            after = await self._listed(around, limit=given.surrounding, after=place, descending=False)
        end = given.offset + INSPECTED_CHARACTERS_MAX
        shown = memory_result(memory, self._now_ms, options.time_zone, part=slice(given.offset, end))
        self._count([memory, *before, *after])
        return InspectResult(
            memory=shown,
            characters=len(memory.content),
            stored_at=local_iso(memory.stored_ms, options.time_zone),
            tokens=memory.tokens,
            embedded=memory.seq not in listed.pending,
            before=[self._shown(one, options.time_zone) for one in reversed(before)],
            after=[self._shown(one, options.time_zone) for one in after],
            next_offset=end if end < len(memory.content) else UNSET,
            model=memory.model or UNSET,
            request_id=memory.request_id or UNSET,
            external_id=memory.external_id or UNSET,
        )

    async def _status(self) -> StatusResult:
        access = self._options.access
        counted: VaultStats = await self._ask(Stats(session_id=self._options.session_id))
        oldest, newest = (
            None if at is None else local_iso(at, self._options.time_zone)
            for at in (counted.oldest_ms, counted.newest_ms)
        )
        scopes = [("memories:read", access.read), ("memories:write", access.write), ("memories:delete", access.write)]
        return StatusResult(
            connected=True,
            vault_ref=self._caller.principal.shown,
            storage="sqlite",
            total_memories=counted.memories,
            total_tokens=counted.tokens,
            total_sessions=counted.sessions,
            pending_memories=counted.pending,
            oldest_memory=oldest,
            newest_memory=newest,
            granted_scopes=[name for name, granted in scopes if granted],
            version=VERSION,
        )

    # Changing.

    async def _store(self, given: StoreArguments) -> StoreResult:
        options = self._options_for(given)
        said_ms = None if given.said_at is UNSET else start_of(given.said_at, options.time_zone, name="said_at")
        labels = {"tags": given.tags, "source_context": given.source_context}
        values = {
            "content": given.content,
            "role": given.role,
            "timestamp": said_ms,
            "metadata": {name: value for name, value in labels.items() if value is not UNSET} or None,
        }
        message = parse_memory(values, session_id=options.session_id, limits=self._parts.settings.memory)
        if message is None:
            raise InvalidRequest("Nothing is left of content without quoted memories.", field="content")
        message = msgspec.structs.replace(message, final=True)
        principal = self._caller.principal
        exchange = Exchange((message,), "ingest", accepted_ms=self._now_ms, request_id=current_request_id())
        async with hand_over(self._parts, principal, [exchange]) as receipt:
            with step("commit"):
                applied = await receipt.wait_applied(timeout_s=COMMIT_TIMEOUT_S)
        listed: Listed = await self._ask(FindTwin(message, source="ingest", accepted_ms=self._now_ms))
        if not listed.memories:
            raise NotFound("The memory was deleted while it was being stored.")
        said = "Stored." if applied.stored else "Known already; nothing was stored."
        return StoreResult(id=memory_id(listed.memories[0]), stored=applied.stored > 0, message=said)

    async def _delete(self, given: DeleteArguments) -> DeleteResult:
        deleted: list[str] = []
        missing: list[str] = []
        try:
            for public_id in dict.fromkeys(given.memory_ids):
                message = ForgetMemory(memory_number_of(public_id), self._scope())
                try:
                    with to_the_end():
                        await self._ask(message, timeout_s=COMMIT_TIMEOUT_S)
                except NotFound:
                    missing.append(public_id)
                else:
                    deleted.append(public_id)
        finally:  # some of them may be deleted even if not all are
            self._parts.recaller.forget_blocks(self._vault)
            if deleted:
                with to_the_end():
                    await audit_memories(self._parts, self._caller, "memories.deleted", memories=len(deleted), by="mcp")
        return DeleteResult(deleted=deleted, not_found=missing)

    async def _forget_all(self, given: ForgetArguments) -> ForgetResult:
        """The whole vault, or, where the connection is bound to a session by its header, that one."""
        if given.confirmation != DELETE_PHRASE:
            raise InvalidRequest(
                f"Nothing was deleted: confirmation must be exactly {DELETE_PHRASE}.",
                field="confirmation",
                hint="Ask the user to type these words.",
            )
        session_id = deleted_session(request_headers(), {}, {})  # an empty one is refused: it is no wish to delete all
        if session_id is not None:
            with to_the_end():
                try:
                    forgotten: Forgotten = await self._ask(Forget(session_id), timeout_s=COMMIT_TIMEOUT_S)
                finally:
                    self._parts.recaller.forget_blocks(self._vault)
                by = "session"
                await audit_memories(self._parts, self._caller, "memories.deleted", memories=forgotten.count, by=by)
            return ForgetResult(deleted=True, message="The memories of this connection's session are deleted.")
        supervisor = self._parts.supervisor
        kept = (await embedder_of(supervisor, self._vault)).name
        with to_the_end():
            await supervisor.erase(self._vault, by=actor_of(self._caller))
            await choose_embedder(supervisor, self._vault, kept, timeout_s=COMMIT_TIMEOUT_S)
        return ForgetResult(deleted=True, message="All memories are deleted.")

    # Shared.

    async def _ask(self, message: Any, *, timeout_s: float | None = None) -> Any:
        timeout_s = self._ask_timeout_s if timeout_s is None else timeout_s
        return await self._parts.supervisor.ask(self._vault, message, timeout_s=timeout_s)

    def _options_for(self, given: Any) -> MemoryOptions:
        """The request's options with what the arguments say of session and time zone."""
        options = self._options
        if getattr(given, "session_id", UNSET) is not UNSET:
            options = read_options(self._parts, self._caller, {"session_id": given.session_id})
        if given.time_zone is not UNSET:
            options = msgspec.structs.replace(options, time_zone=parse_time_zone(given.time_zone))
        return options

    def _scope(self, options: MemoryOptions | None = None) -> MemoryFilter:
        return scope_filter((options or self._options).scope)

    def _shown(self, found: Hit | Memory, time_zone: tzinfo) -> MemoryResult:
        return memory_result(found, self._now_ms, time_zone)

    def _count(self, memories: Iterable[Memory]) -> None:
        """Add to what the request was given; a batch has several calls."""
        self._tokens += sum(memory.tokens for memory in memories)
        current_usage().use_memory(retrieved=self._tokens)
