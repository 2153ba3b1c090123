"""What happens to a cluster under load. Each strikes, waits until the cluster has recovered, and leaves it whole."""

from __future__ import annotations

import random
import signal
from collections.abc import Awaitable, Callable

import trio

from tests.campaigns.cluster.crowd import STALE, Crowd
from tests.campaigns.cluster.field import NAMES, Field
from tests.campaigns.moments import LONG, pass_time
from tests.patience import PATIENCE_S
from tests.running import user

FREEZE_S = 8.0 if LONG else 4.0
"""Longer than a lease."""
OUTAGE_S = 3.0 if LONG else 1.5

Nemesis = Callable[[Field, Crowd, random.Random], Awaitable[None]]


async def kill_a_node(field: Field, _: Crowd, random_: random.Random) -> None:
    """kill -9, and a start on the same data directory once the others have all."""
    name = random_.choice(NAMES)
    await field.end(name, how=signal.SIGKILL)
    await field.wait_taken(name, "node killed")
    await field.start(name)
    await field.wait_owned(*NAMES)


async def freeze_a_node(field: Field, _: Crowd, random_: random.Random) -> None:
    """SIGSTOP for longer than its lease; then it goes on where it was, and finds that it owns nothing any more."""
    node = field.nodes[random_.choice(NAMES)]
    with trio.CancelScope() as thawed:
        thawed.deadline = trio.current_time() + FREEZE_S
        node.strike(signal.SIGSTOP)
        await field.wait_taken(node.name, "node frozen")
        await trio.sleep_forever()
    node.strike(signal.SIGCONT)
    await field.wait_owned(*NAMES)


async def freeze_a_node_for_ever(field: Field, _: Crowd, random_: random.Random) -> None:
    """SIGSTOP, and nobody ever wakes it."""
    name = random_.choice(NAMES)
    field.nodes[name].strike(signal.SIGSTOP)
    await field.wait_taken(name, "node frozen for ever")
    await pass_time(1.0)
    await field.end(name, how=signal.SIGKILL)
    await field.start(name)
    await field.wait_owned(*NAMES)


async def kill_postgres(field: Field, crowd: Crowd, _: random.Random) -> None:
    """kill -9 of the database. What is in memory can be read meanwhile, marked as stale; nothing is acknowledged."""
    await _wait_told(crowd)  # vaults are in memory, and keys are known
    await trio.to_thread.run_sync(field.postgres.kill)
    told = crowd.tally["told"]
    with trio.fail_after(PATIENCE_S):
        while not await _answers_stale(field, crowd):
            await pass_time(0.1)
    told_late = crowd.tally["told"] - told
    await pass_time(OUTAGE_S / 3)
    assert crowd.tally["told"] - told == told_late, "a fact was acknowledged without a database"
    await trio.to_thread.run_sync(field.postgres.start)
    await field.wait_owned(*NAMES)
    await _wait_told(crowd)


async def _answers_stale(field: Field, crowd: Crowd) -> bool:
    """Whether some vault can be read although the database is gone."""
    for key in crowd.keys.values():
        for node in field.nodes.values():
            with trio.move_on_after(2.0):
                answer = await crowd.at(node, key).post("/v1/memory/search", {"query": "violin"})
                if answer.status_code == 200 and STALE in answer.headers:
                    write = await crowd.at(node, key).post("/v1/memory/ingest", {"messages": [user("A late fact.")]})
                    assert write.status_code == 503, write.text
                    return True
    return False


async def cut_the_line(field: Field, _: Crowd, random_: random.Random) -> None:
    """One node loses the database, which tells it so: connections break, and new ones are refused."""
    field.line.refuses = True
    await field.line.cut()
    await field.wait_taken(NAMES[-1], "line cut")
    await field.line.heal()
    await field.wait_owned(*NAMES)


async def silence_the_line(field: Field, _: Crowd, random_: random.Random) -> None:
    """The same without a word: connections stay open, and nothing comes back."""
    field.line.silent = True
    await field.wait_taken(NAMES[-1], "line silent")
    await pass_time(random_.uniform(0.0, OUTAGE_S))
    await field.line.heal()
    await field.wait_owned(*NAMES)


async def slow_the_line(field: Field, crowd: Crowd, random_: random.Random) -> None:
    """Every message takes its time, and now and then all connections break in the middle of something."""
    field.line.delay_s = random_.uniform(0.01, 0.05)
    for _ in range(4):
        await pass_time(OUTAGE_S / 6)
        await field.line.cut()
    await field.line.heal()
    await field.wait_owned(*NAMES)
    await _wait_told(crowd)


async def promote_the_standby(field: Field, crowd: Crowd, _: random.Random) -> None:
    """kill -9 of the database, which never comes back; its synchronous standby takes its place."""
    assert field.standby is not None
    await trio.to_thread.run_sync(field.postgres.kill)
    await trio.to_thread.run_sync(field.standby.promote)
    await field.wait_owned(*NAMES)
    await _wait_told(crowd)


async def _wait_told(crowd: Crowd) -> None:
    """Wait until facts are acknowledged again."""
    told = crowd.tally["told"]
    with trio.fail_after(PATIENCE_S):
        while crowd.tally["told"] < told + len(crowd.keys):
            await pass_time(0.05)


NEMESES: tuple[Nemesis, ...] = (
    kill_a_node,
    freeze_a_node,
    freeze_a_node_for_ever,
    kill_postgres,
    cut_the_line,
    silence_the_line,
    slow_the_line,
)
