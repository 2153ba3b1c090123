"""Accounts and vaults behind the dashboard: an account's session reaches its own vaults, each opening on record, and
nothing of any other account."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from router.openapi.operations import OPERATIONS
from tests.contract.test_openapi import path_of
from tests.router.administered import another_account, done, mint
from tests.router.dashboard.browsing import Browser, sign_in
from tests.running import Client, open_server, user

FIRST, SECOND = "My dog is called Rex.", "My dog is called Bertram."


async def opened(server: Client) -> list[tuple[str, str]]:
    """Which vaults the log says were opened, and by whom, oldest first."""
    entries = (await done(server, "GET", "/v1/audit"))["entries"]
    found = [(entry["target"], entry["actor"]) for entry in entries if entry["action"] == "vault_opened"]
    return found[::-1]


async def contents(browser: Browser, vault: str = "") -> list[str]:
    """What a vault holds, as the dashboard lists it."""
    listed = await browser.done("GET", "v1/memories", vault=vault)
    return [memory["content"] for memory in listed["data"]]


async def test_a_session_reaches_every_vault_of_its_account_as_if_with_its_key(tmp_path: Path) -> None:
    """Read, search, store, change, undo, export, import, chat and delete; the account's own vault is left alone."""
    async with open_server(tmp_path / "data") as server:
        other, created = await mint(server, name="user")
        await other.ingest(FIRST)
        browser, vault = await sign_in(server), created["vault_id"]
        assert await contents(browser, vault) == [FIRST]
        found = await browser.done("POST", "v1/memory/search", {"query": "dog", "explain": True}, vault=vault)
        assert [memory["content"] for memory in found["memories"]] == [FIRST]
        stored = await browser.done("POST", "v1/memories", {"content": "I like tea."}, vault=vault, status=201)
        await browser.done("PATCH", f"v1/memories/{stored['id']}", {"content": "I like coffee."}, vault=vault)
        assert set(await contents(browser, vault)) == {FIRST, "I like coffee."}
        exported = await browser.ask("GET", "v1/memory/export", vault=vault)
        await browser.done("POST", "v1/memories/undo", {"since": 0}, vault=vault)
        assert await contents(browser, vault) == []
        assert (await browser.ask("POST", "v1/memory/import", exported.content, vault=vault)).status_code == 200
        assert set(await contents(browser, vault)) == {FIRST, "I like coffee."}
        assert await contents(browser) == []
        assert {memory["content"] for memory in (await other.get("/v1/memories")).json()["data"]} == {
            FIRST,
            "I like coffee.",
        }


async def test_opening_a_users_vault_is_on_record_once_a_session(tmp_path: Path) -> None:
    """Before anything of it is shown; the account's own vault is its own."""
    async with open_server(tmp_path / "data") as server:
        ids = [(await mint(server, name=name))[1]["vault_id"] for name in ("a", "b")]
        browser, other = await sign_in(server), await sign_in(server)
        assert await opened(server) == []
        for _ in range(2):
            for vault in (*ids, "vault_1"):
                await contents(browser, vault)
        await contents(other, ids[0])
        numbers = [vault.replace("_", ":") for vault in ids]
        assert await opened(server) == [(number, "key:1") for number in (*numbers, numbers[0])]


async def test_a_vault_that_is_not_the_accounts_is_not_there(tmp_path: Path) -> None:
    """Of another account, erased, of no number: 404 on every route of the API, no entry, nothing done."""
    async with open_server(tmp_path / "data") as server:
        stranger = await another_account(server, tmp_path / "data")
        strange_user, strange = await mint(stranger, name="theirs")
        await strange_user.ingest(SECOND)
        _, gone = await mint(server, name="gone")
        await done(server, "DELETE", f"/v1/keys/{gone['id']}?vault=delete")
        browser = await sign_in(server)
        for vault in (strange["vault_id"], gone["vault_id"], "vault_999", "vault_", "x", "-1", "vault_1,vault_1"):
            for operation in OPERATIONS:
                if operation.path.startswith("/v1/"):
                    path = path_of(operation).removeprefix("/")
                    answer = await browser.ask(operation.method, path, vault=vault)
                    assert answer.status_code == 404, (vault, path)
                    assert "Bertram" not in answer.text
        assert (await strange_user.contents("dog")) == {SECOND}
        assert await opened(server) == await opened(stranger) == []


