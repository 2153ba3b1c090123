"""Clients of a cluster: each tells numbered facts to whichever node it happens to ask, and asks for them again."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio

from tests.campaigns.checker import Acknowledged, Fault
from tests.campaigns.cluster.chats import Chats
from tests.campaigns.cluster.field import Field, Node
from tests.campaigns.load import BUSY, Misbehaved, held_by
from tests.campaigns.moments import dice, pass_time
from tests.campaigns.wire import connected
from tests.running import Client, object_of, user

USERS = 8
PAUSE_S = 0.04
ATTEMPTS_MAX = 40
"""Of one fact, before its client gives it up."""
ASK_TIMEOUT_S = 4.0
"""After so long a client asks another node."""
CHATS = 0.4
"""Part of what is told that is told in a chat."""
CHATS_MAX = 60
"""Of one client in a round; each leaves two memories."""
MEMORIES_MAX = 800
"""In a vault; a search shows at most 1 000."""
STALE = "x-memory-stale"


class Crowd:
    """Users, and the model of what was acknowledged to them.

    Attributes:
        tally: counts of what was answered, and of requests that got none.
        troubles: node and what it answered instead of what was asked for.
    """

    def __init__(self, field: Field, seed: int) -> None:
        self._field = field
        self._seed = seed
        self._connections: dict[str, httpx.AsyncClient] = {}
        self._numbers = itertools.count(1)
        self._rounds = itertools.count(1)
        self.model = Acknowledged()
        self.chats = Chats(field, self.model)
        self.keys: dict[str, str] = {}
        self.facts: dict[str, list[str]] = {}
        self.tally = Counter[str]()
        self.troubles: list[tuple[str, str]] = []

    def at(self, node: Node, key: str) -> Client:
        """The holder of a key, at a node."""
        http = self._connections.get(node.url)
        if http is None:
            http = self._connections[node.url] = connected(node.url)
        return Client(http, key)

    async def aclose(self) -> None:
        """Leave all connections."""
        for http in self._connections.values():
            await http.aclose()

    async def add_users(self) -> None:
        """Mint keys at the nodes in turn."""
        nodes = itertools.cycle(self._field.nodes.values())
        for number in range(USERS):
            mark = f"canary{number:02}"
            self.keys[mark] = (await self.at(next(nodes), self._field.account_key).other(mark)).key
            self.model.add_vault(mark)
            self.facts[mark] = []

    @asynccontextmanager
    async def working(self, *, impatient: bool = True) -> AsyncIterator[None]:
        """Let everybody work during the block, and end what they are at after it.

        Args:
            impatient: whether a client asks another node when one does not answer in time.
        """
        stop, number = trio.Event(), next(self._rounds)
        async with trio.open_nursery() as clients:
            for mark in self.keys:
                worker = Worker(self, self._field, mark, dice(self._seed, number, mark), impatient=impatient)
                clients.start_soon(worker.work, stop)
            yield
            stop.set()

    def fact(self, mark: str) -> str:
        """A text that nobody has said before."""
        return f"{mark} note{next(self._numbers):06} says that somebody was at the violin recital."

    async def verify(self, *nodes: Node) -> list[Fault]:
        """Compare what each vault holds, asked at the nodes in turn, with the model. Nothing may be under way."""
        self.model.restart()
        asked = itertools.cycle(nodes)
        held = {mark: await held_by(self.at(next(asked), key)) for mark, key in self.keys.items()}
        return self.model.verify(held)


class Worker:
    """One client, which does one thing after the other."""

    def __init__(self, crowd: Crowd, field: Field, mark: str, random_: random.Random, *, impatient: bool) -> None:
        self._crowd = crowd
        self._nodes = list(field.nodes.values())
        self._mark = mark
        self._random = random_
        self._chats = 0
        self._timeout_s = ASK_TIMEOUT_S if impatient else float("inf")

    async def work(self, stop: trio.Event) -> None:
        """Go on until told to stop."""
        facts = self._crowd.facts[self._mark]
        while not stop.is_set():
            if facts and (self._random.random() < 0.4 or len(facts) > MEMORIES_MAX):
                await self._find(self._random.choice(facts[-20:]))
            elif self._random.random() < CHATS and self._chats < CHATS_MAX:
                await self._chat()
            else:
                await self._tell(stop)
            await pass_time(PAUSE_S)

    async def _ask(self, path: str, body: Any) -> httpx.Response | None:
        """What a node answers, if it does."""
        node = self._random.choice(self._nodes)
        answer = None
        with trio.move_on_after(self._timeout_s):
            try:
                answer = await self._crowd.at(node, self._crowd.keys[self._mark]).post(path, body)
            except httpx.ConnectError:
                self._crowd.tally["no connection"] += 1
                return None
            except httpx.TransportError:
                self._trouble(node, "cut off")
                return None
        if answer is None:
            self._trouble(node, "no answer in time")
        elif answer.status_code in BUSY:
            self._trouble(node, f"{answer.status_code} {answer.text}")
            answer = None
        return answer

    def _trouble(self, node: Node, what: str) -> None:
        self._crowd.tally[what[:17]] += 1
        self._crowd.troubles.append((node.name, what))

    async def _tell(self, stop: trio.Event) -> None:
        """A fact, again and again until it is acknowledged: a client that saw no answer repeats what it said."""
        text = self._crowd.fact(self._mark)
        for _ in range(ATTEMPTS_MAX):
            operation = self._crowd.model.store(self._mark, [text])
            answer = await self._ask("/v1/memory/ingest", {"messages": [user(text)]})
            if answer is not None:
                if answer.status_code != 202:
                    raise Misbehaved(f"a fact was answered with {answer.status_code} {answer.text}")
                operation.acknowledge()
                self._crowd.facts[self._mark].append(text)
                self._crowd.tally["told"] += 1
                return
            if stop.is_set():
                return
            await pass_time(PAUSE_S)

    async def _chat(self) -> None:
        """A streamed chat; nobody repeats it."""
        node, mark = self._random.choice(self._nodes), self._mark
        self._chats += 1
        came_of_it = await self._crowd.chats.stream(
            node, self._crowd.keys[mark], mark, self._crowd.fact(mark), timeout_s=self._timeout_s
        )
        if came_of_it == "finished":
            self._crowd.tally["chats"] += 1
        elif came_of_it == "no connection":
            self._crowd.tally["no connection"] += 1
        else:
            self._trouble(node, came_of_it)

    async def _find(self, text: str) -> None:
        """What was acknowledged is found by its number, whichever node is asked, unless that says that it is stale."""
        number = text.split()[1]
        answer = await self._ask("/v1/memory/search", {"query": number, "limit": 5})
        if answer is None:
            return
        if answer.status_code != 200:
            raise Misbehaved(f"a search was answered with {answer.status_code} {answer.text}")
        if STALE in answer.headers:
            self._crowd.tally["stale"] += 1
            return
        found = [item["content"] for item in object_of(answer)["memories"]]
        if any(self._mark not in content for content in found):
            raise Misbehaved(f"{self._mark} was shown {found}")
        if text not in found:
            raise Misbehaved(f"{text!r} was acknowledged, but searching {number} finds {found}")
        self._crowd.tally["found"] += 1
