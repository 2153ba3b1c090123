"""The life of a key over HTTP: changed, switched off, rotated, ended, deleted with its vault or without."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from models.settings import KeySettings
from tests.fakes.provider import DONE, chat_chunk, gated, stream_script
from tests.patience import PATIENCE_S
from tests.router.administered import call, done, mint, number_in, status_of
from tests.router.proxied import PATH, open_both, streamed
from tests.running import Client, assistant, open_reply, open_server, settings_for, user

# --- changing keys ---


async def test_a_key_is_renamed_and_limited(tmp_path: Path) -> None:
    """What is not named stays; the limit holds for the next request."""
    async with open_server(tmp_path / "data") as server:
        other, created = await mint(server, name="before")
        changed = await done(server, "PATCH", f"/v1/keys/{created['id']}", {"name": "after"})
        assert (changed["name"], changed["state"]) == ("after", "live")
        limits = {"requests_per_minute": 1, "requests_burst": 1}
        changed = await done(server, "PATCH", f"/v1/keys/{created['id']}", {"limits": limits})
        assert changed["name"] == "after"
        assert [await status_of(other) for _ in range(2)] == [200, 429]
        await done(server, "PATCH", f"/v1/keys/{created['id']}", {"limits": None})
        assert await status_of(other) == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"nothing": 1}, "body"),
        ({"name": ""}, "name"),
        ({"disabled": "yes"}, "disabled"),
        ({"expires_at": 5}, "expires_at"),
        ({"limits": {"x": 1}}, "limits"),
    ],
)
async def test_a_wrong_change_is_named_and_nothing_is_changed(tmp_path: Path, body: Any, field: str) -> None:
    """400."""
    async with open_server(tmp_path / "data") as server:
        before = await done(server, "GET", "/v1/keys/key_1")
        answer = await call(server, "PATCH", "/v1/keys/key_1", body)
        assert (answer.status_code, answer.json()["field"]) == (400, field)
        after = await done(server, "GET", "/v1/keys/key_1")
        assert {**after, "last_used_at": None} == {**before, "last_used_at": None}


async def test_a_key_that_is_switched_off_in_a_conversation_opens_nothing_until_it_is_on_again(tmp_path: Path) -> None:
    """What is under way ends as it would have, and is remembered; the next request is refused."""
    async with open_both(tmp_path) as (server, provider):
        other, created = await mint(server, name="user")
        gate = trio.Event()
        events = [chat_chunk("Hello "), chat_chunk("there."), chat_chunk(finish_reason="stop"), DONE]
        provider.enqueue(stream_script([events[0], *gated(events[1:2], [gate]), *events[2:]]))
        async with open_reply(other, PATH, streamed("My dog is called Rex.")) as reply:
            received = await reply.next_data()
            await done(server, "PATCH", f"/v1/keys/{created['id']}", {"disabled": True})
            assert (await other.chat("What is my dog called?")).status_code == 401
            gate.set()
            while data := await reply.next_data():
                received += data
        assert received.endswith(DONE)
        assert (await done(server, "GET", f"/v1/keys/{created['id']}"))["state"] == "disabled"
        await done(server, "PATCH", f"/v1/keys/{created['id']}", {"disabled": False})
        assert await other.contents("dog Rex") >= {"My dog is called Rex."}
        assert (await other.chat("And now?")).status_code == 200


async def test_a_key_ends_at_its_time(tmp_path: Path) -> None:
    """And an expired one lives again with a later time."""
    async with open_server(tmp_path / "data") as server:
        other, created = await mint(server, name="user")
        path = f"/v1/keys/{created['id']}"
        for ahead_ms in (300, 3_000, 30_000):  # a machine that is slower than that would find the time in the past
            answer = await call(server, "PATCH", path, {"expires_at": time.time_ns() // 1_000_000 + ahead_ms})
            if answer.status_code == 200:
                break
        with trio.fail_after(PATIENCE_S):
            while await status_of(other) != 401:
                await trio.lowlevel.checkpoint()
        assert (await done(server, "GET", path))["state"] == "expired"
        await done(server, "PATCH", path, {"expires_at": None})
        assert await status_of(other) == 200


async def test_the_last_account_key_can_neither_be_deleted_nor_switched_off(tmp_path: Path) -> None:
    """409, and it goes on working; with a second one it can."""
    async with open_server(tmp_path / "data") as server:
        for method, body in (("DELETE", None), ("PATCH", {"disabled": True})):
            answer = await call(server, method, "/v1/keys/key_1", body)
            assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        second, _ = await mint(server, name="second", kind="account")
        await done(second, "DELETE", "/v1/keys/key_1")
        assert await status_of(server) == 401
        assert await status_of(second) == 200


# --- rotation ---


async def test_a_rotated_key_goes_on_for_its_grace_period_beside_the_new_one(tmp_path: Path) -> None:
    """Same vault, name and limits; deleting the new one ends the old one too."""
    async with open_server(tmp_path / "data") as server:
        old, created = await mint(server, name="user", limits={"memories_max": 10})
        await old.ingest("My dog is called Rex.")
        rotated = await done(server, "POST", f"/v1/keys/{created['id']}/rotate", {"grace_s": 3600}, status=201)
        new = Client(server.http, rotated["key"])
        assert rotated["replaces"]["id"] == created["id"]
        assert (rotated["vault_id"], rotated["name"]) == (created["vault_id"], "user")
        assert rotated["limits"]["memories_max"] == 10
        assert new.key != old.key
        for client in (old, new):
            assert await client.contents("dog Rex") == {"My dog is called Rex."}
        assert (await done(server, "GET", f"/v1/keys/{created['id']}"))["rotated_to"] == rotated["id"]
        again = await call(server, "POST", f"/v1/keys/{created['id']}/rotate", {})
        assert again.status_code == 409
        await done(server, "DELETE", f"/v1/keys/{rotated['id']}")
        assert [await status_of(client) for client in (old, new)] == [401, 401]


async def test_without_grace_the_old_key_ends_at_once_also_the_account_key(tmp_path: Path) -> None:
    """Whoever rotates the key that they ask with goes on with the new one."""
    async with open_server(tmp_path / "data") as server:
        await server.ingest("My dog is called Rex.")
        rotated = await done(server, "POST", "/v1/keys/key_1/rotate", {"grace_s": 0}, status=201)
        assert await status_of(server) == 401
        new = Client(server.http, rotated["key"])
        assert await new.contents("dog Rex") == {"My dog is called Rex."}
        assert (await done(new, "GET", "/v1/account"))["live_keys"] == 1


async def test_the_settings_say_how_long_the_grace_period_is(tmp_path: Path) -> None:
    """Where the request does not; a wrong one is refused."""
    async with open_server(tmp_path / "data", settings_for(keys=KeySettings(rotation_grace_s=0))) as server:
        other, created = await mint(server, name="user")
        for wrong in (-1, "x", 1 << 40):
            answer = await call(server, "POST", f"/v1/keys/{created['id']}/rotate", {"grace_s": wrong})
            assert (answer.status_code, answer.json()["field"]) == (400, "grace_s")
        assert await status_of(other) == 200
        await done(server, "POST", f"/v1/keys/{created['id']}/rotate", {}, status=201)
        assert await status_of(other) == 401


# --- deletion ---


async def test_a_kept_vault_is_opened_by_a_new_key(tmp_path: Path) -> None:
    """Only while no other key opens it."""
    async with open_server(tmp_path / "data") as server:
        old, created = await mint(server, name="old")
        await old.ingest("My dog is called Rex.")
        taken = await call(server, "POST", "/v1/keys", {"vault_id": created["vault_id"]})
        assert taken.status_code == 409
        deleted = await done(server, "DELETE", f"/v1/keys/{created['id']}")
        assert deleted == {
            "id": created["id"], "deleted": True, "vault_id": created["vault_id"], "vault_deleted": False,
        }  # fmt: skip
        assert await status_of(old) == 401
        new, _ = await mint(server, name="new", vault_id=created["vault_id"])
        assert await new.contents("dog Rex") == {"My dog is called Rex."}


async def test_a_vault_is_shredded_with_its_key_or_later(tmp_path: Path) -> None:
    """It is gone from lists, cannot be opened again, and what is deleted cannot be deleted twice."""
    async with open_server(tmp_path / "data") as server:
        other, created = await mint(server, name="with")
        _, kept = await mint(server, name="kept")
        await other.ingest("My dog is called Rex.")
        wrong = await call(server, "DELETE", f"/v1/keys/{created['id']}?vault=perhaps")
        assert (wrong.status_code, wrong.json()["field"]) == (400, "vault")
        assert (await done(server, "DELETE", f"/v1/keys/{created['id']}?vault=delete"))["vault_deleted"]
        assert (await call(server, "DELETE", f"/v1/keys/{created['id']}")).status_code == 404

        assert (await call(server, "DELETE", f"/v1/vaults/{kept['vault_id']}")).status_code == 409  # its key lives
        await done(server, "DELETE", f"/v1/keys/{kept['id']}")
        assert (await done(server, "DELETE", f"/v1/vaults/{kept['vault_id']}"))["deleted"]
        for vault in (created["vault_id"], kept["vault_id"]):
            assert (await call(server, "DELETE", f"/v1/vaults/{vault}")).status_code == 404
            assert (await call(server, "GET", f"/v1/vaults/{vault}")).status_code == 404
            assert (await call(server, "POST", "/v1/keys", {"vault_id": vault})).status_code == 404
        assert [vault["id"] for vault in (await done(server, "GET", "/v1/vaults"))["vaults"]] == ["vault_1"]


async def test_a_vault_that_another_key_opens_is_not_shredded(tmp_path: Path) -> None:
    """The rotated key's grace period counts not: it ends with the key that took its place."""
    async with open_server(tmp_path / "data") as server:
        old, created = await mint(server, name="user")
        rotated = await done(server, "POST", f"/v1/keys/{created['id']}/rotate", {"grace_s": 3600}, status=201)
        refused = await call(server, "DELETE", f"/v1/keys/{created['id']}?vault=delete")
        assert (refused.status_code, await status_of(old)) == (409, 200)
        assert (await done(server, "DELETE", f"/v1/keys/{rotated['id']}?vault=delete"))["vault_deleted"]
        assert await status_of(old) == 401


