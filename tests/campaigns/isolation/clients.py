"""What the users of keys do to memories: store, change and delete them, in any order.

Every deletion is told to the ledger before it is sent: as certain for what it must hit, as possible for what it may.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tests.campaigns.isolation.doors import Reply
from tests.campaigns.isolation.ledger import Told, wall_ms
from tests.campaigns.isolation.people import Key, Vault, session_name
from tests.campaigns.isolation.readers import TAGS, TOPICS, Reader
from tests.campaigns.isolation.world import Misbehaved, any_session

MEMORIES_MAX = 120
"""A vault with more of them is emptied."""


class Client(Reader):
    """A client that stores, changes and deletes beside."""

    def doings(self) -> dict[Callable[[], Awaitable[None]], int]:
        """What it does, and how often."""
        return {
            **super().doings(),
            self.ingest: 4, self.upload: 2, self.post: 4, self.patch: 2, self.delete: 2, self.delete_matching: 2,
            self.undo: 1, self.delete_session: 1, self.empty_full_vault: 1,
        }  # fmt: skip

    # Storing.

    def text(self, told: Told) -> str:
        """A text with this canary; seldom a long one, with the canary in all of its parts."""
        sentence = f"{told.canary} {told.word} about {self.random.choice(TOPICS)} on day {self.random.randrange(365)}."
        return " ".join([sentence] * self.random.choices((1, 2, 30), (40, 4, 1))[0])

    def settle(self, tolds: list[Told], reply: Reply | None, *, writes: bool) -> bool:
        """What was told is stored; or refused, since the suffix does not let it in. Returns whether it is stored."""
        if reply is not None or not writes:
            for told in tolds:
                request_id = None if reply is None else reply.headers["x-request-id"]
                self.world.ledger.settle(told, stored=writes, request_id=request_id)
        return reply is not None and writes

    async def ingest(self) -> None:
        """One exchange."""
        asker = self.asker()
        tolds = [self.world.tell(asker.vault, asker.session) for _ in range(self.random.choice((1, 1, 2)))]
        roles = ("user", "assistant")
        messages = [{"role": role, "content": self.text(told)} for role, told in zip(roles, tolds, strict=False)]
        reply = await self.ask("ingest", asker, "POST", "/v1/memory/ingest", {"messages": messages},
                               permit=self.world.nothing(), expected=(202,))  # fmt: skip
        if self.settle(tolds, reply, writes=asker.writes):
            self.world.done["ingest"] += 1
            await self.find_at_once(asker.key, tolds[0])

    async def find_at_once(self, key: Key, told: Told) -> None:
        """What was acknowledged is found by its word, unless somebody deletes it meanwhile or the key is no more."""
        permit = self.world.permit(key.vault, told.session)
        headers = {"x-session-id": str(session_name(told.session))} if told.session else {}
        reply = await self.world.ask("search", key, "POST", "/v1/memory/search", {"query": told.word, "limit": 3},
                                     permit=permit, headers=headers, counts=True)  # fmt: skip
        found = reply is None or told.number in self.world.ledger.find(reply.body)
        if not found and told.required and not self.world.leaks_on_purpose:
            raise Misbehaved(f"{told.canary} was stored and is not found")

    async def upload(self) -> None:
        """Lines, each with a session of its own."""
        asker = self.asker()
        tolds, lines = [], []
        for _ in range(self.random.randrange(1, 7)):
            session, tag = any_session(self.random), self.random.choice(TAGS)
            told = self.world.tell(asker.vault, session or asker.session, tag=tag)
            line = {"content": self.text(told), "role": "user", "metadata": {"tag": tag}}
            lines.append({**line, "session_id": session_name(session)} if session else line)
            tolds.append(told)
        body = b"\n".join(map(msgspec.json.encode, lines))
        reply = await self.ask("upload", asker, "POST", "/v1/memory/upload", body, permit=self.world.nothing(),
                               expected=(200,) if asker.writes else (403,))  # fmt: skip
        if self.settle(tolds, reply, writes=asker.writes):
            self.world.done["upload"] += 1

    async def post(self) -> None:
        """One memory."""
        asker = self.asker()
        tag = self.random.choice(TAGS)
        told = self.world.tell(asker.vault, asker.session, tag=tag)
        body = {"content": self.text(told), "role": "user", "metadata": {"tag": tag}}
        permit = msgspec.structs.replace(asker.permit(self.world), sent=frozenset({told.number}))
        reply = await self.ask("store", asker, "POST", "/v1/memories", body, permit=permit,
                               expected=(201, 404) if asker.writes else (403,))  # fmt: skip
        if self.settle([told], reply, writes=asker.writes) and reply is not None and asker.reads:
            self.world.done["store"] += 1
            self.learn(asker, [reply.json()])

    # Changing and deleting.

    def one_of(self, vault: Vault) -> Told | None:
        """A memory whose id is known and which nobody else is changing."""
        known = [
            told
            for told in self.world.ledger.of_vault(vault.number)
            if told.number in vault.ids and told.number not in vault.changing and told.settled is not None
        ]
        return self.random.choice(known) if known and not vault.erasing else None

    async def patch(self) -> None:
        """Another text in the place of one, perhaps in another session."""
        asker = self.asker()
        old = self.one_of(asker.vault)
        if old is None:
            return
        vault = asker.vault
        moves = self.random.random() < 0.4
        asker.session = old.session
        asker.headers = {"x-session-id": str(session_name(old.session))} if old.session else {}
        new = self.world.tell(vault, any_session(self.random) if moves else old.session, tag=old.tag)
        body = {"content": self.text(new), **({"session_id": session_name(new.session)} if moves else {})}
        new.changed, new.began_ms, old.at_risk = True, old.began_ms, True
        new.request_id = (
            old.request_id
        )  # now: an undo of that request may be under way, or begin before this is answered
        self.world.ledger.suspect(new)
        permit = self.world.permit(vault, 0, whole=True, sent=frozenset({new.number}))
        allowed = asker.reads and asker.writes
        vault.changing |= {old.number, new.number}
        reply = await self.ask("patch", asker, "PATCH", f"/v1/memories/{vault.ids[old.number]}", body, permit=permit,
                               expected=(200, 404) if allowed else (403,))  # fmt: skip
        vault.changing -= {old.number, new.number}
        if reply is not None:
            self.world.ledger.settle(new, stored=True, request_id=old.request_id)
            new.settled_ms = None  # whether it counts as stored then or now, only the server knows
            vault.ids[new.number] = vault.ids[old.number]
            self.world.ledger.replace(old)
            self.world.done["patch"] += 1

    async def delete(self) -> None:
        """One, by its id."""
        asker = self.asker()
        told = self.one_of(asker.vault)
        if told is None:
            return
        asker.headers = {"x-session-id": str(session_name(told.session))} if told.session else {}
        vault = asker.vault
        vault.changing.add(told.number)
        deletion = self.world.ledger.begin_deletion(vault.number, lambda other: other is told) if asker.writes else None
        target = f"/v1/memories/{vault.ids[told.number]}"
        expected = (200, 404) if asker.writes else (403,)
        reply = await self.ask("delete", asker, "DELETE", target, permit=self.world.nothing(), expected=expected)
        vault.changing.discard(told.number)
        if reply is not None and deletion is not None:
            deletion.end()
            self.world.done["delete"] += 1

    async def delete_matching(self) -> None:
        """Those of a session with a tag; or only count them."""
        asker = self.asker()
        tag, dry = self.random.choice(TAGS), self.random.random() < 0.3
        session, whole = asker.session, asker.whole
        strict = self.world.strict

        def possible(told: Told) -> bool:
            in_scope = whole or told.session == session or (not session and not strict)
            return in_scope and told.tag == tag

        deletion = None
        if asker.writes and not dry:
            deletion = self.world.ledger.begin_deletion(
                asker.vault.number, lambda told: possible(told) and not told.changed, possible
            )
        target = f"/v1/memories?metadata.tag={tag}" + ("&dry_run=true" if dry else "")
        allowed = asker.writes and (asker.reads or not dry)
        reply = await self.ask("delete matching", asker, "DELETE", target, permit=self.world.nothing(),
                               expected=(200,) if allowed else (403,))  # fmt: skip
        if reply is not None and deletion is not None:
            deletion.end()
            self.world.done["delete matching"] += 1

    async def undo(self) -> None:
        """What one request stored, or what was stored in the last moments."""
        asker = self.asker()
        asker.headers = {}
        if self.world.strict:
            return
        tolds = [told for told in self.world.ledger.of_vault(asker.vault.number) if told.request_id]
        if tolds and self.random.random() < 0.7:
            request_id = self.random.choice(tolds).request_id
            body: dict[str, Any] = {"request_id": request_id}
            certain = _stored_by(request_id)
            possible = certain
        else:
            since = wall_ms() - self.random.choice((5, 50, 300))
            body = {"since": since}
            certain, possible = _begun_after(since), _stored_after(since)
        deletion = None
        if asker.writes:
            deletion = self.world.ledger.begin_deletion(
                asker.vault.number, lambda told: certain(told) and not told.changed, possible
            )
        reply = await self.ask("undo", asker, "POST", "/v1/memories/undo", body, permit=self.world.nothing(),
                               expected=(200,) if asker.writes else (403,))  # fmt: skip
        if reply is not None and deletion is not None:
            deletion.end()
            self.world.done["undo"] += 1

    async def delete_session(self) -> None:
        """One session as a whole."""
        asker = self.asker()
        session = asker.session
        if not session:
            return
        deletion = None
        if asker.writes:
            deletion = self.world.ledger.begin_deletion(asker.vault.number, lambda told: told.session == session)
        reply = await self.ask("delete session", asker, "DELETE", "/v1/memory", permit=self.world.nothing(),
                               expected=(200,) if asker.writes else (403,))  # fmt: skip
        if reply is not None and deletion is not None:
            deletion.end()
            self.world.done["delete session"] += 1

    async def empty_full_vault(self) -> None:
        """All of a vault that holds much; seldom of one that does not."""
        asker = self.asker()
        vault = asker.vault
        many = len(self.world.ledger.of_vault(vault.number)) > MEMORIES_MAX
        if asker.suffix or vault.erasing or vault.changing or not (many or self.random.random() < 0.2):
            return
        asker.headers = {}
        vault.erasing = True
        vault.ids.clear()
        vault.generation += 1
        deletion = self.world.ledger.begin_deletion(vault.number, lambda told: True)
        target = "/v1/memory" + self.random.choice(("", "?reset=true"))
        reply = await self.ask("empty", asker, "DELETE", target, permit=self.world.nothing())
        vault.ids.clear()
        vault.generation += 1
        vault.erasing = False
        if reply is not None:
            deletion.end()
            self.world.done["empty"] += 1


def _stored_by(request_id: str | None) -> Callable[[Told], bool]:
    return lambda told: told.request_id == request_id


def _begun_after(since: int) -> Callable[[Told], bool]:
    return lambda told: told.began_ms > since


def _stored_after(since: int) -> Callable[[Told], bool]:
    return lambda told: told.settled_ms is None or told.settled_ms >= since
