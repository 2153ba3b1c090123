"""What a request costs, counted in calls of Python functions: the same on every machine, however busy it is.

A bound that is passed says that a request has become dearer; one that is far away may be lowered. Counted are the calls
of all tasks between the request and the end of its reply, Trio's and the HTTP library's among them; the provider's own
are there as well, the same for all. Sockets, the interpreter's C code and waiting do not count: times are measured by
`bench.proxy`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
import trio

from tests.campaigns.in_process import Building, Request, open_building
from tests.patience import PATIENCE_S
from tests.running import user

CHAT = "/v1/chat/completions"
WARM_UP = 5

CALLS_MAX = {"off": 3_700, "on": 6_100}
"""Measured with Python 3.11, quart 0.22, trio 0.35 and h11 0.16, and a tenth above. Other versions differ a little."""


class Calls:
    """How many functions were called.

    Attributes:
        by_module: where they are.
    """

    def __init__(self) -> None:
        self.by_module: dict[str, int] = {}

    @property
    def count(self) -> int:
        return sum(self.by_module.values())

    def note(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            module = frame.f_globals.get("__name__", "?")
            self.by_module[module] = self.by_module.get(module, 0) + 1

    def dearest(self) -> str:
        """The modules with most calls, for whoever has to find out what has become dearer."""
        return _ordered(self.by_module)

    def by_package(self) -> str:
        """The packages with most calls."""
        packages: Counter[str] = Counter()
        for module, count in self.by_module.items():
            packages[module.partition(".")[0]] += count
        return _ordered(packages)


def _ordered(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count}" for name, count in ordered[:12])


@contextmanager
def counted() -> Iterator[Calls]:
    calls = Calls()
    before = sys.getprofile()
    sys.setprofile(calls.note)
    try:
        yield calls
    finally:
        sys.setprofile(before)


async def calls_of(building: Building, key: str, mode: str) -> Calls:
    """The fewest calls that one chat took, of a few; what is loaded once is loaded by then."""
    fewest: Calls | None = None
    for number in range(WARM_UP):
        body = {"model": "openai/m", "messages": [user(f"Say {number}.")], "memory_mode": mode}
        with counted() as calls, trio.fail_after(PATIENCE_S):
            answered = await building.call(Request(CHAT, key, body))
        assert answered.status == 200, answered.body
        if fewest is None or calls.count < fewest.count:
            fewest = calls
    assert fewest is not None
    return fewest


@pytest.mark.parametrize("mode", ["off", "on"])
async def test_a_proxied_chat_takes_no_more_calls_than_it_did(mode: str) -> None:
    async with open_building() as building:
        key, _vault = await building.new_key()
        calls = await calls_of(building, key, mode)
    print(f"\nmemory {mode}: {calls.count} calls; {calls.by_package()}")
    assert calls.count <= CALLS_MAX[mode], calls.dearest()
    assert calls.count > CALLS_MAX[mode] // 2, "the bound is no bound any more: lower it"
