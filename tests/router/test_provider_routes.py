"""`/v1/providers` over HTTP, and whose key goes to a provider: the request's, the account's, or the server's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from models.provider_settings import ProviderSettings
from models.settings import ProvidersSettings
from router import provider_keys
from router.upstream import open_upstream
from tests.fakes.provider import (
    Script,
    open_dead_provider,
    open_fake_provider,
)
from tests.fakes.store import open_memory_store
from tests.patience import pass_time_until
from tests.router.administered import call, done, mint
from tests.router.stored_keys import CLAUDE, KEY, OPENAI, OTHER_KEY, QUESTION, SERVER_KEY, key_of, open_all
from tests.running import open_server, settings_for

# --- the routes ---


async def test_a_key_is_stored_shown_by_its_end_replaced_and_deleted(tmp_path: Path) -> None:
    """Where a key comes from is said for each provider; the server's key is never shown."""
    async with open_all(tmp_path) as (server, _):
        listed = await done(server, "GET", "/v1/providers")
        assert listed["data"] == listed["providers"]
        assert [(item["name"], item["key_source"]) for item in listed["providers"]] == [
            ("openai", "server"), ("two", "server"), ("anthropic", "server"), ("google", "server"),
        ]  # fmt: skip
        assert listed["providers"][2]["format"] == "anthropic"
        assert {item["host"] for item in listed["providers"]} == {"127.0.0.1"}
        assert (await call(server, "GET", OPENAI)).status_code == 404

        stored = await done(server, "PUT", OPENAI, {"key": KEY})
        assert (stored["provider"], stored["last_four"], stored["check"]) == ("openai", "9876", None)
        shown = await done(server, "GET", OPENAI)
        assert shown == {name: value for name, value in stored.items() if name != "check"}
        await done(server, "PUT", OPENAI, {"key": "sk-another-key-of-it-0000"})
        first = (await done(server, "GET", "/v1/providers"))["providers"][0]
        assert (first["key_source"], first["last_four"]) == ("account", "0000")
        assert SERVER_KEY not in str(listed)

        assert await done(server, "DELETE", OPENAI) == {"provider": "openai", "deleted": True}
        assert (await call(server, "DELETE", OPENAI)).status_code == 404
        log = (await done(server, "GET", "/v1/audit"))["entries"]
        assert [(entry["action"], entry["target"]) for entry in log[:3]] == [
            ("provider_key.deleted", "provider:openai"),
            ("provider_key.stored", "provider:openai"),
            ("provider_key.stored", "provider:openai"),
        ]


async def test_of_a_short_key_nothing_is_shown(tmp_path: Path) -> None:
    """Four characters of it would tell too much."""
    async with open_all(tmp_path) as (server, _):
        for key in ("abcd", "abcdefghijk"):
            assert (await done(server, "PUT", OPENAI, {"key": key}))["last_four"] is None
            assert (await done(server, "GET", OPENAI))["last_four"] is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "key"),
        ({"key": ""}, "key"),
        ({"key": "  "}, "key"),
        ({"key": 5}, "key"),
        ({"key": None}, "key"),
        ({"key": "mk_" + "x" * 32}, "key"),
        ({"key": "Bearer mk_" + "x" * 32}, "key"),
        ({"key": "k\u00eby"}, "key"),
        ({"key": "two\r\nlines"}, "key"),
        ({"key": "x" * 1023}, "key"),
        ({"key": KEY, "check": "yes"}, "check"),
    ],
)
async def test_what_is_no_providers_key_is_refused(tmp_path: Path, body: dict[str, Any], field: str) -> None:
    """400 with the field, and no word of what was sent."""
    async with open_all(tmp_path) as (server, provider):
        answer = await call(server, "PUT", OPENAI, body)
        assert (answer.status_code, answer.json()["field"]) == (400, field)
        assert "mk_x" not in answer.text
        assert (await call(server, "GET", OPENAI)).status_code == 404
        assert provider.requests == []


async def test_an_unknown_provider_is_not_found(tmp_path: Path) -> None:
    """On every route; prefixes are no names."""
    async with open_all(tmp_path) as (server, _):
        for method, path, body in (
            ("GET", "", None), ("PUT", "", {"key": KEY}), ("DELETE", "", None), ("POST", "/check", None),
        ):  # fmt: skip
            answer = await call(server, method, f"/v1/providers/nobody/key{path}", body)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_user_keys_and_suffixed_keys_see_and_change_nothing(tmp_path: Path) -> None:
    """403."""
    async with open_all(tmp_path) as (server, _):
        await done(server, "PUT", OPENAI, {"key": KEY})
        other, _ = await mint(server, name="user")
        for method, path, body in (
            ("GET", "/v1/providers", None), ("GET", OPENAI, None), ("PUT", OPENAI, {"key": OTHER_KEY}),
            ("DELETE", OPENAI, None), ("POST", f"{OPENAI}/check", None),
        ):  # fmt: skip
            for key in (other.key, f"{server.key}:read", f"{server.key}:off"):
                assert (await call(server, method, path, body, key=key)).status_code == 403
        assert (await done(server, "GET", OPENAI))["last_four"] == "9876"


async def test_a_key_of_a_provider_that_is_not_configured_any_more_can_be_seen_and_deleted(tmp_path: Path) -> None:
    """A secret must not outlive the way to get rid of it."""
    async with open_all(tmp_path) as (server, _):
        await done(server, "PUT", "/v1/providers/google/key", {"key": KEY})
    async with open_server(tmp_path / "data") as server:
        (left,) = (await done(server, "GET", "/v1/providers"))["providers"]
        assert (left["name"], left["configured"], left["last_four"]) == ("google", False, "9876")
        assert (await call(server, "PUT", "/v1/providers/google/key", {"key": KEY})).status_code == 404
        await done(server, "DELETE", "/v1/providers/google/key")
        assert (await done(server, "GET", "/v1/providers"))["providers"] == []


