"""Workers on one data directory: whichever is asked, the one that owns the vault answers, and nobody can tell."""

from __future__ import annotations

import stat
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from models.server_settings import ServerSettings
from models.settings import LimitSettings
from router import forwarding
from router.forwarding import CALLER, EPOCH, OWN_HEADERS, OWNER, TOKEN
from router.worker_link import AccountMade, Drained, Opened, Renew, Serving, socket_path
from tests.fakes.certificates import SelfSigned
from tests.fakes.provider import FakeProvider, chat_events, gated, open_fake_provider, stream_script
from tests.patience import PATIENCE_S, wait_until
from tests.router.proxied import PATH, streamed
from tests.router.worker_house import SHARDS, House, open_house
from tests.running import Client, open_http, settings_for

WORKERS = range(2)


async def users(house: House, count: int = SHARDS) -> list[Client]:
    """So many users, whose vaults are in as many shards."""
    return [await house.at(0).other(f"user {number}") for number in range(count)]


async def test_every_worker_answers_for_every_user(tmp_path: Path) -> None:
    """By its own socket and by the port, and what one is told, the others know."""
    async with open_house(tmp_path / "data") as house, open_http(house.url) as http:
        for number, user in enumerate(await users(house)):
            for worker in WORKERS:
                await house.at(worker, user.key).ingest(f"fact {worker} of user {number} is remembered")
            for client in (*(house.at(worker, user.key) for worker in WORKERS), Client(http, user.key)):
                found = await client.contents("fact remembered")
                assert found == {f"fact {worker} of user {number} is remembered" for worker in WORKERS}


async def test_a_first_start_makes_one_account_and_a_later_one_none(tmp_path: Path) -> None:
    async with open_house(tmp_path / "data") as house:
        key = house.account
        said = [[type(message) for message in heard] for heard in house.heard]
        assert said == [[AccountMade, Opened, Serving], [Opened, Serving]]
    async with open_house(tmp_path / "data") as house:
        assert house.account == ""
        assert (await house.at(1, key).get("/v1/keys")).status_code == 200


async def test_streams_pass_from_worker_to_worker_piece_by_piece(tmp_path: Path) -> None:
    async with open_fake_provider() as provider:
        providers = settings_for(provider.settings()).providers
        async with open_house(tmp_path / "data", providers=providers) as house:
            for user in await users(house, 2):
                for worker in WORKERS:
                    await stream_through(house.at(worker, user.key), provider)
                assert await user.contents("dog called Rex") == {"my dog is called Rex", "Hello there."}


async def stream_through(client: Client, provider: FakeProvider) -> None:
    """A chat of which no piece is sent before the one ahead of it has arrived."""
    events = chat_events()
    gates = [trio.Event() for _ in events]
    provider.enqueue(stream_script(gated(events, gates)))
    request = client.http.stream(
        "POST", PATH, json=streamed("my dog is called Rex"), headers={"authorization": f"Bearer {client.key}"}
    )
    gates[0].set()
    received, seen = b"", 0
    async with request as reply:
        assert reply.status_code == 200
        async for piece in reply.aiter_raw():
            received += piece
            while seen < len(events) - 1 and received.startswith(b"".join(events[: seen + 1])):
                seen += 1
                gates[seen].set()
                if seen >= len(events) - 2:  # the end of a reply is held until the exchange is durable
                    gates[-1].set()
    assert received == b"".join(events)


async def test_what_only_workers_may_say_is_worth_nothing_from_others(tmp_path: Path) -> None:
    """On their own sockets, too: without the token a request there is one like any other."""
    async with open_house(tmp_path / "data") as house:
        forged = {TOKEN: "0" * 64, EPOCH: "1", CALLER: "k6NrZXk=", OWNER: "unix:worker-0.sock"}
        for user in await users(house):
            for worker in WORKERS:
                answer = await house.at(worker, user.key).get("/v1/memory/stats", headers=forged)
                assert answer.status_code == 200
                assert not OWN_HEADERS & {name.lower() for name in answer.headers}
                assert (await house.doors[worker].get("/v1/memory/stats", headers=forged)).status_code == 401


async def test_limits_and_hosts_are_those_of_one_server(tmp_path: Path) -> None:
    """Requests are counted where the vault is; a connection without an address counts, and fails, like any other."""
    limits = LimitSettings(
        requests_per_minute=1,
        requests_burst=5,
        failed_auth_per_minute=60,
        failed_auth_delay_ms=0,
        trusted_proxies=("127.0.0.0/8",),
    )
    server = ServerSettings(port=0, workers=2, allowed_hosts=("memory.example.org",), connections_per_address_max=1)
    named = {"host": "memory.example.org", "x-forwarded-for": "192.0.2.7"}
    async with open_house(tmp_path / "data", limits=limits, server=server) as house:
        assert (await house.at(0).get("/v1/memory/stats")).status_code == 421
        for worker in WORKERS:
            assert (await house.at(worker, "mk_nobody").get("/v1/memory/stats", headers=named)).status_code == 401
        answers = [await house.at(worker).get("/v1/memory/stats", headers=named) for worker in (0, 1) * 4]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3


