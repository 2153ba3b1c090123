"""Who asks, with which key, suffix and session; and the asking: search, prepare, list, get, stats, export.

Questions are asked in the words of other vaults' memories as often as in those of one's own: what is asked for by its
very words must not come either.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from tests.campaigns.isolation.doors import Reply
from tests.campaigns.isolation.ledger import Permit
from tests.campaigns.isolation.people import Key, Vault, session_name
from tests.campaigns.isolation.world import World, any_session
from tests.running import user

TOPICS = ("pottery", "violins", "beekeeping", "sailing", "sourdough", "chess", "roof repair", "marathons", "a cat")
TAGS = ("red", "green", "blue")

_READS = {"": True, ":read": True, ":write": False, ":off": False}
_WRITES = {"": True, ":read": False, ":write": True, ":off": False}


class Asker:
    """One request's key, suffix and session, chosen at random.

    Attributes:
        key, suffix: as they are sent.
        generation: of the key's vault, before anything is sent.
        session: the number of the session that the header names; 0 for none.
        whole: whether it asks for the whole vault beside the session.
        headers: what says so.
    """

    def __init__(self, world: World, random_: random.Random) -> None:
        keys = [key for vault in world.vaults for key in vault.keys]
        outsider = world.retired and random_.random() < 0.04
        self.key: Key = random_.choice(world.retired if outsider else keys)
        self.generation = self.key.vault.generation
        self.suffix = random_.choices(list(_READS), (30, 1, 1, 1))[0]
        self.session = any_session(random_)
        self.whole = bool(self.session) and random_.random() < 0.2
        self.headers: dict[str, str] = {}
        if self.session:
            self.headers["x-session-id"] = str(session_name(self.session))
        if self.whole:
            self.headers["x-session-scope"] = "vault"

    @property
    def vault(self) -> Vault:
        """The vault of the key."""
        return self.key.vault

    @property
    def reads(self) -> bool:
        """Whether the suffix lets it read."""
        return _READS[self.suffix]

    @property
    def writes(self) -> bool:
        """Whether the suffix lets it write."""
        return _WRITES[self.suffix]

    def permit(self, world: World) -> Permit:
        """What a reading request may be shown."""
        return world.permit(self.vault, self.session, whole=self.whole) if self.reads else world.nothing()


class Reader:
    """One client, which does one thing after the other; this much of it never changes anything."""

    def __init__(self, world: World, random_: random.Random) -> None:
        self.world = world
        self.random = random_

    def doings(self) -> dict[Callable[[], Awaitable[None]], int]:
        """What it does, and how often."""
        return {
            self.get: 110, self.list_some: 50, self.search: 16, self.stats: 10, self.prepare: 6, self.export: 1,
        }  # fmt: skip

    async def work(self) -> None:
        """Go on until cancelled, or until something has leaked."""
        doings = self.doings()
        while not self.world.ledger.leaks:
            (doing,) = self.random.choices(list(doings), list(doings.values()))
            await doing()

    def asker(self) -> Asker:
        """Whoever asks next."""
        return Asker(self.world, self.random)

    async def ask(
        self, kind: str, asker: Asker, method: str, target: str, body: Any = None, **more: Any
    ) -> Reply | None:
        """A request of this asker."""
        headers: Mapping[str, str] = {**asker.headers, **more.pop("headers", {})}
        return await self.world.ask(
            kind, asker.key, method, target, body, suffix=asker.suffix, headers=headers, **more
        )  # fmt: skip

    # Reading.

    def words(self, vault: Vault) -> str:
        """A question in the words of one's own memories, of somebody else's, or of anybody's."""
        somebody = self.random.choice([vault, *self.world.vaults])
        told = self.world.ledger.of_vault(somebody.number)
        if told and self.random.random() < 0.7:
            return f"{self.random.choice(told).word} {self.random.choice(TOPICS)}"
        return f"What about {self.random.choice(TOPICS)}?"

    async def search(self) -> None:
        """By words and meaning."""
        asker = self.asker()
        body = {"query": self.words(asker.vault), "limit": self.random.choice((5, 20, 100))}
        reply = await self.ask(
            "search", asker, "POST", "/v1/memory/search", body, permit=asker.permit(self.world), counts=True
        )
        if reply is not None:
            self.learn(asker, reply.json()["memories"])

    async def prepare(self) -> None:
        """A context, and the ids of the memories in it, which must be the asker's own to see."""
        asker = self.asker()
        permit = asker.permit(self.world)
        body = {"messages": [user(self.words(asker.vault))], "density": self.random.choice(("low", "default", "xhigh"))}
        reply = await self.ask("prepare", asker, "POST", "/v1/memory/prepare", body, permit=permit, counts=True)
        if reply is not None and reply.headers.get("x-memory-ids"):
            await self.look_up(asker, reply.headers["x-memory-ids"].split(","))

    async def look_up(self, asker: Asker, ids: list[str]) -> None:
        """One of the memories that a reply names, by its own request in the same scope."""
        permit = asker.permit(self.world)
        target = f"/v1/memories/{self.random.choice(ids[:20])}"
        await self.ask("get", asker, "GET", target, permit=permit, expected=(200, 403, 404), counts=True)

    async def list_some(self) -> None:
        """A page or two, perhaps with a filter."""
        asker = self.asker()
        query = {"limit": self.random.choice((3, 10, 40)), "order": self.random.choice(("asc", "desc"))}
        query |= self.random.choice(
            ({}, {}, {"q": self.words(asker.vault)}, {"metadata.tag": self.random.choice(TAGS)}, {"role": "user"})
        )
        for _ in range(2):
            target = f"/v1/memories?{urlencode(query)}"
            reply = await self.ask("list", asker, "GET", target, permit=asker.permit(self.world), counts=True)
            if reply is None:
                return
            page = reply.json()
            self.learn(asker, page["data"])
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    async def get(self) -> None:
        """One by its id: its own, or one that others have and it perhaps has not."""
        asker = self.asker()
        somebody = self.random.choice([asker.vault, *self.world.vaults])
        public_id = self.random.choice([*somebody.ids.values(), f"mem_{self.random.randrange(1, 60)}"])
        await self.ask("get", asker, "GET", f"/v1/memories/{public_id}", permit=asker.permit(self.world),
                       expected=(200, 403, 404), counts=True)  # fmt: skip

    async def stats(self) -> None:
        """Numbers only."""
        asker = self.asker()
        await self.ask("stats", asker, "GET", "/v1/memory/stats", permit=self.world.nothing(), counts=True)

    async def export(self) -> None:
        """The vault or a session of it, as a stream of lines; without a session it is all of it, also strictly."""
        asker = self.asker()
        permit = self.world.permit(asker.vault, asker.session, whole=not asker.session)
        await self.ask("export", asker, "GET", "/v1/memory/export?vectors=0", permit=permit,
                       expected=(403,) if asker.suffix else (200,), counts=True)  # fmt: skip

    def learn(self, asker: Asker, items: list[dict[str, Any]]) -> None:
        """Remember under which ids this vault's memories are known, unless they were numbered anew meanwhile."""
        if not asker.vault.erasing and asker.generation == asker.vault.generation:
            for item in items:
                for number in self.world.ledger.find(item["content"].encode()):
                    asker.vault.ids[number] = item["id"]
