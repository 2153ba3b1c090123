"""One streamed reply of a server to `memoryrouter chat`, word by word, with what memory did for it.

Owns the reading of chat completion chunks. Must never hold words back: they are handed on as they arrive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec

from models.errors import StoreUnavailable
from router.commands.connecting import RefusedByServer, check, in_words
from router.sse import EventSplitter

EVENT_BYTES_MAX = 16 * 1024 * 1024
_END = b"[DONE]"


class Reply:
    """A reply that is being received.

    Attributes:
        content: the words so far.
        finish_reason: why it ended, as the model says; None before that.
    """

    def __init__(self, answer: httpx.Response, model: str) -> None:
        self._answer = answer
        self._model = model
        self._parts: list[str] = []
        self.finish_reason: str | None = None

    @property
    def content(self) -> str:
        """What has come so far."""
        return "".join(self._parts)

    def words(self) -> Iterator[str]:
        """The words of the reply, as they come.

        Raises:
            RefusedByServer: it ends in an error.
            StoreUnavailable: it breaks off.
        """
        splitter = EventSplitter(event_bytes_max=EVENT_BYTES_MAX)
        for data in self._answer.iter_raw():
            for event in splitter.feed(data):
                if event.data.strip() == _END:
                    return
                words = self._words_of(event.data)
                if words:
                    self._parts.append(words)
                    yield words
        if self.finish_reason is None:
            raise StoreUnavailable("The reply broke off.")

    def _words_of(self, data: bytes) -> str:
        try:
            chunk = msgspec.json.decode(data)
            if chunk.get("error"):
                error = chunk["error"]
                raise RefusedByServer(str(error.get("message", error)) if isinstance(error, dict) else str(error))
            choices = chunk.get("choices") or []
            if not choices:
                return ""
            self.finish_reason = choices[0].get("finish_reason") or self.finish_reason
            return str((choices[0].get("delta") or {}).get("content") or "")
        except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, LookupError, TypeError):
            return ""  # what a provider adds of its own

    @property
    def _headers(self) -> Mapping[str, str]:
        return self._answer.headers

    def _number(self, name: str) -> int:
        text = self._headers.get(name, "")
        return int(text) if text.isdecimal() else 0

    def summary(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {
            "model": self._model,
            "content": self.content,
            "finish_reason": self.finish_reason,
            "memory": {
                "status": self._headers.get("x-memory-status"),
                "mode": self._headers.get("x-memory-mode"),
                "memories": self._number("x-memory-chunks-retrieved"),
                "tokens_injected": self._number("x-memory-tokens-injected"),
                "ids": [each for each in self._headers.get("x-memory-ids", "").split(",") if each],
            },
            "request_id": self._headers.get("x-request-id"),
        }

    def memory_line(self) -> str:
        """What memory did, in a few words."""
        memory = self.summary()["memory"]
        status = memory["status"] or "unknown"
        if status != "ok":
            return f"memory: {status}"
        count = memory["memories"]
        return f"memory: ok, {count} {'memory' if count == 1 else 'memories'}, {memory['tokens_injected']} tokens"


@contextmanager
def open_reply(client: httpx.Client, url: str, model: str, messages: list[dict[str, Any]]) -> Iterator[Reply]:
    """Ask for a reply, for the length of the block: leaving it early ends the reply at the server too.

    Raises:
        RefusedByServer, StoreUnavailable, SetupError: there is none.
    """
    body = {"model": model, "messages": messages, "stream": True}
    with in_words(url), client.stream("POST", "/v1/chat/completions", json=body) as answer:
        check(answer)
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            raise RefusedByServer("The server's answer is no stream of a reply.", hint="Is it a MemoryRouter?")
        yield Reply(answer, model)
