"""Which headers cross the proxy, in either direction.

Owns both policies (reference/gateways.md 2f): towards the provider an allow-list, towards the client a deny-list. Must
never let a Memory Key, a cookie, or one party's connection details through to the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from models.errors import InvalidRequest, NoProviderKey
from models.ids import looks_like_memory_key
from models.provider_settings import Secret
from models.version import VERSION
from router.providers.routing import Credential

HeaderList = list[tuple[str, str]]

ANTHROPIC_VERSION = "2023-06-01"
"""Sent to Anthropic where the client names no version: the one that the longest-lived clients send."""

_ANTHROPIC_TOKEN_PREFIX = "sk-ant-oat"

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Of one connection (RFC 9110, section 7.6.1), and what was never standard."""

_UPSTREAM_NAMES = frozenset(
    {
        "accept",
        "anthropic-beta",
        "anthropic-version",
        "http-referer",  # OpenRouter's names for the calling app
        "idempotency-key",
        "x-title",
    }
)
_UPSTREAM_PREFIXES = ("openai-", "x-goog-", "x-stainless-")
_CREDENTIALS = frozenset({"x-goog-api-key"})
_CLIENT_DENIED = HOP_BY_HOP | frozenset(
    {
        "alt-svc",
        "clear-site-data",
        "content-length",
        "content-location",
        "date",  # the server sets its own
        "forwarded",
        "link",
        "location",  # would lead the client, and its key, past the proxy
        "nel",
        "proxy-status",
        "report-to",
        "server",
        "set-cookie",
        "set-cookie2",
        "refresh",  # as location
        "strict-transport-security",
        "via",
        "x-powered-by",
        "x-real-ip",
        "x-served-by",
        "x-upstream-request-id",  # ours
    }
)
_CLIENT_DENIED_PREFIXES = (
    "access-control-",
    "cf-",
    "llm_provider-",  # LiteLLM repeats its own provider's headers under this name
    "x-accel-",  # orders to a web server in front of this one
    "x-amz-",
    "x-envoy-",
    "x-forwarded-",
    "x-litellm-",  # its provider's URL is among them
    "x-memory-",  # this and the next two are ours; the provider may be a router like this one
    "x-mr-",
    "x-provider-",
)
_MEMORY_KEY = re.compile(r"(?<![A-Za-z0-9])mk[_-][A-Za-z0-9_-]{8}")
_SENDABLE = re.compile(r"[\x20-\x7e]*\Z")
"""Header values that every HTTP stack agrees on. Whatever else a client sends is dropped, not guessed at."""


def request_headers(
    client: Iterable[tuple[str, str]],
    *,
    provider: str,
    api_key: Secret,
    credential: Credential = "bearer",
    content_type: str = "application/json",
) -> HeaderList:
    """The headers of a request to a provider.

    Args:
        client: the headers as the client sent them.
        provider: name of the provider, for error texts.
        api_key: the provider's key; an empty one sends none (Ollama and vLLM need none).
        credential: how the provider takes it.

    Raises:
        NoProviderKey: the key is a Memory Key; those never leave this server.
        InvalidRequest: the key cannot stand in a header.
    """
    key = api_key.reveal()
    if holds_memory_key(key):
        raise NoProviderKey(
            f"No API key for the provider {provider}: the one given is a Memory Key.",
            hint="Send the provider's key in X-Provider-Key, or set it in config.toml.",
        )
    if not is_sendable(key):
        raise InvalidRequest(
            f"The API key for the provider {provider} holds characters that no key has.", field="X-Provider-Key"
        )
    client = list(client)
    named = _named_in_connection(client)
    agent = f"memoryrouter/{VERSION}"
    headers: HeaderList = []
    for given, value in client:
        name = given.lower()
        if name in named or not _SENDABLE.match(value) or _MEMORY_KEY.search(value):
            continue
        if name == "user-agent":
            agent = f"{value} {agent}"
        elif name in _UPSTREAM_NAMES or (name.startswith(_UPSTREAM_PREFIXES) and name not in _CREDENTIALS):
            headers.append((name, value))
    headers += [("user-agent", agent), ("content-type", content_type), ("accept-encoding", "identity")]
    if credential == "x-api-key" and not any(name == "anthropic-version" for name, _ in headers):
        headers.append(("anthropic-version", ANTHROPIC_VERSION))
    if key:
        headers.append(_credential(key, credential))
    return headers


def holds_memory_key(value: str) -> bool:
    """Whether this is, or has in it, what looks like a Memory Key; it must not leave this server."""
    return looks_like_memory_key(value) or _MEMORY_KEY.search(value) is not None


def is_sendable(value: str) -> bool:
    """Whether this can stand in a header of a request to a provider."""
    return _SENDABLE.match(value) is not None


def _credential(key: str, credential: Credential) -> tuple[str, str]:
    if credential == "bearer" or key.startswith(_ANTHROPIC_TOKEN_PREFIX):
        return "authorization", f"Bearer {key}"
    return credential, key


def response_headers(upstream: Iterable[tuple[str, str]], *, decoded: bool) -> HeaderList:
    """The provider's headers as the client may see them: request ids, rate limits and retry hints stay.

    Args:
        decoded: the body is passed on without the content encoding it came in.
    """
    upstream = list(upstream)
    dropped = _CLIENT_DENIED | _named_in_connection(upstream)
    if decoded:
        dropped |= {"content-encoding"}
    return [
        (name, value)
        for name, value in upstream
        if name.lower() not in dropped and not name.lower().startswith(_CLIENT_DENIED_PREFIXES)
    ]


def _named_in_connection(headers: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Headers that `Connection` declares to be for this hop only (RFC 9110, section 7.6.1)."""
    return frozenset(
        option.strip().lower() for name, value in headers if name.lower() == "connection" for option in value.split(",")
    )
