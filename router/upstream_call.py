"""One call to a provider: attempts up to the response's headers, then the response as an iterator.

Beside `router.upstream` the only module on the way to providers that knows httpx. Owns the timeouts of a call and the
mapping of foreign errors; must never put a URL or a key into an error text, nor try again once a provider may have
begun to work on a request. Whether it does try again, `router.resilience` decides.
"""

from __future__ import annotations

import random
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import httpx
import trio

from models.errors import UpstreamError, UpstreamTimeout
from models.provider_settings import ProviderSettings
from router.headers import HeaderList, response_headers
from router.masking import KeyMask, mask_headers
from router.resilience import FAILURE_STATUSES, Breaker, RetryPolicy, Ticket, asked_pause_s, is_busy

REPLY_BYTES_MAX = 64 * 1024 * 1024
"""Of a reply that is read whole. Larger than any provider's limit, with room for images in base64."""

CLOSE_TIMEOUT_S = 2.0
_KEEPALIVE_EXPIRY_S = 30.0  # below the idle limit of common load balancers (60 s), so we rarely write into a closed one
_DECODED = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # zlib recognises both headers with this window
_GZIP_BEGINS = b"\x1f"
_TIMED_OUT: dict[type[Exception], str] = {
    httpx.ConnectTimeout: "accept a connection",
    httpx.WriteTimeout: "take the request",
}


class UpstreamResponse:
    """A provider's answer: its status, the headers a client may see, and its body as an iterator of chunks.

    Where it quotes the key that it was sent there are asterisks, in headers and body (`router.masking`).

    Iterating yields chunks as they arrive, never empty ones. Each step raises UpstreamTimeout after the provider's
    `idle_timeout_s`, and UpstreamError when the body is cut. It is a class, not an async generator, because a cancel
    scope must not stay open across a `yield` (PEP 789).

    Attributes:
        attempts: how many it took.
    """

    def __init__(
        self, response: httpx.Response, *, provider: str, idle_timeout_s: float, mask: KeyMask, attempts: int = 1
    ) -> None:
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        decoded = encoding in _DECODED
        if not decoded and encoding not in {"", "identity"}:
            raise UpstreamError(f"The provider {provider} used an encoding that was not asked for.")
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw]
        self.status = response.status_code
        self.attempts = attempts
        self.headers: HeaderList = mask_headers(response_headers(pairs, decoded=decoded), mask)
        self._response = response
        self._provider = provider
        self._idle_timeout_s = idle_timeout_s
        self._chunks = response.aiter_raw()
        self._inflater = _Inflater() if decoded else None
        self._mask = mask

    @property
    def is_event_stream(self) -> bool:
        """Whether the provider streams; some answer `stream: true` with a plain body."""
        return self.media_type == "text/event-stream"

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case; "" when the provider gives none."""
        return str(self._response.headers.get("content-type", "")).partition(";")[0].strip().lower()

    def __aiter__(self) -> UpstreamResponse:
        return self

    async def __anext__(self) -> bytes:
        with mapped_errors(self._provider), trio.fail_after(self._idle_timeout_s):
            chunk = b""
            while not chunk:
                try:
                    chunk = await anext(self._chunks)
                except StopAsyncIteration:
                    if self._inflater is not None:
                        self._inflater.check_whole()
                    chunk = self._mask.end()
                    if not chunk:
                        raise
                    return chunk
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
        """Close the connection, or give it back if the body was read to its end. May be called again."""
        # The generators inside httpx are only finished by running them to an end: resumed under cancellation they
        # unwind one by one, while left alone each would be reported as garbage (style.md 6.4).
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                async for _ in self._chunks:
                    pass
            except (httpx.HTTPError, httpx.StreamError):
                pass
            finally:
                await close(self._response)


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


class _Body(httpx.AsyncByteStream):
    """A request's body in one piece. httpx's own is an async generator, which a cancelled call would leave halfway."""

    def __init__(self, body: bytes) -> None:
        self._left = [body] if body else []

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


class _Upload(httpx.AsyncByteStream):
    """A request's body that comes in pieces. What its source raises goes through the HTTP client as it is."""

    def __init__(self, chunks: AsyncIterator[bytes], on_end: Callable[[], None]) -> None:
        self._chunks = chunks
        self._on_end = on_end

    def __aiter__(self) -> _Upload:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            self._on_end()
            raise


