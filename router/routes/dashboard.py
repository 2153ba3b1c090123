"""`/dashboard`: its pages and files, signing in and out, and what only the dashboard shows (docs/dashboard.md).

The pages and files are open and say nothing. Everything else needs a session; what the public API has comes from there,
by way of `router.dashboard.gate`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from quart import Blueprint, Response, request

from models.errors import Forbidden, InvalidRequest, NotFound, TooLarge, Unauthenticated
from models.ids import Principal, parse_key
from models.times import format_time
from models.version import VERSION
from router.auth import Caller
from router.cluster_figures import cluster_shown
from router.components import Components
from router.dashboard.assets import STATIC, Asset, Assets, load_assets
from router.dashboard.callers import live_session, note_signed_in, require_own_page
from router.dashboard.gate import API, COOKIE, ROOT, SESSION, browser_request
from router.dashboard.inspecting import inspected
from router.dashboard.origins import is_over_tls
from router.dashboard.overview import Overview
from router.dashboard.sessions import Session
from router.dashboard.settings_shown import shown_settings
from router.public_ids import public_id
from router.requests import (
    authenticate_key,
    current_session,
    json_response,
    read_object,
    read_session,
    request_headers,
)

OPEN_DASHBOARD_PATHS = frozenset({ROOT, f"{ROOT}/<path:screen>", f"{STATIC}<path:name>", SESSION})
"""Rules that need neither a key nor a session to be reached; those of the session look for themselves."""

OPERATOR_ACCOUNT = 1
"""The account of the first start, whose key the operator was shown."""

SIGN_IN_BYTES_MAX = 4_096
_NO_SCREENS = ("api", "session", "static")


def dashboard_routes(components: Components) -> Blueprint:
    """The blueprint of the dashboard; empty where it is switched off."""
    routes = Blueprint("dashboard", __name__)
    if not components.settings.dashboard.enabled:
        return routes
    pages = _Pages(_assets())
    routes.get(ROOT)(pages.shell)
    routes.get(f"{ROOT}/<path:screen>")(pages.shell)
    routes.get(f"{STATIC}<path:name>")(pages.asset)
    session = _SessionApi(components)
    routes.post(SESSION)(session.sign_in)
    routes.get(SESSION)(session.show)
    routes.delete(SESSION)(session.sign_out)
    figures = _FiguresApi(components)
    routes.get(f"{API}/overview")(figures.overview)
    routes.get(f"{API}/settings")(figures.settings)
    routes.get(f"{API}/cluster")(figures.cluster)
    routes.get(f"{API}/requests/<request_id>")(figures.chat)
    return routes


@cache
def _assets() -> Assets:
    """Read once for all servers of the process."""
    return load_assets()


class _Pages:
    """The one page, under every address of its own, and the files that it loads."""

    def __init__(self, assets: Assets) -> None:
        self._assets = assets

    async def shell(self, screen: str = "") -> Response:
        """The page. Which screen it shows is its own affair."""
        if screen.partition("/")[0] in _NO_SCREENS:
            raise NotFound(f"There is no {request.method} {request.path[:200]}.")
        return _answered(self._assets.shell, "no-store")

    async def asset(self, name: str) -> Response:
        """One file."""
        found = self._assets.find(name)
        if found is None:
            raise NotFound("The dashboard has no such file.")
        return _answered(*found)


def _answered(asset: Asset, kept: str) -> Response:
    headers = {"Cache-Control": kept, "ETag": asset.tag}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if kept != "no-store" and asset.tag in known:  # a proxy that packs files weakens their tags
        response = Response(b"", 304, headers=headers)
        del response.headers["Content-Type"]
        return response
    return Response(asset.content, headers=headers, content_type=asset.content_type)


class _SessionApi:
    """Signing in, being signed in, signing out."""

    def __init__(self, components: Components) -> None:
        self._parts = components

    async def sign_in(self) -> Response:
        """An account key for a session. The key is looked up and not kept."""
        _require_page()
        require_own_page(self._parts, request_headers())
        key = await self._read_key()
        caller = await authenticate_key(self._parts, {"authorization": f"Bearer {key}"}, {})
        if caller.suffixed:
            raise Forbidden("A key with a suffix may not do this.", hint="Sign in with the key without its suffix.")
        if caller.principal.kind != "account":
            raise Forbidden("Signing in needs an account key.", hint="A user key only uses its own vault.")
        sessions = self._parts.dashboard.sessions
        browser = browser_request(request.scope)
        if browser is not None:
            sessions.end(browser.token)
        token, session = sessions.open(parse_key(key).key_hash, caller.principal.account_number)
        await note_signed_in(self._parts, caller.principal)
        response = json_response(await self._body(session, caller.principal))
        self._put_cookie(response, token)
        return response

    async def _read_key(self) -> str:
        """
        Raises:
            InvalidRequest: the body has none.
            TooLarge: it is longer than any; whoever has no key yet must not have much read.
        """
        if request.content_length is None or request.content_length > SIGN_IN_BYTES_MAX:
            raise TooLarge(f"Signing in takes a body of at most {SIGN_IN_BYTES_MAX} bytes, with its length.")
        key = (await read_object(self._parts)).get("key")
        if not isinstance(key, str) or not key.isascii() or not key.strip():
            raise InvalidRequest("key must be an account key.", field="key")
        return key.strip()

    async def show(self) -> Response:
        """The session of the cookie, again: how a page that was loaded anew gets to know its token.

        Without one the answer is empty: every visit begins with this question, and browsers report refusals as errors.
        """
        _require_page()
        try:
            session, principal = await live_session(self._parts, browser_request(request.scope), request_headers())
        except Unauthenticated:
            return _nothing()
        return json_response(await self._body(session, principal))

    async def sign_out(self) -> Response:
        """End the session; a further time is as good."""
        _require_page()
        require_own_page(self._parts, request_headers())
        browser = browser_request(request.scope)
        if browser is not None:
            self._parts.dashboard.sessions.end(browser.token)
        response = _nothing()
        self._put_cookie(response, "")
        return response

    async def _body(self, session: Session, principal: Principal) -> dict[str, Any]:
        account = await self._parts.store.get_account(principal.account_number)
        ends_ms = self._parts.now_ms() + int(self._parts.dashboard.sessions.left_s(session) * 1000)
        return {
            "csrf": session.csrf,
            "account": {"id": public_id("acct", account.number), "name": account.name},
            "key": {"id": public_id("key", principal.key_number), "prefix": principal.shown, "name": principal.name},
            "vault_id": public_id("vault", principal.vault.number),
            "is_operator": account.number == OPERATOR_ACCOUNT,
            "expires_at": format_time(ends_ms),
            "version": VERSION,
        }

    def _put_cookie(self, response: Response, token: str) -> None:
        """For this browser and its session only; no script reads it, and no other site's page has it sent along."""
        secure = is_over_tls(request.scheme, request_headers())
        age_s = None if token else 0
        response.set_cookie(COOKIE, token, max_age=age_s, path=ROOT, httponly=True, samesite="Strict", secure=secure)


