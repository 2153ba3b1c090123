"""Several workers in one loop, for tests of what they tell each other: each with a data directory of its own.

What workers share on the disk plays no part here (`tests/campaigns/workers` has real processes); that they own shards
of one directory is only claimed. They reach each other over TCP.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import trio

from actors.cluster.workers import Share, WorkerOwnership
from models.provider_settings import Secret
from models.settings import Settings
from router import service
from router.components import Components
from router.forwarding import Forwarder
from router.listening import address_of, bind
from router.server import serve_app
from router.siblings import Siblings
from tests.fakes.embedding import HashEmbedding
from tests.patience import PATIENCE_S
from tests.running import Client, open_http, settings_for

TOKEN = "t" * 64
PARTS = 4


class Worker:
    """One of them.

    Attributes:
        client: the holder of its account key.
        alive: whether the others believe that it serves.
        restarts: how often it was started again, as all believe.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.address = ""
        self.alive = True
        self.restarts = 0
        self.answer_timeout_s = PATIENCE_S
        self.key = ""
        self.http: httpx.AsyncClient
        self.components: Components
        self._serving = trio.CancelScope()

    @property
    def client(self) -> Client:
        """The holder of its account key."""
        return Client(self.http, self.key)

    def stop(self) -> None:
        """Serve no more, all at once."""
        self.alive = False
        self._serving.cancel()

    async def serve(
        self,
        folder: Path,
        workers: list[Worker],
        settings: Settings,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Be there until stopped."""
        announced: list[str] = []
        with bind(settings.server) as listening, self._serving:
            bound = address_of(listening, tls=False)
            self.address = bound.authority
            async with service.open_components(
                settings,
                folder / f"worker-{self.index}",
                address=self.address,
                announce=announced.append,
                encoder=HashEmbedding(),
            ) as components:
                self.key, self.components = announced[0], components
                share = Share(self.index, len(workers))
                cluster = WorkerOwnership(share, PARTS, address_of=lambda worker: workers[worker].address)
                forwarder = Forwarder(
                    cluster, token=Secret(TOKEN), scheme="http", tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                )
                components.siblings = Siblings(
                    share,
                    forwarder=forwarder,
                    address_of=lambda worker: workers[worker].address,
                    alive=lambda worker: workers[worker].alive,
                    restarts=lambda: [worker.restarts for worker in workers],
                    parts=PARTS,
                    answer_timeout_s=self.answer_timeout_s,
                )
                components.readiness.set_ready("server")
                try:
                    async with trio.open_nursery() as serving, open_http(bound.url) as self.http:
                        app = service.application(components)
                        await serving.start(
                            partial(
                                serve_app,
                                app,
                                settings.server,
                                shutdown_trigger=trio.sleep_forever,
                                listening=listening,
                            )
                        )
                        task_status.started()
                        await trio.sleep_forever()
                finally:
                    with trio.move_on_after(PATIENCE_S, shield=True):
                        await forwarder.aclose()


@asynccontextmanager
async def open_workers(folder: Path, count: int, settings: Settings | None = None) -> AsyncIterator[list[Worker]]:
    """So many workers that know each other."""
    workers = [Worker(index) for index in range(count)]
    async with trio.open_nursery() as serving:
        with trio.fail_after(PATIENCE_S):
            for worker in workers:
                await serving.start(worker.serve, folder, workers, settings or settings_for())
        yield workers
        serving.cancel_scope.cancel(reason="the test is over")
