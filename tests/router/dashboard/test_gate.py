"""The gate: what of a request goes on, and under which path; what of an answer."""

from __future__ import annotations

from typing import Any

import pytest

from router.dashboard.gate import (
    COOKIE,
    SECURITY_HEADERS,
    BrowserRequest,
    DashboardGate,
    browser_request,
    guarded,
    session_token,
    without_key,
)

HEADERS = [
    (b"Host", b"x"), (b"Authorization", b"Bearer mk_x"), (b"X-Memory-Key", b"mk_x"), (b"x-api-key", b"mk_x"),
    (b"x-goog-api-key", b"mk_x"), (b"api-key", b"mk_x"), (b"X-Provider-Key", b"sk-x"), (b"X-CSRF-Token", b"csrf"),
    (b"Cookie", b"memoryrouter_session=token"), (b"X-Dashboard", b"1"), (b"X-Dashboard-Vault", b"vault_3"),
    (b"X-Session-ID", b"s"),
]  # fmt: skip


async def passed_on(path: str, query: bytes = b"", *, kind: str = "http") -> Any:
    """The scope that the application gets."""
    seen: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope)

    scope = {"type": kind, "path": path, "raw_path": path.encode(), "query_string": query, "headers": HEADERS}
    nothing: Any = None
    await DashboardGate(app)(scope, nothing, nothing)
    return seen[0]


async def test_a_request_to_the_api_goes_on_without_credentials_and_with_its_session() -> None:
    scope = await passed_on("/dashboard/api/v1/keys/a b", b"key=mk_x&search=a%26b&KEY=1")
    assert (scope["path"], scope["raw_path"]) == ("/v1/keys/a b", b"/v1/keys/a%20b")
    assert scope["query_string"] == b"search=a%26b&KEY=1"
    assert [name for name, _ in scope["headers"]] == [b"host", b"x-session-id"]
    assert browser_request(scope) == BrowserRequest(token="token", csrf="csrf", vault="vault_3", is_page=True)


@pytest.mark.parametrize("path", ["/dashboard", "/dashboard/", "/dashboard/api/overview", "/dashboard/api/v1x/keys"])
async def test_what_is_the_dashboards_own_keeps_its_path(path: str) -> None:
    scope = await passed_on(path)
    assert scope["path"] == path
    assert browser_request(scope) is not None
    assert not {b"authorization", b"cookie"} & {name for name, _ in scope["headers"]}


@pytest.mark.parametrize("path", ["/v1/keys", "/dashboards/api/v1/keys", "/", "/x/dashboard/api/v1/keys"])
async def test_elsewhere_nothing_changes_and_a_cookie_is_no_session(path: str) -> None:
    scope = await passed_on(path)
    assert (scope["path"], scope["headers"], browser_request(scope)) == (path, HEADERS, None)
    assert browser_request(await passed_on("/dashboard/api/v1/keys", kind="websocket")) is None


@pytest.mark.parametrize(
    ("cookies", "token"),
    [
        ([b"memoryrouter_session=a"], "a"), ([b'x=1; memoryrouter_session="a" ; y=2'], "a"),
        ([b"x=1", b"memoryrouter_session=a"], "a"), ([b"memoryrouter_session=a; memoryrouter_session=a"], "a"),
        ([b"memoryrouter_session=a; memoryrouter_session=b"], ""),
        ([b"memoryrouter_session=a", b"memoryrouter_session=b"], ""),
        ([b"Memoryrouter_session=a"], ""), ([b"xmemoryrouter_session=a"], ""), ([b"memoryrouter_session"], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_a_token_is_the_one_value_of_our_cookie(cookies: list[bytes], token: str) -> None:
    assert COOKIE == "memoryrouter_session"
    assert session_token(cookies) == token


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (b"", b""), (b"a=1", b"a=1"), (b"key=x", b""), (b"a=1&key=x&b=2", b"a=1&b=2"), (b"%6Bey=x&k+ey=1", b"k+ey=1"),
        (b"key", b""), (b"a=key=x", b"a=key=x"), (b"api_key=x", b"api_key=x"),
    ],
)  # fmt: skip
def test_no_key_is_left_in_a_query(query: bytes, left: bytes) -> None:
    assert without_key(query) == left


def test_an_answers_headers_are_ours_where_they_bind_the_page() -> None:
    theirs = [
        (b"Content-Security-Policy", b"script-src *"), (b"Set-Cookie", b"a=b"), (b"Cache-Control", b"public"),
        (b"Access-Control-Allow-Origin", b"*"), (b"Clear-Site-Data", b"*"), (b"content-type", b"text/html"),
    ]  # fmt: skip
    answered = guarded(theirs, "/dashboard/api/v1/keys")
    assert dict(answered) == {b"content-type": b"text/html", b"cache-control": b"no-store", **SECURITY_HEADERS}
    assert len(answered) == len(dict(answered))
    assert (b"set-cookie", b"a=b") in guarded(theirs, "/dashboard/session")
    assert (b"cache-control", b"public") in guarded(theirs, "/dashboard/static/x.js")
