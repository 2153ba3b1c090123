"""The memory half of a chat: it never breaks the chat, and never fails in silence."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC
from functools import partial
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
import trio
from numpy.typing import NDArray
from trio.testing import MockClock

from actors.embedder import open_embedder
from actors.store.protocol import VaultImage
from actors.supervisor import Supervisor, open_supervisor
from actors.vault_actor import VaultLimits
from models.errors import CorruptRow, StorageFull
from models.ids import Access, Principal, VaultRef, hash_key
from models.memory import Exchange, Message
from models.messages import Scope, Stats, VaultStats
from models.settings import ProxySettings, VaultSettings
from router.chat_memory import ChatMemory, header_safe
from router.memory_quota import MemoryQuota
from router.options import MemoryOptions
from router.providers.base import Reply
from router.providers.openai_chat import OPENAI_CHAT
from router.recalling import Recaller
from router.remembering import Rememberer
from router.server_metrics import Metrics
from router.streaming import wait_durable
from tests.fakes.embedding import HashEmbedding
from tests.fakes.store import MemoryStore, open_memory_store
from tests.patience import PATIENCE_S, wait_until
from tests.router.proxied import open_both, told
from tests.running import object_of, open_server, settings_for, user

DOG, QUESTION = "My dog is called Rex.", "What is my dog called?"
OPTIONS = MemoryOptions(
    access=Access(), store_input=True, store_response=True, session_id=None, scope=Scope(), chunks_max=30,
    injection="tail", time_zone=UTC,
)  # fmt: skip
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "42"}


class Stage:
    """A vault with everything that a chat's memory needs."""

    def __init__(self, store: MemoryStore, supervisor: Supervisor, recaller: Recaller, vault: VaultRef) -> None:
        self.store = store
        self.supervisor = supervisor
        self.recaller = recaller
        self.vault = vault
        self.metrics = Metrics()

    def memory(self, *messages: object, options: MemoryOptions = OPTIONS) -> ChatMemory:
        body = msgspec.json.encode({"model": "openai/m", "messages": list(messages) or [user(QUESTION)]})
        chat = OPENAI_CHAT.parse_request(body)
        principal = Principal(key_number=1, account_number=1, kind="user", name="", vault=self.vault)
        return ChatMemory(
            chat, chat.turns(), options, principal,
            supervisor=self.supervisor, recaller=self.recaller, rememberer=Rememberer(self.supervisor),
            quota=MemoryQuota(self.supervisor, memories_max=0, refused=lambda: None),
            metrics=self.metrics, now_ms=lambda: 2_000, request_id="req_1", content_max_chars=1_000,
        )  # fmt: skip

    async def remember(self, *texts: str) -> None:
        messages = tuple(Message(role="user", content=text) for text in texts)
        with await self.supervisor.pin(self.vault) as pin:
            receipt = pin.submit([Exchange(messages=messages, source="ingest", accepted_ms=1_000)])
            await receipt.wait_applied(timeout_s=PATIENCE_S)

    async def stats(self) -> VaultStats:
        counted: VaultStats = await self.supervisor.ask(self.vault, Stats(), timeout_s=PATIENCE_S)
        return counted

    def skipped(self, reason: str) -> float:
        return self.metrics.memory_skipped.value(reason)


class SlowEncoder(HashEmbedding):
    """A model that takes its time with questions while it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.go.set()
        self.waits = 0

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if any("?" in text for text in texts):
            self.waits += not self.go.is_set()
            assert self.go.wait(PATIENCE_S)
        return super().encode(texts)


@asynccontextmanager
async def open_stage(
    *, encoder: HashEmbedding | None = None, settings: VaultSettings | None = None
) -> AsyncIterator[Stage]:
    settings = settings or VaultSettings()
    async with (
        open_memory_store() as store,
        open_embedder(encoder or HashEmbedding()) as embedder,
        open_supervisor(store, embedder, settings, VaultLimits(), drain_timeout_s=PATIENCE_S) as supervisor,
    ):
        account = await store.create_account(key_hash=hash_key("mk_a"), shown="mk_a…", created_ms=1)
        recaller = Recaller(embedder, supervisor, block_cache_s=60, clock=trio.current_time)
        yield Stage(store, supervisor, recaller, account.vault)


async def test_a_chat_gets_its_block_and_leaves_its_exchange() -> None:
    """The first hand-over counts; a duplicate one is ignored."""
    async with open_stage() as stage:
        await stage.remember(DOG)
        memory = stage.memory()
        await memory.begin(budget_s=PATIENCE_S)
        assert memory.status == "ok"
        assert DOG in memory.block
        receipt = memory.hand_off(Reply(text="Rex!", complete=True), model="openai/m")
        assert receipt is not None
        assert memory.hand_off(None, model="openai/m") is None
        await receipt.wait_durable()
        memory.close(model="openai/m")
        assert (await stage.stats()).memories == 3
    assert stage.skipped("ok") == 0


@pytest.mark.parametrize(("known", "kept"), [((DOG,), 1), ((), 2)])
async def test_a_reply_that_may_repeat_an_erased_vault_is_not_kept(known: tuple[str, ...], kept: int) -> None:
    """The user's own words are; and so is a reply that was given nothing to repeat."""
    async with open_stage() as stage:
        if known:
            await stage.remember(*known)
        memory = stage.memory()
        await memory.begin(budget_s=PATIENCE_S)
        await stage.supervisor.erase(stage.vault)
        receipt = memory.hand_off(Reply(text="Your dog is called Rex.", complete=True), model="openai/m")
        assert receipt is not None
        await receipt.wait_applied(timeout_s=PATIENCE_S)
        memory.close(model="openai/m")
        assert (await stage.stats()).memories == kept


