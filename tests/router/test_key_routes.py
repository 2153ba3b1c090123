"""`/v1/keys`, `/v1/vaults`, `/v1/account`, `/v1/audit` over HTTP: what an owner can do, and that nobody else can."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from models.settings import KeySettings
from tests.router.administered import another_account, call, done, mint, number_in, operate, status_of
from tests.running import Client, open_server, settings_for

WHOLE_KEY = re.compile(r"mk_[A-Za-z0-9_-]{20,}")
ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/v1/keys", None),
    ("POST", "/v1/keys", {"name": "x"}),
    ("GET", "/v1/keys/key_1", None),
    ("PATCH", "/v1/keys/key_1", {"name": "x"}),
    ("POST", "/v1/keys/key_1/rotate", {}),
    ("DELETE", "/v1/keys/key_1", None),
    ("GET", "/v1/vaults", None),
    ("GET", "/v1/vaults/vault_1", None),
    ("PATCH", "/v1/vaults/vault_1", {"retention_days": 1}),
    ("DELETE", "/v1/vaults/vault_1", None),
    ("GET", "/v1/account", None),
    ("PATCH", "/v1/account", {"name": "x"}),
    ("GET", "/v1/audit", None),
]
NAMING = [route for route in ROUTES if "_1" in route[1]]


async def actions(server: Client) -> list[str]:
    """The audit log's actions, oldest first."""
    entries = (await done(server, "GET", "/v1/audit"))["entries"]
    return [entry["action"] for entry in reversed(entries)]


# --- who may ---


async def test_a_user_key_and_a_suffixed_key_may_do_nothing_of_it(tmp_path: Path) -> None:
    """403 on every route, and nothing is changed."""
    async with open_server(tmp_path / "data") as server:
        other, _ = await mint(server, name="user")
        before = await actions(server)
        for method, path, body in ROUTES:
            for key in (other.key, *(f"{server.key}:{suffix}" for suffix in ("read", "write", "off"))):
                answer = await call(server, method, path, body, key=key)
                assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied"), (method, path)
        assert await actions(server) == before


async def test_nothing_of_another_account_is_visible(tmp_path: Path) -> None:
    """Not in lists; by its number it is answered as what does not exist, in the same words; nothing happens to it."""
    async with open_server(tmp_path / "data") as server:
        user_of_first, _ = await mint(server, name="of-the-first")
        await user_of_first.ingest("My dog is called Rex.")
        stranger = await another_account(server, tmp_path / "data")
        before = await actions(server)

        for method, path, body in NAMING:
            foreign = await call(stranger, method, path.replace("_1", "_2"), body)
            absent = await call(stranger, method, path.replace("_1", "_999"), body)
            assert foreign.status_code == absent.status_code == 404, (method, path)
            assert foreign.text.replace("2", "N") == absent.text.replace("999", "N"), (method, path)
        reattached = await call(stranger, "POST", "/v1/keys", {"name": "x", "vault_id": "vault_2"})
        assert reattached.status_code == 404
        for path, name in (("/v1/keys", "keys"), ("/v1/vaults", "vaults")):
            (own,) = (await done(stranger, "GET", path))[name]
            assert own["account_id"] == "acct_2"
        assert (await done(stranger, "GET", "/v1/account"))["id"] == "acct_2"
        for entry in (await done(stranger, "GET", "/v1/audit"))["entries"]:
            assert entry["account_id"] == "acct_2"
            assert "of-the-first" not in str(entry)
        assert await actions(server) == before
        assert await user_of_first.contents("dog Rex") == {"My dog is called Rex."}


@pytest.mark.parametrize("path", ["/v1/keys/key_99", "/v1/keys/vault_1", "/v1/keys/0", "/v1/keys/key_", "/v1/keys/x"])
async def test_what_is_no_key_is_not_found(tmp_path: Path, path: str) -> None:
    """Neither a number that is not there nor what is no number."""
    async with open_server(tmp_path / "data") as server:
        assert (await call(server, "GET", path)).status_code == 404


# --- making keys ---


async def test_a_key_is_made_with_all_that_it_may_have(tmp_path: Path) -> None:
    """Its text is shown this once; what is listed has its first characters."""
    async with open_server(tmp_path / "data") as server:
        other, created = await mint(
            server, name="user:42", expires_at="2999-01-01T00:00:00Z", limits={"requests_per_minute": 60}
        )
        assert (created["kind"], created["state"], created["id"]) == ("user", "live", "key_2")
        assert created["expires_at"] == "2999-01-01T00:00:00.000Z"
        assert created["limits"]["requests_per_minute"] == 60
        assert await status_of(other) == 200
        shown = await done(server, "GET", "/v1/keys/key_2")
        assert shown == {name: value for name, value in created.items() if name != "key"} | {
            "last_used_at": shown["last_used_at"]
        }
        assert (await done(server, "GET", "/v1/keys/2"))["id"] == "key_2"
        assert not WHOLE_KEY.search((await call(server, "GET", "/v1/keys")).text)


