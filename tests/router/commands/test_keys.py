"""The commands on keys, vaults, accounts and provider keys: on a stopped data directory and beside a running server."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from router.cli import run_program
from tests.fakes.provider import Script, open_fake_provider
from tests.patience import PATIENCE_S
from tests.running import ROOT, Client, open_server, settings_for

KEY = re.compile(r"mk_[A-Za-z0-9_-]{32}")
PROVIDER_KEY = "sk-of-the-account-9876"


class Commands:
    """Runs commands in this process, on the data directory of the test."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.line("init")

    def text(self, *arguments: str, code: int = 0) -> str:
        """What a command prints; insists on its exit code."""
        got = run_program([*arguments])
        captured = self._capsys.readouterr()
        assert got == code, captured.err
        return captured.out if code == 0 else captured.err

    def line(self, *arguments: str) -> str:
        """The only line that it prints."""
        (line,) = self.text(*arguments).splitlines()
        return line

    def json(self, *arguments: str) -> Any:
        """The JSON that it prints."""
        return json.loads(self.line(*arguments, "--json"))


@pytest.fixture
def commands(capsys: pytest.CaptureFixture[str]) -> Commands:
    """Commands on a data directory with one account."""
    return Commands(capsys)


def test_a_key_is_made_with_account_kind_limits_and_expiry(commands: Commands) -> None:
    """`--json` prints these three fields, and no others."""
    created = commands.json("keys", "create", "user:42")
    assert list(created) == ["key", "name", "created_at"]
    assert KEY.fullmatch(created["key"])
    assert KEY.fullmatch(commands.line("keys", "create", "second", "--kind", "account").removeprefix("key: "))
    commands.line(
        "keys", "create", "limited", "--limit", "requests_per_minute=60", "--limit", "memories_max=5",
        "--expires-at", "2999-01-01",
    )  # fmt: skip
    shown = commands.json("keys", "show", "key_4")
    assert (shown["number"], shown["name"], shown["expires_at"]) == (4, "limited", "2999-01-01T00:00:00.000Z")
    assert (shown["limits"]["requests_per_minute"], shown["limits"]["memories_max"]) == (60, 5)
    assert [key["kind"] for key in commands.json("keys", "list")] == ["account", "user", "account", "user"]
    assert "limits: requests_per_minute=60, memories_max=5\n" in commands.text("keys", "show", "4")
    for limit in ("requests_per_minute", "requests_per_minute=many", "x=5"):
        assert "limit" in commands.text("keys", "create", "x", "--limit", limit, code=1 if limit == "x=5" else 2)


def test_a_key_goes_through_its_life(commands: Commands) -> None:
    """By number and by id."""
    first = commands.json("keys", "create", "one")["key"]
    assert commands.line("keys", "rename", "2", "two") == "renamed: 2"
    assert commands.line("keys", "disable", "key_2") == "disabled: 2"
    assert commands.json("keys", "show", "2")["state"] == "disabled"
    row = commands.text("keys", "list").splitlines()[1].split("\t")
    assert [row[place] for place in (0, 1, 2, 4, 6, 7, 8)] == [
        "2",
        "two",
        "user",
        "disabled",
        "acct_1",
        "vault_2",
        "0",
    ]
    assert commands.line("keys", "enable", "key_2") == "enabled: 2"
    assert commands.line("keys", "expire", "2", "2999-01-01") == "expires: 2 2999-01-01T00:00:00.000Z"
    assert commands.line("keys", "expire", "2", "never") == "expires: 2 never"
    assert "past" in commands.text("keys", "expire", "2", "1", code=1)
    rotated = commands.json("keys", "rotate", "2", "--grace-s", "0")
    assert KEY.fullmatch(rotated["key"])
    assert rotated["key"] != first
    assert (rotated["id"], rotated["name"], rotated["replaces"]["id"]) == ("key_3", "two", "key_2")
    assert KEY.fullmatch(commands.line("keys", "rotate", "3").removeprefix("key: "))
    assert commands.line("keys", "revoke", "key_4") == "revoked: 4"
    assert "revoked" in commands.text("keys", "revoke", "4", code=1)
    assert [key["number"] for key in commands.json("keys", "list")] == [1]
    assert [key["number"] for key in commands.json("keys", "list", "--all")] == [1, 2, 3, 4]
    listed = commands.text("keys", "list", "--all")
    assert not KEY.search(listed)
    for key in ("99", "key_99", "vault_1", "x"):
        assert "there is no key" in commands.text("keys", "show", key, code=1).lower()


