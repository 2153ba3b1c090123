"""Several workers on one data directory under load, while processes of the server are killed: nothing acknowledged is
lost, nothing is doubled, nobody sees what is another's; and what one worker revokes or deletes is gone at all of them.

Each cycle starts the server on the same directory, compares every vault with what clients were promised, kills workers
under load, and ends the server in one of several ways. MEMORYROUTER_TEST_LONG=1 makes it many cycles;
MEMORYROUTER_TEST_SEED repeats a run's choices, though not the scheduling of processes.
"""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import trio

from tests.campaigns.cluster.test_cluster import eventually_empty
from tests.campaigns.echo_provider import open_echo_provider
from tests.campaigns.load import Load, story
from tests.campaigns.moments import LONG, cycles, dice, new_seed, pass_time
from tests.campaigns.test_kill9 import CLIENTS, ERASED, environment
from tests.campaigns.workers.crew import Crew, open_crew
from tests.patience import PATIENCE_S
from tests.router.dashboard.browsing import Browser, sign_in
from tests.router.exposition import samples
from tests.running import Client, object_of, user

WORKERS = 2
SHARDS = 5
"""With three workers each of two has two of them."""
STEP = 40
"""Acknowledgements between two strikes."""
FREEZE_S = 14.0
"""Longer than the parent takes to notice that a worker is silent."""

End = Callable[[Crew, random.Random], Awaitable[set[int]]]
"""Ends a server under load; the exit codes that it may have."""


def crew_environment(provider_url: str) -> dict[str, str]:
    """As of one process, with shards for all workers."""
    return {**environment(provider_url), "MEMORYROUTER_STORE__SHARDS": str(SHARDS)}


async def kill_the_parent(crew: Crew, _: random.Random) -> set[int]:
    """Its workers are left alone, and end when they have done what they were asked for."""
    crew.server.signal(signal.SIGKILL)
    return {-signal.SIGKILL}


async def kill_all(crew: Crew, _: random.Random) -> set[int]:
    """All processes, as one does who ends a container, or a machine that runs out of memory."""
    crew.kill_all_nowait()
    return {-signal.SIGKILL}


async def terminate(crew: Crew, _: random.Random) -> set[int]:
    """SIGTERM to the parent."""
    crew.server.signal(signal.SIGTERM)
    return {0}


async def terminate_while_a_worker_dies(crew: Crew, random_: random.Random) -> set[int]:
    """The same, and one of the workers does not live to see the end, which the exit code tells."""
    crew.server.signal(signal.SIGTERM)
    await pass_time(random_.uniform(0, 0.05))
    crew.strike(random_.randrange(crew.workers))
    return {0, 1}


async def kill_the_parent_while_a_worker_begins(crew: Crew, random_: random.Random) -> set[int]:
    """One worker is killed, the parent while it starts that one again: half a worker must not hold the directory."""
    deaths = crew.deaths()
    crew.strike(random_.randrange(crew.workers))
    await crew.wait(lambda: crew.deaths() > deaths)
    await pass_time(random_.uniform(0, 0.6))
    return await kill_the_parent(crew, random_)


ENDS: tuple[End, ...] = (
    kill_the_parent,
    terminate,
    kill_all,
    terminate_while_a_worker_dies,
    kill_the_parent_while_a_worker_begins,
)
ENDS_SHORT = 3
"""Of them in every run."""


class Acknowledgements:
    """Counts them, and lets who wants wait for some more."""

    def __init__(self) -> None:
        self.count = 0

    def one_more(self) -> None:
        self.count += 1

    async def wait_more(self, crew: Crew, count: int) -> None:
        wanted = self.count + count
        await crew.wait(lambda: self.count >= wanted)


async def strike_workers(crew: Crew, seen: Acknowledgements, random_: random.Random) -> None:
    """kill -9 of a worker, of all of them at once, and in long runs a worker that stands still for a while."""
    everybody = range(crew.workers)
    strikes: list[Callable[[], Awaitable[None]]] = [lambda: crew.kill(random_.choice(everybody))]
    if LONG:
        strikes += [lambda: crew.kill(*everybody), lambda: crew.freeze(random_.choice(everybody), FREEZE_S)]
        random_.shuffle(strikes)
    for strike in strikes:
        await seen.wait_more(crew, random_.randrange(STEP))
        await strike()


async def cycle(crew: Crew, load: Load, number: int, end: End) -> None:
    """Let clients work, strike, and end the server."""
    random_, seen = dice(load.seed, number, "strikes"), Acknowledgements()
    async with trio.open_nursery() as clients:

        async def work() -> None:
            await load.run(crew.url, cycle=number, clients=CLIENTS, on_acknowledged=seen.one_more)

        clients.start_soon(work)
        await seen.wait_more(crew, STEP)
        await strike_workers(crew, seen, random_)
        await seen.wait_more(crew, random_.randrange(STEP))
        codes = await end(crew, random_)
        code = await crew.server.wait()
        assert code in codes, f"seed {load.seed}, cycle {number}, {end.__name__}: {code}; {crew.server.log[-9:]}"
    load.model.restart()


async def test_nothing_acknowledged_is_lost_whichever_process_is_killed(tmp_path: Path) -> None:
    seed, load = new_seed(), None
    count = cycles(ENDS_SHORT, 100)
    async with open_echo_provider() as provider_url:
        for number in range(count + 1):
            async with open_crew(tmp_path / "data", WORKERS, environment=crew_environment(provider_url)) as crew:
                load = load or Load(seed, account_key=crew.server.account_key)
                faults = await load.verify(crew.url)
                assert not faults, f"seed {seed}, before cycle {number}:{story(faults)}"
                if number < count:
                    await cycle(crew, load, number, ENDS[number % len(ENDS)])
            complaints = [entry for entry in crew.complaints() if not entry.items() >= ERASED.items()]
            assert not complaints, f"seed {seed}, cycle {number}: {complaints[:5]}"
    assert load is not None
    print(f"seed {seed}: {dict(load.acknowledged)}, {dict(load.model.counters)}")


