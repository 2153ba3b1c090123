"""Three server processes on one PostgreSQL under load, while everything happens to them that can.

Nothing acknowledged is lost, doubled or another user's; what was acknowledged is found at every node; a streamed reply
that shows its end is whole, and stored; epochs and commit numbers never go back; every partition finds an owner again.
A few nemeses strike in each run; MEMORYROUTER_TEST_LONG=1 goes through all of them many times. MEMORYROUTER_TEST_SEED
repeats a run's choices, though not the scheduling of processes.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
import trio

from tests.campaigns.cluster.crowd import Crowd
from tests.campaigns.cluster.field import NAMES, Field, open_field
from tests.campaigns.cluster.nemeses import NEMESES, promote_the_standby
from tests.campaigns.echo_provider import open_echo_provider
from tests.campaigns.load import story
from tests.campaigns.moments import LONG, cycles, dice, new_seed, pass_time
from tests.patience import PATIENCE_S
from tests.postgres import PostgresServer, running_postgres
from tests.running import Client, object_of

TTL_S = 2.0
PIECE_S = 0.3
"""Between two pieces of a reply, of which there are about seven: longer than a vault that moves waits for its chats."""
NEMESES_SHORT = 3
"""Of them strike in a run that is to be short, before the standby is promoted; others the next time."""


@pytest.fixture
def pair() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A server that may be killed, and its synchronous standby."""
    with running_postgres() as server:
        standby = server.standby(server.folder / "standby", wal_retrieve_retry_interval="200ms")
        standby.start()
        server.wait_for_standbys()
        try:
            yield server, standby
        finally:
            standby.stop(signal.SIGQUIT)


@asynccontextmanager
async def open_providing_field(
    folder: Path, postgres: PostgresServer, *, ttl_s: float, standby: PostgresServer | None = None
) -> AsyncIterator[Field]:
    """Nodes with a provider, which takes its time: a reply is often under way when something happens."""
    async with open_echo_provider(piece_s=PIECE_S) as provider_url:
        provider = {"PROVIDERS__OPENAI__BASE_URL": provider_url, "PROVIDERS__OPENAI__API_KEY": "sk-echo"}
        async with open_field(folder, postgres, ttl_s=ttl_s, standby=standby, **provider) as field:
            yield field


async def settled(field: Field, crowd: Crowd, seed: int) -> None:
    """End all nodes in an orderly way, start them anew, and compare everything."""
    await field.end(*NAMES, how=signal.SIGTERM)
    crowd.chats.settle()
    await field.start(*NAMES)
    await field.wait_owned(*NAMES)
    faults = await crowd.verify(*field.nodes.values())
    assert not faults, f"seed {seed}:{story(faults)}"
    rows = await trio.to_thread.run_sync(rows_out_of_order, field.database)
    assert not rows, f"seed {seed}: rows of commits that never were: {rows}"


def rows_out_of_order(url: str) -> list[tuple[object, ...]]:
    """Rows of the inbox whose number is beyond the last commit of their partition."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT part, id, commits FROM inbox JOIN part USING (part) WHERE id >> 20 > commits"
        ).fetchall()


async def test_nothing_acknowledged_is_lost_whatever_happens(
    tmp_path: Path, pair: tuple[PostgresServer, PostgresServer]
) -> None:
    seed = new_seed()
    random_ = dice(seed, "nemeses")
    server, standby = pair
    async with open_providing_field(tmp_path, server, ttl_s=TTL_S, standby=standby) as field:
        crowd = Crowd(field, seed)
        await crowd.add_users()
        rounds = cycles(1, 20)
        for number in range(1, rounds + 1):
            nemeses = random_.sample(NEMESES, len(NEMESES) if LONG else NEMESES_SHORT)
            if number == rounds:
                nemeses.append(promote_the_standby)
            async with crowd.working():
                for nemesis in nemeses:
                    print(f"{trio.current_time():.1f} {nemesis.__name__}")
                    await nemesis(field, crowd, random_)
                    await pass_time(0.3)
            await settled(field, crowd, seed)
        await crowd.aclose()
    print(f"seed {seed}: {dict(crowd.tally)}, {crowd.chats.logged()}")


async def test_nodes_are_restarted_one_by_one_and_no_other_node_answers_with_an_error(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    seed = new_seed()
    async with open_providing_field(tmp_path, postgres_server, ttl_s=4.0) as field:
        crowd = Crowd(field, seed)
        await crowd.add_users()
        async with crowd.working(impatient=False):
            for name in NAMES * 10 if LONG else NAMES[1:]:
                crowd.troubles.clear()
                await field.end(name, how=signal.SIGTERM)
                await field.start(name)
                await field.wait_owned(*NAMES)
                elsewhere = [trouble for trouble in crowd.troubles if trouble[0] != name]
                assert not elsewhere, f"seed {seed}, {name} restarted: {elsewhere[:5]}"
                print(f"{name} restarted: {crowd.troubles[:5]}")
        faults = await crowd.verify(*field.nodes.values())
        assert not faults, f"seed {seed}:{story(faults)}"
        assert crowd.chats.finished
        assert not crowd.tally["torn"], f"seed {seed}: nodes that stopped did not finish chats"
        assert not crowd.chats.not_stored(), f"seed {seed}: chats whose vaults moved were not stored"
        await revoked_and_deleted_elsewhere(field, crowd)
        await crowd.aclose()
    print(f"seed {seed}: {dict(crowd.tally)}, {crowd.chats.logged()}")


async def revoked_and_deleted_elsewhere(field: Field, crowd: Crowd) -> None:
    """A key that one node revokes, and a vault that one node empties, while the vault lives at another."""
    nodes = list(field.nodes.values())
    for place, node in enumerate(nodes):
        account = crowd.at(node, field.account_key)
        created = object_of(await account.post("/v1/keys", {"name": f"short lived {place}"}))
        holder = [crowd.at(other, created["key"]) for other in nodes]
        await holder[place].ingest("the violin is in the attic")
        for at in holder:
            assert await at.contents("violin") == {"the violin is in the attic"}
        assert (await holder[place - 1].delete()).status_code == 200
        for at in holder:
            await eventually_empty(at)
        await holder[place].ingest("the violin is in the cellar")
        answer = await account.delete(f"/v1/keys/{created['id']}?vault=delete")
        assert answer.status_code == 200, answer.text
        began_s = trio.current_time()
        with trio.fail_after(PATIENCE_S):
            for at in holder:
                while (await at.get("/v1/memory/stats")).status_code != 401:
                    await pass_time(0.01)
        print(f"revoked everywhere within {trio.current_time() - began_s:.2f} s")


async def eventually_empty(client: Client) -> None:
    """Wait until a vault that was emptied is empty here, too; until then its node may ask to be asked again."""
    with trio.fail_after(PATIENCE_S):
        while True:
            answer: httpx.Response = await client.post("/v1/memory/search", {"query": "violin"})
            if answer.status_code == 200:
                assert object_of(answer)["memories"] == [], "a deleted memory was shown"
                return
            assert answer.status_code == 503, answer.text
            await pass_time(0.01)
