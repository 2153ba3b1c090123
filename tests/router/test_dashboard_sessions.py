"""What a session of the dashboard is worth: the rights of its key, while that lives, below `/dashboard` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.dashboard_settings import DashboardSettings
from models.settings import UsageSettings
from router.dashboard.gate import API, COOKIE, CSP, SESSION
from router.dashboard.sessions import Sessions
from router.openapi.operations import OPERATIONS
from tests.contract.test_openapi import path_of
from tests.fakes.provider import Script, chat_reply
from tests.router.administered import done, mint, number_in, operate
from tests.router.dashboard.browsing import PAGE, Browser, sign_in
from tests.router.limited import limited
from tests.router.proxied import open_both
from tests.running import Client, open_server, settings_for, user


async def test_every_route_of_the_api_needs_cookie_and_token(tmp_path: Path) -> None:
    """Each alone, those of two sessions mixed, and invented ones are refused on every route, and leave no trace."""
    async with open_server(tmp_path / "data") as server:
        browser, other = await sign_in(server), await sign_in(server)
        cookie, own = f"{COOKIE}={browser.token}", browser.csrf
        tries: list[tuple[dict[str, str], int]] = [
            ({}, 401),
            ({"cookie": cookie}, 403),
            ({"x-csrf-token": own}, 401),
            ({"cookie": cookie, "x-csrf-token": other.csrf}, 403),
            ({"cookie": f"{COOKIE}=invented", "x-csrf-token": own}, 401),
            ({"cookie": f"{COOKIE}={browser.csrf}", "x-csrf-token": own}, 401),
            ({"cookie": f"{cookie}; {COOKIE}={other.token}", "x-csrf-token": own}, 401),
            ({"cookie": cookie, "x-csrf-token": f"{own}x"}, 403),
        ]
        before = (await done(server, "GET", "/v1/audit"))["entries"][0]["id"]
        paths = [(one.method, path_of(one).removeprefix("/")) for one in OPERATIONS if one.path.startswith("/v1/")]
        for method, path in [*paths, ("get", "overview"), ("get", "settings"), ("get", "requests/req_1")]:
            for headers, status in tries:
                answer = await server.http.request(method, f"{API}/{path}", headers={**PAGE, **headers})
                assert answer.status_code == status, (method, path, headers)
        assert (await done(server, "GET", "/v1/audit"))["entries"][0]["id"] == before


async def test_the_cookie_opens_nothing_outside_of_the_dashboard(tmp_path: Path) -> None:
    """Not with its token either, and by no spelling of a path; nor do the headers name a vault there."""
    async with open_server(tmp_path / "data") as server:
        await mint(server, name="user")
        browser = await sign_in(server)
        for path in ("/v1/keys", "/v1/memory/stats", "/keys", "/v1//keys", "/mcp", "//dashboard/../v1/keys"):
            for headers in (browser.headers, {**browser.headers, "authorization": f"Bearer {browser.token}"}):
                answer = await server.http.request("POST" if path == "/mcp" else "GET", path, headers=headers)
                assert answer.status_code in {401, 404}, path
        kept = {**browser.headers, "authorization": f"Bearer {server.key}", "x-dashboard-vault": "vault_2"}
        await server.ingest("My dog is called Rex.")
        listed = (await server.http.get("/v1/memories", headers=kept)).json()["data"]
        assert [memory["content"] for memory in listed] == ["My dog is called Rex."]


async def test_only_the_api_is_reached_through_the_dashboard(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        browser = await sign_in(server)
        for path in ("/v1beta/models/x:generateContent", "/mcp", "/metrics", "/v1", "/", "/v1/%2e%2e/metrics"):
            for method in ("GET", "POST"):
                answer = await server.http.request(method, f"{server.url}{API}{path}", headers=browser.headers)
                assert answer.status_code in {404, 405}, (method, path)


async def test_keys_beside_a_session_count_for_nothing(tmp_path: Path) -> None:
    """Without a session they open nothing there; with one the request stays the session's, suffix and all."""
    async with open_server(tmp_path / "data") as server:
        other, _ = await mint(server, name="user")
        browser = await sign_in(server)
        await server.ingest("The account's own.")
        await other.ingest("The user's.")
        places = ("authorization", "x-memory-key", "x-api-key", "x-goog-api-key", "api-key")
        for place in places:
            keyed = {place: f"Bearer {server.key}"}
            assert (await server.http.get(f"{API}/v1/keys", headers={**PAGE, **keyed})).status_code == 401
            answer = await browser.ask("GET", "v1/memories", headers={place: f"{other.key}:off"})
            assert [memory["content"] for memory in answer.json()["data"]] == ["The account's own."], place
        for name in ("key", "%6bey"):
            asked = f"{API}/v1/memories?{name}={other.key}&limit=5"
            assert (await server.http.get(asked, headers=PAGE)).status_code == 401
            answer = await server.http.get(asked, headers=browser.headers)
            assert [memory["content"] for memory in answer.json()["data"]] == ["The account's own."]