async def test_a_further_account_key_may_do_all_of_it(tmp_path: Path) -> None:
    """In the same account, with a vault of its own."""
    async with open_server(tmp_path / "data") as server:
        second, created = await mint(server, name="second", kind="account")
        assert (created["kind"], created["vault_id"]) == ("account", "vault_2")
        keys = (await done(second, "GET", "/v1/keys"))["keys"]
        assert [key["kind"] for key in keys] == ["account", "account"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": 1}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"kind": "admin"}, "kind"),
        ({"vault_id": 3}, "vault_id"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"expires_at": 1}, "expires_at"),
        ({"limits": 5}, "limits"),
        ({"limits": {"requests": 5}}, "limits"),
        ({"limits": {"memories_max": -1}}, "limits.memories_max"),
        ({"kind": "account", "vault_id": "vault_1"}, "vault_id"),
        ({"kind": "account", "limits": {"memories_max": 1}}, "limits"),
        ({"kind": "account", "expires_at": "2999-01-01"}, "expires_at"),
    ],
)
async def test_a_wrong_field_of_a_new_key_is_named_and_no_key_is_made(
    tmp_path: Path, body: dict[str, Any], field: str
) -> None:
    """400."""
    async with open_server(tmp_path / "data") as server:
        answer = await call(server, "POST", "/v1/keys", body)
        assert (answer.status_code, answer.json()["field"]) == (400, field)
        assert len((await done(server, "GET", "/v1/keys"))["keys"]) == 1


async def test_a_key_that_a_user_key_mints_may_do_no_more_than_that(tmp_path: Path) -> None:
    """The same limits and the same end."""
    async with open_server(tmp_path / "data", settings_for(keys=KeySettings(any_key_mints=True))) as server:
        limits = {"requests_per_minute": 60, "memories_max": 5}
        bound, one = await mint(server, name="bound", limits=limits, expires_at="2999-01-01")
        _, other = await mint(bound, name="further", limits={"memories_max": 0}, expires_at=None)
        assert (other["limits"], other["expires_at"]) == (one["limits"], one["expires_at"])


async def test_where_any_key_mints_a_user_key_makes_plain_keys_of_its_account(tmp_path: Path) -> None:
    """As the hosted product allows: no account keys, no kept vaults, nothing else of the routes."""
    async with open_server(tmp_path / "data", settings_for(keys=KeySettings(any_key_mints=True))) as server:
        other, _ = await mint(server, name="user")
        _, kept = await mint(server, name="kept")
        await done(server, "DELETE", f"/v1/keys/{kept['id']}")
        _, created = await mint(
            other, name="of a user", kind="account", vault_id=kept["vault_id"], limits={"memories_max": 0}
        )
        assert (created["kind"], created["name"], created["account_id"]) == ("user", "of a user", "acct_1")
        assert created["vault_id"] not in ("vault_1", "vault_2", kept["vault_id"])
        assert set(created["limits"].values()) == {None}
        assert (await call(other, "GET", "/v1/keys")).status_code == 403
        assert (await call(server, "POST", "/v1/keys", {}, key=f"{other.key}:read")).status_code == 403


# --- lists ---


async def test_keys_are_listed_page_by_page_and_searched(tmp_path: Path) -> None:
    """Oldest first, each once; revoked ones where they are asked for."""
    async with open_server(tmp_path / "data") as server:
        for number in range(12):
            await server.other(f"User:{number}")
        await done(server, "DELETE", "/v1/keys/key_3")
        found, cursor = [], ""
        while cursor is not None:
            page = await done(server, "GET", f"/v1/keys?limit=5&cursor={cursor}")
            assert page["data"] == page["keys"]
            found += [key["id"] for key in page["keys"]]
            cursor = page["next_cursor"]
        assert found == [f"key_{number}" for number in range(1, 14) if number != 3]
        everything = await done(server, "GET", "/v1/keys?include_revoked=true")
        assert [key["state"] for key in everything["keys"]].count("revoked") == 1
        assert everything["next_cursor"] is None
        searched = (await done(server, "GET", "/v1/keys?search=user:1"))["keys"]
        assert [key["name"] for key in searched] == ["User:10", "User:11"]  # User:1 is revoked
        for query, field in (
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=x", "limit"),
            ("cursor=%21", "cursor"),
        ):
            answer = await call(server, "GET", f"/v1/keys?{query}")
            assert (answer.status_code, answer.json()["field"]) == (400, field)


