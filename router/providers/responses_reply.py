"""Replies of OpenAI Responses: what was said, when it is complete, and where a broken stream stood.

Owns how a streamed or whole reply is read. Must never decide what the client gets: reading is beside the bytes, and a
reply that cannot be read is passed on all the same.
"""

from __future__ import annotations

from typing import Any

import msgspec

from router.providers.base import Reply, Signal, Usage
from router.providers.json_bytes import decode_value, whole_text
from router.sse import Event, EventSplitter

_FINISHED = frozenset({"response.completed", "response.incomplete"})
"""An incomplete response ran into a token limit or a filter: all there will ever be of it has been said."""

_FAILED = frozenset({"response.failed", "response.cancelled", "error"})
_COMPLETE_STATUSES = frozenset({None, "completed", "incomplete"})
_PIECES = {
    "response.output_text.delta": "delta",
    "response.refusal.delta": "delta",
    "response.output_text.done": "text",
    "response.refusal.done": "refusal",
}
"""Events with words, and the member that holds them. A `done` repeats its deltas; it counts where there were none."""

_NUMBER_MAX = 2**53
_PART_TEXTS = {"output_text": "text", "refusal": "refusal"}


class OpenEvent(msgspec.Struct, frozen=True):
    """Where the client stands in a stream: what `ResponsesSplitter.open_line` tells `error_event`.

    Attributes:
        next_number: the sequence number that comes next; 0 when unknown.
        has_data: a `data:` line is whole, only the blank line is missing.
        line: the part of a line that has been sent; b"" at a line's beginning.
    """

    next_number: int = 0
    has_data: bool = False
    line: bytes = b""

    def write(self) -> bytes:
        """As lines: a comment with the number, `data` if one is whole, and the line in progress."""
        return b": %d\n" % self.next_number + (b"data\n" if self.has_data else b"") + self.line

    @classmethod
    def read(cls, open_line: bytes | None) -> OpenEvent:
        """The inverse of `write`; takes what a plain `EventSplitter` says too."""
        if open_line is None:
            return cls()
        if not open_line.startswith(b": ") or b"\n" not in open_line:
            return cls(has_data=not open_line, line=open_line)
        number, _, rest = open_line.removeprefix(b": ").partition(b"\n")
        line = rest.removeprefix(b"data\n")
        return cls(next_number=int(number), has_data=line != rest, line=line)


