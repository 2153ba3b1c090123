"""Bad days of one machine: the disk runs full under the server, and the whole process freezes for a while.

Damage to files and jumps of the clock have modules of their own beside this one.
"""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

from tests.campaigns.checker import Acknowledged
from tests.campaigns.echo_provider import open_echo_provider, reply_to
from tests.campaigns.filesystems import mounted_tmpfs, reason_against_mounting
from tests.campaigns.load import Load, held_by, story
from tests.campaigns.moments import dice, new_seed, pass_time
from tests.campaigns.starts import attempted_start
from tests.campaigns.test_kill9 import CLIENTS, environment
from tests.campaigns.wire import connected
from tests.patience import PATIENCE_S, PATIENT_ENVIRONMENT
from tests.running import Client, ServerProcess, object_of, open_process, user

DISK_BYTES = 64 * 1024 * 1024
"""Room for the model's graph (24 MB), the database, and some more."""

SMALL_BALLAST = {"MEMORYROUTER_STORE__BALLAST_BYTES": "4194304"}
FROZEN_S = 3.0
_NOT_STORED = re.compile(r'^memoryrouter_memory_skipped_total\{reason="not_stored"\} (\d+)', re.MULTILINE)


def write_for_ever(descriptor: int, data: bytes) -> None:
    """Append until the system refuses."""
    while True:
        os.write(descriptor, data)


class SmallDisk:
    """A file system that can be filled to its last byte, and emptied again."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Take all the room that is left."""
        with self._filler.open("ab", buffering=0) as file:
            for size_bytes in (1 << 20, 1 << 12, 1):
                with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                    write_for_ever(file.fileno(), bytes(size_bytes))

    def make_room(self) -> None:
        """Give it back."""
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A tmpfs for one test."""
    reason = reason_against_mounting("tmpfs")
    if reason:
        pytest.skip(reason)
    with mounted_tmpfs(tmp_path / "disk", size_bytes=DISK_BYTES) as folder:
        yield SmallDisk(folder)


class Owner(Client):
    """A client that keeps the model."""

    def __init__(self, http: httpx.AsyncClient, key: str, model: Acknowledged, vault: str) -> None:
        super().__init__(http, key)
        self.vault = vault
        self.model = model
        model.add_vault(vault)

    async def try_ingest(self, text: str, *, session_id: str | None = None) -> int:
        """Store one text; the status. A full disk's answer must be 507 and say so."""
        operation = self.model.store(self.vault, [text], session_id=session_id)
        answer = await self.post("/v1/memory/ingest", {"messages": [user(text)], "session_id": session_id})
        if answer.status_code == 202:
            operation.acknowledge()
        else:
            assert (answer.status_code, object_of(answer)["code"]) == (507, "storage_full")
            operation.refuse()
        return answer.status_code

    async def check(self) -> None:
        """The vault holds what it must hold and nothing else."""
        self.model.restart()
        faults = self.model.verify({self.vault: await held_by(self)})
        assert not faults, story(faults)


@asynccontextmanager
async def open_on(disk: SmallDisk, *, key: str = "", model: Acknowledged | None = None) -> AsyncIterator[Owner]:
    """A server on this disk with a provider behind it, as its owner sees it. It must end well."""
    async with open_echo_provider() as provider_url:
        settings = environment(provider_url) | PATIENT_ENVIRONMENT | {"MEMORYROUTER_STORE__SHARDS": "1"}
        async with open_process(disk.data_dir, environment=settings) as server, connected(server.url) as http:
            yield Owner(http, key or server.account_key, model or Acknowledged(), "canary00")
            server.signal(signal.SIGTERM)
            assert await server.wait() == 0


async def ingest_until_full(disk: SmallDisk, owner: Owner) -> None:
    """Fill the disk so that nothing can be stored any more. Files that are longer than their content keep some room."""
    for number in range(100):
        disk.fill()
        if await owner.try_ingest(f"Filling number {number}. " + "So it goes on. " * 100) == 507:
            return
    raise AssertionError("The disk is full, but storing goes on.")


async def not_stored(owner: Owner) -> int:
    """How often a chat ended without being stored, as the metrics tell it."""
    found = _NOT_STORED.search((await owner.get("/metrics")).text)
    return int(found[1]) if found else 0


async def test_a_full_disk_stops_storing_and_nothing_else(disk: SmallDisk) -> None:
    async with open_on(disk) as owner:
        await owner.try_ingest("Anna plays the violin.")
        await owner.try_ingest("Ben repairs roofs.", session_id="ben")
        await ingest_until_full(disk, owner)

        upload = await owner.post("/v1/memory/upload", b'{"content":"Carla sails."}\n{"content":"Dora too."}')
        keys = await owner.post("/v1/keys", {"name": "user"})
        assert [(answer.status_code, object_of(answer)["code"]) for answer in (upload, keys)] == [
            (507, "storage_full"),
            (507, "storage_full"),
        ]
        assert "Anna plays the violin." in await owner.contents("violin")
        assert "violin" in (await owner.prepare("Who plays the violin?"))["context"]
        assert (await owner.get("/readyz")).status_code == 200