async def test_vaults_are_listed_with_what_they_hold(tmp_path: Path) -> None:
    """Those without keys alone, where that is asked for."""
    async with open_server(tmp_path / "data") as server:
        other, created = await mint(server, name="kept")
        await other.ingest("My dog is called Rex.")
        await other.wait_embedded()
        await done(server, "DELETE", f"/v1/keys/{created['id']}?vault=keep")
        first, second = (await done(server, "GET", "/v1/vaults"))["vaults"]
        assert (first["id"], first["live_keys"], first["memories"]) == ("vault_1", 1, 0)
        assert (second["id"], second["live_keys"], second["memories"]) == ("vault_2", 0, 1)
        assert second["bytes"] > 0
        assert (await done(server, "GET", "/v1/vaults?without_keys=true"))["vaults"] == [second]
        assert await done(server, "GET", "/v1/vaults/vault_2") == second
        assert (await done(server, "GET", "/v1/vaults?limit=1"))["next_cursor"] is not None


# --- the account, and its log ---


async def test_the_account_is_renamed_and_given_a_retention(tmp_path: Path) -> None:
    """Its owner cannot switch it off."""
    async with open_server(tmp_path / "data") as server:
        assert (await done(server, "GET", "/v1/account"))["vaults"] == 1
        changed = await done(server, "PATCH", "/v1/account", {"name": "Acme", "retention_days": 30})
        assert (changed["name"], changed["retention_days"]) == ("Acme", 30)
        assert (await done(server, "PATCH", "/v1/account", {"retention_days": None}))["retention_days"] is None
        vault = await done(server, "PATCH", "/v1/vaults/vault_1", {"retention_days": 7})
        assert vault["retention_days"] == 7
        for path, body, field in (
            ("/v1/account", {"disabled": True}, "body"),
            ("/v1/account", {"name": ""}, "name"),
            ("/v1/account", {"retention_days": 0}, "retention_days"),
            ("/v1/vaults/vault_1", {"retention_days": "x"}, "retention_days"),
            ("/v1/vaults/vault_1", {}, "body"),
        ):
            answer = await call(server, "PATCH", path, body)
            assert (answer.status_code, answer.json()["field"]) == (400, field)


async def test_each_action_leaves_an_entry_and_none_holds_a_key(tmp_path: Path) -> None:
    """Who did what to what, newest first, with the id of the request."""
    async with open_server(tmp_path / "data") as server:
        before = len(await actions(server))
        _, created = await mint(server, name="user")
        key = created["id"]
        renamed = await call(server, "PATCH", f"/v1/keys/{key}", {"name": "another"})
        await done(server, "PATCH", f"/v1/keys/{key}", {"disabled": True})
        await done(server, "PATCH", f"/v1/keys/{key}", {"disabled": False})
        await done(server, "PATCH", "/v1/vaults/vault_2", {"retention_days": 5})
        await done(server, "PATCH", "/v1/account", {"name": "Acme"})
        rotated = await done(server, "POST", f"/v1/keys/{key}/rotate", {}, status=201)
        await done(server, "DELETE", f"/v1/keys/{rotated['id']}?vault=keep")
        await done(server, "DELETE", "/v1/vaults/vault_2")

        log = await call(server, "GET", "/v1/audit")
        entries = log.json()["entries"][::-1][before:]
        assert not WHOLE_KEY.search(log.text)
        assert {entry["actor"] for entry in entries} == {"key:1"}
        done_to = [(entry["action"], entry["target"]) for entry in entries]
        for entry in (
            ("key.created", "key:2"), ("key.changed", "key:2"), ("vault.changed", "vault:2"),
            ("account.changed", "account:1"), ("key.rotated", "key:2"), ("key.deleted", "key:3"),
            ("vault.erased", "vault:2"),
        ):  # fmt: skip
            assert entry in done_to, done_to
        assert renamed.headers["x-request-id"] in {entry["request_id"] for entry in entries}
        page = await done(server, "GET", "/v1/audit?limit=3")
        rest = await done(server, "GET", f"/v1/audit?limit=1000&cursor={page['next_cursor']}")
        assert page["entries"] + rest["entries"] == log.json()["entries"]