async def test_the_vault_named_twice_is_no_vault(tmp_path: Path) -> None:
    """It must not fall back on the account's own: a deletion would hit the wrong one."""
    async with open_server(tmp_path / "data") as server:
        await server.ingest(FIRST)
        _, created = await mint(server, name="user")
        browser = await sign_in(server)
        twice = [*browser.headers.items(), ("x-dashboard-vault", created["vault_id"]), ("x-dashboard-vault", "vault_1")]
        answer = await server.http.delete("/dashboard/api/v1/memory", headers=twice)
        assert answer.status_code == 404
        assert await contents(browser) == [FIRST]


async def test_nothing_of_one_account_shows_in_anothers_dashboard(tmp_path: Path) -> None:
    """Keys, vaults, usage, audit log, chats, figures; and both act at once on vaults of the same words."""
    async with open_server(tmp_path / "data") as server:
        stranger = await another_account(server, tmp_path / "data", name="secret-name")
        pairs: list[tuple[Browser, Client, str]] = []
        for owner, text in ((server, FIRST), (stranger, SECOND)):
            own, created = await mint(owner, name=text)
            await own.ingest(text)
            pairs.append((await sign_in(owner), own, created["vault_id"]))
        (mine, _, my_vault), (theirs, _, their_vault) = pairs
        asked = {"model": "local/recall", "messages": [user("What is my dog called?")]}
        for browser, vault, text in ((mine, my_vault, FIRST), (theirs, their_vault, SECOND)):
            chat = await browser.ask("POST", "v1/chat/completions", asked, vault=vault)
            assert text in chat.text
            request_id = chat.headers["x-request-id"]
            assert text in (await browser.done("GET", f"requests/{request_id}"))["block"]
            strange = theirs if browser is mine else mine
            assert (await strange.ask("GET", f"requests/{request_id}")).status_code == 404
        for path in ("v1/keys", "v1/vaults", "v1/audit", "v1/account", "v1/account/usage", "overview", "settings"):
            shown = (await theirs.ask("GET", path)).text
            for private in (FIRST, "acct_1", f'"{my_vault}"', '"key_1"', 'key:1"', server.key[:7]):
                assert private not in shown, (path, private)
        mixed = Browser(mine.http, mine.token, theirs.session)
        assert (await mixed.ask("GET", "v1/keys")).status_code == 403


async def test_figures_are_of_the_own_account(tmp_path: Path) -> None:
    """Another account's requests, tokens and memories count nowhere in them."""
    async with open_server(tmp_path / "data") as server:
        stranger = await another_account(server, tmp_path / "data")
        for number in range(3):
            await server.ingest(f"My dog {number} is called Rex.")
        await server.prepare("What are my dogs called?")
        await server.get("/v1/keys/key_99")
        await server.wait_embedded()
        await server.get("/v1/memory/export")
        mine = await (await sign_in(server)).done("GET", "overview")
        theirs = await (await sign_in(stranger)).done("GET", "overview")
        assert (mine["requests"]["errors"], mine["memories"]["total"], mine["memories"]["vaults"]) == (1, 3, 1)
        assert mine["requests"]["total"] >= 6
        assert mine["tokens"]["retrieved"] > 0
        assert sum(minute["requests"] for minute in mine["series"]) == mine["requests"]["total"]
        assert mine["latency_ms"]["recall"]["p50"] > 0
        assert (theirs["requests"]["total"], theirs["memories"]["total"], theirs["memories"]["vaults"]) == (0, 0, 1)
        assert theirs["tokens"] == {"scope": "account", "retrieved": 0, "injected": 0, "input": 0, "output": 0}
        assert len(theirs["series"]) == 60


async def test_the_machines_settings_are_the_operators(tmp_path: Path) -> None:
    """The account of the first start sees all; another sees how memory behaves, and not where the server is."""

    def by_name(shown: Any) -> dict[str, Any]:
        return {setting["name"]: setting for setting in shown}

    async with open_server(tmp_path / "data") as server:
        stranger = await another_account(server, tmp_path / "data")
        all_of_them = by_name(await (await sign_in(server)).done("GET", "settings"))
        some = by_name(await (await sign_in(stranger)).done("GET", "settings"))
        assert (all_of_them["server.port"]["value"], all_of_them["server.port"]["changed"]) == (0, True)
        assert {name.partition(".")[0] for name in some} >= {"memory", "recall", "proxy"}
        assert not {name.partition(".")[0] for name in some} & {"server", "store", "providers", "limits", "cors", "log"}
        assert set(some) < set(all_of_them)