async def test_recall_over_its_budget_is_a_timeout_and_the_exchange_is_stored(mock_clock: MockClock) -> None:
    """The chat goes on without memory; a tool loop that began so stays so, for the sake of the prompt cache."""
    encoder = SlowEncoder()
    async with open_stage(encoder=encoder) as stage:
        await stage.remember(DOG)
        encoder.go.clear()
        memory = stage.memory()
        async with trio.open_nursery() as beginning:
            beginning.start_soon(partial(memory.begin, budget_s=0.3))
            await wait_until(lambda: encoder.waits == 1)
            mock_clock.jump(1)
        encoder.go.set()
        assert (memory.status, memory.block) == ("timeout", "")
        assert stage.skipped("timeout") == 1
        receipt = memory.hand_off(Reply(text="Hm.", complete=True), model="m")
        assert receipt is not None
        memory.close(model="m")

        again = stage.memory(user(QUESTION), CALL, RESULT)
        await again.begin(budget_s=PATIENCE_S)
        assert (again.status, again.block) == ("empty", "")
        again.close(model="m")
        fresh = stage.memory()
        await fresh.begin(budget_s=PATIENCE_S)
        assert fresh.status == "ok"
        fresh.close(model="m")


async def test_a_tool_loop_keeps_its_block_however_slow_recall_has_become() -> None:
    """It is known already."""
    encoder = SlowEncoder()
    async with open_stage(encoder=encoder) as stage:
        await stage.remember(DOG)
        first = stage.memory()
        await first.begin(budget_s=PATIENCE_S)
        first.close(model="m")
        encoder.go.clear()
        for _ in range(2):
            second = stage.memory(user(QUESTION), CALL, RESULT)
            await second.begin(budget_s=PATIENCE_S)
            assert (second.status, second.block) == ("ok", first.block)
            second.close(model="m")
        encoder.go.set()


async def load_damaged(vault: VaultRef, *, model_id: str) -> VaultImage:
    """Reading a vault whose rows are damaged."""
    raise CorruptRow("damaged")


@pytest.mark.parametrize(("access", "status"), [(Access(), "not_stored"), (Access(write=False), "overloaded")])
async def test_a_vault_in_quarantine_costs_memory_and_not_the_chat(access: Access, status: str) -> None:
    """What cannot be stored is said, in the header and in the metric."""
    settings = VaultSettings(restarts_max=1, restart_window_s=3_600, quarantine_s=3_600)
    async with open_stage(settings=settings) as stage:
        stage.store.load_vault = load_damaged  # type: ignore[method-assign]  # the fault
        options = msgspec.structs.replace(OPTIONS, access=access)
        for _ in range(3):
            memory = stage.memory(options=options)
            await memory.begin(budget_s=PATIENCE_S)
            memory.close(model="m")
        assert (memory.status, memory.block) == (status, "")
        assert stage.skipped("overloaded") >= 1
        assert (stage.skipped("not_stored") >= 1) is access.write
        assert dict(memory.headers())["X-Memory-Status"] == status


async def test_no_place_for_the_exchange_is_not_stored_and_memory_is_there_all_the_same() -> None:
    """The slot is reserved before the provider is called; without one the chat goes on."""
    async with open_stage(settings=VaultSettings(exchanges_max=1)) as stage:
        await stage.remember(DOG)
        holding = await stage.supervisor.pin(stage.vault)
        memory = stage.memory()
        await memory.begin(budget_s=PATIENCE_S)
        assert memory.status == "not_stored"
        assert DOG in memory.block
        assert dict(memory.headers())["X-Memory-Tokens-Injected"] != "0"
        assert memory.hand_off(Reply(text="Rex", complete=True), model="m") is None
        memory.close(model="m")
        holding.close()
        assert stage.metrics.not_stored.total() == 1