async def test_the_audit_log_is_filtered_by_the_server_and_its_filters_hold_on_every_page(tmp_path: Path) -> None:
    """By what an action begins with, what it was done to, who did it, and when: in ids as clients know them."""
    async with open_server(tmp_path / "data") as server:
        for name in ("first", "second", "third"):
            await mint(server, name=name)
        await done(server, "PATCH", "/v1/keys/key_2", {"name": "another"})
        await done(server, "PATCH", "/v1/vaults/vault_2", {"retention_days": 5})
        log = (await done(server, "GET", "/v1/audit"))["entries"]

        async def found(query: str) -> list[str]:
            entries = (await done(server, "GET", f"/v1/audit?{query}"))["entries"]
            return [f"{entry['action']} {entry['target']}" for entry in entries]

        assert await found("subject=key_2") == ["key.changed key:2", "key.created key:2"]
        assert await found("subject=key:2&action=key.created") == ["key.created key:2"]
        assert await found("action=vault") == await found("subject=vault_2") == ["vault.changed vault:2"]
        assert await found("subject=acct_1") == ["account.created account:1"]
        assert await found("subject=provider:openai") == await found("action=key.rotated") == []
        made_by_us = await found("actor=key_1")
        assert len(made_by_us) == 5
        assert sorted(made_by_us + await found("actor=operator")) == sorted(await found(""))
        middle = log[2]["at"]
        later, earlier = await found(f"since={middle}"), await found(f"until={middle}")
        assert later + earlier == await found("")
        assert log[2]["target"] in later[-1]
        page = await done(server, "GET", "/v1/audit?action=key.created&actor=key_1&limit=2")
        rest = await done(server, "GET", f"/v1/audit?action=key.created&actor=key_1&cursor={page['next_cursor']}")
        assert [entry["target"] for entry in page["entries"] + rest["entries"]] == ["key:4", "key:3", "key:2"]
        assert rest["next_cursor"] is None
        for query in (
            "action=Key",
            "action=%25",
            "subject=mem_7",
            "subject=key_0",
            "actor=a:b:c",
            "since=x",
            "until=-",
        ):
            answer = await call(server, "GET", f"/v1/audit?{query}")
            assert (answer.status_code, answer.json()["field"]) == (400, query.partition("=")[0]), query
        stranger = await another_account(server, tmp_path / "data")
        assert (await done(stranger, "GET", "/v1/audit?subject=key_2"))["entries"] == []


async def test_keys_are_listed_newest_first_on_demand(tmp_path: Path) -> None:
    """Each page goes on behind the one before."""
    async with open_server(tmp_path / "data") as server:
        for number in range(2, 7):
            await mint(server, name=f"user:{number}")
        listed: list[str] = []
        cursor = ""
        while cursor is not None:
            page = await done(server, "GET", f"/v1/keys?order=desc&limit=2&cursor={cursor}")
            listed += [key["id"] for key in page["keys"]]
            cursor = page["next_cursor"]
        assert listed == [f"key_{number}" for number in range(6, 0, -1)]
        assert [key["id"] for key in (await done(server, "GET", "/v1/keys?order=asc"))["keys"]] == listed[::-1]
        (newest,) = (await done(server, "GET", "/v1/keys?order=desc&search=USER&limit=1"))["keys"]
        assert newest["id"] == "key_6"
        answer = await call(server, "GET", "/v1/keys?order=name")
        assert (answer.status_code, answer.json()["field"]) == (400, "order")


async def test_a_switched_off_or_deleted_account_opens_nothing(tmp_path: Path) -> None:
    """What the operator does counts for the next request; nothing of a deleted account's memory is left to be read."""
    data_dir = tmp_path / "data"
    async with open_server(data_dir) as server:
        owner = await another_account(server, data_dir)
        other, created = await mint(owner, name="user")
        await other.ingest("My dog is called Rex.")
        assert await other.contents("dog Rex")
        await operate(data_dir, "accounts.change", account="acct_2", disabled=True)
        assert [await status_of(client) for client in (owner, other, server)] == [401, 401, 200]
        await operate(data_dir, "accounts.change", account="acct_2", disabled=False)
        assert [await status_of(client) for client in (owner, other)] == [200, 200]
        before = number_in((await server.get("/metrics")).text, "vaults_live")
        deleted = await operate(data_dir, "accounts.delete", account="acct_2")
        assert deleted["vaults_deleted"] == 2
        assert number_in((await server.get("/metrics")).text, "vaults_live") == before - 2
        assert [await status_of(client) for client in (owner, other, server)] == [401, 401, 200]
        assert created["vault_id"] not in str(await operate(data_dir, "vaults.list", account="acct_1"))
