"""Requests that go to a provider and back without memory: what changes of them, and how they are streamed.

Owns the table of these routes, the pace of uploads and the end of a broken reply. Must never hold more of an upload
than the chunk that the provider is taking (but for what precedes a form's model, see `router.multipart`), nor change a
byte beside the model's name and MemoryRouter's own fields.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

import trio

from models.errors import InvalidRequest, ModelNotFound, UpstreamError
from router.bodies import too_large
from router.multipart import boundary_of
from router.providers.json_bytes import encode_string, join_object
from router.providers.openai_chat import OPENAI_CHAT
from router.providers.request_parts import OPTION_FIELDS
from router.providers.routing import Call, Route
from router.request_messages import take_messages_away
from router.sse import EventSplitter

COUNT_TOKENS = "/v1/messages/count_tokens"
PATHS = (
    "/v1/completions",
    "/v1/embeddings",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/audio/speech",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/images/variations",
    COUNT_TOKENS,
)
_OPENAI_MODELS = ("text-embedding-", "whisper", "tts-", "dall-e", "davinci", "babbage", "gpt-", "sora")
_SCOPE_KEY = "memoryrouter.pace"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


def call_of(path: str, route: Route) -> Call:
    """Where a provider takes one of these requests.

    Raises:
        ModelNotFound: it takes none of them.
    """
    if path == COUNT_TOKENS:
        return route.messages_call(below="/count_tokens")
    match route.settings.format:
        case "openai":
            return Call(path.removeprefix("/v1"))
        case "google":
            return Call("/v1beta/openai" + path.removeprefix("/v1"))
        case _:
            raise ModelNotFound(f"The provider {route.provider} has no {path}.")


def routed_name(model: str) -> str:
    """A model's name with its provider. Names without a prefix that only OpenAI gives are its own on these routes."""
    return f"openai/{model}" if model.lower().startswith(_OPENAI_MODELS) else model


def with_model(raw: bytes, members: dict[str, bytes], model: str) -> bytes:
    """A JSON body under the provider's name for the model and without our own fields; else as it came.

    Args:
        raw: the body, for the case that nothing changes.
        members: its members (`router.providers.request_parts.read_object`).
    """
    sent = {name: value for name, value in members.items() if name not in OPTION_FIELDS}
    sent["model"] = encode_string(model)
    return raw if sent == members else join_object(sent)


def with_resource_name(raw: bytes, model: str, sent: str) -> bytes:
    """A Gemini body whose requests name their model as `models/NAME`, with the provider's name for it."""
    return raw.replace(encode_string(f"models/{model}"), encode_string(f"models/{sent}"))


# --- uploads ---


class Pace:
    """How fast an upload is taken from the client: one message for each that is asked for."""

    def __init__(self, *, free: bool) -> None:
        self._free = free
        self._changed = trio.Event()
        self._wanted = 0

    def want(self) -> None:
        """The next message may come."""
        self._wanted += 1
        self._changed.set()

    def release(self) -> None:
        """All messages may come: nobody reads them any more."""
        self._free = True
        self._changed.set()

    async def wait_wanted(self) -> None:
        """Return when a message is wanted."""
        while not self._free and not self._wanted:
            self._changed = trio.Event()
            await self._changed.wait()
        self._wanted = max(self._wanted - 1, 0)


class PacedUploads:
    """ASGI wrapper that lets forms on these routes in only as fast as their handler asks for them.

    Without it Quart would take in all that comes, however slowly the provider reads. It belongs next to the
    application, within `router.early_replies`.
    """

    def __init__(self, app: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or not is_upload(scope):
            await self._app(scope, receive, send)
            return
        pace = scope[_SCOPE_KEY] = Pace(free=False)
        take_messages_away(scope)

        async def receive_wanted() -> Mapping[str, Any]:
            message = await receive()
            if message["type"] == "http.request" and message.get("body"):
                await pace.wait_wanted()
            return message

        async def send_and_release(message: Mapping[str, Any]) -> None:
            pace.release()  # the reply has begun: what is left of the upload is read and dropped
            await send(message)

        await self._app(scope, receive_wanted, send_and_release)


def is_upload(scope: Scope) -> bool:
    """Whether a request is a form that is passed on as it comes."""
    return scope["path"].rstrip("/") in PATHS and _is_form(scope)


def _is_form(scope: Scope) -> bool:
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    types = [value.decode("latin-1") for name, value in headers if name.lower() == b"content-type"]
    try:
        return bool(types) and boundary_of(types[0]) is not None
    except InvalidRequest:
        return False  # the handler will say so


def pace_of(scope: Mapping[str, Any]) -> Pace:
    """The pace of the request that is being served."""
    pace: Pace | None = scope.get(_SCOPE_KEY)
    return Pace(free=True) if pace is None else pace


class UploadChunks:
    """An upload's chunks, each asked for when the one before has been used. Counted, and timed.

    Each step raises TooLarge above `bytes_max`, and InvalidRequest when the client has been waited for longer than
    `timeout_s`, all chunks together: else one byte now and then could hold a connection for ever. The time that the
    provider takes does not count.
    """

    def __init__(self, chunks: AsyncIterable[bytes], pace: Pace, *, bytes_max: int, timeout_s: float) -> None:
        self._chunks = aiter(chunks)
        self._pace = pace
        self._bytes_max = bytes_max
        self._bytes = 0
        self._patience_s = timeout_s

    def __aiter__(self) -> UploadChunks:
        return self

    async def __anext__(self) -> bytes:
        self._pace.want()
        began_s = trio.current_time()
        with trio.move_on_after(self._patience_s):
            chunk = await anext(self._chunks)
            self._patience_s = max(0.0, self._patience_s - (trio.current_time() - began_s))
            self._bytes += len(chunk)
            if self._bytes > self._bytes_max:
                raise too_large(self._bytes_max)
            return chunk
        raise InvalidRequest("The body did not arrive in time.", field="body")


class Joined:
    """Pieces at hand, then what is still to come."""

    def __init__(self, pieces: Iterable[bytes], rest: AsyncIterator[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = rest

    def __aiter__(self) -> Joined:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        return await anext(self._rest)


# --- replies ---


class PassedEvents:
    """A streamed reply as it comes. If it breaks off, the client gets an error event instead of a silent end."""

    def __init__(self, chunks: AsyncIterator[bytes], *, event_bytes_max: int) -> None:
        self._chunks = chunks
        self._splitter = EventSplitter(event_bytes_max=event_bytes_max)
        self._broken = False

    def __aiter__(self) -> PassedEvents:
        return self

    async def __anext__(self) -> bytes:
        if self._broken:
            raise StopAsyncIteration
        try:
            chunk = await anext(self._chunks)
        except UpstreamError as error:
            self._broken = True
            event = OPENAI_CHAT.error_event(
                error.message, status=error.status, code=error.code, open_line=self._splitter.open_line()
            )
            return b"\n\n" + event if self._splitter.overflowed else event
        self._splitter.feed(chunk)
        return chunk
