"""Default deny: but for a short list every route of the URL map is closed without a key, and all refusals are alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from trio.testing import assert_no_checkpoints

from actors.store.sqlite import open_store
from models.errors import Unauthenticated
from models.ids import Principal, VaultNumber, VaultRef, hash_key, mint_key
from models.provider_settings import Secret
from models.settings import MetricsSettings, StoreSettings
from router.app import OPEN_PATHS
from router.auth import authenticate
from router.openapi.operation import Operation
from router.openapi.operations import OPERATIONS
from tests.contract.described import open_described
from tests.contract.test_openapi import assert_described, named, path_of, the_app
from tests.running import Client

OPEN = {"/", "/livez", "/readyz", "/health", "/metrics", "/openapi.json"}
"""Written out once more: who adds a route to the application's own list has to say so here."""

OPEN_PAGES = {"/dashboard", "/dashboard/<path:screen>", "/dashboard/static/<path:name>", "/dashboard/session"}
"""Rules of the dashboard that are reached without a key or a session; what they tell is tested in
tests/router/test_dashboard_routes.py."""

CLOSED = [operation for operation in OPERATIONS if operation.path not in OPEN]
BAD_KEYS = ["mk_", "mk_x:admin", "mk_" + "x" * 500, "mk_unknown", "mk-unknown:read", "mk_\u00fc", "mk_' OR 1=1 --"]
"""Malformed, of another suffix, too long, unknown, no ASCII, and what once was a hole in another gateway."""

VARYING = {"x-request-id", "request-id", "date", "content-length"}


async def ask(server: Client, operation: Operation, key: str | None, *, method: str | None = None) -> httpx.Response:
    """One request without a body, with this key or none."""
    headers = {} if key is None else {b"authorization": f"Bearer {key}".encode()}
    return await server.http.request(method or operation.method.upper(), path_of(operation), headers=headers)


def test_the_list_of_open_routes_is_the_one_that_is_documented() -> None:
    """In the application, in the description, and here."""
    assert OPEN_PATHS == OPEN | OPEN_PAGES
    assert {operation.path for operation in OPERATIONS if operation.is_open} == OPEN


async def test_every_route_answers_401_without_a_key_and_with_a_wrong_one(tmp_path: Path) -> None:
    """Each method of each route, in the format of the route, before anything of the request is looked at."""
    async with open_described(tmp_path) as server:
        for operation in CLOSED:
            for key in (None, "mk_unknown", "sk-a-provider-key"):
                answer = await ask(server, operation, key)
                assert answer.status_code == 401, named(operation)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert_described(operation, answer)
            if operation.method == "get":
                head = await ask(server, operation, None, method="HEAD")
                assert (head.status_code, head.content) == (401, b"")


async def test_every_rule_of_the_url_map_is_among_them(tmp_path: Path) -> None:
    """Also one that the description has forgotten, and every method that a rule takes."""
    async with open_described(tmp_path) as server:
        rules = [rule for rule in the_app().url_map.iter_rules() if rule.rule not in OPEN | OPEN_PAGES]
        assert rules
        for rule in rules:
            path = rule.rule
            for name in rule.arguments:
                path = path.replace(f"<path:{name}>", "x:generateContent").replace(f"<{name}>", "x")
            for method in rule.methods or ():
                answer = await server.http.request(method, path)
                if method == "OPTIONS":  # Quart's own answer: the methods, and nothing else
                    assert (answer.status_code, answer.content) == (200, b"")
                else:
                    assert answer.status_code == 401, (method, rule.rule)


async def test_open_routes_are_open(tmp_path: Path) -> None:
    """And tell nothing of a key, an account or a vault."""
    async with open_described(tmp_path) as server:
        other = await server.other("a-name-of-a-key")
        await other.ingest("My quoll is called Bertram.")
        for operation in OPERATIONS:
            if operation.path in OPEN:
                answer = await ask(server, operation, None)
                assert answer.status_code == 200
                for private in (server.key[:7], other.key[:7], "a-name-of-a-key", "Bertram"):
                    assert private not in answer.text


