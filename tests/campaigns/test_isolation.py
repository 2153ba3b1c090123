"""No reply, and nothing that a provider is sent, ever holds what its key may not see: a long property test over HTTP.

Many clients of many keys do everything at once that the API can do, owners and the operator do the same to keys,
vaults and accounts, and the server comes to sudden ends. Each text carries a canary; a ledger says who may see which
(`tests/campaigns/isolation/`). MEMORYROUTER_TEST_LONG=1 makes it a million retrievals, a larger number so many;
MEMORYROUTER_TEST_SEED repeats a run's choices, though not the order in which tasks and threads run.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import msgspec
import trio

from tests.campaigns.isolation.chats import Chatter
from tests.campaigns.isolation.houses import House, Open, open_inside, open_outside, start_of
from tests.campaigns.isolation.owners import Owner
from tests.campaigns.isolation.provider import open_canary_provider
from tests.campaigns.isolation.world import World
from tests.campaigns.moments import LONG, cycles, dice, new_seed
from tests.patience import PATIENCE_S

CLIENTS = 12
OWNERS = 2
RETRIEVALS = 10_000
RETRIEVALS_LONG = 1_000_000
PROCESS_RETRIEVALS = 400
PROCESS_RETRIEVALS_LONG = 50_000
PART = 1_500
"""Retrievals between two ends of the server, about."""

DONE = {
    "ingest", "upload", "store", "patch", "delete", "delete matching", "undo", "delete session", "empty", "chat",
    "mint", "rotate", "switch key", "expire", "delete key, keep", "delete key, delete", "reattach", "shred",
    "provider key", "reach out", "switch account", "delete account", "memories verified", "found again",
    "vaults left memory", "asked with the request's key", "asked with the account's key", "asked with the server's key",
}  # fmt: skip
"""What must have happened before a campaign is over."""

SEEN = {
    "search", "prepare", "list", "get", "export", "store", "tool loop", "sent to openai", "sent to anthropic",
    "sent to google", "sent to mistral", "models",
    *(f"{how} {wire}" for how in ("local", "chat") for wire in ("chat", "responses", "messages", "gemini")),
}  # fmt: skip
"""Kinds of replies in which canaries must have been seen, by those who may."""


async def campaign(
    data_dir: Path, world: World, house: House, *, retrievals: int, part: int = PART, kinds: bool = True
) -> None:
    """Start, verify, let everybody work, end the server: until so much was checked, or something leaks."""
    cycle = 0
    async with open_canary_provider(world.said) as provider_url:
        while not world.ledger.leaks:
            start = start_of(world.seed, cycle, provider_url)
            cycle += 1
            over = world.ledger.retrievals >= retrievals and (not kinds or not unseen(world))
            goal = world.ledger.retrievals + dice(world.seed, cycle).randrange(part // 2, part * 2)
            if world.ledger.retrievals < retrievals:
                goal = min(goal, retrievals)
            async with house(data_dir, start) as server:
                world.door, world.data_dir, world.strict = server.door, data_dir, start.strict
                await settle_in(world, server)
                await world.verify()
                if not over:
                    await work(world, server, cycle, goal)
            world.ledger.check("log", world.nothing(), msgspec.json.encode(list(server.log)))
            world.restart()
            if over:
                return


async def settle_in(world: World, server: Open) -> None:
    """The first account, and the others."""
    if server.account_key:
        world.add_account(server.account_key, key_id="", account_id="acct_1")
    owner = Owner(world, dice(world.seed, "first"))
    await owner.settle_in()
    for account in world.accounts:
        while len(account.vaults) < 3:
            await owner.populate(account, account.owners[0])


async def work(world: World, server: Open, cycle: int, goal: int) -> None:
    """Everybody at once, until so much was checked; then the server ends in the middle of it."""
    async with trio.open_nursery() as working:

        async def run(person: Chatter | Owner) -> None:
            try:
                await person.work()
            except (httpx.TransportError, trio.ClosedResourceError):
                assert ended, "the server has gone by itself"

        ended = False
        for number in range(CLIENTS):
            working.start_soon(run, Chatter(world, dice(world.seed, cycle, number)))
        for number in range(OWNERS):
            working.start_soon(run, Owner(world, dice(world.seed, cycle, "owner", number)))
        with trio.fail_after(PATIENCE_S + (goal - world.ledger.retrievals) / 5):
            await world.wait_checked(goal)
        ended = True
        server.end()
        working.cancel_scope.cancel(reason="this server has ended")


def unseen(world: World) -> set[str]:
    """What has not happened yet, or not been seen."""
    return (DONE - world.done.keys()) | (SEEN - (+world.ledger.seen).keys())


def report(world: World, name: str) -> None:
    """How much was checked, for the test's output."""
    ledger = world.ledger
    print(f"isolation {name}, seed {world.seed}: {ledger.retrievals} retrievals checked {dict(ledger.checked)}, "
          f"{ledger.seen.total()} canaries seen {dict(ledger.seen)}, {dict(world.done)}")  # fmt: skip


async def test_nobody_is_shown_what_is_not_theirs(tmp_path: Path) -> None:
    world = World(new_seed())

    try:
        await campaign(tmp_path / "data", world, open_inside(), retrievals=cycles(RETRIEVALS, RETRIEVALS_LONG))
    finally:
        report(world, "in-process")

    assert world.ledger.leaks == [], f"seed {world.seed}"
    assert not unseen(world), f"seed {world.seed}"


async def test_nobody_is_shown_what_is_not_theirs_by_a_process_that_is_killed(tmp_path: Path) -> None:
    world = World(new_seed())

    retrievals, part = (PROCESS_RETRIEVALS_LONG, PART) if LONG else (PROCESS_RETRIEVALS, PROCESS_RETRIEVALS // 2)
    try:
        await campaign(tmp_path / "data", world, open_outside, retrievals=retrievals, part=part, kinds=False)
    finally:
        report(world, "process")

    assert world.ledger.leaks == [], f"seed {world.seed}"
    assert world.done["memories verified"]
