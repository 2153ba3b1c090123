"""Clients of every kind at once, over HTTP, that tell the model what they asked for and what they were answered.

Every text carries its owner's mark (`canary07`) and a number, so that whatever a server returns can be told apart.
"""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import h11
import httpx
import msgspec
import trio

from tests.campaigns.checker import Acknowledged, Fault, Held, Operation
from tests.campaigns.echo_provider import reply_to
from tests.campaigns.moments import dice
from tests.campaigns.wire import Wire, connected
from tests.running import Client, assistant, object_of, user

VAULT_MEMORIES_MAX = 300
"""A vault beyond this is deleted: a search shows at most 1 000 memories."""

KEYS_MAX = 30
"""Each is read after each start."""

SESSIONS = (None, None, "monday", "tuesday", "42")
BUSY = {502, 503, 504}
"""Answers that promise nothing, as during a shutdown."""

_MARK = re.compile(r"canary\d+")
_TOPICS = ("pottery", "violins", "beekeeping", "sailing", "sourdough", "chess", "roof repair", "marathons", "a cat")


class Misbehaved(AssertionError):
    """A server answered what it must not answer."""


def seen(answer: httpx.Response, *expected: int) -> bool:
    """Whether the answer is one of those that were hoped for; a busy server's is not.

    Raises:
        Misbehaved: it is neither.
    """
    if answer.status_code in expected:
        return True
    if answer.status_code in BUSY:
        return False
    raise Misbehaved(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text}")


class Conversation(msgspec.Struct, frozen=True):
    """What a chat's client sends: a question after the earlier turns, user's and assistant's in turn."""

    session_id: str | None
    history: tuple[str, ...]
    asked: str

    def body(self, *, stream: bool) -> dict[str, Any]:
        """The request."""
        turns = zip(itertools.cycle((user, assistant)), (*self.history, self.asked), strict=False)
        messages = [message(content) for message, content in turns]
        return {"model": "openai/m", "messages": messages, "session_id": self.session_id, "stream": stream}


class Load:
    """Clients and their vaults over the starts of one server.

    Attributes:
        model: what was acknowledged so far.
        acknowledged: counts what the clients did.
    """

    def __init__(self, seed: int, *, account_key: str) -> None:
        self.seed = seed
        self.model = Acknowledged()
        self.keys: dict[str, str] = {}
        self.acknowledged = Counter[str]()
        self._numbers = itertools.count(1)
        self._account_key = account_key
        self.add_vault(account_key)

    def add_vault(self, key: str) -> str:
        """Take in a key that was handed out; returns its vault's mark."""
        vault = f"canary{len(self.keys):02}"
        self.keys[vault] = key
        self.model.add_vault(vault)
        return vault

    async def create_vault(self, http: httpx.AsyncClient) -> str | None:
        """Mint a user key."""
        answer = await Client(http, self._account_key).post("/v1/keys", {"name": f"user {len(self.keys)}"})
        return self.add_vault(object_of(answer)["key"]) if seen(answer, 201) else None

    def text(self, vault: str, random_: random.Random) -> str:
        """A text that nobody has said before."""
        number = next(self._numbers)
        return f"{vault} note{number:06} about {random_.choice(_TOPICS)}: it is on day {random_.randrange(365)}."

    async def run(self, url: str, *, cycle: int, clients: int, on_acknowledged: Callable[[], None]) -> None:
        """Work on this server until it is gone: each client ends when it can no longer connect."""
        async with connected(url) as http:
            try:
                while len(self.keys) < clients - 1:  # two clients share a vault
                    await self.create_vault(http)
            except httpx.TransportError:
                return  # it was gone before anybody could begin
            vaults = list(self.keys)[-(clients - 1) :]
            async with trio.open_nursery() as working:
                for number in range(clients):
                    vault = vaults[number % len(vaults)]
                    worker = Worker(self, http, vault, dice(self.seed, cycle, number), on_acknowledged)
                    working.start_soon(worker.work)

    async def holding(self, url: str) -> dict[str, Held | None]:
        """What every vault holds, as its owner can see it."""
        found: dict[str, Held | None] = {}

        async def look(http: httpx.AsyncClient, vault: str, key: str) -> None:
            found[vault] = await held_by(Client(http, key))

        async with connected(url) as http, trio.open_nursery() as looking:
            for vault, key in self.keys.items():
                looking.start_soon(look, http, vault, key)
        return found

    async def verify(self, url: str) -> list[Fault]:
        """Compare a server that has just started with the model."""
        return self.model.verify(await self.holding(url))


