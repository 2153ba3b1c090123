"""What a wire format is to the router: a sans-IO adapter.

Owns the protocol that every format implements (Chat Completions, Responses, Messages, Gemini) and the data they all
speak. Must never do I/O, and must never know of httpx, Quart or Trio: adapters are functions on bytes.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec

from router.sse import Event

Injection = Literal["tail", "system"]
"""Where memory goes: the first text of the last user message, or the front of the system prompt."""


class Turn(msgspec.Struct, frozen=True):
    """What one message of a request says, in words.

    Attributes:
        text: never blank, free of lone surrogates; attachments stand as `[image]` and the like.
        remember: False when the client marked the message `"memory": false`.
    """

    role: Literal["user", "assistant"]
    text: str
    remember: bool = True


class Usage(msgspec.Struct, frozen=True):
    """Tokens as the provider counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Reply(msgspec.Struct, frozen=True):
    """What the provider answered, in words.

    Attributes:
        text: may be empty (a reply that only calls tools).
        complete: False when the provider reported a failure; such a text is not remembered.
        truncated: the text was longer than the collector keeps; this is its first part.
    """

    text: str
    complete: bool
    usage: Usage | None = None
    truncated: bool = False


class Signal(enum.Enum):
    """What an event of a streamed reply means to a relay."""

    NOTHING = enum.auto()
    """Forward it; nothing else."""
    FINISH = enum.auto()
    """The reply is complete with this event; usage and a terminator may follow."""
    FAILURE = enum.auto()
    """The provider says that the reply failed."""


class Splitter(Protocol):
    """Finds the events of one streamed reply in its raw bytes; see `router.sse.EventSplitter`, the usual one.

    Fed every chunk in order. Never changes, copies or holds back what a relay forwards: it says what has become
    complete within the chunk just fed, and where.
    """

    @property
    def overflowed(self) -> bool:
        """Whether one event was too large, so that the rest of the stream has no known meaning."""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes, in order."""

    def pending(self) -> Event | None:
        """An event that some clients have in hand already although its border has yet to come."""

    def flush(self) -> Event | None:
        """What the end of the stream completes."""

    def open_line(self) -> bytes | None:
        """What the format's `error_event` needs to know of where the stream stands; None where it needs nothing."""


class Collector(Protocol):
    """Listens to one streamed reply, beside the bytes."""

    @property
    def ended(self) -> bool:
        """Whether the format's terminator has come: SDKs read nothing after it."""

    def classify(self, event: Event) -> Signal:
        """What the event means, if it came next. Changes nothing."""

    def feed(self, event: Event) -> Signal:
        """Take the event in and say what it means."""

    def reply(self) -> Reply:
        """What has been said so far."""


class ChatRequest(Protocol):
    """One parsed request. Immutable; holds raw bytes of what it does not understand."""

    @property
    def model(self) -> str:
        """As the client named it, with prefix."""

    @property
    def stream(self) -> bool:
        """Whether the client asked for server-sent events."""

    @property
    def stream_type(self) -> str:
        """The media type of a streamed reply; a reply of another type is read whole."""

    @property
    def options(self) -> Mapping[str, Any]:
        """MemoryRouter's own body fields (contract 2.3), decoded but not validated; they are not sent upstream."""

    @property
    def in_tool_loop(self) -> bool:
        """Whether something follows the message that memory goes into: tool calls, tool results, a prefill."""

    def turns(self) -> list[Turn]:
        """User and assistant texts, in order. Neither system prompts nor tool calls and results are turns."""

    def anchor_hash(self) -> bytes | None:
        """SHA-256 of the messages up to the one that memory is injected into, as sent; None without such a message."""

    def encode(self, *, model: str, block: str = "", injection: Injection = "tail") -> bytes:
        """The body for the provider: `model` replaced, own fields removed, `block` injected if it is not empty.

        With `tail` and no user message to put it in, the block is left out.
        """

    def splitter(self, *, event_bytes_max: int) -> Splitter:
        """A splitter for the streamed reply to this request."""

    def collector(self, *, text_chars_max: int) -> Collector:
        """A collector for the streamed reply to this request."""


class WireFormat(Protocol):
    """One wire format."""

    def parse_request(self, body: bytes) -> ChatRequest:
        """Read a request.

        Raises:
            InvalidRequest: with `field` set where a field is to blame.
        """

    def parse_reply(self, body: bytes, *, text_chars_max: int) -> Reply | None:
        """Read a whole reply with a 2xx status; None when it is not one of this format."""

    def error_body(self, message: str, *, status: int, code: str, field: str | None = None) -> bytes:
        """An error as this format's clients expect it."""

    def error_event(self, message: str, *, status: int, code: str, open_line: bytes | None = None) -> bytes:
        """Bytes that end a broken stream with an error that this format's SDKs raise.

        Args:
            open_line: from the `open_line` of this format's splitter: with server-sent events the part of a line that
                is already with the client, None on an event border.
        """


class StreamTranslator(Protocol):
    """Turns the bytes of one format's stream into another's, as they come."""

    @property
    def usage(self) -> Usage | None:
        """The token counts that the provider has told so far."""

    def feed(self, chunk: bytes) -> bytes:
        """What this chunk becomes; may be empty."""

    def end(self) -> bytes:
        """What the clean end of the provider's stream adds; never a finish that the provider did not announce."""


class Translation(Protocol):
    """One chat request in the clothes of another format, and the way back for its reply. Used once.

    A relay sees the translated bytes only, so all it knows of failing, finishing and storing holds for them too.
    """

    @property
    def body(self) -> bytes:
        """The request for the provider."""

    def reply(self, body: bytes, *, status: int) -> bytes:
        """A whole reply or error of the provider in the format of the request."""

    def stream(self) -> StreamTranslator:
        """A translator for the streamed reply."""
