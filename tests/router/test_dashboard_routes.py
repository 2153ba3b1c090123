"""`/dashboard` over HTTP: pages and files, signing in, and that a session is worth what it says and no more."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import trio

from models.dashboard_settings import DashboardSettings
from models.server_settings import CorsSettings, ServerSettings
from router.dashboard.gate import API, COOKIE, CSP, SESSION
from tests.fakes.certificates import SelfSigned
from tests.router.administered import mint
from tests.router.dashboard.browsing import PAGE, sign_in, token_of, try_sign_in
from tests.router.limited import limited
from tests.running import open_server, settings_for

BOUND = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
FOREIGN: list[dict[str, str]] = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:1"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1"},
]


# --- pages and files ---


async def test_every_address_of_a_screen_gives_the_one_page(tmp_path: Path) -> None:
    """Without a session; it says nothing of anybody, and its files are named after their content."""
    async with open_server(tmp_path / "data") as server:
        await server.ingest("My quoll is called Bertram.")
        pages = [await server.http.get(path) for path in ("/dashboard", "/dashboard/", "/dashboard/vaults/vault_1")]
        assert {page.status_code for page in pages} == {200}
        assert len({page.content for page in pages}) == 1
        assert pages[0].headers["content-type"] == "text/html; charset=utf-8"
        assert pages[0].headers["cache-control"] == "no-store"
        for private in ("Bertram", server.key[:7], "acct_1"):
            assert private not in pages[0].text
        for attribute in ("href", "src"):
            for linked in pages[0].text.split(f'{attribute}="')[1:]:
                answer = await server.http.get(linked.partition('"')[0])
                assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (200, True), linked


async def test_a_file_is_asked_for_again_only_when_it_changed(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        first = await server.http.get("/dashboard/static/js/api.js")
        tag = first.headers["etag"]
        again = await server.http.get("/dashboard/static/js/api.js", headers={"if-none-match": f'"x", {tag}'})
        assert (first.status_code, first.headers["cache-control"]) == (200, "no-cache")
        assert first.headers["content-type"] == "text/javascript; charset=utf-8"
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)


NOT_SERVED = (
    "/dashboard/static/../routes.py", "/dashboard/static/%2e%2e/gate.py", "/dashboard/static/..%2f..%2fapp.py",
    "/dashboard/static//etc/passwd", "/dashboard/static/js/", "/dashboard/static/js", "/dashboard/static/index.html",
    "/dashboard/static/__init__.py", "/dashboard/static/js/api.js%00", "/dashboard/static/v-0/js/api.js",
    "/dashboard/static/", "/dashboard/api", "/dashboard/api/nothing", "/dashboard/session/x",
)  # fmt: skip


async def test_nothing_but_the_packages_files_is_served(tmp_path: Path) -> None:
    """Paths are sent as they stand, without the tidying that clients do."""
    async with open_server(tmp_path / "data") as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        for path in NOT_SERVED:
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                reply = b"".join([part async for part in stream])
            assert reply.startswith(b"HTTP/1.1 404"), reply[:200]


async def test_every_answer_binds_the_page(tmp_path: Path) -> None:
    """Against clickjacking, sniffing and foreign scripts: pages, refusals, errors and the API alike; none is cached."""
    settings = settings_for(cors=CorsSettings(origins=("https://app.example",)))
    async with open_server(tmp_path / "data", settings) as server:
        browser = await sign_in(server)
        cross = {"origin": "https://app.example", "access-control-request-method": "GET"}
        answers = [
            await server.http.get("/dashboard"),
            await server.http.get("/dashboard/static/nothing.js"),
            await server.http.get(SESSION),
            await server.http.post("/dashboard/keys"),
            await server.http.get(f"{API}/v1/keys"),
            await server.http.options(f"{API}/v1/keys", headers=cross),
            await server.http.get(f"{API}/overview", headers=cross),
            await browser.ask("GET", "v1/keys"),
            await browser.ask("GET", "overview"),
            await browser.ask("GET", "v1/nothing"),
        ]
        for answer in answers:
            assert {name: answer.headers.get(name) for name in BOUND} == BOUND, answer.request.url
            is_file = "/static/" in str(answer.request.url)
            assert answer.headers.get("cache-control") == (None if is_file else "no-store")
            assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert "content-security-policy" not in (await server.get("/v1/keys")).headers


def test_no_file_has_a_script_or_a_style_inline_or_makes_html_of_text() -> None:
    """What a memory says can only ever become text."""
    folder = Path(__file__).parents[2] / "router" / "dashboard" / "static"
    page = (folder / "index.html").read_text()
    assert page.count("<script") == page.count("<script src=") + page.count('<script type="module" src=')
    assert not [word for word in ("<style", " style=", " onload=", " onclick=", "javascript:") if word in page]
    sinks = (
        "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "createContextualFragment",
        "eval(", "new Function", "setTimeout(\"", "srcdoc",
    )  # fmt: skip
    scripts = sorted(folder.rglob("*.js"))
    assert len(scripts) > 5
    for script in scripts:
        code = "\n".join(line for line in script.read_text().splitlines() if not line.lstrip().startswith(("*", "/")))
        assert [sink for sink in sinks if sink in code] == [], script.name


async def test_a_dashboard_that_is_switched_off_is_not_there(tmp_path: Path) -> None:
    """Neither its pages, nor signing in, nor the way to the API."""
    async with open_server(tmp_path / "data", settings_for(dashboard=DashboardSettings(enabled=False))) as server:
        for path in ("/dashboard", "/dashboard/keys", SESSION, f"{API}/overview", f"{API}/v1/keys"):
            assert (await server.get(path)).status_code == 404, path
        assert (await try_sign_in(server, {"key": server.key})).status_code == 404
        assert (await server.get("/v1/keys")).status_code == 200


# --- signing in ---


async def test_signing_in_gives_a_cookie_that_no_script_and_no_other_site_gets(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        answer = await try_sign_in(server, {"key": f" {server.key}\n"})
        cookie = answer.headers["set-cookie"]
        attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert attributes == {"httponly", "path=/dashboard", "samesite=strict"}
        assert len(base64.urlsafe_b64decode(token_of(answer) + "=")) == 32
        session = answer.json()
        assert session["account"] == {"id": "acct_1", "name": ""}
        assert (session["vault_id"], session["is_operator"]) == ("vault_1", True)
        assert session["key"]["prefix"].startswith(server.key[:7])
        for secret in (server.key, token_of(answer)):
            assert secret not in answer.text
        again = await server.http.get(SESSION, headers={**PAGE, "cookie": f"a=b; {COOKIE}={token_of(answer)}"})
        assert (again.status_code, again.json()["csrf"]) == (200, session["csrf"])


async def test_the_cookie_is_for_tls_alone_where_the_browser_speaks_it(tmp_path: Path) -> None:
    """To this server, or to a proxy in front of it."""
    own = SelfSigned(tmp_path)
    listening = ServerSettings(
        host="127.0.0.1", port=0, tls_certificate_file=str(own.certificate), tls_key_file=str(own.key)
    )
    async with open_server(tmp_path / "data", settings_for(server=listening), tls=own.client()) as server:
        assert "; secure" in (await try_sign_in(server, {"key": server.key})).headers["set-cookie"].lower()
    async with open_server(tmp_path / "data") as server:
        proxied = {"host": "memory.example", "origin": "https://memory.example"}
        answer = await try_sign_in(server, {"key": server.key}, headers=proxied)
        assert "; secure" in answer.headers["set-cookie"].lower()


async def test_only_an_account_key_without_a_suffix_signs_in(tmp_path: Path) -> None:
    """And no wrong answer sets a cookie."""
    async with open_server(tmp_path / "data") as server:
        other, _ = await mint(server, name="user")
        refused: list[tuple[Any, int]] = [
            ({"key": other.key}, 403), ({"key": f"{server.key}:read"}, 403), ({"key": "mk_nobody"}, 401),
            ({"key": "sk-provider"}, 401), ({"key": ""}, 400), ({"key": 7}, 400), ({"key": "mk_\u00fc"}, 400),
            ({}, 400), (b"[]", 400), (b"key=mk_x", 400), ({"key": "mk_" + "x" * 5000}, 413),
        ]  # fmt: skip
        for body, status in refused:
            answer = await try_sign_in(server, body)
            assert (answer.status_code, "set-cookie" in answer.headers) == (status, False), body


async def test_a_foreign_page_cannot_sign_a_browser_in_or_out(tmp_path: Path) -> None:
    """Neither by a form, which sends no header of ours, nor by a script, whose origin the browser tells."""
    async with open_server(tmp_path / "data") as server:
        browser = await sign_in(server)
        for headers in ({"x-dashboard": ""}, {"x-dashboard": "0"}, *FOREIGN):
            refused = await try_sign_in(server, {"key": server.key}, headers=headers)
            assert (refused.status_code, "set-cookie" in refused.headers) == (403, False), headers
            for method in ("GET", "DELETE"):
                answer = await server.http.request(method, SESSION, headers={**browser.headers, **headers})
                assert (answer.status_code, browser.csrf in answer.text) == (403, False), headers
        for headers in FOREIGN:
            assert (await browser.ask("GET", "v1/keys", headers=headers)).status_code == 403
        assert (await browser.ask("GET", "v1/keys")).status_code == 200


async def test_our_own_page_is_known_behind_proxies_too(tmp_path: Path) -> None:
    """By the browser's own word, by the host that was asked, or by a name that the operator has given."""
    listening = ServerSettings(host="127.0.0.1", port=0, allowed_hosts=("memory.example", "127.0.0.1"))
    async with open_server(tmp_path / "data", settings_for(server=listening)) as server:
        for headers in (
            {"sec-fetch-site": "same-origin", "origin": "https://elsewhere.example"},
            {"origin": server.url},
            {"origin": "https://memory.example"},
            {"host": "MEMORY.example:80", "origin": "http://memory.example"},
        ):
            assert (await try_sign_in(server, {"key": server.key}, headers=headers)).status_code == 200, headers


