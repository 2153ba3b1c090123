"""The clients of the simulated system: each does one random thing after the other and keeps the model.

They use the parts that the routes are made of: `Rememberer`, pins, `Recaller`, and for chats the real `ChatMemory` and
`Relay` over a provider that is an async iterator.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import msgspec
import trio

from models.errors import MemoryRouterError, NotFound, StorageFull, StoreUnavailable, UpstreamError
from models.ids import Access, Principal, VaultRef
from models.memory import Exchange, Message
from models.messages import Forget, Forgotten, Page
from models.settings import Settings
from router.chat_memory import ChatMemory
from router.memory_quota import MemoryQuota
from router.options import MemoryOptions, resolve_options
from router.providers.openai_chat import OPENAI_CHAT
from router.streaming import Relay
from router.uploads import exchanges_of
from tests.campaigns.checker import Operation
from tests.fakes.provider import DONE, chat_chunk
from tests.simulation.world import Life, World

SESSIONS = (None, "monday", "tuesday")
OPERATION_TIMEOUT_S = 60.0
SETTINGS = Settings()
_TOPICS = ("pottery", "violins", "bees", "sailing", "bread", "chess")
_FINISH = b'"finish_reason":"stop"'


class Provider:
    """A streamed reply on its way: events with random pauses, some of which end too early.

    A class, since an async generator that is left halfway would have to be closed.
    """

    def __init__(self, random_: random.Random, reply: str) -> None:
        pieces = [reply[start : start + 15] for start in range(0, len(reply), 15)]
        events = [*map(chat_chunk, pieces), chat_chunk(finish_reason="stop"), DONE]
        self._error: MemoryRouterError | None = None
        if random_.random() < 0.2:
            del events[random_.randrange(len(events)) :]
            self._error = UpstreamError("The provider broke off.") if random_.random() < 0.5 else None
        self._pauses_s = [random_.choice((0.0, 0.01, 0.3)) for _ in events]
        self._events = iter(events)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for event in self._events:
            await trio.sleep(self._pauses_s.pop())
            return event
        await trio.lowlevel.checkpoint()
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration


def options_of(session_id: str | None) -> MemoryOptions:
    """The options of a request that names nothing but its session."""
    return resolve_options(
        headers={}, query={}, body={"session_id": session_id}, bound=Access(), settings=SETTINGS
    )  # fmt: skip


class Person:
    """One user of one vault, for the length of one life of the system."""

    def __init__(self, world: World, life: Life, name: str, random_: random.Random) -> None:
        self._world = world
        self._life = life
        self._name = name
        self._random = random_
        self._model = world.model
        self._said: list[Callable[[], Awaitable[None]]] = []

    async def live(self, doings_max: int) -> None:
        """Do so many things, with pauses between them."""
        doings: dict[Callable[[], Awaitable[object]], int] = {
            self.ingest: 8, self.upload: 4, self.chat: 8, self.repeat: 3, self.search: 3,
            self.export: 1, self.forget_session: 2, self.erase: 1,
        }  # fmt: skip
        for _ in range(self._random.randrange(doings_max)):
            await trio.sleep(self._random.choice((0, 0, 0.05, 1, 8)))
            (doing,) = self._random.choices(list(doings), list(doings.values()))
            outcome = "done"
            (patience_s,) = self._random.choices((OPERATION_TIMEOUT_S, 0.0, 0.02, 1.0), (12, 1, 1, 1))
            try:
                with trio.fail_after(OPERATION_TIMEOUT_S), trio.move_on_after(patience_s) as patience:
                    await doing()
                outcome = "left" if patience.cancelled_caught else outcome
            except MemoryRouterError as error:
                outcome = error.code
            self._world.note(self._name, doing.__name__, outcome)

    def _texts(self, count: int) -> list[str]:
        return [
            f"{self._name} note{self._world.next_number():05} about {self._random.choice(_TOPICS)}"
            for _ in range(count)
        ]  # fmt: skip

    async def _vault(self) -> VaultRef:
        """Where this person's key leads now."""
        principal = await self._life.store.find_key(self._name.encode())
        assert principal is not None, "a key that was handed out works"
        return principal.vault

    # Storing.

    async def ingest(self) -> None:
        """One or two messages that must be durable when this returns."""
        texts = self._texts(self._random.randrange(1, 3))
        await self._say(partial(self._ingest, self._random.choice(SESSIONS), texts))

    async def repeat(self) -> None:
        """The same request again, as from a client that did not see the answer."""
        if self._said:
            await self._random.choice(self._said[-2:])()

    async def _say(self, send: Callable[[], Awaitable[None]]) -> None:
        self._said.append(send)
        await send()

    async def _ingest(self, session_id: str | None, texts: list[str]) -> None:
        operation = self._model.store(self._name, texts, session_id=session_id)
        messages = [Message(role="user", content=text, session_id=session_id, final=True) for text in texts]
        vault = await self._vault()
        now_ms = self._world.now_ms()
        wanted = await self._life.rememberer.unknown(vault, messages, source="ingest", now_ms=now_ms)
        exchange = Exchange(messages=tuple(wanted), source="ingest", accepted_ms=now_ms)
        with await self._life.supervisor.pin(vault) as pin, held_to_its_word(operation):
            await pin.submit([exchange]).wait_durable()
        self._life.acknowledge(operation)

    async def upload(self) -> None:
        """Some lines, all or none, counted when they are taken in."""
        texts = self._texts(self._random.choices((1, 3, 66), (7, 7, 1))[0])  # 64 lines are one row
        await self._say(partial(self._upload, self._random.choice(SESSIONS), texts))

    async def _upload(self, session_id: str | None, texts: list[str]) -> None:
        operation = self._model.store(self._name, texts, session_id=session_id)
        messages = [Message(role="user", content=text, session_id=session_id) for text in texts]
        exchanges = exchanges_of(messages, now_ms=self._world.now_ms(), request_id="upload")
        with await self._life.supervisor.pin(await self._vault()) as pin:
            with held_to_its_word(operation):
                receipt = pin.submit(exchanges)
                await receipt.wait_durable()
            self._life.acknowledge(operation)
            applied = await receipt.wait_applied(timeout_s=OPERATION_TIMEOUT_S)
        assert applied.stored + applied.duplicates == len(texts), f"{applied} of {len(texts)} lines"

    # Chatting.

    async def chat(self) -> None:
        """A streamed chat; now and then the client leaves before its end."""
        session_id = self._random.choice(SESSIONS)
        (asked,) = self._texts(1)
        reply = f"The answer to {asked}"
        operation = self._model.store(
            self._name, [asked, reply], session_id=session_id, whole=False, needs={reply: asked}
        )
        body = {"model": "openai/m", "stream": True, "messages": [{"role": "user", "content": asked}]}
        request = OPENAI_CHAT.parse_request(msgspec.json.encode(body))
        memory = self._memory(request, options_of(session_id), await self._vault())
        with ExitStack() as exits:  # as a request's own: it closes however the request ends
            exits.callback(memory.close, model="m")
            await memory.begin(budget_s=0.3)
            relay = Relay(
                Provider(self._random, reply),
                wire_format=OPENAI_CHAT,
                splitter=request.splitter(event_bytes_max=100_000),
                collector=request.collector(text_chars_max=10_000),
                hand_off=partial(memory.hand_off, model="m"),
                on_not_durable=memory.not_durable,
                commit_wait_s=self._random.choice((0.25, 30.0)),
            )
            exits.callback(relay.close_nowait)
            said = b""
            with trio.move_on_after(self._random.choice((0.2, 1.0, OPERATION_TIMEOUT_S))):
                async for chunk in relay:
                    said += chunk
                    if _FINISH in said and memory.status != "not_stored":
                        self._life.acknowledge(operation)
        self._world.note(self._name, relay.outcome, memory.status)

    def _memory(self, request: Any, options: MemoryOptions, vault: VaultRef) -> ChatMemory:
        life = self._life
        return ChatMemory(
            request,
            request.turns(),
            options,
            Principal(key_number=1, account_number=1, kind="user", name=self._name, vault=vault),
            supervisor=life.supervisor,
            recaller=life.recaller,
            rememberer=life.rememberer,
            quota=MemoryQuota(life.supervisor, memories_max=0, refused=lambda: None),
            metrics=life.metrics,
            now_ms=self._world.now_ms,
            request_id="chat",
            content_max_chars=10_000,
        )

    # Reading and deleting.

    async def search(self) -> None:
        """Nothing of another vault comes back."""
        for text in await self._life.contents(await self._vault(), limit=20):
            assert self._name in text.split(), f"{self._name} was shown {text!r}"

    async def export(self) -> None:
        """Every memory once, in order, and nothing of another vault; what was not written out yet is there too."""
        vault, after_seq = await self._vault(), 0
        while True:
            page = await self._life.supervisor.ask(vault, Page(after_seq=after_seq, limit=7), timeout_s=30)
            for memory in page.memories:
                assert self._name in memory.content.split(), f"{self._name} was shown {memory.content!r}"
                assert memory.seq > after_seq, "pages overlap"
                after_seq = memory.seq
            if len(page.memories) < 7:
                return

    async def forget_session(self) -> None:
        """Delete one session."""
        session_id = self._random.choice(SESSIONS[1:])
        operation = self._model.delete(self._name, session_id=session_id)
        forgotten = await self._life.supervisor.ask(await self._vault(), Forget(session_id), timeout_s=30)
        assert isinstance(forgotten, Forgotten)
        self._life.acknowledge(operation)

    async def erase(self) -> None:
        """Delete everything."""
        operation = self._model.delete(self._name)
        await self._life.supervisor.erase(await self._vault())
        self._life.acknowledge(operation)


class held_to_its_word:  # noqa: N801  # reads as a statement of what the block does
    """Errors that say that nothing was stored are believed, and checked at the next start."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is not None and issubclass(kind, StorageFull | StoreUnavailable | NotFound):
            self._operation.refuse()