async def test_a_commit_that_fails_is_said() -> None:
    """A full disk ends no chat."""
    async with open_stage() as stage:
        memory = stage.memory()
        await memory.begin(budget_s=PATIENCE_S)
        stage.store.fail_commit(StorageFull("full"))
        receipt = memory.hand_off(Reply(text="Rex", complete=True), model="m")
        reason = await wait_durable(receipt, deadline=trio.current_time() + PATIENCE_S)
        assert reason == "storage_full"
        memory.not_durable(reason)
        assert memory.status == "not_stored"
        assert stage.skipped("not_stored") == 1
        memory.close(model="m")


@pytest.mark.parametrize(
    ("access", "status"),
    [(Access(read=False), "off"), (Access(read=False, write=False), "off"), (Access(write=False), "empty")],
)
async def test_what_is_switched_off_is_not_even_tried(access: Access, status: str) -> None:
    """No pin without writing, no recall without reading."""
    async with open_stage() as stage:
        memory = stage.memory(options=msgspec.structs.replace(OPTIONS, access=access))
        await memory.begin(budget_s=PATIENCE_S)
        assert memory.status == status
        assert dict(memory.headers())["X-Memory-Mode"] == access.mode
        assert (memory.hand_off(None, model="m") is not None) is access.write
        memory.close(model="m")


async def test_closing_stores_the_users_turn_when_no_reply_came() -> None:
    """However the request ended."""
    async with open_stage() as stage:
        memory = stage.memory()
        await memory.begin(budget_s=PATIENCE_S)
        memory.close(model="m")
        memory.close(model="m")
        with trio.fail_after(PATIENCE_S):
            while not (await stage.stats()).memories:
                await trio.lowlevel.checkpoint()
        assert (await stage.stats()).memories == 1


def test_a_header_cannot_be_broken_by_a_session_id() -> None:
    """Only printable ASCII passes."""
    assert header_safe("a\r\nx-evil: 1\0é") == "a??x-evil: 1??"


# --- the same over HTTP ---


async def test_a_slow_model_costs_memory_and_not_the_chat(tmp_path: Path, mock_clock: MockClock) -> None:
    """`X-Memory-Status: timeout`, the provider's reply, and the exchange stored; `prepare` says 503 instead."""
    encoder = SlowEncoder()
    answers: list[httpx.Response] = []
    settings = settings_for(
        proxy=ProxySettings(recall_budget_ms=300, commit_wait_ms=60_000), vaults=VaultSettings(ask_timeout_ms=300)
    )
    async with open_server(tmp_path / "data", settings, encoder=encoder) as server:

        async def keep(ask: Callable[[], Awaitable[httpx.Response]]) -> None:
            answers.append(await ask())

        await server.ingest(DOG)
        for ask in (
            partial(server.chat, QUESTION, model="local/recall"),
            partial(server.post, "/v1/memory/prepare", {"messages": [user(QUESTION)]}),
            partial(server.post, "/v1/memory/search", {"query": QUESTION}),
        ):
            encoder.go.clear()
            before = encoder.waits
            async with trio.open_nursery() as asking:
                asking.start_soon(keep, ask)
                await wait_until(lambda before=before: encoder.waits > before)  # type: ignore[misc]  # a default binds the loop's value
                mock_clock.jump(1)
            encoder.go.set()
            await server.wait_embedded()

    answer, prepared, searched = answers
    assert (answer.status_code, answer.headers["x-memory-status"]) == (200, "timeout")
    for own in (prepared, searched):
        assert own.status_code == 503
        assert own.headers["retry-after"] == "1"
        assert object_of(own)["code"] == "deadline_exceeded"


async def test_every_proxied_answer_says_what_became_of_memory(tmp_path: Path) -> None:
    """Also what is refused after the key was checked; what is refused before says nothing."""
    names = {
        "x-memory-status", "x-memory-mode", "x-memory-tokens-retrieved", "x-memory-chunks-retrieved",
        "x-memory-tokens-injected", "x-memory-injection-format", "x-provider-detected", "x-embedding-ms",
        "x-mr-processing-ms", "x-mr-overhead-ms", "x-session-id",
    }  # fmt: skip
    async with open_both(tmp_path) as (server, _):
        await server.ingest(DOG, session_id="s")
        for stream in (False, True):
            answer = await server.chat(QUESTION, stream=stream, session_id="s")
            assert names | {"x-provider-response-ms"} <= set(answer.headers)
            assert answer.headers["x-session-id"] == "s"
            assert answer.headers["x-memory-chunks-retrieved"] == "1"
            assert answer.headers["x-memory-injection-format"] == "xml"
            assert answer.headers["x-provider-detected"] == "openai"
        local = await server.chat(QUESTION, model="local/recall", session_id="s")
        assert names <= set(local.headers)
        for refused in (
            await server.chat(QUESTION, model="nobody/m"),
            await server.chat(QUESTION, density="huge"),
            await server.post("/v1/chat/completions", b"{"),
        ):
            assert refused.headers["x-memory-status"] == "off"
        assert "x-memory-status" not in (await server.post("/v1/chat/completions", {}, key="mk_no")).headers
        assert DOG in await told(server)