async def test_a_session_ends_with_its_key(tmp_path: Path) -> None:
    """At the next request: deleted, switched off, rotated away; also with its account."""
    async with open_server(tmp_path / "data") as server:
        for end in ("delete", "disable", "rotate", "account"):
            key = await done(server, "POST", "/v1/keys", {"kind": "account"}, status=201)
            browser = await sign_in(server, key=key["key"])
            assert (await browser.ask("GET", "v1/keys")).status_code == 200
            match end:
                case "delete":
                    await done(server, "DELETE", f"/v1/keys/{key['id']}")
                case "disable":
                    await done(server, "PATCH", f"/v1/keys/{key['id']}", {"disabled": True})
                case "rotate":
                    await done(server, "POST", f"/v1/keys/{key['id']}/rotate", {"grace_s": 0}, status=201)
                case _:
                    await operate(tmp_path / "data", "accounts.change", account="acct_1", disabled=True)
            assert (await browser.ask("GET", "v1/keys")).status_code == 401, end
            assert (await browser.ask("GET", "overview")).status_code == 401
            assert (await server.http.get(SESSION, headers=browser.headers)).status_code == 204
        await operate(tmp_path / "data", "accounts.change", account="acct_1", disabled=False)
        assert (await browser.ask("GET", "v1/keys")).status_code == 401  # over is over


async def test_a_session_is_limited_and_counted_as_its_key(tmp_path: Path) -> None:
    """The bucket of the key is the session's too. What only the dashboard shows is not counted: its page asks all the
    time by itself."""
    async with limited(tmp_path, requests_per_minute=60, requests_burst=4) as server:
        browser = await sign_in(server)
        for _ in range(9):
            assert (await browser.ask("GET", "overview")).status_code == 200
        statuses = [(await browser.ask("GET", "v1/keys")).status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 200, 429]
        assert (await server.get("/v1/keys")).status_code == 429


async def test_what_a_session_does_is_counted_and_noted_as_its_keys(tmp_path: Path) -> None:
    usage = UsageSettings(fold_interval_s=3600)
    async with open_server(tmp_path / "data", settings_for(usage=usage)) as server:
        browser = await sign_in(server)
        await browser.done("POST", "v1/keys", {"name": "x"}, status=201)
        entry, signed_in = (await done(server, "GET", "/v1/audit"))["entries"][:2]
        assert (entry["action"], entry["actor"]) == ("key.created", "key:1")
        assert (signed_in["action"], signed_in["actor"], signed_in["target"]) == ("dashboard_opened", "key:1", "key:1")
        used = await browser.done("GET", "v1/account/usage")
        assert used["total_requests"] == 2  # minting, and reading the log with the key
        assert number_in((await server.get("/metrics")).text, "dashboard_sessions") == 1


async def test_a_memory_that_is_a_script_comes_as_data(tmp_path: Path) -> None:
    """Never as a page: JSON by its type, which no browser may guess otherwise, and out of reach of an address bar."""
    evil = "<script>alert(document.cookie)</script><img src=x onerror=alert(1)>"
    async with open_server(tmp_path / "data") as server:
        await server.ingest(evil)
        browser = await sign_in(server)
        for method, path, body in (
            ("GET", "v1/memories", None), ("POST", "v1/memory/search", {"query": "script"}),
            ("GET", "v1/memory/export", None), ("GET", "v1/sessions", None),
        ):  # fmt: skip
            answer = await browser.ask(method, path, body)
            kind = answer.headers["content-type"].partition(";")[0]
            assert kind in {"application/json", "application/x-ndjson"}
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-security-policy"] == CSP
            clicked = {"cookie": f"{COOKIE}={browser.token}", "sec-fetch-site": "none", "sec-fetch-mode": "navigate"}
            assert (await server.http.request(method, f"{API}/{path}", headers=clicked)).status_code == 403