async def test_a_key_that_is_revoked_by_one_worker_opens_nothing_at_the_others(tmp_path: Path) -> None:
    async with open_house(tmp_path / "data") as house:
        for worker in WORKERS:
            created = (await house.at(worker).post("/v1/keys", {"name": "short lived"})).json()
            for each in WORKERS:
                await house.at(each, created["key"]).ingest("This will be gone.")
            gone = await house.at(1 - worker).delete(f"/v1/keys/{created['id']}?vault=delete")
            assert gone.status_code == 200
            for each in WORKERS:
                while (await house.at(each, created["key"]).get("/v1/memory/stats")).status_code != 401:
                    await trio.lowlevel.checkpoint()


async def test_a_worker_that_is_away_is_waited_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its vaults answer 503 when it does not come back in time; all others never notice."""
    async with open_house(tmp_path / "data") as house:
        both = await users(house, 2)
        monkeypatch.setattr(forwarding, "COMING_WAIT_S", 0.05)
        await house.tell_alive(0)
        answers = [await house.at(0, user.key).get("/v1/memory/stats") for user in both]
        assert sorted(answer.status_code for answer in answers) == [200, 503]
        (refused,) = [answer for answer in answers if answer.status_code == 503]
        assert "retry-after" in refused.headers
        ready = (await house.doors[0].get("/readyz")).json()
        assert ready["status"] == "ready"
        assert ready["degraded"].keys() == {"workers"}

        (away,) = [user for user, answer in zip(both, answers, strict=True) if answer is refused]
        monkeypatch.setattr(forwarding, "COMING_WAIT_S", PATIENCE_S)
        later: list[httpx.Response] = []

        async def ask() -> None:
            later.append(await house.at(0, away.key).get("/v1/memory/stats"))

        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            await wait_all_tasks_blocked(0.01)
            await house.tell_alive(0, 1)
        assert later[0].status_code == 200


async def test_a_worker_reads_its_certificate_again_when_it_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """TLS is for the port: among themselves workers speak without it."""
    certificate = SelfSigned(tmp_path)
    server = ServerSettings(
        port=0,
        workers=2,
        tls_certificate_file=str(certificate.certificate),
        tls_key_file=str(certificate.key),
    )
    caplog.set_level("INFO")
    async with open_house(tmp_path / "data", server=server) as house:
        for user in await users(house):
            assert [(await house.at(worker, user.key).stats())["memories"] for worker in WORKERS] == [0, 0]
        for link in house.links:
            link.send_nowait(Renew())
        await wait_until(lambda: caplog.messages.count("certificate_renewed") == len(WORKERS))


async def test_nobody_closes_before_the_others_have_finished(tmp_path: Path) -> None:
    """A stream that passes through a worker ends as it should, although its owner had no client of its own."""
    async with open_fake_provider() as provider:
        providers = settings_for(provider.settings()).providers
        async with open_house(tmp_path / "data", providers=providers) as house, open_http(house.url) as http:
            chatters = await users(house)  # of some the vault is not the worker's that takes the connection
            events = chat_events()
            gates = [[trio.Event() for _ in events] for _ in chatters]
            replies: list[bytes] = []

            async def chat(user: Client, began: trio.Event) -> None:
                headers = {"authorization": f"Bearer {user.key}"}
                async with http.stream("POST", PATH, json=streamed("Until the end?"), headers=headers) as reply:
                    pieces = reply.aiter_raw()
                    received = await anext(pieces)
                    began.set()
                    async for piece in pieces:
                        received += piece
                    replies.append(received)

            async with trio.open_nursery() as chatting:
                for user, own in zip(chatters, gates, strict=True):
                    provider.enqueue(stream_script(gated(events, own)))
                    own[0].set()
                    began = trio.Event()
                    chatting.start_soon(chat, user, began)
                    await began.wait()
                house.stop()
                await wait_all_tasks_blocked(0.01)
                for own in gates:
                    for gate in own:
                        gate.set()
            assert replies == [b"".join(events)] * SHARDS
            for worker in WORKERS:
                await house.wait_said(worker, Drained)
            assert not any(ended.is_set() for ended in house.ended), "the parent has not hung up"
            for link in house.links:
                link.hang_up()
            for ended in house.ended:
                await ended.wait()
            assert not list((tmp_path / "data").glob("*.sock"))


async def test_a_worker_whose_parent_is_gone_ends_by_itself(tmp_path: Path) -> None:
    async with open_house(tmp_path / "data") as house:
        path = socket_path(tmp_path / "data", 1)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (tmp_path / "data" / "admin.sock").exists()
        for link in house.links:
            link.hang_up()
        for ended in house.ended:
            await ended.wait()
        assert not list((tmp_path / "data").glob("*.sock"))


async def test_nobody_hands_connections_over_once_the_end_has_begun(tmp_path: Path) -> None:
    """What is on its way to a worker when that closes would be lost."""
    async with open_house(tmp_path / "data") as house:
        first = house.workers[0]
        assert [first.other_owner(part) for part in range(SHARDS)] == [None, 1, None, 1]
        house.stop()
        await first.wait_stop()
        assert [first.other_owner(part) for part in range(SHARDS)] == [None] * SHARDS
