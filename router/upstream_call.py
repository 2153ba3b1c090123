"""One call to a provider: attempts up to the response's headers, then the response as an iterator.

Owns the timeouts of a call and the mapping of foreign errors; must never put a URL or a key into an error text, nor try
again once a provider may have begun to work on a request. Whether it does try again, `router.resilience` decides.
"""

from __future__ import annotations

import random
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Callable

import trio

from models.errors import UpstreamError, UpstreamTimeout
from models.provider_settings import ProviderSettings
from router.headers import HeaderList, response_headers
from router.masking import KeyMask, mask_headers
from router.provider_calls import ProviderCalls
from router.provider_connections import (
    Answer,
    CallFailed,
    NotReached,
    NotReachedInTime,
    NotSendable,
    NotTaken,
    ProviderConnections,
)
from router.resilience import FAILURE_STATUSES, Breaker, RetryPolicy, Ticket, asked_pause_s, is_busy

REPLY_BYTES_MAX = 64 * 1024 * 1024
"""Of a reply that is read whole. Larger than any provider's limit, with room for images in base64."""

CLOSE_TIMEOUT_S = 2.0
_DECODED = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # zlib recognises both headers with this window
_GZIP_BEGINS = b"\x1f"
_FAILED_TO: dict[type[Exception], str] = {NotReachedInTime: "accept a connection", NotTaken: "take the request"}


class UpstreamResponse:
    """A provider's answer: its status, the headers a client may see, and its body as an iterator of chunks.

    Where it quotes the key that it was sent there are asterisks, in headers and body (`router.masking`).

    Iterating yields chunks as they arrive, never empty ones. Each step raises UpstreamTimeout after the provider's
    `idle_timeout_s`, and UpstreamError when the body is cut. It is a class, not an async generator, because a cancel
    scope must not stay open across a `yield` (PEP 789).

    Attributes:
        media_type: the content type without its parameters, in lower case; "" when the provider gives none.
        attempts: how many it took.
    """

    def __init__(
        self, answer: Answer, *, provider: str, idle_timeout_s: float, mask: KeyMask, attempts: int = 1
    ) -> None:
        given = dict(answer.headers)
        encoding = given.get("content-encoding", "identity").strip().lower()
        decoded = encoding in _DECODED
        if not decoded and encoding not in {"", "identity"}:
            raise UpstreamError(f"The provider {provider} used an encoding that was not asked for.")
        self.status = answer.status
        self.attempts = attempts
        self.headers: HeaderList = mask_headers(response_headers(answer.headers, decoded=decoded), mask)
        self.media_type = given.get("content-type", "").partition(";")[0].strip().lower()
        self._answer = answer
        self._provider = provider
        self._idle_timeout_s = idle_timeout_s
        self._inflater = _Inflater() if decoded else None
        self._mask = mask

    @property
    def is_event_stream(self) -> bool:
        """Whether the provider streams; some answer `stream: true` with a plain body."""
        return self.media_type == "text/event-stream"

    def __aiter__(self) -> UpstreamResponse:
        return self

    async def __anext__(self) -> bytes:
        try:
            if self._answer.is_at_end:
                return self._last()
            with trio.CancelScope(deadline=trio.current_time() + self._idle_timeout_s):
                return await self._next()
        except (CallFailed, zlib.error) as error:
            raise mapped(error, self._provider) from None
        raise mapped(trio.TooSlowError(), self._provider)

    async def _next(self) -> bytes:
        chunk = b""
        while not chunk:
            chunk = await self._answer.receive()
            if not chunk:
                return self._last()
            if self._inflater is not None:
                chunk = self._inflater.inflate(chunk)
            chunk = self._mask.feed(chunk)
        return chunk

    async def read(self, *, bytes_max: int = REPLY_BYTES_MAX) -> bytes:
        """The whole body.

        Raises:
            UpstreamError: it is longer than `bytes_max`, or was cut.
            UpstreamTimeout: it stopped coming.
        """
        body = bytearray()
        async for chunk in self:
            body += chunk
            if len(body) > bytes_max:
                raise UpstreamError(f"The reply of the provider {self._provider} is over {bytes_max} bytes.")
        return bytes(body)

    async def aclose(self) -> None:
        """Close the connection, unless it was given back: the body was read to its end. May be called again."""
        if self._answer.is_at_end:
            return
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            await self._answer.aclose()

    def _last(self) -> bytes:
        """What the mask has kept back for a key that might still have come; then the end."""
        if self._inflater is not None:
            self._inflater.check_whole()
        chunk = self._mask.end()
        if not chunk:
            raise StopAsyncIteration
        return chunk