@asynccontextmanager
async def each_worker(crew: Crew, key: str) -> AsyncIterator[list[Client]]:
    """The holder of a key at every worker."""
    async with AsyncExitStack() as stack:
        yield [Client(await stack.enter_async_context(crew.at(worker)), key) for worker in range(crew.workers)]


async def test_what_one_worker_does_holds_at_all_of_them(tmp_path: Path) -> None:
    async with (
        open_echo_provider() as provider_url,
        open_crew(tmp_path / "data", 3, environment=crew_environment(provider_url)) as crew,
    ):
        async with each_worker(crew, crew.server.account_key) as accounts:
            for place in range(len(accounts)):
                await revoked_and_deleted(accounts, place)
            await seen_through_the_dashboard(accounts)
        await crew.kill(0)
        async with each_worker(crew, crew.server.account_key) as accounts:
            await shown_in_metrics(accounts, restarts=[1, 0, 0])
            await dashboard_is_back(accounts)
        crew.server.signal(signal.SIGTERM)
        assert await crew.server.wait() == 0
        assert not crew.complaints()


async def revoked_and_deleted(accounts: list[Client], place: int) -> None:
    """A key that one worker mints and another revokes, and a vault that a third one empties."""
    minting, emptying, revoking = (accounts[(place + step) % len(accounts)] for step in range(3))
    created = object_of(await minting.post("/v1/keys", {"name": f"short lived {place}"}))
    holders = [Client(account.http, created["key"]) for account in accounts]
    for holder in holders:  # a new key works at once, whoever is asked
        assert await holder.contents("violin") == set()
    await holders[place].ingest("the violin is in the attic")
    for holder in holders:
        assert await holder.contents("violin") == {"the violin is in the attic"}
    assert (await Client(emptying.http, created["key"]).delete()).status_code == 200
    began_s = trio.current_time()
    for holder in holders:
        await eventually_empty(holder)
    print(f"emptied everywhere within {trio.current_time() - began_s:.3f} s")
    await holders[place].ingest("the violin is in the cellar")
    answer = await revoking.delete(f"/v1/keys/{created['id']}?vault=delete")
    assert answer.status_code == 200, answer.text
    began_s = trio.current_time()
    with trio.fail_after(PATIENCE_S):
        for holder in holders:
            while (await holder.get("/v1/memory/stats")).status_code != 401:
                await pass_time(0.005)
    print(f"revoked everywhere within {trio.current_time() - began_s:.3f} s")


async def seen_through_the_dashboard(accounts: list[Client]) -> None:
    """One session at all workers, with vaults that are anywhere, and what chats did there with memory."""
    browser = await sign_in(accounts[1])
    for number in range(SHARDS):
        account = accounts[number % len(accounts)]
        at = Browser(account.http, browser.token, browser.session)
        created = await at.done("POST", "v1/keys", {"name": "a user"}, status=201)
        vault = created["vault_id"]
        await Client(account.http, created["key"]).ingest("The piano is out of tune.")
        chat = {"model": "openai/m", "messages": [user("Is the piano out of tune?")]}
        answer = await at.ask("POST", "v1/chat/completions", chat, vault=vault)
        assert answer.status_code == 200, answer.text
        seen = await at.done("GET", f"requests/{answer.headers['x-request-id']}")
        assert (seen["vault_id"], seen["status"], seen["stored_status"]) == (vault, "ok", "stored")
        assert "The piano is out of tune." in seen["block"]
        assert seen["messages_stored"][0]["content"] == "Is the piano out of tune?"
    shown = await browser.done("GET", "cluster")
    assert [worker["shards"] for worker in shown["workers"]] == [[0, 3], [1, 4], [2]]
    assert (await browser.done("GET", "overview"))["requests"]["total"] >= 3 * SHARDS


async def shown_in_metrics(accounts: list[Client], *, restarts: list[int]) -> None:
    """Every worker shows all of them, as soon as each has heard who serves."""
    workers = range(len(accounts))
    for account in accounts:
        with trio.fail_after(PATIENCE_S):
            while True:
                page = samples((await account.get("/metrics")).text)
                up = [page[f'memoryrouter_worker_up{{worker="{worker}"}}'] for worker in workers]
                again = [page[f'memoryrouter_worker_restarts_total{{worker="{worker}"}}'] for worker in workers]
                if up == [1] * len(accounts) and again == restarts:
                    break
                await pass_time(0.05)
        written = {name for name in page if name.startswith("memoryrouter_store_commits_total{") and "shard" in name}
        assert written == {
            f'memoryrouter_store_commits_total{{worker="{shard % len(accounts)}",file="shard-{shard}"}}'
            for shard in range(SHARDS)
        }


async def dashboard_is_back(accounts: list[Client]) -> None:
    """With the worker that it lives in; its sessions are over."""
    with trio.fail_after(PATIENCE_S):
        while True:
            answer: httpx.Response = await accounts[2].get("/dashboard", key="")
            if answer.status_code == 200:
                break
            assert answer.status_code == 503
            await pass_time(0.05)
    browser = await sign_in(accounts[1])
    assert (await browser.ask("GET", "v1/keys")).status_code == 200
