"""Replies of OpenAI Chat Completions: what was said, and when it is complete.

Owns how a streamed or whole reply is read. Must never decide what the client gets: reading is beside the bytes, and a
reply that cannot be read is passed on all the same.
"""

from __future__ import annotations

from typing import Any

from router.providers.base import Reply, Signal, Usage
from router.providers.heard import Heard
from router.providers.json_bytes import decode_value, whole_text
from router.sse import Event

_TERMINATOR = b"[DONE]"
_FAILED = "error"
"""The finish_reason by which OpenRouter and others say that the reply broke off."""


class ChatCollector:
    """Collects choice 0 of a streamed reply; see `router.providers.base.Collector`.

    The finishing event is the chunk with the last choice's `finish_reason`. A `[DONE]` without one (some servers never
    send a reason) finishes too: a server that crashed does not say goodbye.
    """

    def __init__(self, *, choices: int = 1, text_chars_max: int) -> None:
        self._choices = choices
        self._heard = Heard(text_chars_max=text_chars_max)
        self._finished: set[int] = set()
        self._complete = False
        self._failed = False
        self.usage: Usage | None = None
        self.ended = False

    def classify(self, event: Event) -> Signal:
        """What the event means, if it came next."""
        chunk = _decode_chunk(event.data)
        return self._classify(event, chunk, _finish_reasons(chunk))

    def feed(self, event: Event) -> Signal:
        """Take the event in and say what it means."""
        chunk = _decode_chunk(event.data)
        reasons = _finish_reasons(chunk)
        signal = self._classify(event, chunk, reasons)
        if chunk is not None:
            self._take_in(chunk, reasons)
        elif event.data.strip() == _TERMINATOR:
            self.ended = True
        if signal is Signal.FINISH:
            self._complete = True
        elif signal is Signal.FAILURE:
            self._failed = True
        return signal

    def reply(self) -> Reply:
        """What has been said so far."""
        return Reply(
            text=self._heard.text(),
            complete=self._complete and not self._failed,
            usage=self.usage,
            truncated=self._heard.truncated,
        )

    def _classify(self, event: Event, chunk: dict[str, Any] | None, reasons: dict[int, str]) -> Signal:
        if event.name == "error" or (chunk is not None and chunk.get("error")):
            return Signal.FAILURE
        if chunk is None:
            is_first_end = event.data.strip() == _TERMINATOR and not (self._complete or self._failed)
            return Signal.FINISH if is_first_end else Signal.NOTHING
        if _FAILED in reasons.values():
            return Signal.FAILURE
        if not reasons or self._complete or self._failed:
            return Signal.NOTHING
        return Signal.FINISH if len(self._finished | set(reasons)) >= self._choices else Signal.NOTHING

    def _take_in(self, chunk: dict[str, Any], reasons: dict[int, str]) -> None:
        self.usage = read_usage(chunk) or self.usage
        self._finished.update(reasons)
        if self._complete:
            return
        for choice in _choices(chunk):
            delta = choice.get("delta")
            if _index(choice) == 0 and isinstance(delta, dict):
                self._heard.add(refusal_or_text(delta.get("content"), delta.get("refusal")))


def parse_chat_reply(body: bytes, *, text_chars_max: int) -> Reply | None:
    """Read a whole reply; None when it is not a chat completion.

    A body that holds an `error` (OpenRouter sends those with status 200) is a reply that failed.
    """
    try:
        value = decode_value(body)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    choices = _choices(value)
    if value.get("error"):
        return Reply(text="", complete=False, usage=read_usage(value))
    first = next((choice for choice in choices if _index(choice) == 0), None)
    message = first.get("message") if first else None
    if first is None or not isinstance(message, dict):
        return None
    text = whole_text(refusal_or_text(message.get("content"), message.get("refusal")))
    return Reply(
        text=text[:text_chars_max],
        complete=first.get("finish_reason") != _FAILED,
        usage=read_usage(value),
        truncated=len(text) > text_chars_max,
    )


def refusal_or_text(content: Any, refusal: Any) -> str:
    """The words of a message or delta: its content, else its refusal. Content may be a list of parts (Mistral)."""
    if isinstance(content, list):
        content = "".join(
            part["text"]
            for part in content
            if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        )
    if isinstance(content, str) and content:
        return content
    return refusal if isinstance(refusal, str) else ""


def read_usage(value: dict[str, Any]) -> Usage | None:
    """The token counts of a chunk or a whole reply, if it has them."""
    usage = value.get("usage")
    if not isinstance(usage, dict):
        return None
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    numbers = [count if isinstance(count, int) else 0 for count in counts]
    return Usage(prompt_tokens=numbers[0], completion_tokens=numbers[1], total_tokens=numbers[2])


def _decode_chunk(data: bytes) -> dict[str, Any] | None:
    if data.lstrip()[:1] != b"{":
        return None
    try:
        value = decode_value(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _choices(value: dict[str, Any]) -> list[dict[str, Any]]:
    choices = value.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _index(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _finish_reasons(chunk: dict[str, Any] | None) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for choice in _choices(chunk or {}):
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            reasons[_index(choice)] = reason
    return reasons