class _Inflater:
    """Unpacks a body as it comes. Gzip data may have several members (RFC 1952, section 2.2); what is none is padding.

    Both methods raise zlib.error: the data is damaged, or ends too early.
    """

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._begun = False

    def inflate(self, chunk: bytes) -> bytes:
        """What this chunk unpacks to."""
        data = bytearray()
        while chunk:
            if self._member.eof:
                if not chunk.startswith(_GZIP_BEGINS):
                    break
                self._member = zlib.decompressobj(_GZIP_OR_ZLIB)
            self._begun = True
            data += self._member.decompress(chunk)
            chunk = self._member.unused_data
        return bytes(data)

    def check_whole(self) -> None:
        """At the end of the body: a cut that the connection's framing did not show. No data at all is an empty body."""
        if self._begun and not self._member.eof:
            raise zlib.error("the data ends too early")


class Link:
    """One provider: its connections, the limiter in front of them, and whether it is well."""

    __slots__ = ("breaker", "calls", "connections", "limiter", "name", "policy", "retries", "settings")

    def __init__(self, name: str, settings: ProviderSettings, tls: ssl.SSLContext) -> None:
        self.name = name
        self.settings = settings
        self.limiter = trio.CapacityLimiter(settings.connections_max)
        self.policy = RetryPolicy(retries_max=settings.retries_max, wait_max_s=settings.retry_wait_max_s)
        self.breaker = Breaker(
            name, failures=settings.breaker_failures, open_s=settings.breaker_open_s, clock=trio.current_time
        )
        self.calls = ProviderCalls(name)
        self.retries = 0
        self.connections = ProviderConnections(
            settings.base_url,
            tls,
            connect_timeout_s=settings.connect_timeout_s,
            write_timeout_s=settings.write_timeout_s,
        )


class Call:
    """One call up to its response's headers, with one verdict for the breaker, however many attempts it takes."""

    def __init__(self, link: Link, *, method: str, path: str, headers: HeaderList) -> None:
        self._link = link
        self._method = method
        self._path = path
        self._headers = headers

    async def send(self, body: bytes | AsyncIterator[bytes], ticket: Ticket) -> tuple[Answer, int]:
        """The answer, and how many attempts it took. See `Upstream.stream`."""
        breaker = self._link.breaker
        try:
            answer, attempts = await self._send_in_time(body)
        except (CallFailed, trio.TooSlowError) as error:
            if not isinstance(error, NotSendable):  # that is the client's mistake
                breaker.failed(ticket)
            raise mapped(error, self._link.name) from None
        if answer.status in FAILURE_STATUSES:
            breaker.failed(ticket)
        elif answer.status != 500:  # it says nothing about the provider as a whole
            breaker.succeeded(ticket)
        return answer, attempts

    async def _send_in_time(self, body: bytes | AsyncIterator[bytes]) -> tuple[Answer, int]:
        with trio.CancelScope() as patience:
            if not isinstance(body, bytes):
                return await self._send_once(body, patience), 1
            patience.deadline = trio.current_time() + self._link.settings.first_byte_timeout_s
            return await self._send_patiently(body, patience)
        raise trio.TooSlowError

    async def _send_patiently(self, body: bytes, patience: trio.CancelScope) -> tuple[Answer, int]:
        link, attempts = self._link, 0
        while True:
            attempts += 1
            try:
                answer = await self._ask(body)
            except NotReached:
                pause_s = self._pause_s(attempts, None, patience)
                if pause_s is None:
                    raise
            else:
                if not is_busy(answer.status, answer.headers):
                    return answer, attempts
                pause_s = self._pause_s(attempts, asked_pause_s(answer.headers, now_s=time.time()), patience)
                if pause_s is None:
                    return answer, attempts
                await answer.aclose()
            link.retries += 1
            await trio.sleep(pause_s)

    async def _send_once(self, chunks: AsyncIterator[bytes], patience: trio.CancelScope) -> Answer:
        def sent() -> None:
            patience.deadline = trio.current_time() + self._link.settings.first_byte_timeout_s

        return await self._ask(chunks, on_sent=sent)

    async def _ask(self, body: bytes | AsyncIterator[bytes], on_sent: Callable[[], None] | None = None) -> Answer:
        return await self._link.connections.ask(
            self._method, self._path, headers=self._headers, body=body, on_sent=on_sent
        )

    def _pause_s(self, attempts: int, asked_s: float | None, patience: trio.CancelScope) -> float | None:
        """How long to wait before the next attempt; None when there is none, or no time for one."""
        if self._link.breaker.state == "open":
            return None
        pause_s = self._link.policy.pause_s(attempts, asked_s=asked_s, jitter=random.random())
        if pause_s is None or trio.current_time() + pause_s >= patience.deadline:
            return None
        return pause_s


def mapped(error: CallFailed | zlib.error | trio.TooSlowError, provider: str) -> UpstreamError:
    """What becomes of a failed call, here and nowhere else."""
    match error:
        case trio.TooSlowError() | NotReachedInTime() | NotTaken():
            failed = _FAILED_TO.get(type(error), "answer")
            return UpstreamTimeout(f"The provider {provider} did not {failed} in time.")
        case NotReached():
            return UpstreamError(
                f"The provider {provider} cannot be reached.", hint="Check its base_url and that it is running."
            )
        case _:
            return UpstreamError(f"The connection to the provider {provider} broke.")
