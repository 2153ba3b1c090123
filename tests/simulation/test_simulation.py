"""The whole system under random clients and random bad luck, over several lives; the model is a dictionary.

Deterministic: a failure prints its seed, and `pytest tests/simulation --first-seed SEED --seeds 1` repeats it exactly.
`--seeds N` or MEMORYROUTER_TEST_LONG=1 runs more of them.
"""

from __future__ import annotations

import logging
import random

import pytest
import trio
import trio.testing

from actors import slices
from tests.campaigns.load import story
from tests.simulation.people import Person
from tests.simulation.world import NAMES, CrashLog, Life, World, weather

LIVES = 4
DOINGS_MAX = 14
PEOPLE_PER_VAULT = 2


@pytest.fixture(autouse=True)
def seeded_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would differ between two runs: Trio's order of ready tasks, and slices that end by the processor's clock."""
    monkeypatch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr(slices, "SLICE_S", -1.0)  # every slice ends at once: the most interleavings


def simulate(seed: int) -> World:
    """One run from its seed."""
    trio._core._run._r.seed(seed)
    world, log = World(seed), CrashLog()
    logging.getLogger("actors").addHandler(log)
    try:
        trio.run(run_lives, world, log, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        logging.getLogger("actors").removeHandler(log)
    return world


async def run_lives(world: World, log: CrashLog) -> None:
    for number in range(LIVES):
        async with world.open_life() as life:
            log.crashes = log.poisonings = 0
            if number == 0:
                await world.settle_in(life)
            else:
                faults = await world.compare(life)
                assert not faults, f"after life {number}:{story(faults)}"
            await live(world, life, last=number == LIVES - 1)
            killed = life.ended.cancel_called  # then the store failed under the actors
            assert killed or log.crashes == log.poisonings, "an actor crashed by itself"
            if number == LIVES - 1:
                await world.check_quiet(life)
                faults = await world.compare(life)
                assert not faults, f"at the end:{story(faults)}"


async def live(world: World, life: Life, *, last: bool) -> None:
    """Let people and weather loose; then it closes properly, or crashes in the middle of everything."""
    random_ = random.Random(world.random.random())
    with life.ended:
        async with trio.open_nursery() as everything:
            everything.start_soon(life.supervisor.resume)
            everything.start_soon(weather, world, life, random.Random(random_.random()))
            if not last and random_.random() < 0.7:
                life.acknowledgements_left = random_.choice((-1, random_.randrange(1, 60)))
                everything.start_soon(crash_after, random_.choice((0.1, 1.0, 5.0, 20.0)) * random_.random(), life)
            async with trio.open_nursery() as people:
                for name in NAMES * PEOPLE_PER_VAULT:
                    person = Person(world, life, name, random.Random(random_.random()))
                    people.start_soon(person.live, DOINGS_MAX)
            everything.cancel_scope.cancel(reason="everybody has gone")
    world.note("crashed" if life.ended.cancel_called else "closed")
    life.store.release_commits()


async def crash_after(seconds: float, life: Life) -> None:
    """Be killed at some moment, if not with an acknowledgement before."""
    await trio.sleep(seconds)
    life.crash()


def test_nothing_is_lost_doubled_mixed_up_or_held(simulation_seed: int) -> None:
    world = simulate(simulation_seed)

    assert world.trace, "something happened"


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_gives_the_same_run(seed: int) -> None:
    assert simulate(seed).trace == simulate(seed).trace
