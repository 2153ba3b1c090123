"""Calls to providers: one HTTP client each, bounded, with every failure turned into our own errors.

The only module that knows httpx. Owns connections, timeouts and the mapping of foreign errors; must never put a URL or
a key into an error text, follow a redirect, read proxy settings from the environment, or retry (the clients' SDKs do,
and two layers of retries multiply).
"""

from __future__ import annotations

import ssl
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import trio

from models.errors import Overloaded, UpstreamError, UpstreamTimeout
from models.provider_settings import ProviderSettings, Secret
from router.headers import HeaderList, request_headers, response_headers

REPLY_BYTES_MAX = 64 * 1024 * 1024
"""Of a reply that is read whole. Larger than any provider's limit, with room for images in base64."""

_CLOSE_TIMEOUT_S = 2.0
_KEEPALIVE_EXPIRY_S = 30.0  # below the idle limit of common load balancers (60 s), so we rarely write into a closed one
_DECODED = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # zlib recognises both headers with this window
_TIMED_OUT: dict[type[Exception], str] = {
    httpx.ConnectTimeout: "accept a connection",
    httpx.WriteTimeout: "take the request",
}


class UpstreamResponse:
    """A provider's answer: its status, the headers a client may see, and its body as an iterator of chunks.

    Iterating yields chunks as they arrive, never empty ones. Each step raises UpstreamTimeout after the provider's
    `idle_timeout_s`, and UpstreamError when the body is cut. It is a class, not an async generator, because a cancel
    scope must not stay open across a `yield` (PEP 789).
    """

    def __init__(self, response: httpx.Response, *, provider: str, idle_timeout_s: float) -> None:
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        decoded = encoding in _DECODED
        if not decoded and encoding not in {"", "identity"}:
            raise UpstreamError(f"The provider {provider} used an encoding that was not asked for.")
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw]
        self.status = response.status_code
        self.headers: HeaderList = response_headers(pairs, decoded=decoded)
        self._response = response
        self._provider = provider
        self._idle_timeout_s = idle_timeout_s
        self._chunks = response.aiter_raw()
        self._inflater = zlib.decompressobj(_GZIP_OR_ZLIB) if decoded else None

    @property
    def is_event_stream(self) -> bool:
        """Whether the provider streams; some answer `stream: true` with a plain body."""
        return self._media_type().startswith("text/event-stream")

    def __aiter__(self) -> UpstreamResponse:
        return self

    async def __anext__(self) -> bytes:
        with _mapped_errors(self._provider), trio.fail_after(self._idle_timeout_s):
            chunk = b""
            while not chunk:
                chunk = await anext(self._chunks)
                if self._inflater is not None:
                    chunk = self._inflater.decompress(chunk)
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
                with trio.move_on_after(_CLOSE_TIMEOUT_S, shield=True):
                    await self._response.aclose()

    def _media_type(self) -> str:
        return str(self._response.headers.get("content-type", "")).strip().lower()


class _Link:
    """One provider's client and the limiter in front of it.

    With as many tokens as the pool has connections nobody ever queues inside the pool, whose queue loses slots when its
    waiters are cancelled (httpcore #1093).
    """

    __slots__ = ("base_url", "client", "limiter", "name", "settings")

    def __init__(self, name: str, settings: ProviderSettings, tls: ssl.SSLContext) -> None:
        self.name = name
        self.settings = settings
        self.base_url = settings.base_url.rstrip("/")
        self.limiter = trio.CapacityLimiter(settings.connections_max)
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


class Upstream:
    """All providers; what `open_upstream` yields."""

    def __init__(self, by_name: Mapping[str, ProviderSettings]) -> None:
        self._settings = dict(by_name)
        self._links: dict[str, _Link] = {}
        self._tls: ssl.SSLContext | None = None

    @asynccontextmanager
    async def stream(
        self, provider: str, path: str, *, headers: HeaderList, body: bytes, method: str = "POST"
    ) -> AsyncIterator[UpstreamResponse]:
        """Call a provider; yields once its headers are here. Leaving the block closes the call, however it is left.

        Args:
            provider: name of a configured provider.
            path: below its base URL, with its slash.
            headers: from `router.headers.request_headers`.

        Raises:
            Overloaded: all its connections are busy and none became free within `connect_timeout_s`.
            UpstreamTimeout: no connection, or no headers in time.
            UpstreamError: it cannot be reached or does not speak HTTP.
        """
        link = self._link(provider)
        borrower = object()
        await _acquire(link, borrower)
        try:
            response = await _send(link, method, path, headers, body)
            try:
                reply = UpstreamResponse(response, provider=link.name, idle_timeout_s=link.settings.idle_timeout_s)
            except UpstreamError:
                with trio.move_on_after(_CLOSE_TIMEOUT_S, shield=True):
                    await response.aclose()
                raise
            try:
                yield reply
            finally:
                await reply.aclose()
        finally:
            link.limiter.release_on_behalf_of(borrower)

    async def get(self, provider: str, path: str, *, api_key: Secret, bytes_max: int = REPLY_BYTES_MAX) -> bytes:
        """The body of a GET with the server's own key, for what is not a conversation (lists of models).

        Raises:
            UpstreamError: as `stream`, and for any status but 200.
        """
        headers = request_headers((), provider=provider, api_key=api_key)
        async with self.stream(provider, path, headers=headers, body=b"", method="GET") as response:
            if response.status != 200:
                raise UpstreamError(f"The provider {provider} answered with status {response.status}.")
            return await response.read(bytes_max=bytes_max)

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Per provider called so far: calls running and waiting, and connections the pool holds open."""
        result: dict[str, dict[str, Any]] = {}
        for name, link in self._links.items():
            numbers = link.limiter.statistics()
            result[name] = {
                "calls": numbers.borrowed_tokens,
                "waiting": numbers.tasks_waiting,
                "calls_max": link.settings.connections_max,
            }
        return result

    async def aclose(self) -> None:
        """Close all connections."""
        for link in self._links.values():
            with trio.move_on_after(_CLOSE_TIMEOUT_S, shield=True):
                await link.client.aclose()

    def _link(self, provider: str) -> _Link:
        link = self._links.get(provider)
        if link is None:
            if self._tls is None:  # reading the certificates takes some 20 ms, so once for all providers, when needed
                self._tls = httpx.create_ssl_context(trust_env=False)
            link = self._links[provider] = _Link(provider, self._settings[provider], self._tls)
        return link


@asynccontextmanager
async def open_upstream(by_name: Mapping[str, ProviderSettings]) -> AsyncIterator[Upstream]:
    """The clients of these providers, for the life of the service. Each connects when it is first called."""
    upstream = Upstream(by_name)
    try:
        yield upstream
    finally:
        await upstream.aclose()


async def _acquire(link: _Link, borrower: object) -> None:
    try:
        with trio.fail_after(link.settings.connect_timeout_s):
            await link.limiter.acquire_on_behalf_of(borrower)
    except trio.TooSlowError:
        raise Overloaded(
            f"All connections to the provider {link.name} are busy.",
            hint="Raise connections_max of this provider if it allows more.",
        ) from None


async def _send(link: _Link, method: str, path: str, headers: HeaderList, body: bytes) -> httpx.Response:
    with _mapped_errors(link.name), trio.fail_after(link.settings.first_byte_timeout_s):
        request = link.client.build_request(method, link.base_url + path, headers=headers, content=body)
        return await link.client.send(request, stream=True)


@contextmanager
def _mapped_errors(provider: str) -> Iterator[None]:
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
