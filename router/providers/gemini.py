"""Gemini `generateContent` and `streamGenerateContent`, read and written as bytes.

Owns which bytes of a request change: MemoryRouter's own fields, and the one content, or the system instruction, that
memory goes into. Everything else leaves as it came, thought signatures and inline images included. The model, and
whether and how the reply is streamed, are in the URL: whoever knows it makes a `GeminiFormat`. Must never re-encode a
part that it does not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from models.errors import InvalidRequest
from router.providers.base import Injection, Reply, Splitter, Turn
from router.providers.cut_json import close_object
from router.providers.gemini_content import GeminiContent, put_into_instruction
from router.providers.gemini_reply import GeminiCollector, parse_gemini_reply
from router.providers.json_array import JsonArraySplitter, close_array
from router.providers.json_bytes import join_array, join_object, split_array
from router.providers.request_parts import decode_field, hash_messages, pop_options, read_object
from router.sse import EventSplitter

_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    507: "RESOURCE_EXHAUSTED",
}
"""Names from google.rpc.Code by HTTP status; the rest of 4xx is INVALID_ARGUMENT, of 5xx INTERNAL."""

_NOTHING_SAID = b'"candidates":[{}]'
"""Overrides the candidates of an event that was cut in two: google-genai would fail to decode half of an image or of a
thought signature before it saw the error behind it."""

_DATA = b"data: "
_ERROR_DETAIL = "type.googleapis.com/google.rpc.ErrorInfo"
_FIELD_DETAIL = "type.googleapis.com/google.rpc.BadRequest"


class GeminiRequest:
    """A parsed request; see `router.providers.base.ChatRequest`.

    Attributes:
        choices: how many replies it asked for (`generationConfig.candidateCount`).
    """

    __slots__ = ("_anchor", "_contents", "_is_list", "_members", "_sse", "choices", "model", "options", "stream")

    def __init__(self, body: bytes, *, model: str, stream: bool, sse: bool) -> None:
        members = read_object(body)
        self.model = model
        self.stream = stream
        self._sse = sse
        raw = members.get("contents", b"null")
        self._is_list = not raw.startswith(b"{")
        self._contents = _read_contents(raw)
        self.choices = _read_choices(members)
        self.options: Mapping[str, Any] = pop_options(members)
        self._members = members
        self._anchor = self._find_anchor()

    @property
    def stream_type(self) -> str:
        """Server-sent events if the client asked for them with `alt=sse`, else a JSON array."""
        return "text/event-stream" if self._sse else "application/json"

    @property
    def in_tool_loop(self) -> bool:
        """Whether something follows the content that memory goes into."""
        return self._anchor is not None and self._anchor < len(self._contents) - 1

    def turns(self) -> list[Turn]:
        """User and model texts, in order.

        Model contents that follow each other are one turn: google-genai's chats keep each chunk of a streamed reply as
        a content of its own.
        """
        turns: list[Turn] = []
        said: list[GeminiContent] = []
        for content in self._contents:
            if content.role == "model":
                said.append(content)
                continue
            _add_reply(turns, said)
            said = []
            text = content.text() if content.role == "user" else ""
            if text.strip():
                turns.append(Turn(role="user", text=text, remember=content.remember))
        _add_reply(turns, said)
        return turns

    def anchor_hash(self) -> bytes | None:
        """SHA-256 over the contents up to and including the anchor, each behind its length; None without an anchor."""
        if self._anchor is None:
            return None
        return hash_messages(content.raw for content in self._contents[: self._anchor + 1])

    def encode(self, *, model: str, block: str = "", injection: Injection = "tail") -> bytes:
        """The body for the provider. `model` goes into the URL; a `model` in the body is left alone."""
        members = dict(self._members)
        contents = [content.sent() for content in self._contents]
        if block and injection == "system":
            put_into_instruction(members, block)
        elif block and self._anchor is not None:
            contents[self._anchor] = self._contents[self._anchor].with_text_first(block)
        members["contents"] = join_array(contents) if self._is_list else contents[0]
        return join_object(members)

    def splitter(self, *, event_bytes_max: int) -> Splitter:
        """Server-sent events or a JSON array, as the URL asked."""
        if self._sse:
            return EventSplitter(event_bytes_max=event_bytes_max)
        return JsonArraySplitter(event_bytes_max=event_bytes_max)

    def collector(self, *, text_chars_max: int) -> GeminiCollector:
        """A collector for the streamed reply to this request."""
        return GeminiCollector(choices=self.choices, text_chars_max=text_chars_max)

    def _find_anchor(self) -> int | None:
        """The last user content that holds more than tool results."""
        for index in range(len(self._contents) - 1, -1, -1):
            if self._contents[index].role == "user" and self._contents[index].is_said():
                return index
        return None


class GeminiFormat:
    """The wire format at one URL; see `router.providers.base.WireFormat`.

    Args:
        model: from the path, `models/{model}:generateContent`.
        stream: the method is `streamGenerateContent`.
        sse: the query says `alt=sse`; without it a stream is a JSON array.
    """

    __slots__ = ("_model", "_sse", "_stream")

    def __init__(self, *, model: str, stream: bool = False, sse: bool = False) -> None:
        self._model = model
        self._stream = stream
        self._sse = sse

    def parse_request(self, body: bytes) -> GeminiRequest:
        """Read a request.

        Raises:
            InvalidRequest: not JSON, not an object, nested too deeply, or a field of a wrong type.
        """
        return GeminiRequest(body, model=self._model, stream=self._stream, sse=self._sse)

    def parse_reply(self, body: bytes, *, text_chars_max: int) -> Reply | None:
        """Read a whole reply, an array of chunks included; None when it is neither."""
        return parse_gemini_reply(body, text_chars_max=text_chars_max)

    def error_body(self, message: str, *, status: int, code: str, field: str | None = None) -> bytes:
        """`{"error": {"code", "message", "status", "details"}}`, as google.rpc.Status has it; our slug is a reason."""
        kind = _STATUSES.get(status) or ("INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
        details: list[dict[str, Any]] = [{"@type": _ERROR_DETAIL, "reason": code.upper(), "domain": "memoryrouter"}]
        if field is not None:
            violation = {"field": field, "description": message}
            details.append({"@type": _FIELD_DETAIL, "fieldViolations": [violation]})
        error = {"code": status, "message": message, "status": kind, "details": details}
        return msgspec.json.encode({"error": error})

    def error_event(self, message: str, *, status: int, code: str, open_line: bytes | None = None) -> bytes:
        """An event, or a last element, with nothing but the error: google-genai raises it only as the first member.

        So a half sent event cannot become the error. It is completed as one that says nothing, and the error follows.
        """
        error = self.error_body(message, status=status, code=code)
        if not self._sse:
            return close_array(open_line, error, override=_NOTHING_SAID)
        event = _DATA + error + b"\r\n\r\n"
        if open_line is None:
            return event
        if open_line and _DATA.startswith(open_line):
            return event[len(open_line) :]  # SDKs know a line by `data: `, with the space
        rest = None
        if open_line.startswith(b"data:"):
            rest = close_object(open_line.removeprefix(b"data:"), _NOTHING_SAID)
        return (rest or b"") + b"\r\n\r\n" + event


def _read_contents(raw: bytes) -> list[GeminiContent]:
    """The contents, at least one; Google's parser takes one object for a list of one.

    Raises:
        InvalidRequest: missing, or one of them is none; the field is named.
    """
    try:
        contents = [raw] if raw.startswith(b"{") else split_array(raw)
    except ValueError:
        contents = []
    if not contents:
        raise InvalidRequest("contents is required and must be a non-empty array.", field="contents")
    return [GeminiContent(content, place=f"contents[{index}]") for index, content in enumerate(contents)]


def _read_choices(members: dict[str, bytes]) -> int:
    """How many candidates; a value that makes no sense is the provider's to refuse."""
    for name in ("generationConfig", "generation_config"):
        config = decode_field(members, name)
        if isinstance(config, dict):
            count = config.get("candidateCount", config.get("candidate_count"))
            return count if isinstance(count, int) and count > 1 else 1
    return 1


def _add_reply(turns: list[Turn], said: list[GeminiContent]) -> None:
    text = "".join(content.text() for content in said)
    if text.strip():
        turns.append(Turn(role="assistant", text=text, remember=all(content.remember for content in said)))
