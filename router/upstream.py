"""Calls to providers: bounded connections to each, with every failure turned into our own errors.

Owns what is open to each provider; what happens within a call is `router.upstream_call`'s business. Must never
follow a redirect, or read proxy settings from the environment.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import trio

from models.errors import Overloaded, UpstreamError
from models.provider_settings import ProviderSettings, Secret
from router.headers import HeaderList, request_headers
from router.masking import mask_for
from router.upstream_call import CLOSE_TIMEOUT_S, REPLY_BYTES_MAX, Call, Link, UpstreamResponse

__all__ = ["REPLY_BYTES_MAX", "Upstream", "UpstreamResponse", "open_upstream"]


class Upstream:
    """All providers; what `open_upstream` yields."""

    def __init__(self, by_name: Mapping[str, ProviderSettings]) -> None:
        self._settings = dict(by_name)
        self._links: dict[str, Link] = {}
        self._tls: ssl.SSLContext | None = None

    @asynccontextmanager
    async def stream(
        self,
        provider: str,
        path: str,
        *,
        headers: HeaderList,
        body: bytes | AsyncIterator[bytes],
        body_bytes: int | None = None,
        method: str = "POST",
    ) -> AsyncIterator[UpstreamResponse]:
        """Call a provider; yields once its headers are here. Leaving the block closes the call, however it is left.

        A provider that cannot be reached or is busy is called again, as its settings allow, within
        `first_byte_timeout_s` in total. The last answer counts, whatever it is. A body in pieces is sent once.

        Args:
            provider: name of a configured provider.
            path: below its base URL, with its slash.
            headers: from `router.headers.request_headers`.
            body: whole, or in pieces that are asked for as the provider takes them. What the iterator raises comes out
                of here. For it, the time for the first byte counts from its end.
            body_bytes: length of a body in pieces, if it is known.

        Raises:
            UpstreamSuspended: it failed repeatedly and is left alone for now.
            Overloaded: all its connections are busy and none became free within `connect_timeout_s`.
            UpstreamTimeout: no connection, or no headers in time.
            UpstreamError: it cannot be reached or does not speak HTTP.
        """
        link = self._link(provider)
        if not isinstance(body, bytes):
            headers = [*headers, _framing(body_bytes)]
        with link.calls.under_way() as call, ExitStack() as slot:
            headers = [*headers, *call.trace_headers()]
            with link.breaker.admitted() as ticket:
                await _acquire(link, slot)
                answer, attempts = await Call(link, method=method, path=path, headers=headers).send(body, ticket)
            try:
                reply = UpstreamResponse(
                    answer,
                    provider=link.name,
                    idle_timeout_s=link.settings.idle_timeout_s,
                    mask=mask_for(headers, status=answer.status),
                    attempts=attempts,
                )
            except UpstreamError:
                await answer.aclose()
                raise
            call.answered(reply.status, attempts)
            try:
                yield reply
            finally:
                await reply.aclose()

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
        """Per provider called so far: calls running, waiting and ended, repeated attempts, and its breaker's state."""
        result: dict[str, dict[str, Any]] = {}
        for name, link in self._links.items():
            numbers = link.limiter.statistics()
            result[name] = {
                "calls": numbers.borrowed_tokens,
                "waiting": numbers.tasks_waiting,
                "calls_max": link.settings.connections_max,
                "retries": link.retries,
                "breaker": link.breaker.state,
                "breaker_open": int(link.breaker.state != "closed"),
                "breaker_openings": link.breaker.openings,
                **link.calls.statistics(),
            }
        return result

    async def aclose(self) -> None:
        """Close all connections."""
        for link in self._links.values():
            with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await link.connections.aclose()

    def _link(self, provider: str) -> Link:
        link = self._links.get(provider)
        if link is None:
            if self._tls is None:  # reading the certificates takes some 20 ms, so once for all providers, when needed
                self._tls = _trusted()
                self._tls.set_alpn_protocols(["http/1.1"])
            link = self._links[provider] = Link(provider, self._settings[provider], self._tls)
        return link


@asynccontextmanager
async def open_upstream(by_name: Mapping[str, ProviderSettings]) -> AsyncIterator[Upstream]:
    """Connections to these providers, for the life of the service. Each connects when it is first called."""
    upstream = Upstream(by_name)
    try:
        yield upstream
    finally:
        await upstream.aclose()


def _trusted() -> ssl.SSLContext:
    """Certificates of the authorities that Mozilla trusts, as httpx has them; the environment has no say."""
    import certifi

    return ssl.create_default_context(cafile=certifi.where())


async def _acquire(link: Link, slot: ExitStack) -> None:
    borrower = object()
    try:
        link.limiter.acquire_on_behalf_of_nowait(borrower)
    except trio.WouldBlock:
        await _wait_for_slot(link, borrower)
    slot.callback(link.limiter.release_on_behalf_of, borrower)


async def _wait_for_slot(link: Link, borrower: object) -> None:
    try:
        with trio.fail_after(link.settings.connect_timeout_s):
            await link.limiter.acquire_on_behalf_of(borrower)
    except trio.TooSlowError:
        raise Overloaded(
            f"All connections to the provider {link.name} are busy.",
            hint="Raise connections_max of this provider if it allows more.",
        ) from None


def _framing(body_bytes: int | None) -> tuple[str, str]:
    return ("transfer-encoding", "chunked") if body_bytes is None else ("content-length", str(body_bytes))
