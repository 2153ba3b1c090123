"""A browser that is signed in to the dashboard, without a browser: its cookie, its token, and what it asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import msgspec

from router.dashboard.gate import API, COOKIE, SESSION
from tests.running import Client, object_of

PAGE = {"x-dashboard": "1"}


class Browser:
    """One session.

    Attributes:
        token: the cookie's value.
        csrf: what the page says beside it.
        session: what signing in was answered.
    """

    def __init__(self, http: httpx.AsyncClient, token: str, session: dict[str, Any]) -> None:
        self.http = http
        self.token = token
        self.csrf: str = session["csrf"]
        self.session = session

    @property
    def headers(self) -> dict[str, str]:
        """What the page sends with each request."""
        return {**PAGE, "cookie": f"{COOKIE}={self.token}", "x-csrf-token": self.csrf}

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        vault: str = "",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """One request, by its path below `/dashboard/api/`."""
        content = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        sent = {**self.headers, **({"x-dashboard-vault": vault} if vault else {}), **(headers or {})}
        return await self.http.request(
            method, f"{API}/{path}", content=content, headers=sent, params=dict(query) if query else None
        )

    async def done(self, method: str, path: str, body: Any = None, *, vault: str = "", status: int = 200) -> Any:
        """The JSON of an answer; insists on the status."""
        answer = await self.ask(method, path, body, vault=vault)
        assert answer.status_code == status, answer.text
        return answer.json()


async def sign_in(client: Client, *, key: str | None = None) -> Browser:
    """A new session of this client's account key."""
    answer = await try_sign_in(client, {"key": client.key if key is None else key})
    assert answer.status_code == 200, answer.text
    return Browser(client.http, token_of(answer), object_of(answer))


async def try_sign_in(client: Client, body: Any, *, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """What signing in is answered. Cookies are not kept: each request says which it has."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    answer = await client.http.post(SESSION, content=content, headers={**PAGE, **(headers or {})})
    client.http.cookies.clear()
    return answer


def token_of(answer: httpx.Response) -> str:
    """The token in the cookie that an answer sets."""
    name, _, rest = answer.headers["set-cookie"].partition("=")
    assert name == COOKIE
    return str(rest.partition(";")[0])