async def held_by(client: Client) -> Held | None:
    """Everything in a vault, or None when its key is unknown."""
    answer = await client.post("/v1/memory/search", {"query": "note canary", "limit": 1000})
    if answer.status_code == 401:
        return None
    assert answer.status_code == 200, answer.text
    texts = tuple(item["content"] for item in object_of(answer)["memories"])
    assert len(texts) < 1000, "the vault is too large to be read by one search"
    return Held(texts, (await client.stats())["memories"])


class Worker:
    """One client, which does one thing after the other."""

    def __init__(
        self,
        load: Load,
        http: httpx.AsyncClient,
        vault: str,
        random_: random.Random,
        on_acknowledged: Callable[[], None],
    ) -> None:
        self._load = load
        self._model = load.model
        self._client = Client(http, load.keys[vault])
        self._vault = vault
        self._random = random_
        self._on_acknowledged = on_acknowledged
        self._history: tuple[str | None, list[dict[str, Any]]] = (None, [])

    async def work(self) -> None:
        """Go on until the server is gone."""
        doings = {
            self.ingest: 30, self.upload: 14, self.chat: 10, self.stream: 10, self.leave_stream: 5, self.ask: 12,
            self.delete_session: 3, self.delete_vault: 1, self.create_key: 2,
        }  # fmt: skip
        while True:
            (doing,) = self._random.choices(list(doings), list(doings.values()))
            if self._model.live(self._vault) > VAULT_MEMORIES_MAX:
                doing = self.delete_vault
            try:
                await doing()
            except httpx.ConnectError:
                return
            except httpx.TransportError:
                self._load.acknowledged["cut off"] += 1

    def _done(self, operation: Operation, kind: str) -> None:
        operation.acknowledge()
        self._load.acknowledged[kind] += 1
        self._on_acknowledged()

    def _text(self) -> str:
        return self._load.text(self._vault, self._random)

    async def _repeatedly(self, send: Callable[[], Awaitable[None]]) -> None:
        """Send a request; now and then once more, as SDKs do when they saw no answer in time."""
        await send()
        while self._random.random() < 0.15:
            await send()

    async def ingest(self) -> None:
        """One exchange: the user's text, often with an answer."""
        session_id = self._random.choice(SESSIONS)
        texts = [self._text()]
        messages = [user(texts[0])]
        if self._random.random() < 0.5:
            texts.append(self._text())
            messages.append(assistant(texts[1]))

        async def send() -> None:
            operation = self._model.store(self._vault, texts, session_id=session_id)
            answer = await self._client.post("/v1/memory/ingest", {"messages": messages, "session_id": session_id})
            if seen(answer, 202):
                self._done(operation, "ingest")
                if self._random.random() < 0.1:
                    await self._find(texts[0], operation)

        await self._repeatedly(send)

    async def _find(self, text: str, operation: Operation) -> None:
        """What was acknowledged is found by its words at once, unless somebody deletes it meanwhile."""
        number = text.split()[1]
        answer = await self._client.post("/v1/memory/search", {"query": number, "limit": 3})
        if seen(answer, 200) and self._model.is_required(operation):
            found = [item["content"] for item in object_of(answer)["memories"]]
            if text not in found:
                raise Misbehaved(f"{text!r} was acknowledged, but searching {number} finds {found}")

    async def upload(self) -> None:
        """Some lines, with the clients' own ids or without; seldom more of them than one inbox row holds."""
        session_id = self._random.choice(SESSIONS)
        count = self._random.choices((1, 2, 5, 9, 70), (8, 8, 8, 8, 1))[0]
        texts = [self._text() for _ in range(count)]
        lines: list[dict[str, Any]] = [{"content": text, "session_id": session_id} for text in texts]
        if self._random.random() < 0.5:
            lines = [{**line, "id": f"id {line['content'][:24]}", "timestamp": 1_700_000_000_000} for line in lines]

        async def send() -> None:
            operation = self._model.store(self._vault, texts, session_id=session_id)
            answer = await self._client.post("/v1/memory/upload", b"\n".join(map(msgspec.json.encode, lines)))
            if seen(answer, 200):
                self._done(operation, "upload")
                stats = object_of(answer)["stats"]
                if stats["stored"] + stats["duplicates"] != count:
                    raise Misbehaved(f"an upload of {count} lines was counted as {stats}")

        await self._repeatedly(send)

    def _conversation(self) -> Conversation:
        """A new question, with the history that clients resend."""
        session_id, history = self._history
        if len(history) > 4 or self._random.random() < 0.3:
            session_id, history = self._random.choice(SESSIONS), []
        asked = self._text()
        self._history = session_id, [*history, user(asked), assistant(reply_to(asked))]
        return Conversation(session_id, tuple(message["content"] for message in history), asked)

    def _begin(self, conversation: Conversation) -> Operation:
        answered = reply_to(conversation.asked)
        return self._model.store(
            self._vault,
            [*conversation.history, conversation.asked, answered],
            session_id=conversation.session_id,
            whole=False,
            needs={answered: conversation.asked},
        )

    async def chat(self) -> None:
        """A chat through the proxy, in one piece."""
        conversation = self._conversation()

        async def send() -> None:
            operation = self._begin(conversation)
            answer = await self._client.post("/v1/chat/completions", conversation.body(stream=False))
            if seen(answer, 200):
                if object_of(answer)["choices"][0]["message"]["content"] != reply_to(conversation.asked):
                    raise Misbehaved("the reply is not the provider's")
                if answer.headers["x-memory-status"] != "not_stored":
                    self._done(operation, "chat")

        await self._repeatedly(send)

    async def _ask_to_stream(self, wire: Wire, conversation: Conversation) -> h11.Response:
        headers = [("authorization", f"Bearer {self._client.key}")]
        body = msgspec.json.encode(conversation.body(stream=True))
        return await wire.ask("POST", "/v1/chat/completions", headers, body)

    async def stream(self) -> None:
        """A streamed chat, read to its end; what counts is that the finishing event was seen."""
        conversation = self._conversation()
        operation = self._begin(conversation)
        said, finished = b"", False
        async with await Wire.connect(self._client.http.base_url) as wire:
            head = await self._ask_to_stream(wire, conversation)
            while data := await wire.data():
                said += data
                if not finished and b'"finish_reason":"stop"' in said:
                    finished = True
                    if dict(head.headers)[b"x-memory-status"] != b"not_stored":
                        self._done(operation, "stream")
        if head.status_code not in {200, *BUSY} or (head.status_code == 200 and not finished):
            raise Misbehaved(f"a stream ended with {head.status_code} {said[-300:]!r}")

    async def leave_stream(self) -> None:
        """A streamed chat that the client leaves after a few chunks."""
        conversation = self._conversation()
        self._begin(conversation)
        self._history = (None, [])  # this client does not know the reply
        async with await Wire.connect(self._client.http.base_url) as wire:
            await self._ask_to_stream(wire, conversation)
            for _ in range(self._random.randrange(5)):
                await wire.data()
        self._load.acknowledged["left"] += 1

    async def ask(self) -> None:
        """Search or prepare; nothing of another vault may come back."""
        question = f"What about {self._random.choice(_TOPICS)} on day {self._random.randrange(365)}?"
        if self._random.random() < 0.5:
            answer = await self._client.post("/v1/memory/search", {"query": question, "limit": 50})
        else:
            answer = await self._client.post("/v1/memory/prepare", {"messages": [user(question)]})
        if seen(answer, 200):
            strangers = set(_MARK.findall(answer.text)) - {self._vault}
            if strangers:
                raise Misbehaved(f"{self._vault} was shown memories of {strangers}")
            self._load.acknowledged["ask"] += 1

    async def delete_session(self) -> None:
        """Forget one session."""
        session_id = self._random.choice([session for session in SESSIONS if session])
        operation = self._model.delete(self._vault, session_id=session_id)
        if seen(await self._client.delete(headers={"x-session-id": session_id}), 200):
            self._done(operation, "session deleted")

    async def delete_vault(self) -> None:
        """Forget everything."""
        operation = self._model.delete(self._vault)
        if seen(await self._client.delete(), 200):
            self._done(operation, "vault deleted")

    async def create_key(self) -> None:
        """Mint a key, whose vault stays empty."""
        if len(self._load.keys) < KEYS_MAX and await self._load.create_vault(self._client.http) is not None:
            self._load.acknowledged["key"] += 1
            self._on_acknowledged()


def story(faults: Sequence[Fault]) -> str:
    """The first faults, one a line."""
    return "".join(f"\n  {fault.kind} in {fault.vault}: {fault.text}" for fault in faults[:10])