async def test_guessing_at_the_door_is_limited_as_anywhere(tmp_path: Path) -> None:
    """429 for the address, in the shape of our own routes; a valid key still gets in."""
    async with limited(tmp_path, failed_auth_per_minute=60, failed_auth_burst=3) as server:
        statuses = [(await try_sign_in(server, {"key": f"mk_{'w' * 31}{at}"})).status_code for at in range(6)]
        assert statuses == [401, 401, 401, 429, 429, 429]
        await sign_in(server)


async def test_signing_in_again_ends_the_session_before(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        before = await sign_in(server)
        answer = await try_sign_in(server, {"key": server.key}, headers={"cookie": f"{COOKIE}={before.token}"})
        assert token_of(answer) != before.token
        assert (await before.ask("GET", "v1/keys")).status_code == 401


async def test_signing_out_ends_the_session_and_takes_the_cookie_back(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        browser, other = await sign_in(server), await sign_in(server)
        for _ in range(2):
            answer = await server.http.delete(SESSION, headers=browser.headers)
            assert answer.status_code == 204
            assert "max-age=0" in answer.headers["set-cookie"].lower()
            server.http.cookies.clear()
        assert (await browser.ask("GET", "v1/keys")).status_code == 401
        assert (await other.ask("GET", "v1/keys")).status_code == 200


async def test_sessions_are_gone_after_a_restart(tmp_path: Path) -> None:
    """They are nowhere but in memory."""
    async with open_server(tmp_path / "data") as server:
        browser = await sign_in(server)
    async with open_server(tmp_path / "data") as server:
        browser.http = server.http
        assert (await browser.ask("GET", "v1/keys")).status_code == 401
    for file in (tmp_path / "data").rglob("*"):
        if file.is_file():
            assert browser.token.encode() not in file.read_bytes()