class Link:
    """One provider's client and the limiter in front of it.

    With as many tokens as the pool has connections nobody ever queues inside the pool, whose queue loses slots when its
    waiters are cancelled (httpcore #1093).
    """

    __slots__ = ("base_url", "breaker", "client", "limiter", "name", "policy", "retries", "settings")

    def __init__(self, name: str, settings: ProviderSettings, tls: ssl.SSLContext) -> None:
        self.name = name
        self.settings = settings
        self.base_url = settings.base_url.rstrip("/")
        self.limiter = trio.CapacityLimiter(settings.connections_max)
        self.policy = RetryPolicy(retries_max=settings.retries_max, wait_max_s=settings.retry_wait_max_s)
        self.breaker = Breaker(
            name, failures=settings.breaker_failures, open_s=settings.breaker_open_s, clock=trio.current_time
        )
        self.retries = 0
        self.client = httpx.AsyncClient(
            verify=tls,
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(
                max_connections=settings.connections_max,
                max_keepalive_connections=settings.connections_max,
                keepalive_expiry=_KEEPALIVE_EXPIRY_S,
            ),
            timeout=httpx.Timeout(
                connect=settings.connect_timeout_s,
                write=settings.write_timeout_s,
                pool=settings.connect_timeout_s,
                read=None,  # our own deadlines: one for the first byte, one between chunks
            ),
        )


class Call:
    """One call up to its response's headers, with one verdict for the breaker, however many attempts it takes."""

    def __init__(self, link: Link, *, method: str, path: str, headers: HeaderList) -> None:
        self._link = link
        self._method = method
        self._url = link.base_url + path
        self._headers = headers

    async def send(self, body: bytes | AsyncIterator[bytes], ticket: Ticket) -> tuple[httpx.Response, int]:
        """The answer, and how many attempts it took. See `Upstream.stream`."""
        breaker = self._link.breaker
        with mapped_errors(self._link.name):
            try:
                response, attempts = await self._send_in_time(body)
            except (httpx.LocalProtocolError, httpx.UnsupportedProtocol):  # our own mistakes
                raise
            except (httpx.TransportError, trio.TooSlowError):
                breaker.failed(ticket)
                raise
        if response.status_code in FAILURE_STATUSES:
            breaker.failed(ticket)
        elif response.status_code != 500:  # it says nothing about the provider as a whole
            breaker.succeeded(ticket)
        return response, attempts

    async def _send_in_time(self, body: bytes | AsyncIterator[bytes]) -> tuple[httpx.Response, int]:
        with trio.CancelScope() as patience:
            if not isinstance(body, bytes):
                return await self._send_once(body, patience), 1
            patience.deadline = trio.current_time() + self._link.settings.first_byte_timeout_s
            return await self._send_patiently(body, patience)
        raise trio.TooSlowError

    async def _send_patiently(self, body: bytes, patience: trio.CancelScope) -> tuple[httpx.Response, int]:
        link, attempts = self._link, 0
        while True:
            attempts += 1
            request = link.client.build_request(self._method, self._url, headers=self._headers, content=body)
            request.stream = _Body(body)
            try:
                response = await self._link.client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                pause_s = self._pause_s(attempts, None, patience)
                if pause_s is None:
                    raise
            else:
                headers = response.headers.items()
                if not is_busy(response.status_code, headers):
                    return response, attempts
                pause_s = self._pause_s(attempts, asked_pause_s(headers, now_s=time.time()), patience)
                if pause_s is None:
                    return response, attempts
                await close(response)
            link.retries += 1
            await trio.sleep(pause_s)

    async def _send_once(self, chunks: AsyncIterator[bytes], patience: trio.CancelScope) -> httpx.Response:
        def sent() -> None:
            patience.deadline = trio.current_time() + self._link.settings.first_byte_timeout_s

        request = self._link.client.build_request(self._method, self._url, headers=self._headers)
        request.stream = _Upload(chunks, on_end=sent)
        return await self._link.client.send(request, stream=True)

    def _pause_s(self, attempts: int, asked_s: float | None, patience: trio.CancelScope) -> float | None:
        """How long to wait before the next attempt; None when there is none, or no time for one."""
        if self._link.breaker.state == "open":
            return None
        pause_s = self._link.policy.pause_s(attempts, asked_s=asked_s, jitter=random.random())
        if pause_s is None or trio.current_time() + pause_s >= patience.deadline:
            return None
        return pause_s


async def close(response: httpx.Response) -> None:
    """Close a response whose body is of no interest, or that is read."""
    with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
        await response.aclose()


@contextmanager
def mapped_errors(provider: str) -> Iterator[None]:
    """Foreign errors become ours, here and nowhere else. `from None`: theirs carry the URL."""
    try:
        yield
    except (trio.TooSlowError, httpx.TimeoutException) as error:
        failed = _TIMED_OUT.get(type(error), "answer")
        raise UpstreamTimeout(f"The provider {provider} did not {failed} in time.") from None
    except httpx.ConnectError:
        raise UpstreamError(
            f"The provider {provider} cannot be reached.", hint="Check its base_url and that it is running."
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, zlib.error):
        raise UpstreamError(f"The connection to the provider {provider} broke.") from None
