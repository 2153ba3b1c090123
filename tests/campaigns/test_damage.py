"""Rotten bits: one file of a data directory is flipped, cut, overwritten or gone when the program starts.

It may serve what is intact, or refuse with exit code 2 and one clear line. It may answer a damaged vault with an error.
It may never show a vault what is not its own, lose a memory without saying so, or crash. Both kinds of directories
are struck: one that was closed properly, and one that a kill -9 left with full write-ahead logs.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from tests.campaigns.moments import cycles, dice
from tests.campaigns.starts import Start, attempted_start
from tests.campaigns.wire import connected
from tests.running import Client, object_of, open_process, user

SEEDS = range(cycles(20, 1000))
VAULTS = 6
MEMORIES = 12
SHARDS = 2
ENVIRONMENT = {
    "MEMORYROUTER_STORE__SHARDS": str(SHARDS),
    "MEMORYROUTER_STORE__BALLAST_BYTES": "65536",
    "MEMORYROUTER_STORE__CHECKPOINT_WAL_BYTES": "1073741824",  # what is killed leaves everything in its logs
}
BLOCK_BYTES = 4096

Damage = Callable[[Path, random.Random], None]


class Pristine(msgspec.Struct, frozen=True):
    """An undamaged data directory: who may open it, and what each vault holds."""

    folder: Path
    keys: dict[str, str]
    texts: dict[str, frozenset[str]]


def texts_of(vault: str, first: int) -> list[str]:
    """What a vault's owner says; long enough to fill pages."""
    weight = " It weighs many pounds." * 12
    return [f"{vault} remembers thing {number}.{weight}" for number in range(first, first + MEMORIES)]