async def test_a_vault_is_shredded_while_a_stream_of_it_is_under_way(tmp_path: Path) -> None:
    """The client gets its whole reply; nothing of the exchange is kept."""
    async with open_both(tmp_path) as (server, provider):
        other, created = await mint(server, name="user")
        await other.ingest("My dog is called Rex.")
        gate = trio.Event()
        events = [chat_chunk("Hello "), chat_chunk("there."), chat_chunk(finish_reason="stop"), DONE]
        provider.enqueue(stream_script([events[0], *gated(events[1:2], [gate]), *events[2:]]))
        async with open_reply(other, PATH, streamed("What is my dog called?")) as reply:
            received = await reply.next_data()
            await done(server, "DELETE", f"/v1/keys/{created['id']}?vault=delete")
            gate.set()
            while data := await reply.next_data():
                received += data
        assert received.endswith(DONE)
        assert (await call(server, "GET", f"/v1/vaults/{created['vault_id']}")).status_code == 404
        assert await status_of(other) == 401
        metrics = (await server.get("/metrics")).text
        assert number_in(metrics, "vaults_crashed_total") == 0
        assert number_in(metrics, 'memory_skipped_total{reason="not_stored"}') == 1


async def test_a_vault_is_shredded_while_it_is_written_to(tmp_path: Path) -> None:
    """Each write is answered by a success or by an error that says to go; none is a bug, and nothing is left."""
    async with open_server(tmp_path / "data") as server:
        other, created = await mint(server, name="user")
        statuses: list[int] = []

        async def write(number: int) -> None:
            body = {"messages": [user(f"Harbour log {number}."), assistant("Noted.")]}
            statuses.append((await other.post("/v1/memory/ingest", body)).status_code)

        async with trio.open_nursery() as writing:
            for number in range(24):
                writing.start_soon(partial(write, number))
            await other.ingest("Before.")
            await done(server, "DELETE", f"/v1/keys/{created['id']}?vault=delete")
        assert set(statuses) <= {202, 401, 404, 503}, statuses
        assert await status_of(other) == 401
        assert (await call(server, "GET", f"/v1/vaults/{created['vault_id']}")).status_code == 404