async def test_chats_go_on_when_the_disk_is_full(disk: SmallDisk) -> None:
    """Unstored, which the header, the metric and the log say."""
    async with open_on(disk) as owner:
        await ingest_until_full(disk, owner)
        before = await not_stored(owner)

        whole = await owner.chat("Do you hear me?")
        assert (whole.status_code, whole.headers["x-memory-status"]) == (200, "not_stored")
        assert whole.json()["choices"][0]["message"]["content"] == reply_to("Do you hear me?")
        streamed = await owner.chat("And now?", stream=True)
        assert streamed.status_code == 200
        assert streamed.content.endswith(b"data: [DONE]\n\n")
        assert await not_stored(owner) == before + 2
        await owner.check()


async def test_deleting_works_when_the_disk_is_full(disk: SmallDisk) -> None:
    async with open_on(disk) as owner:
        await owner.try_ingest("Ben repairs roofs.", session_id="ben")
        await owner.try_ingest("Anna plays the violin.")
        await ingest_until_full(disk, owner)

        session = owner.model.delete(owner.vault, session_id="ben")
        assert (await owner.delete(headers={"x-session-id": "ben"})).status_code == 200
        session.acknowledge()
        await owner.check()
        vault = owner.model.delete(owner.vault)
        assert (await owner.delete()).status_code == 200
        vault.acknowledge()
        await owner.check()


async def test_storing_goes_on_without_a_restart_when_there_is_room_again(disk: SmallDisk) -> None:
    """And what was refused meanwhile is not there, neither at once nor after a restart."""
    async with open_on(disk) as owner:
        await ingest_until_full(disk, owner)
        disk.make_room()
        with trio.fail_after(PATIENCE_S):
            while await owner.try_ingest("There is room again.") != 202:
                await pass_time(0.1)
        assert (await owner.chat("Is there?")).headers["x-memory-status"] in {"ok", "empty"}
        operation = owner.model.store(owner.vault, ["Is there?", reply_to("Is there?")])
        operation.acknowledge()
        await owner.check()
    key, model = owner.key, owner.model
    model.vaults.clear()
    async with open_on(disk, key=key, model=model) as owner:
        await owner.check()


async def test_a_start_on_a_full_disk_serves_or_says_why_not(disk: SmallDisk) -> None:
    """Nothing was damaged, so nothing may be called damaged; with room again it starts as if nothing had been."""
    async with open_on(disk) as owner:
        await owner.try_ingest("Anna plays the violin.")
    disk.fill()
    async with attempted_start(disk.data_dir, environment=SMALL_BALLAST) as start:
        assert not start.problem()
        if not start.serves:
            assert "full" in start.reasons[0], start.reasons
            assert not start.complaints
    disk.make_room()
    async with open_on(disk, key=owner.key) as again:
        assert "Anna plays the violin." in await again.contents("violin")


async def test_a_frozen_process_goes_on_where_it_was(tmp_path: Path) -> None:
    """Stopped for seconds under load, as by a suspended virtual machine: it goes on, and nothing is lost."""
    seed = new_seed()
    data_dir = tmp_path / "data"
    async with open_echo_provider() as provider_url:
        async with open_process(data_dir, environment=environment(provider_url)) as server:
            load = Load(seed, account_key=server.account_key)
            await freeze_under_load(server, load)
        async with open_process(data_dir, environment=environment(provider_url)) as server:
            faults = await load.verify(server.url)
            assert not faults, f"seed {seed}:{story(faults)}"


async def freeze_under_load(server: ServerProcess, load: Load) -> None:
    """Work, freeze, work on, kill."""
    async with trio.open_nursery() as clients:

        async def work() -> None:
            await load.run(server.url, cycle=0, clients=CLIENTS, on_acknowledged=lambda: None)

        clients.start_soon(work)
        await pass_time(dice(load.seed).uniform(0.3, 0.8))
        server.signal(signal.SIGSTOP)
        await trio.to_thread.run_sync(os.waitid, os.P_PID, server.process.pid, os.WSTOPPED)
        await pass_time(FROZEN_S)
        before = load.acknowledged.copy()
        server.signal(signal.SIGCONT)
        with trio.fail_after(PATIENCE_S):  # or nothing was stored after the freeze
            while not (load.acknowledged - before)["ingest"]:
                await pass_time(0.1)
        await pass_time(0.5)
        assert not load.acknowledged["cut off"], f"seed {load.seed}: connections were lost"
        server.signal(signal.SIGKILL)
        await server.wait()
    load.model.restart()
    complaints = [entry for entry in server.log if entry.get("level") in {"error", "critical"}]
    assert not complaints, complaints[:5]