class ResponsesSplitter(EventSplitter):
    """Server-sent events; remembers the last one, so that an error event can carry the number after it."""

    def __init__(self, *, event_bytes_max: int) -> None:
        super().__init__(event_bytes_max=event_bytes_max)
        self._last = b""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes, in order."""
        events = super().feed(chunk)
        if events:
            self._last = events[-1].data
        return events

    def open_line(self) -> bytes | None:
        """An `OpenEvent` in writing, on an event border too; None once overflowed."""
        if self.overflowed:
            return None
        number = _sequence_number(self._last)
        pending = self.pending()
        if pending is not None:
            number = _sequence_number(pending.data) or number
        line = super().open_line() or b""
        return OpenEvent(next_number=number, has_data=pending is not None, line=line).write()


class ResponsesCollector:
    """Collects a streamed reply; see `router.providers.base.Collector`. Events are known by `type` in their data."""

    def __init__(self, *, text_chars_max: int) -> None:
        self._text_chars_max = text_chars_max
        self._chars_left = text_chars_max
        self._texts: dict[tuple[int, int], list[str]] = {}
        self._truncated = False
        self._complete = False
        self._failed = False
        self.usage: Usage | None = None
        self.ended = False

    def classify(self, event: Event) -> Signal:
        """What the event means, if it came next."""
        return self._classify(event, _decode_event(event.data))

    def feed(self, event: Event) -> Signal:
        """Take the event in and say what it means."""
        value = _decode_event(event.data)
        signal = self._classify(event, value)
        if signal is Signal.FAILURE:
            self._failed = True
        if value is not None:
            self._take_in(_kind(event, value), value)
        if signal is Signal.FINISH:
            self._complete = True
        return signal

    def reply(self) -> Reply:
        """What has been said so far: the parts of all messages, one to a line, in the order of the output."""
        text = whole_text("\n".join("".join(self._texts[place]) for place in sorted(self._texts)))
        return Reply(
            text=text[: self._text_chars_max],
            complete=self._complete and not self._failed,
            usage=self.usage,
            truncated=self._truncated or len(text) > self._text_chars_max,
        )

    def _classify(self, event: Event, value: dict[str, Any] | None) -> Signal:
        kind = event.name if value is None else _kind(event, value)
        if kind in _FAILED or (value is not None and value.get("error")):
            return Signal.FAILURE
        if value is not None and kind in _FINISHED and not (self._complete or self._failed):
            return Signal.FINISH
        return Signal.NOTHING

    def _take_in(self, kind: str, value: dict[str, Any]) -> None:
        response = value.get("response")
        if isinstance(response, dict):
            self.usage = read_usage(response) or self.usage
        if kind in _FINISHED or kind == "response.failed":
            self.ended = True
        if self._complete:
            return
        if kind in _PIECES:
            place = _number(value, "output_index"), _number(value, "content_index")
            if kind.endswith(".delta") or place not in self._texts:
                self._add(place, value.get(_PIECES[kind]))
        elif kind in _FINISHED and isinstance(response, dict) and not self._texts:
            self._add((0, 0), _output_text(response.get("output")))

    def _add(self, place: tuple[int, int], text: Any) -> None:
        if not isinstance(text, str):
            return
        if len(text) > self._chars_left:
            text = text[: self._chars_left]
            self._truncated = True
        if text:
            self._texts.setdefault(place, []).append(text)
            self._chars_left -= len(text)


def parse_responses_reply(body: bytes, *, text_chars_max: int) -> Reply | None:
    """Read a whole reply; None when it is not a response object.

    One that failed, was cancelled, or still runs in the background is not complete.
    """
    try:
        value = decode_value(body)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    if value.get("error"):
        return Reply(text="", complete=False, usage=read_usage(value))
    if not isinstance(value.get("output"), list):
        return None
    text = whole_text(_output_text(value["output"]))
    status = value.get("status")
    return Reply(
        text=text[:text_chars_max],
        complete=status is None or (isinstance(status, str) and status in _COMPLETE_STATUSES),
        usage=read_usage(value),
        truncated=len(text) > text_chars_max,
    )


def read_usage(response: dict[str, Any]) -> Usage | None:
    """The token counts of a response object, if it has them."""
    usage = response.get("usage")
    if not isinstance(usage, dict):
        return None
    return Usage(
        prompt_tokens=_number(usage, "input_tokens"),
        completion_tokens=_number(usage, "output_tokens"),
        total_tokens=_number(usage, "total_tokens"),
    )


def _output_text(output: Any) -> str:
    """The words of the output's messages, one part to a line, as a client that sends them back has them."""
    texts: list[str] = []
    for item in output if isinstance(output, list) else []:
        content = item.get("content") if isinstance(item, dict) and item.get("type") == "message" else None
        for part in content if isinstance(content, list) else []:
            kind = part.get("type") if isinstance(part, dict) else None
            text = part.get(_PART_TEXTS[kind]) if isinstance(kind, str) and kind in _PART_TEXTS else None
            if isinstance(text, str) and text:
                texts.append(text)
    return "\n".join(texts)


def _decode_event(data: bytes) -> dict[str, Any] | None:
    if data.lstrip()[:1] != b"{":
        return None
    try:
        value = decode_value(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _kind(event: Event, value: dict[str, Any]) -> str:
    kind = value.get("type")
    return kind if isinstance(kind, str) else event.name


def _number(value: dict[str, Any], name: str) -> int:
    number = value.get(name)
    return number if isinstance(number, int) else 0


def _sequence_number(data: bytes) -> int:
    """The number after that of this event; 0 when it has none, or none that JSON readers agree on."""
    value = _decode_event(data)
    number = value.get("sequence_number") if value is not None else None
    return number + 1 if isinstance(number, int) and 0 <= number < _NUMBER_MAX else 0