async def test_a_rotated_key_that_ends_before_its_grace_period_says_so(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        _, created = await mint(server, name="user", expires_at="2999-01-01")
        rotated = await done(server, "POST", f"/v1/keys/{created['id']}/rotate", {"grace_s": 30 * 86_400}, status=201)
        assert rotated["expires_at"] == created["expires_at"]
        old = await done(server, "GET", f"/v1/keys/{created['id']}")
        assert rotated["replaces"] == {"id": created["id"], "valid_until": old["expires_at"]}
        _, ending = await mint(server, name="user", expires_at=int(time.time() * 1000) + 1_000_000)
        rotated = await done(server, "POST", f"/v1/keys/{ending['id']}/rotate", {"grace_s": 30 * 86_400}, status=201)
        assert rotated["replaces"]["valid_until"] == ending["expires_at"]


async def test_an_account_key_is_given_neither_an_end_nor_limits(tmp_path: Path) -> None:
    """The account would have no key from then on."""
    async with open_server(tmp_path / "data") as server:
        await mint(server, name="second", kind="account")
        for body in ({"expires_at": "2999-01-01"}, {"limits": {"requests_per_minute": 1}}):
            for key in ("key_1", "key_2"):
                await done(server, "PATCH", f"/v1/keys/{key}", body, status=409)
        same = {"expires_at": None, "limits": {"requests_per_minute": None}, "name": "renamed"}
        assert (await done(server, "PATCH", "/v1/keys/key_1", same))["name"] == "renamed"
