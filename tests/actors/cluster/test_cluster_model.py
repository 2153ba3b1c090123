"""Nodes come, go, die, freeze and come back at random, by clocks that run at different speeds: never do two of them own
one partition at the same time.

`MEMORYROUTER_TEST_LONG=1` goes on for longer and with more seeds; a failure names its seed.
"""

from __future__ import annotations

import os
import random
from itertools import count
from pathlib import Path

import pytest
import trio

from actors.cluster.membership import machine_clock
from tests.actors.cluster.house import PARTS, NodeInTest, rows, wait_settled

LONG = bool(os.environ.get("MEMORYROUTER_TEST_LONG"))
SEEDS = range(20) if LONG else range(2)
STEPS = 40 if LONG else 8
NODES_MAX = 4
TTL_S = 0.6
CLOCK_SPEEDS = (0.9, 1.0, 1.1)
"""Far more than real clocks differ, and less than the margin of a lease."""


class Campaign:
    """The nodes that live, and what is watched meanwhile."""

    def __init__(self, url: str, folder: Path, seed: int, tasks: trio.Nursery) -> None:
        self.url = url
        self.random = random.Random(seed)
        self.living: list[NodeInTest] = []
        self.everybody: list[NodeInTest] = []
        self.epochs = [0] * PARTS
        self.looks = 0
        self._folder = folder
        self._tasks = tasks
        self._names = count()

    async def step(self) -> str:
        """Do something; what it was."""
        kinds = ["join"] * (len(self.living) < NODES_MAX) + ["leave", "kill", "freeze", "thaw"] * (len(self.living) > 1)
        kind = self.random.choice(kinds)
        if kind == "join":
            await self.join()
            return kind
        node = self.random.choice(self.living)
        if kind == "freeze":
            node.gate.freeze()
        elif kind == "thaw":
            node.gate.thaw()
        else:
            self.living.remove(node)
            node.gate.thaw()
            await (node.leave() if kind == "leave" else node.kill())
        return f"{kind} {node.name}"

    async def join(self) -> None:
        """One node more."""
        speed = self.random.choice(CLOCK_SPEEDS)
        node = NodeInTest(
            f"n{next(self._names)}", self.url, self._folder, ttl_s=TTL_S, clock=lambda: machine_clock() * speed
        )
        node.on_acquired = lambda part: self.check_part(part, node)
        await self._tasks.start(node.run)
        self.living.append(node)
        self.everybody.append(node)

    async def watch(self) -> None:
        """Look at all partitions of all nodes, also of dead ones, as often as there is time."""
        while True:
            for part in range(PARTS):
                for node in self.everybody:
                    self.check_part(part, node)
            self.looks += 1
            await trio.lowlevel.checkpoint()

    def check_part(self, part: int, node: NodeInTest) -> None:
        """Nobody else owns it while this node does. Whoever did before and after the other did so meanwhile, too."""
        epoch = node.owns(part)
        if epoch is None:
            return
        for other in self.everybody:
            theirs = other.owns(part) if other is not node else None
            if theirs is not None and node.owns(part) == epoch:
                raise AssertionError(f"{part} is owned by {node.name} ({epoch}) and {other.name} ({theirs})")
        assert epoch >= self.epochs[part], f"the epoch of {part} went back"
        self.epochs[part] = epoch


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_two_nodes_ever_own_a_partition_at_once(cluster_url: str, tmp_path: Path, seed: int) -> None:
    async with trio.open_nursery() as tasks:
        campaign = Campaign(cluster_url, tmp_path, seed, tasks)
        await campaign.join()
        tasks.start_soon(campaign.watch)
        done = []
        for _ in range(STEPS):
            done.append(await campaign.step())
            looks = campaign.looks + campaign.random.choice((1, 200, 2_000))
            while campaign.looks < looks:
                await trio.lowlevel.checkpoint()
        for node in campaign.living:
            node.gate.thaw()
        await wait_settled(*campaign.living)
        owned = {part: epoch for node in campaign.living for part, epoch in node.owned().items()}
        assert [(part, epoch) for part, _, epoch in rows(cluster_url)] == sorted(owned.items()), done
        for node in campaign.living:
            await node.leave()
        tasks.cancel_scope.cancel()