# --- checks ---


@pytest.mark.parametrize("path", [OPENAI, CLAUDE, "/v1/providers/google/key"])
async def test_a_checked_key_is_stored_once_the_provider_has_taken_it(tmp_path: Path, path: str) -> None:
    """One cheap call, with the new key where the provider wants it."""
    async with open_all(tmp_path) as (server, provider):
        stored = await done(server, "PUT", path, {"key": KEY, "check": True})
        assert (stored["check"]["ok"], stored["check"]["status"]) == (True, 200)
        (request,) = provider.requests
        assert (request.method, key_of(request), request.body) == ("GET", KEY, b"")
        assert request.path.partition("?")[0].endswith("/models")
        checked = await done(server, "POST", f"{path}/check")
        assert (checked["ok"], checked["status"], checked["key_source"]) == (True, 200, "account")
        assert key_of(provider.requests[1]) == KEY


@pytest.mark.parametrize(("status", "code"), [(400, 400), (401, 400), (403, 400), (500, 502), (302, 502)])
async def test_a_key_that_the_provider_does_not_take_is_not_stored(tmp_path: Path, status: int, code: int) -> None:
    """Its refusal blames the field; what it says in other ways, or quotes, does not get out."""
    async with open_all(tmp_path) as (server, provider):
        await done(server, "PUT", OPENAI, {"key": OTHER_KEY})
        provider.enqueue(Script(status=status, body=f"no {KEY}".encode()))
        answer = await call(server, "PUT", OPENAI, {"key": KEY, "check": True})
        assert answer.status_code == code, answer.text
        assert answer.json().get("field") == ("key" if code == 400 else None)
        assert KEY not in answer.text
        assert (await done(server, "GET", OPENAI))["last_four"] == "5432"


async def test_a_refusal_of_something_else_than_the_key_does_not_keep_it_out(tmp_path: Path) -> None:
    """Servers without a list of models, and keys over their rate."""
    async with open_all(tmp_path) as (server, provider):
        for status in (404, 429):
            provider.enqueue(Script(status=status, body=b"no"))
            stored = await done(server, "PUT", OPENAI, {"key": KEY, "check": True})
            assert (stored["check"]["ok"], stored["check"]["status"]) == (False, status)


async def test_a_provider_that_cannot_be_reached_leaves_nothing_stored(tmp_path: Path) -> None:
    """502, but unchecked it is stored; a check says what went wrong."""
    async with open_dead_provider() as dead:
        first = msgspec.structs.replace(dead, retries_max=0)
        async with open_all(tmp_path, first=first) as (server, _):
            answer = await call(server, "PUT", OPENAI, {"key": KEY, "check": True})
            assert (answer.status_code, answer.json()["code"]) == (502, "upstream_unavailable")
            assert (await call(server, "GET", OPENAI)).status_code == 404
            await done(server, "PUT", OPENAI, {"key": KEY, "check": False})
            checked = await done(server, "POST", f"{OPENAI}/check")
            assert (checked["ok"], checked["status"], checked["error"]) == (False, None, "upstream_unavailable")


async def test_a_provider_that_does_not_answer_a_check_is_not_waited_for(
    tmp_path: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long chats may take."""
    monkeypatch.setattr(provider_keys, "CHECK_TIMEOUT_S", 3.0)
    async with open_fake_provider() as provider:
        settings = ProvidersSettings(by_name={"openai": provider.settings()})
        asking = Checking(settings)
        provider.enqueue(Script(hang=True))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asking.ask)
            await pass_time_until(mock_clock, lambda: bool(asking.answers), step_s=3.0)
    assert asking.answers == [(False, None, "upstream_timeout")]


class Checking:
    """Checks the server's key, with nothing stored."""

    def __init__(self, settings: ProvidersSettings) -> None:
        self._settings = settings
        self.answers: list[tuple[Any, ...]] = []

    async def ask(self) -> None:
        """One check."""
        async with open_memory_store() as store, open_upstream(self._settings.by_name) as upstream:
            keys = provider_keys.ProviderKeys(self._settings.by_name, store, upstream, now_ms=lambda: 1)
            checked = await keys.check(1, "openai")
        self.answers.append((checked["ok"], checked["status"], checked["error"]))


async def test_the_key_that_counts_is_checked(tmp_path: Path) -> None:
    """The account's, else the server's; a refused one is told as such, with a success."""
    async with open_all(tmp_path) as (server, provider):
        assert (await done(server, "POST", f"{OPENAI}/check"))["key_source"] == "server"
        await done(server, "PUT", OPENAI, {"key": KEY})
        provider.enqueue(Script(status=401, body=b"no"))
        checked = await done(server, "POST", f"{OPENAI}/check")
        assert (checked["ok"], checked["status"], checked["key_source"]) == (False, 401, "account")
        assert [key_of(request) for request in provider.requests] == [SERVER_KEY, KEY]


async def test_without_any_key_there_is_nothing_to_check(tmp_path: Path) -> None:
    """For a provider that needs one."""
    settings = settings_for(ProviderSettings(base_url="https://127.0.0.1:9/v1"))
    async with open_server(tmp_path / "data", settings) as server:
        answer = await call(server, "POST", f"{OPENAI}/check")
        assert (answer.status_code, answer.json()["code"]) == (400, "no_provider_key")
        assert (await done(server, "GET", "/v1/providers"))["providers"][0]["key_source"] == "none"
        chat = await server.chat(QUESTION)
        assert chat.json()["error"]["code"] == "no_provider_key"