def test_every_change_answers_in_json_too(commands: Commands) -> None:
    """With all that is known of what was changed."""
    commands.line("keys", "create", "one")
    assert commands.json("keys", "rename", "2", "two")["name"] == "two"
    assert commands.json("keys", "disable", "2")["state"] == "disabled"
    assert commands.json("keys", "enable", "2")["number"] == 2
    assert commands.json("keys", "expire", "2", "2999-01-01")["expires_at"] == "2999-01-01T00:00:00.000Z"
    assert commands.json("vaults", "retention", "2", "30")["retention_days"] == 30
    assert commands.json("keys", "revoke", "2")["vault_deleted"] is False
    assert commands.json("vaults", "delete", "2")["id"] == "vault_2"
    assert commands.json("accounts", "create", "Acme")["id"] == "acct_2"
    assert commands.json("accounts", "rename", "2", "Other")["name"] == "Other"
    assert commands.json("accounts", "retention", "2", "30")["retention_days"] == 30
    assert commands.json("accounts", "disable", "2")["disabled_at"] is not None
    assert commands.json("accounts", "enable", "2")["disabled_at"] is None
    assert commands.json("accounts", "delete", "2")["vaults_deleted"] == 1


def test_a_vault_is_kept_given_to_a_new_key_and_shredded(commands: Commands) -> None:
    """With its key, or later."""
    commands.line("keys", "create", "one")
    assert commands.line("keys", "delete", "2") == "deleted: 2; vault_2 is kept"
    (kept,) = commands.json("vaults", "list", "--without-keys")
    assert (kept["id"], kept["live_keys"]) == ("vault_2", 0)
    commands.line("keys", "create", "two", "--vault", "vault_2")
    assert commands.json("keys", "show", "3")["vault_id"] == "vault_2"
    assert "opens this vault" in commands.text("vaults", "delete", "vault_2", code=1)
    assert commands.line("vaults", "retention", "2", "30") == "retention: 2 30"
    assert commands.json("vaults", "show", "2")["retention_days"] == 30
    assert commands.line("vaults", "retention", "vault_2", "none") == "retention: 2 none"
    assert "DAYS" in commands.text("vaults", "retention", "2", "soon", code=2)
    commands.line("keys", "delete", "3", "--vault", "keep", "--yes")
    assert commands.line("vaults", "delete", "2") == "deleted: 2"
    commands.line("keys", "create", "three")
    assert commands.line("keys", "delete", "4", "--vault", "delete") == "deleted: 4; vault_3 is shredded"
    assert [vault["id"] for vault in commands.json("vaults", "list")] == ["vault_1"]
    assert len(commands.text("vaults", "list").splitlines()) == 1


def test_accounts_are_made_listed_switched_and_deleted(commands: Commands) -> None:
    """A new one prints exactly one line with its account key; commands on keys say which account they mean."""
    assert re.fullmatch(r"account key: mk_[A-Za-z0-9_-]{32}\n", commands.text("accounts", "create", "Acme"))
    made = commands.json("accounts", "create", "Third")
    assert (made["id"], made["name"]) == ("acct_3", "Third")
    commands.line("keys", "create", "one", "--account", "2")
    assert [key["account_id"] for key in commands.json("keys", "list", "--account", "acct_2")] == ["acct_2"] * 2
    assert len(commands.json("keys", "list")) == 4
    assert [key["name"] for key in commands.json("keys", "list", "--search", "ON")] == ["one"]
    assert len(commands.json("vaults", "list")) == 4
    assert len(commands.json("vaults", "list", "--account", "2")) == 2
    assert commands.line("accounts", "rename", "2", "Other") == "renamed: 2"
    assert commands.line("accounts", "retention", "2", "30") == "changed: 2"
    assert commands.line("accounts", "disable", "acct_2") == "disabled: 2"
    shown = commands.json("accounts", "show", "2")
    assert (shown["name"], shown["retention_days"], shown["disabled_at"] is None) == ("Other", 30, False)
    (line,) = [line.split("\t") for line in commands.text("accounts", "list").splitlines() if "Other" in line]
    assert [line[place] for place in (0, 1, 3, 4, 5, 6)] == ["2", "Other", "disabled", "2", "2", "30"]
    assert commands.line("accounts", "enable", "2") == "enabled: 2"
    old = commands.json("keys", "replace-account-key", "--account", "2")["account_key"]
    assert KEY.fullmatch(old)
    assert commands.line("accounts", "delete", "2") == "deleted: 2 with 2 vaults"
    assert [account["id"] for account in commands.json("accounts", "list")] == ["acct_1", "acct_3"]
    assert "acct_2" not in str(commands.json("keys", "list"))
    log = commands.text("audit", "--account", "2", "--limit", "3").splitlines()
    assert len(log) == 3
    assert log[0].split("\t")[1:5] == ["acct_2", "operator", "account.deleted", "account:2"]
    assert len(commands.json("audit", "--limit", "1")) == 1
    of_account = commands.json("audit", "--subject", "acct_2", "--action", "account.", "--actor", "operator")
    assert [entry["action"] for entry in of_account][0::6] == ["account.deleted", "account.created"]
    assert commands.json("audit", "--since", of_account[0]["at"], "--until", "1999-01-01") == []
    assert "action must be" in commands.text("audit", "--action", "Keys", code=1)
    newest = [key["number"] for key in commands.json("keys", "list", "--newest")]
    assert newest == sorted(newest, reverse=True)
    assert newest != sorted(newest)
    assert not KEY.search(commands.text("audit"))


