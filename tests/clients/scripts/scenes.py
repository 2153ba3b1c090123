"""Plays the scenes of a client's script and says which of them failed. Runs in the client's own environment.

Imports nothing but the standard library, since every client brings other packages.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

URL = os.environ["MEMORYROUTER_BASE_URL"]
KEY = os.environ["MEMORYROUTER_API_KEY"]
OWN_KEY = os.environ["TEST_OWN_KEY"]
WRONG_KEY = "mk_" + "x" * 40

QUESTION = "What is my dog called?"
HELLO = "Hello there."
SUNNY = "It is sunny in Lisbon."
PICTURE = "I see a picture."
RETRY_AFTER_S = 1
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@contextmanager
def raises(*kinds: type[BaseException]) -> Iterator[list[Any]]:
    """One of these errors is raised; it is put into the list."""
    caught: list[Any] = []
    try:
        yield caught
    except kinds as error:
        caught.append(error)
    else:
        raise AssertionError(f"nothing raised, expected {kinds}")


@contextmanager
def waits_as_asked() -> Iterator[None]:
    """The client waits for as long as the provider asked it to."""
    began_s = time.monotonic()
    yield
    assert time.monotonic() - began_s >= RETRY_AFTER_S, "retry-after was not honoured"


def play(*scenes: Callable[[], Any]) -> None:
    """Play all scenes, or those that the command line names; exit with 1 if any failed."""
    wanted = set(sys.argv[1:])
    unknown = wanted - {scene.__name__ for scene in scenes}
    assert not unknown, unknown
    failed = 0
    for scene in scenes:
        if wanted and scene.__name__ not in wanted:
            continue
        try:
            result = scene()
            if inspect.isawaitable(result):
                asyncio.run(_await(result))
        except Exception:
            failed += 1
            print(f"FAILED {scene.__name__}\n{traceback.format_exc()}", flush=True)
        else:
            print(f"ok {scene.__name__}", flush=True)
    sys.exit(1 if failed else 0)


async def _await(result: Any) -> None:
    await result
