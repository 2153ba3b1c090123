"""Servers on one database: whichever is asked, the one that owns the vault answers, and nobody can tell."""

from __future__ import annotations

from pathlib import Path

import trio

from models.settings import LimitSettings
from router.forwarding import CALLER, EPOCH, OWN_HEADERS, OWNER, TOKEN
from tests.fakes.provider import chat_events, gated, open_fake_provider, stream_script
from tests.patience import PATIENCE_S
from tests.router.dashboard.browsing import sign_in
from tests.router.nodes import PARTS, at, open_node, open_nodes, users, wait_spread
from tests.router.proxied import PATH, streamed
from tests.running import Client, object_of, open_reply, settings_for


async def test_every_node_answers_for_every_user(tmp_path: Path, postgres_url: str) -> None:
    async with open_nodes(tmp_path, postgres_url, "a", "b", "c") as nodes:
        for number, user in enumerate(await users(nodes[0], PARTS)):
            for place, node in enumerate(nodes):
                await at(node, user).ingest(f"fact {place} of user {number} is remembered")
            for node in nodes:
                found = await at(node, user).contents("fact remembered")
                assert found == {f"fact {place} of user {number} is remembered" for place in range(3)}


async def test_streams_pass_unbuffered_and_are_stored_by_the_owner(tmp_path: Path, postgres_url: str) -> None:
    async with open_fake_provider() as provider:
        providers = settings_for(provider.settings()).providers
        async with open_nodes(tmp_path, postgres_url, "a", "b", providers=providers) as nodes:
            for user in await users(nodes[0], 4):
                for node in nodes:
                    events = chat_events()
                    gates = [trio.Event() for _ in events]
                    provider.enqueue(stream_script(gated(events, gates)))
                    received = b""
                    async with open_reply(at(node, user), PATH, streamed("my dog is called Rex")) as reply:
                        for event, gate in zip(events, gates, strict=True):
                            gate.set()  # what the provider has not sent cannot arrive
                            while len(received) < len(event) and gate is not gates[-1]:
                                received += await reply.next_data()
                            received = received[len(event) :] if gate is not gates[-1] else received
                        while piece := await reply.next_data():
                            received += piece
                    assert reply.status == 200
                assert await at(nodes[0], user).contents("dog called Rex") == {"my dog is called Rex", "Hello there."}


async def test_a_file_for_a_provider_stays_where_it_came(tmp_path: Path, postgres_url: str) -> None:
    """It needs no vault, and may be larger than what one node would hold for another."""
    async with open_fake_provider() as provider:
        providers = settings_for(provider.settings()).providers
        async with open_nodes(tmp_path, postgres_url, "a", "b", providers=providers) as nodes:
            for user in await users(nodes[0], 4):
                for node in nodes:
                    answer = await node.http.post(
                        "/v1/audio/transcriptions",
                        data={"model": "openai/whisper-1"},
                        files={"file": ("a.wav", b"RIFF")},
                        headers={"authorization": f"Bearer {user.key}"},
                    )
                    assert answer.status_code == 200
                    assert answer.headers["x-upstream-request-id"] == "req-1", "the provider's, not another node's"


async def test_limits_are_those_of_one_server_however_requests_are_spread(tmp_path: Path, postgres_url: str) -> None:
    limits = LimitSettings(requests_per_minute=1, requests_burst=5)
    async with open_nodes(tmp_path, postgres_url, "a", "b") as plain:
        pairs = [(node, user) for user in await users(plain[0], 4) for node in plain]
        key = plain[0].key
    async with (
        open_node(tmp_path, "a", postgres_url, key=key, limits=limits) as first,
        open_node(tmp_path, "b", postgres_url, key=key, limits=limits) as second,
    ):
        await wait_spread(postgres_url, 2)
        for _, user in pairs[::2]:
            answers = [await at(node, user).get("/v1/memory/stats") for node in (first, second) * 4]
            assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3


async def test_what_only_nodes_may_say_is_worth_nothing_from_clients(tmp_path: Path, postgres_url: str) -> None:
    async with open_nodes(tmp_path, postgres_url, "a", "b") as nodes:
        forged = {TOKEN: "0" * 64, EPOCH: "1", CALLER: "k6NrZXk=", OWNER: "127.0.0.1:1"}
        for user in await users(nodes[0], 4):
            for node in nodes:
                answer = await at(node, user).get("/v1/memory/stats", headers=forged)
                assert answer.status_code == 200
                assert not OWN_HEADERS & {name.lower() for name in answer.headers}
                nobody = await node.http.get("/v1/memory/stats", headers=forged)
                assert nobody.status_code == 401


async def test_a_revoked_key_opens_nothing_on_any_node(tmp_path: Path, postgres_url: str) -> None:
    async with open_nodes(tmp_path, postgres_url, "a", "b") as nodes:
        created = object_of(await nodes[0].post("/v1/keys", {"name": "short lived"}))
        user = Client(nodes[0].http, created["key"])
        for node in nodes:
            assert (await at(node, user).get("/v1/memory/stats")).status_code == 200
        answer = await nodes[1].delete(f"/v1/keys/{created['id']}?vault=delete")
        assert answer.status_code == 200
        with trio.fail_after(PATIENCE_S):
            for node in nodes:
                while (await at(node, user).get("/v1/memory/stats")).status_code != 401:
                    await trio.lowlevel.checkpoint()


async def test_the_dashboard_of_one_node_shows_vaults_of_all(tmp_path: Path, postgres_url: str) -> None:
    async with open_nodes(tmp_path, postgres_url, "a", "b") as nodes:
        browser = await sign_in(nodes[0])
        for number in range(4):
            created = object_of(await nodes[0].post("/v1/keys", {"name": f"user {number}"}))
            await Client(nodes[0].http, created["key"]).ingest(f"secret {number}")
            listed = await browser.done("GET", "v1/memories", vault=created["vault_id"])
            assert [memory["content"] for memory in listed["memories"]] == [f"secret {number}"]