def test_a_providers_key_comes_from_standard_input_or_the_environment(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never from the command line, where others could read it; and it is never printed."""
    monkeypatch.setenv("XAI", "sk-0123456789abcdef")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PROVIDER_KEY}\n"))
    assert commands.line("providers", "set", "openai") == "stored: openai, ends 9876"
    assert commands.json("providers", "set", "xai", "--key-env", "XAI")["last_four"] == "cdef"
    listed = commands.text("providers", "list")
    assert re.search(r"^openai\topenai\taccount\t9876\t20[^\t]*Z\topenai$", listed, re.M)
    assert re.search(r"^anthropic\tanthropic\tnone\t-\t-\tanthropic$", listed, re.M)
    assert PROVIDER_KEY not in listed
    for arguments, code, words in (
        (["set", "openai", PROVIDER_KEY], 2, "unexpected extra argument"),
        (["set", "openai"], 2, "Give the key on standard input"),
        (["set", "openai", "--key-env", "NOT_SET"], 2, "NOT_SET is not set"),
        (["set", "nobody", "--key-env", "XAI"], 1, "There is no provider `nobody`"),
        (["remove", "google"], 1, "has stored no key for google"),
        (["check", "nobody"], 1, "There is no provider"),
    ):
        assert words in commands.text("providers", *arguments, code=code)
    assert commands.line("providers", "remove", "openai") == "removed: openai"
    assert commands.json("providers", "remove", "xai") == {"provider": "xai", "deleted": True}


@pytest.mark.usefixtures("commands")
def test_what_cannot_be_undone_is_asked_on_a_terminal() -> None:
    """No is no, `--yes` and scripts are taken at their word."""
    for answer, code in (("n\n", 1), ("y\n", 0)):
        ours, theirs = pty.openpty()
        os.write(ours, answer.encode())
        done = subprocess.run(
            [sys.executable, "-m", "router", "keys", "replace-account-key"],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=theirs, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        os.close(ours)
        os.close(theirs)
        assert done.returncode == code, done.stderr
        assert "Revoke the account's present account keys? [y/N]" in done.stderr
        assert done.stdout.startswith("account key: mk_") == (code == 0)


async def test_all_of_it_works_beside_a_running_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And counts at once for the server's own requests; deleted vaults leave its memory."""
    async with open_fake_provider() as provider:
        settings = settings_for(provider.settings(api_key="sk-of-the-server"))
        async with open_server(tmp_path / "data", settings) as server:

            async def run(*arguments: str, code: int = 0) -> str:
                capsys.readouterr()
                got = await trio.to_thread.run_sync(run_program, list(arguments))
                captured = capsys.readouterr()
                assert got == code, captured.err
                return captured.out

            async def status(client: Client) -> int:
                return (await client.get("/v1/memory/stats")).status_code

            user = Client(server.http, json.loads(await run("keys", "create", "user", "--json"))["key"])
            await user.ingest("My dog is called Rex.")
            await run("keys", "disable", "2")
            assert await status(user) == 401
            await run("keys", "enable", "2")
            assert await status(user) == 200
            rotated = await run("keys", "rotate", "2", "--grace-s", "0")
            new = Client(server.http, rotated.strip().removeprefix("key: "))
            assert [await status(client) for client in (user, new)] == [401, 200]
            assert await new.contents("dog Rex") == {"My dog is called Rex."}

            monkeypatch.setattr(sys, "stdin", io.StringIO(PROVIDER_KEY))
            await run("providers", "set", "openai", "--check")
            assert "account" in await run("providers", "list")
            assert (await server.chat("Hello")).status_code == 200
            keys = [request.headers["authorization"] for request in provider.requests]
            assert keys == [f"Bearer {PROVIDER_KEY}"] * 2
            assert (await run("providers", "check", "openai")).startswith("ok: openai (200), key of the account")
            provider.enqueue(Script(status=401, body=b"no"))
            assert (await run("providers", "check", "openai", code=1)).startswith("refused: openai (401)")

            key = (await run("accounts", "create", "Acme")).strip().removeprefix("account key: ")
            owner = Client(server.http, key)
            await owner.ingest("My cat is called Tom.")
            await run("accounts", "delete", "2", "--yes")
            await run("keys", "delete", "3", "--vault", "delete")
            assert [await status(client) for client in (owner, new, server)] == [401, 401, 200]
            assert "\nmemoryrouter_vaults_live 1\n" in (await server.get("/metrics")).text
            assert [vault["id"] for vault in json.loads(await run("vaults", "list", "--json"))] == ["vault_1"]
            assert "vault.erased\tvault:2" in await run("audit", "--limit", "1000")