async def test_a_route_whose_handler_forgot_the_key_is_closed_all_the_same() -> None:
    """It is the application that asks first."""
    app = the_app()
    reached: list[str] = []

    async def forgetful() -> str:
        reached.append("the handler")
        return "private"

    app.add_url_rule("/v1/forgotten", view_func=forgetful)
    answer = await app.test_client().get("/v1/forgotten")
    assert (answer.status_code, reached) == (401, [])


async def test_refusals_tell_nothing_about_why(tmp_path: Path) -> None:
    """Malformed, unknown and revoked keys get the same status, headers and body, on every kind of route; a request
    without any key is told so."""
    async with open_described(tmp_path) as server:
        revoked = await server.other("revoked")
        await revoke_last_key(server)
        for path in ("/v1/memory/stats", "/v1/models", "/v1/keys"):
            method = "POST" if path == "/v1/keys" else "GET"
            seen = set()
            for key in (*BAD_KEYS, revoked.key, f"{revoked.key}:read"):
                answer = await server.http.request(method, path, headers={b"x-memory-key": key.encode()})
                headers = {name: value for name, value in answer.headers.items() if name not in VARYING}
                seen.add((answer.status_code, answer.content, tuple(sorted(headers.items()))))
            assert len(seen) == 1, path
            missing = await server.http.request(method, path)
            ((status, body, _),) = seen
            assert (missing.status_code, status) == (401, 401)
            assert b"Invalid or inactive memory key" in body
            assert "Missing or invalid authentication" in missing.text


async def revoke_last_key(server: Client) -> None:
    """Delete the account's newest key."""
    listed = (await server.get("/v1/keys")).json()["data"]
    newest = max(listed, key=lambda key: int(key["id"].removeprefix("key_")))
    answer = await server.delete(f"/v1/keys/{newest['id']}")
    assert answer.status_code == 200, answer.text


# --- what a refusal costs ---


class CountingDirectory:
    """Answers one key and counts how often it is asked."""

    def __init__(self, key: str) -> None:
        vault = VaultRef(number=VaultNumber(1), shard=0)
        self._principal = Principal(key_number=1, account_number=1, kind="user", name="", vault=vault)
        self._hash = hash_key(key)
        self.asked: list[bytes] = []

    async def find_key(self, key_hash: bytes) -> Principal | None:
        """See the protocol."""
        self.asked.append(key_hash)
        return self._principal if key_hash == self._hash else None


async def test_a_valid_and_an_unknown_key_take_the_same_way() -> None:
    """One look-up by the hash of the whole key, and none for what cannot be a key: no text of a caller gets further."""
    key = mint_key()
    directory: Any = CountingDirectory(key)

    assert (await authenticate({"x-memory-key": key}, {}, directory)).provider_key == Secret()
    for wrong in (mint_key(), key + "x", key[:-1]):
        with pytest.raises(Unauthenticated):
            await authenticate({"x-memory-key": wrong}, {}, directory)
    assert len(directory.asked) == 4
    assert {len(asked) for asked in directory.asked} == {32}
    for wrong in ("", "mk_", "mk_' OR 1=1 --", "mk_" + "x" * 500, key + ":admin"):
        with pytest.raises(Unauthenticated):
            await authenticate({"x-memory-key": wrong}, {}, directory)
    assert len(directory.asked) == 4


async def test_asking_again_for_a_key_reads_nothing_whether_it_is_known_or_not(tmp_path: Path) -> None:
    """Both are remembered: neither a look at the disk nor a wait tells one from the other."""
    async with open_store(tmp_path, settings=StoreSettings(shards=1)) as store:
        known, unknown = hash_key("mk_known"), hash_key("mk_unknown")
        await store.create_account(key_hash=known, shown="mk_know", created_ms=1)
        for key_hash in (known, unknown):
            await store.find_key(key_hash)
            with assert_no_checkpoints():
                await store.find_key(key_hash)


async def test_the_metrics_can_be_closed(tmp_path: Path) -> None:
    """`metrics.access = "account"`: an account key opens them, a user key and a suffixed one do not."""
    async with open_described(tmp_path, metrics=MetricsSettings(access="account")) as server:
        other = await server.other()
        assert (await server.get("/metrics", key="")).status_code == 401
        assert (await server.get("/metrics", key=other.key)).status_code == 403
        assert (await server.get("/metrics", key=f"{server.key}:read")).status_code == 403
        assert "memoryrouter_requests_total" in (await server.get("/metrics")).text
