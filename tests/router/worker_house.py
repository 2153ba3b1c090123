"""Several workers on one data directory in one loop, with the test in the parent's place.

Each is `router.service.serve` as in a process of its own: the same store, port, links and sockets. What only processes
have (signals, kill -9, the program's command line) is in `test_workers.py`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import trio

from actors.cluster.workers import Share
from actors.store.worker_files import prepare_shared
from models.server_settings import ServerSettings
from models.settings import Settings, StoreSettings
from router.listening import bind
from router.service import serve
from router.worker import Worker
from router.worker_link import (
    AccountMade,
    Link,
    Opened,
    Serving,
    State,
    Stop,
    ToParent,
    decode_to_parent,
    link_pair,
    socket_path,
)
from tests.fakes.embedding import HashEmbedding
from tests.patience import PATIENCE_S, wait_until
from tests.running import Client, settings_for

SHARDS = 4


class House:
    """The workers.

    Attributes:
        account: the key that the first start announced.
        url: of the public port.
        heard: what each worker has said, but for beats.
    """

    def __init__(self, count: int) -> None:
        self.account = ""
        self.url = ""
        self.heard: list[list[ToParent]] = [[] for _ in range(count)]
        self.links: list[Link] = []
        self.workers: list[Worker] = []
        self.doors: list[httpx.AsyncClient] = []
        self.ended = [trio.Event() for _ in range(count)]
        self._said = trio.Event()

    def at(self, worker: int, key: str = "") -> Client:
        """Whoever has the key (by default the account's) asks by a worker's own socket."""
        return Client(self.doors[worker], key or self.account)

    async def tell_alive(self, *workers: int) -> None:
        """Let all of them know who serves."""
        for link in self.links:
            link.send_nowait(State(workers, (0,) * len(self.links)))
        everybody = range(len(self.links))
        known = [worker in workers for worker in everybody]
        await wait_until(lambda: all([one.alive(worker) for worker in everybody] == known for one in self.workers))

    def stop(self) -> None:
        """Let all of them drain."""
        for link in self.links:
            link.send_nowait(Stop())

    async def wait_said(self, worker: int, kind: type[ToParent]) -> None:
        """Return once a worker has said this."""
        with trio.fail_after(PATIENCE_S):
            while not any(isinstance(message, kind) for message in self.heard[worker]):
                await self._said.wait()

    async def listen(self, worker: int) -> None:
        """Keep what it says."""
        while data := await self.links[worker].receive():
            message = decode_to_parent(data)
            self.heard[worker].append(message)
            if isinstance(message, AccountMade):
                self.account = message.key
            self._said.set()
            self._said = trio.Event()


@asynccontextmanager
async def open_house(data_dir: Path, *, workers: int = 2, **sections: Any) -> AsyncIterator[House]:
    """So many workers, all admitted and serving; cancelled at the end."""
    server = sections.pop("server", ServerSettings(host="127.0.0.1", port=0, workers=workers))
    settings = settings_for(server=server, store=StoreSettings(shards=SHARDS), **sections)
    preparing = partial(prepare_shared, data_dir, settings=settings.store, workers=workers)
    lock = await trio.to_thread.run_sync(preparing)
    try:
        with bind(settings.server) as listening:
            async with AsyncExitStack() as stack, trio.open_nursery() as tasks:
                house = House(workers)
                for index in range(workers):
                    ours, theirs = link_pair()
                    house.links.append(Link(ours))
                    stack.callback(house.links[-1].close)
                    worker = Worker(
                        Share(index, workers), data_dir=data_dir, listening=listening.dup(), link=Link(theirs)
                    )
                    house.workers.append(worker)
                    tasks.start_soon(house.listen, index)
                    tasks.start_soon(_live, house, settings, data_dir, worker)
                for index in range(workers):
                    await house.wait_said(index, Opened)
                await house.tell_alive(*range(workers))
                for index in range(workers):
                    await house.wait_said(index, Serving)
                    door = httpx.AsyncHTTPTransport(uds=str(socket_path(data_dir, index)))
                    http = httpx.AsyncClient(transport=door, base_url="http://localhost", timeout=PATIENCE_S)
                    house.doors.append(await stack.enter_async_context(http))
                host, port = listening.getsockname()
                house.url = f"http://{host}:{port}"
                listening.close()
                yield house
                tasks.cancel_scope.cancel(reason="the test is over")
    finally:
        os.close(lock)


async def _live(house: House, settings: Settings, data_dir: Path, worker: Worker) -> None:
    try:
        async with trio.open_nursery() as beside:
            beside.start_soon(worker.listen)
            await serve(settings, data_dir=data_dir, announce=worker.announce, encoder=HashEmbedding(), worker=worker)
            beside.cancel_scope.cancel(reason="the worker has ended")
    finally:
        worker.close()
    house.ended[worker.share.index].set()
