"""A power cut: what the disk held at the moment of the cut has everything that was acknowledged before.

The data directory is on ext4 in an image file. While clients write, the server is frozen and the image is copied
without any sync: what the kernel had not yet written to the "disk" is missing from the copy, as after a power cut. The
next server starts on the copy. Unlike a real disk, the image does not tear or reorder single sectors; the fault
enumeration does that.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from tests.campaigns.echo_provider import open_echo_provider
from tests.campaigns.filesystems import copy_image, make_image, mounted_image, reason_against_mounting
from tests.campaigns.load import Load, story
from tests.campaigns.moments import cycles, dice, new_seed
from tests.campaigns.test_kill9 import CLIENTS, environment
from tests.running import ServerProcess, open_process

WRITE_MAX_S = 1.0


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty file system."""
    reason = reason_against_mounting("image")
    if reason:
        pytest.skip(reason)
    path = tmp_path / "image-0"
    make_image(path)
    return path


async def cut(server: ServerProcess, image: Path, copy: Path) -> None:
    """Freeze the server, take what the disk holds, and end the server without letting it go on."""
    server.signal(signal.SIGSTOP)
    await trio.to_thread.run_sync(os.waitid, os.P_PID, server.process.pid, os.WSTOPPED)
    await trio.to_thread.run_sync(copy_image, image, copy)
    server.signal(signal.SIGKILL)
    await server.wait()


async def write_until_cut(server: ServerProcess, load: Load, cycle: int, image: Path, copy: Path) -> None:
    """Let clients work, and cut the power at a random moment."""
    async with trio.open_nursery() as clients:

        async def work() -> None:
            await load.run(server.url, cycle=cycle, clients=CLIENTS, on_acknowledged=lambda: None)

        clients.start_soon(work)
        with trio.move_on_after(dice(load.seed, cycle).uniform(0.02, WRITE_MAX_S)):
            await trio.sleep_forever()
        await cut(server, image, copy)
    load.model.restart()


async def test_a_power_cut_takes_nothing_that_was_acknowledged(image: Path, tmp_path: Path) -> None:
    """The first cut comes when the account key has just been printed; each server starts on what the last one left."""
    seed, count = new_seed(), cycles(10, 100)
    load: Load | None = None
    async with open_echo_provider() as provider_url:
        for cycle in range(count + 1):
            copy = tmp_path / f"image-{cycle + 1}"
            with mounted_image(image, tmp_path / "mount") as folder:
                async with open_process(folder / "data", environment=environment(provider_url)) as server:
                    if load is None:
                        load = Load(seed, account_key=server.account_key)
                        await cut(server, image, copy)
                        load.model.restart()
                    else:
                        faults = await load.verify(server.url)
                        assert not faults, f"seed {seed}, after cut {cycle}:{story(faults)}"
                        await write_until_cut(server, load, cycle, image, copy)
            image.unlink()
            image = copy
    assert load is not None
    print(f"seed {seed}: {dict(load.acknowledged)}, {dict(load.model.counters)}")
