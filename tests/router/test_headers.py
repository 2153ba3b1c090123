"""Which headers cross the proxy, and that no Memory Key ever does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRequest, NoProviderKey
from models.ids import mint_key
from models.provider_settings import Secret
from models.version import VERSION
from router.headers import (
    ANTHROPIC_VERSION,
    request_headers,
    response_headers,
)
from router.providers.routing import Credential

_KEY = mint_key()
BASIC = {"user-agent", "content-type", "accept-encoding"}


def sent(*client: tuple[str, str], key: str = "sk-1") -> dict[str, str]:
    return dict(request_headers(client, provider="openai", api_key=Secret(key)))


def test_known_headers_go_to_the_provider() -> None:
    """SDK signals and vendor options; the user agent is extended."""
    client = {
        "Accept": "application/json",
        "OpenAI-Project": "p",
        "anthropic-beta": "b",
        "x-goog-user-project": "g",
        "x-stainless-retry-count": "1",
        "idempotency-key": "i",
        "User-Agent": "sdk/1",
    }

    assert sent(*client.items()) == {
        **{name.lower(): value for name, value in client.items()},
        "user-agent": f"sdk/1 memoryrouter/{VERSION}",
        "content-type": "application/json",
        "accept-encoding": "identity",
        "authorization": "Bearer sk-1",
    }


@pytest.mark.parametrize(
    "name",
    ["cookie", "authorization", "x-api-key", "api-key", "x-goog-api-key", "x-provider-key", "x-memory-key",
     "x-session-id", "x-forwarded-for", "forwarded", "host", "content-length", "transfer-encoding", "connection",
     "traceparent", "tracestate", "x-anything"],
)  # fmt: skip
def test_all_others_stay_here(name: str) -> None:
    """An allow-list: what nobody thought of is not sent."""
    assert sent((name, "value"), key="").keys() == {"user-agent", "content-type", "accept-encoding"}


@given(
    st.sampled_from(["accept", "user-agent", "openai-project", "x-stainless-x", "x-title"]),
    st.text("a :=;,/", max_size=5),
)
def test_a_memory_key_in_any_header_stays_here(name: str, before: str) -> None:
    """Even inside another value."""
    assert _KEY not in str(sent((name, f"{before} {_KEY}")))


def test_headers_that_connection_names_and_odd_values_stay_here() -> None:
    """Hop-by-hop by declaration; control characters and non-ASCII could be read differently upstream."""
    headers = sent(("Connection", "close, X-Title"), ("x-title", "t"), ("openai-x", "a\r\nb"), ("openai-y", "é"))

    assert not headers.keys() & {"x-title", "openai-x", "openai-y", "connection"}


@pytest.mark.parametrize("key", [_KEY, f'"{_KEY}"', f"Bearer {_KEY}", f"Basic {_KEY}", f"sk-1,{_KEY}"])
def test_a_memory_key_is_never_a_provider_key(key: str) -> None:
    """Nor is what holds one. It is refused by name of the provider, not by its value."""
    with pytest.raises(NoProviderKey) as caught:
        sent(key=key)

    assert _KEY not in str(caught.value)


def test_a_key_that_is_no_header_value_is_refused() -> None:
    """It could end the header and begin another."""
    with pytest.raises(InvalidRequest) as caught:
        sent(key="sk-1\r\nx: y")

    assert "sk-1" not in str(caught.value)


def test_retry_hints_rate_limits_and_ids_come_back() -> None:
    """SDKs read them; they keep order and repetition."""
    kept = [
        ("retry-after", "3"),
        ("retry-after-ms", "3000"),
        ("x-should-retry", "false"),
        ("x-ratelimit-remaining-tokens", "9"),
        ("openai-processing-ms", "5"),
        ("X-Request-Id", "r"),
        ("x-vendor", "1"),
        ("x-vendor", "2"),
    ]

    assert response_headers(kept, decoded=False) == kept


def test_connection_details_and_cookies_do_not_come_back() -> None:
    """Neither the provider's nor its CDN's."""
    dropped = ["Link", "content-location", "X-Forwarded-For", "x-real-ip", "forwarded", "proxy-status", "set-cookie2",
               "clear-site-data", "Connection", "transfer-encoding", "keep-alive", "content-length", "set-cookie",
               "server", "date",
               "alt-svc", "cf-ray", "location", "x-memory-status", "access-control-allow-origin", "x-hop", "via",
               "x-litellm-model-api-base", "llm_provider-retry-after", "X-Accel-Redirect", "x-envoy-upstream-host",
               "x-mr-attempts", "x-provider-detected", "refresh", "x-powered-by"]  # fmt: skip
    headers = [(name, "x-hop") for name in dropped]

    assert response_headers(headers, decoded=False) == []
    assert response_headers([("content-encoding", "gzip")], decoded=True) == []
    assert response_headers([("content-encoding", "br")], decoded=False) == [("content-encoding", "br")]


@pytest.mark.parametrize(
    ("key", "credential", "expected"),
    [
        ("sk-1", "bearer", {"authorization": "Bearer sk-1"}),
        ("sk-ant-api-1", "x-api-key", {"x-api-key": "sk-ant-api-1", "anthropic-version": ANTHROPIC_VERSION}),
        (
            "sk-ant-oat01-1",
            "x-api-key",
            {"authorization": "Bearer sk-ant-oat01-1", "anthropic-version": ANTHROPIC_VERSION},
        ),
        ("AIza", "x-goog-api-key", {"x-goog-api-key": "AIza"}),
    ],
)
def test_each_provider_gets_its_key_where_it_looks_for_it(
    key: str, credential: Credential, expected: dict[str, str]
) -> None:
    """Login tokens of Anthropic are bearers whatever the format; its version is named if the client did not."""
    headers = dict(request_headers([], provider="p", api_key=Secret(key), credential=credential))

    assert {name: headers[name] for name in headers if name not in BASIC} == expected


def test_the_clients_anthropic_version_wins() -> None:
    """It decides what the reply looks like."""
    client = [("Anthropic-Version", "2026-10-21")]
    headers = request_headers(client, provider="p", api_key=Secret("k"), credential="x-api-key")

    assert [value for name, value in headers if name == "anthropic-version"] == ["2026-10-21"]
