"""Replies of Gemini: what was said, and when it is complete.

Owns how a streamed or whole reply is read, in either framing. Must never decide what the client gets: reading is beside
the bytes, and a reply that cannot be read is passed on all the same.
"""

from __future__ import annotations

from typing import Any

from router.providers.base import Reply, Signal, Usage
from router.providers.gemini_content import said_by_part
from router.providers.heard import Heard
from router.providers.json_bytes import decode_value
from router.sse import Event

_FAILED_EVENT = "error"


class GeminiCollector:
    """Collects candidate 0 of a streamed reply; see `router.providers.base.Collector`.

    The finishing event is the chunk with the last candidate's `finishReason`, or the one that says that the prompt was
    blocked: then there is no reply, and no more is to come. The format has no terminator, so `ended` stays False.
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
        return self._classify(event, _decode_chunk(event.data))

    def feed(self, event: Event) -> Signal:
        """Take the event in and say what it means."""
        chunk = _decode_chunk(event.data)
        signal = self._classify(event, chunk)
        if chunk is not None:
            self.take_in(chunk)
        if signal is Signal.FINISH:
            self._complete = True
        elif signal is Signal.FAILURE:
            self._failed = True
        return signal

    def take_in(self, chunk: dict[str, Any]) -> None:
        """Hear a chunk's words and counts."""
        self.usage = read_usage(chunk) or self.usage
        self._finished.update(_finished_candidates(chunk))
        if self._complete:
            return
        for place, candidate in enumerate(_candidates(chunk)):
            if _index(candidate, place) == 0:
                self._heard.add(_candidate_text(candidate))

    def reply(self) -> Reply:
        """What has been said so far."""
        return Reply(
            text=self._heard.text(),
            complete=self._complete and not self._failed,
            usage=self.usage,
            truncated=self._heard.truncated,
        )

    def _classify(self, event: Event, chunk: dict[str, Any] | None) -> Signal:
        if event.name == _FAILED_EVENT or (chunk is not None and chunk.get("error")):
            return Signal.FAILURE
        if chunk is None or self._complete or self._failed:
            return Signal.NOTHING
        if _is_blocked(chunk):
            return Signal.FINISH
        finished = _finished_candidates(chunk)
        return Signal.FINISH if finished and len(self._finished | finished) >= self._choices else Signal.NOTHING


def parse_gemini_reply(body: bytes, *, text_chars_max: int) -> Reply | None:
    """Read a whole reply, or an array of chunks; None when it is neither.

    A body that holds an `error` is a reply that failed.
    """
    try:
        value = decode_value(body)
    except ValueError:
        return None
    chunks = [chunk for chunk in value if isinstance(chunk, dict)] if isinstance(value, list) else [value]
    if not chunks or not all(isinstance(chunk, dict) for chunk in chunks):
        return None
    collector = GeminiCollector(text_chars_max=text_chars_max)
    for chunk in chunks:
        collector.take_in(chunk)
    heard = collector.reply()
    if any(chunk.get("error") for chunk in chunks):
        return Reply(text="", complete=False, usage=heard.usage)
    if not any(_candidates(chunk) or _is_blocked(chunk) for chunk in chunks):
        return None
    return Reply(text=heard.text, complete=True, usage=heard.usage, truncated=heard.truncated)


def read_usage(chunk: dict[str, Any]) -> Usage | None:
    """The token counts of a chunk or a whole reply, if it has them. Thoughts are completion, as they are billed."""
    usage = chunk.get("usageMetadata")
    if not isinstance(usage, dict):
        return None

    def count(name: str) -> int:
        number = usage.get(name)
        return number if isinstance(number, int) else 0

    return Usage(
        prompt_tokens=count("promptTokenCount") + count("toolUsePromptTokenCount"),
        completion_tokens=count("candidatesTokenCount") + count("thoughtsTokenCount"),
        total_tokens=count("totalTokenCount"),
    )


def _decode_chunk(data: bytes) -> dict[str, Any] | None:
    """A chunk; an array of one (Google wraps errors so) counts as its element."""
    if data.lstrip()[:1] not in {b"{", b"["}:
        return None
    try:
        value = decode_value(data)
    except ValueError:
        return None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, dict) else None


def _candidates(chunk: dict[str, Any]) -> list[dict[str, Any]]:
    candidates = chunk.get("candidates")
    if not isinstance(candidates, list):
        return []
    return [candidate for candidate in candidates if isinstance(candidate, dict)]


def _index(candidate: dict[str, Any], place: int) -> int:
    """The candidate's own index; its place where it has none, as Google leaves out zeros."""
    index = candidate.get("index")
    return index if isinstance(index, int) else place


def _candidate_text(candidate: dict[str, Any]) -> str:
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list):
        return ""
    return "".join([said_by_part(part) for part in parts if isinstance(part, dict)])


def _finished_candidates(chunk: dict[str, Any]) -> set[int]:
    return {
        _index(candidate, place)
        for place, candidate in enumerate(_candidates(chunk))
        if _is_stated(candidate.get("finishReason"))
    }


def _is_blocked(chunk: dict[str, Any]) -> bool:
    feedback = chunk.get("promptFeedback")
    return isinstance(feedback, dict) and _is_stated(feedback.get("blockReason"))


def _is_stated(reason: Any) -> bool:
    """Whether an enum's value says something: neither absent nor its zero."""
    return isinstance(reason, str) and bool(reason) and not reason.endswith("_UNSPECIFIED")