async def test_a_provider_cannot_touch_the_browsers_state(tmp_path: Path) -> None:
    """Its cookies would be ours to the browser, and its pages scripts of our origin."""
    hostile = [
        ("content-type", "text/html"), ("set-cookie", f"{COOKIE}=fixed; Path=/dashboard"), ("clear-site-data", '"*"'),
        ("content-security-policy", "script-src *"), ("cache-control", "public, max-age=99999"),
        ("access-control-allow-origin", "*"),
    ]  # fmt: skip
    async with open_both(tmp_path) as (client, provider):
        provider.enqueue(Script(headers=hostile, body=chat_reply()))
        browser = await sign_in(client)
        asked = {"model": "openai/m", "messages": [user("Hello there")]}
        answer = await browser.ask("POST", "v1/chat/completions", asked)
    assert answer.status_code == 200
    assert answer.headers.get_list("content-security-policy") == [CSP]
    assert answer.headers.get_list("cache-control") == ["no-store"]
    assert not {"set-cookie", "clear-site-data", "access-control-allow-origin"} & set(answer.headers)


def test_the_state_is_bounded_however_many_sign_in() -> None:
    sessions = Sessions(DashboardSettings(sessions_max=3), clock=lambda: 0.0)
    tokens = [sessions.open(b"hash", account)[0] for account in range(5)]
    assert [sessions.find(token) is not None for token in tokens] == [False, False, True, True, True]


async def watched_chat(browser: Browser, text: str, *, vault: str = "", **options: Any) -> dict[str, Any]:
    """What the dashboard says of a chat with the built-in model."""
    asked = {"model": "local/recall", "messages": [user(text)], **options}
    answer = await browser.ask("POST", "v1/chat/completions", asked, vault=vault)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = await browser.done("GET", f"requests/{answer.headers['x-request-id']}")
    return shown


async def test_a_chat_of_the_session_can_be_looked_into(tmp_path: Path) -> None:
    """What was injected, of which memories, and what the vault has of it; by the session that had it alone."""
    async with open_server(tmp_path / "data") as server:
        user_key, created = await mint(server, name="user")
        await user_key.ingest("My dog is called Rex.")
        browser, other = await sign_in(server), await sign_in(server)
        shown = await watched_chat(browser, "What is my dog called?", vault=created["vault_id"])
        assert (shown["status"], shown["mode"], shown["vault_id"]) == ("ok", "on", created["vault_id"])
        assert shown["block"].startswith("<memory_context>")
        assert "My dog is called Rex." in shown["block"]
        assert shown["memory_ids"] == ["mem_1"]
        assert shown["stored_status"] == "stored"
        stored = [(message["role"], message["content"]) for message in shown["messages_stored"]]
        assert stored[0] == ("user", "What is my dog called?")
        assert [role for role, _ in stored] == ["user", "assistant"]
        assert shown["recall_ms"] > 0
        for stranger in (other, await sign_in(server)):
            assert (await stranger.ask("GET", f"requests/{shown['request_id']}")).status_code == 404
        quiet = await watched_chat(browser, "What is my dog called?", vault=created["vault_id"], memory_mode="read")
        assert (quiet["mode"], quiet["stored_status"], quiet["messages_stored"]) == ("read", "off", [])
        again = await watched_chat(browser, "What is my dog called?", vault=created["vault_id"])
        assert again["stored_status"] == "nothing_new" or again["messages_stored"]


async def test_what_was_deleted_is_not_shown_of_a_chat_either(tmp_path: Path) -> None:
    """A memory, or the whole vault: nothing that was quoted from it stays with the session."""
    async with open_server(tmp_path / "data") as server:
        await server.ingest("My dog is called Rex.")
        browser = await sign_in(server)
        shown = await watched_chat(browser, "What is my dog called?")
        await done(server, "DELETE", f"/v1/memories/{shown['memory_ids'][0]}")
        assert (await browser.ask("GET", f"requests/{shown['request_id']}")).status_code == 404
        await server.ingest("My cat is called Tom.")
        shown = await watched_chat(browser, "What is my cat called?")
        await server.delete()
        assert (await browser.ask("GET", f"requests/{shown['request_id']}")).status_code == 404


async def session_of(server: Client, browser: Browser) -> dict[str, Any]:
    """What the page is told of its session."""
    answer = await server.http.get(SESSION, headers=browser.headers)
    shown: dict[str, Any] = answer.json()
    return shown


async def test_a_page_that_was_loaded_anew_learns_its_token_again(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        browser = await sign_in(server)
        assert (await session_of(server, browser))["csrf"] == browser.csrf
        assert (await server.http.get(SESSION, headers=PAGE)).status_code == 204