async def fill(data_dir: Path, *, first: int, keys: dict[str, str], ending: signal.Signals) -> dict[str, str]:
    """Let each vault remember a dozen things more, and end the server."""
    async with open_process(data_dir, environment=ENVIRONMENT) as server:
        async with connected(server.url) as http:
            keys = keys or await new_keys(Client(http, server.account_key))
            for vault, key in keys.items():
                client = Client(http, key)
                for text in texts_of(vault, first)[: MEMORIES // 2]:
                    await client.ingest(text)
                await client.upload([user(text) for text in texts_of(vault, first)[MEMORIES // 2 :]])
        server.signal(ending)
        await server.wait()
    return keys


async def new_keys(account: Client) -> dict[str, str]:
    """A key for each vault; the account's own vault is one of them."""
    others = {f"canary{number:02}": (await account.other(f"user {number}")).key for number in range(1, VAULTS)}
    return {"canary00": account.key, **others}


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> list[Pristine]:
    """One that was closed, and one that was killed with half of its memories in the write-ahead logs."""
    root = tmp_path_factory.mktemp("pristine")
    closed, killed = root / "closed", root / "killed"
    keys = trio.run(make_directories, closed, killed)
    texts = {
        folder: {vault: frozenset(text for first in firsts for text in texts_of(vault, first)) for vault in keys}
        for folder, firsts in {closed: (0,), killed: (0, 100)}.items()
    }
    return [Pristine(folder, keys, texts[folder]) for folder in (closed, killed)]


async def make_directories(closed: Path, killed: Path) -> dict[str, str]:
    keys = await fill(closed, first=0, keys={}, ending=signal.SIGTERM)
    shutil.copytree(closed, killed)
    return await fill(killed, first=100, keys=keys, ending=signal.SIGKILL)


# What happens to a file.


def flip_bit(file: Path, random_: random.Random) -> None:
    data = bytearray(file.read_bytes())
    if data:
        data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    file.write_bytes(data)


def flip_bytes(file: Path, random_: random.Random) -> None:
    for _ in range(20):
        flip_bit(file, random_)


def cut_short(file: Path, random_: random.Random) -> None:
    os.truncate(file, random_.randrange(file.stat().st_size + 1))


def empty(file: Path, _: random.Random) -> None:
    os.truncate(file, 0)


def zero_block(file: Path, random_: random.Random) -> None:
    data = bytearray(file.read_bytes())
    start = random_.randrange(len(data) + 1) // BLOCK_BYTES * BLOCK_BYTES
    data[start : start + BLOCK_BYTES] = bytes(len(data[start : start + BLOCK_BYTES]))
    file.write_bytes(data)


def append_garbage(file: Path, random_: random.Random) -> None:
    with file.open("ab") as open_file:
        open_file.write(random_.randbytes(random_.randrange(1, 2 * BLOCK_BYTES)))


def remove(file: Path, _: random.Random) -> None:
    file.unlink()


DAMAGES: tuple[Damage, ...] = (
    flip_bit, flip_bit, flip_bit, flip_bytes, cut_short, cut_short, empty, zero_block, append_garbage, remove,
)  # fmt: skip


def files_of(folder: Path) -> list[Path]:
    """Every file of a data directory, sockets left out, relative and in order."""
    found = (file for file in sorted(folder.rglob("*")) if not file.is_dir())
    return [file.relative_to(folder) for file in found if stat.S_ISREG((folder / file).stat().st_mode)]


def copied(pristine: Path, copy: Path, *, victim: Path) -> None:
    """A copy to be damaged. The model's graph is large and only read, so it is shared unless it is the victim."""
    for name in files_of(pristine):
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if "models" in name.parts and name != victim:
            os.link(pristine / name, target)
        else:
            shutil.copy2(pristine / name, target)


# What the program makes of it.


def is_told(start: Start, vault: str) -> bool:
    """Whether the log names this vault, or its database, in an error. Numbers are given in the order of keys."""
    number = int(vault.removeprefix("canary")) + 1
    names = re.compile(rf"vault\W+{number}\b|shard-{number % SHARDS:02}|meta\.db")
    return any(names.search(str(entry)) for entry in start.complaint_entries)


async def served(pristine: Pristine, url: str) -> tuple[list[str], dict[str, int]]:
    """What is wrong with how vaults are served, and how many memories each lacks."""
    wrong: list[str] = []
    lost: dict[str, int] = {}

    async def look(http: httpx.AsyncClient, vault: str, key: str) -> None:
        answer = await Client(http, key).post("/v1/memory/search", {"query": "remembers", "limit": 1000})
        if answer.status_code in {500, 503}:
            assert object_of(answer)["code"], "an error says what it is"
            return
        if answer.status_code != 200:
            wrong.append(f"{vault}: {answer.status_code} {answer.text}")
            return
        held = {item["content"] for item in object_of(answer)["memories"]}
        if held - pristine.texts[vault]:
            wrong.append(f"{vault} shows what it never held")
        if missing := pristine.texts[vault] - held:
            lost[vault] = len(missing)

    async with connected(url) as http, trio.open_nursery() as looking:
        for vault, key in pristine.keys.items():
            looking.start_soon(look, http, vault, key)
    return wrong, lost


@asynccontextmanager
async def started(data_dir: Path) -> AsyncIterator[Start]:
    async with attempted_start(data_dir, environment=ENVIRONMENT) as start:
        yield start
        if start.serves:
            start.server.signal(signal.SIGTERM)
            assert await start.server.wait() == 0, start.server.log[-3:]


@pytest.mark.parametrize("seed", SEEDS)
async def test_damage_is_noticed_or_harmless(directories: list[Pristine], tmp_path: Path, seed: int) -> None:
    random_ = dice(seed)
    pristine = directories[seed % 2]
    files = files_of(pristine.folder)
    victim = files[seed // 2 % len(files)]
    damage = random_.choice(DAMAGES)
    copied(pristine.folder, tmp_path / "data", victim=victim)
    damage(tmp_path / "data" / victim, random_)
    place = f"{damage.__name__} of {victim} in {pristine.folder.name}"

    async with started(tmp_path / "data") as start:
        assert not start.problem(), f"{place}: {start.problem()}"
        wrong, lost = await served(pristine, start.server.url) if start.serves else ([], {})
    # Only now its log has been read to the end.
    wrong += [
        f"{vault} lost {count} memories without a word" for vault, count in lost.items() if not is_told(start, vault)
    ]
    assert not wrong, f"{place}: {wrong}; logged {start.complaints}"
    assert "Traceback" not in str(start.server.log)