class _FiguresApi:
    """What the public API does not have."""

    def __init__(self, components: Components) -> None:
        self._parts = components
        self._overview = Overview(components)

    async def overview(self) -> Response:
        """The account and the server in numbers, of the last minutes or hours."""
        caller = await self._caller()
        series = request.args.get("series") or "minute"
        if series not in {"minute", "hour"}:
            raise InvalidRequest("series must be minute or hour.", field="series")
        return json_response(await self._overview.body(caller.principal.account_number, by_hour=series == "hour"))

    async def settings(self) -> Response:
        """The settings in force; of the machine's own only to the operator's account."""
        caller = await self._caller()
        is_operator = caller.principal.account_number == OPERATOR_ACCOUNT
        return json_response(shown_settings(self._parts.settings, is_operator=is_operator))

    async def cluster(self) -> Response:
        """The servers on this server's database; for the operator's account only."""
        caller = await self._caller()
        if caller.principal.account_number != OPERATOR_ACCOUNT:
            raise Forbidden("The cluster is the operator's.", hint="Sign in with a key of the first account.")
        return json_response(await cluster_shown(self._parts))

    async def chat(self, request_id: str) -> Response:
        """What a chat of this session did with memory."""
        await self._caller()
        session = current_session()
        assert session is not None  # `read_session` has seen to it
        return json_response(await inspected(self._parts, session, request_id))

    async def _caller(self) -> Caller:
        return await read_session(self._parts)


def _require_page() -> None:
    """
    Raises:
        Forbidden: the header is missing that no form and no foreign page can send.
    """
    browser = browser_request(request.scope)
    if browser is None or not browser.is_page:
        raise Forbidden("This is for the dashboard's own page.", hint="Send X-Dashboard: 1.")


def _nothing() -> Response:
    response = Response(b"", 204)
    del response.headers["Content-Type"]
    return response
