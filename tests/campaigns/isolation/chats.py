"""Chats in all four formats, whole and streamed: with `local/recall`, or with a provider that shows what it is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tests.campaigns.isolation.clients import Client
from tests.campaigns.isolation.doors import Reply
from tests.campaigns.isolation.ledger import Permit, Told
from tests.campaigns.isolation.provider import FLAKY, provider_key
from tests.campaigns.isolation.readers import Asker
from tests.campaigns.isolation.world import Chat
from tests.running import user

FORMATS = ("chat", "responses", "messages", "gemini")
VENDORS = ("anthropic", "google", "mistral", "openai")
FALLBACK = {f"openai/{FLAKY}": ("mistral/m",)}
"""What a server must be configured with."""

LOCAL = "local/recall"
_PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
_MODELS = {
    "chat": ("openai/m", "anthropic/m", f"openai/{FLAKY}"), "responses": ("openai/m",), "messages": ("anthropic/m",),
    "gemini": ("google/m",),
}  # fmt: skip
_CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def request_of(wire: str, model: str, text: str, *, stream: bool, sse: bool) -> tuple[str, dict[str, Any]]:
    """Where such a chat goes, and its body."""
    match wire:
        case "gemini":
            method = "streamGenerateContent" if stream else "generateContent"
            target = f"/v1beta/models/{model}:{method}" + ("?alt=sse" if stream and sse else "")
            return target, {"contents": [{"role": "user", "parts": [{"text": text}]}]}
        case "responses":
            return _PATHS[wire], {"model": model, "input": [user(text)], "stream": stream}
        case _:
            return _PATHS[wire], {"model": model, "messages": [user(text)], "stream": stream, "max_tokens": 99}


class Chatter(Client):
    """A client that chats beside all the rest."""

    def doings(self) -> dict[Callable[[], Awaitable[None]], int]:
        """What it does, and how often."""
        return {**super().doings(), self.ask_locally: 6, self.chat: 6, self.loop: 3}

    async def ask_locally(self) -> None:
        """The built-in model quotes memories; what it says is not stored, or they would be told twice."""
        asker = self.asker()
        wire = self.random.choice(FORMATS)
        target, body = self._request(wire, LOCAL, self.words(asker.vault))
        headers = {"x-memory-store": "false", "x-memory-store-response": "false"}
        permit = asker.permit(self.world)
        reply = await self.ask(
            f"local {wire}", asker, "POST", target, body, permit=permit, headers=headers, counts=True
        )
        if reply is not None and reply.headers.get("x-memory-ids"):
            await self.look_up(asker, reply.headers["x-memory-ids"].split(","))

    def _request(self, wire: str, model: str, text: str) -> tuple[str, dict[str, Any]]:
        stream, sse = self.random.random() < 0.5, self.random.random() < 0.5
        return request_of(wire, model, text, stream=stream, sse=sse)

    async def chat(self) -> None:
        """Through a provider. It answers with a text of the asker's, which is stored, or repeats all of it."""
        asker = self.asker()
        wire = self.random.choice(FORMATS)
        model = self.random.choice(_MODELS[wire])
        asked = self.world.tell(asker.vault, asker.session)
        told = [asked]
        reply_text = ""
        if self.random.random() < 0.5:
            told.append(self.world.tell(asker.vault, asker.session))
            reply_text = f"{told[1].canary} {told[1].word} is what I say."
        target, body = self._request(wire, model, f"{self.text(asked)} {self.words(asker.vault)}")
        reply = await self._ask_provider(asker, f"chat {wire}", model, target, body, told, reply_text)
        if reply is None or not asker.writes:
            self.settle(told, None, writes=asker.writes)
        elif reply.headers["x-memory-status"] != "not_stored":
            self.settle(told, reply, writes=True)
            self.world.done["chat"] += 1

    async def _ask_provider(
        self, asker: Asker, kind: str, model: str, target: str, body: Any, told: list[Told], reply_text: str
    ) -> Reply | None:
        permit = msgspec.structs.replace(asker.permit(self.world), sent=frozenset(one.number for one in told))
        title, own = self._announce(asker, permit, model, reply_text)
        headers = {"x-title": title}
        if own:
            headers["x-provider-key"] = own
        if not reply_text:
            headers["x-memory-store-response"] = "false"
        reply = await self.ask(kind, asker, "POST", target, body, permit=permit, headers=headers, counts=True)
        self.world.chats.pop(title, None)
        if reply is not None and reply.headers.get("x-memory-ids"):
            await self.look_up(asker, reply.headers["x-memory-ids"].split(","))
        return reply

    def _announce(self, asker: Asker, permit: Permit, model: str, reply_text: str) -> tuple[str, str]:
        """Tell the provider's side of a chat; the title that it comes with, and the provider key that it brings."""
        account = asker.key.account
        vendor = model.partition("/")[0]
        own = ""
        if self.random.random() < 0.3:
            own = provider_key(account.number, vendor, next(self.world.numbers)) + "own"
        keys = {name: self.world.stored_keys(account, name) for name in VENDORS}
        title = f"ask-{next(self.world.numbers)}"
        self.world.chats[title] = Chat(
            permit=permit, account=account, vendor=vendor, own=own, keys=keys, reply=reply_text
        )
        return title, own

    async def loop(self) -> None:
        """Two turns of a tool loop, with the words that everybody says: their memory is kept between the turns."""
        asker = self.asker()
        messages: list[dict[str, Any]] = [user(self.random.choice(("What do I like?", "What about pottery?")))]
        for _ in range(2):
            body = {"model": "openai/m", "messages": messages}
            await self._ask_provider(asker, "tool loop", "openai/m", _PATHS["chat"], body, [], "")
            messages = [
                *messages,
                {"role": "assistant", "content": None, "tool_calls": [_CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": "nothing"},
            ]
            if self.random.random() < 0.4:
                await self.random.choice((self.delete_session, self.delete, self.patch, self.delete_matching))()
