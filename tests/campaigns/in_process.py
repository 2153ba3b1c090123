"""The whole application in one task tree, with no socket anywhere: requests are ASGI calls, the provider is in memory.

Real: routes, relay, upstream with its connections, supervisor, actors. Nothing waits for anything outside Trio, so
every checkpoint of a request can be counted and struck.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from models.ids import VaultRef, hash_key, mint_key
from models.provider_settings import ProviderSettings, Secret
from router.service import application, assemble
from router.upstream import Upstream, open_upstream
from tests.actors.house import NOW_MS, House, open_house
from tests.fakes.provider import FakeProvider
from tests.patience import PATIENT_PROXY
from tests.running import settings_for

PROVIDER = ProviderSettings(base_url="http://provider.test/v1", api_key=Secret("sk-fake"))


class Request:
    """One request under way, and what its client has seen so far.

    Attributes:
        status: 0 until the response has begun.
        body: as far as it came.
        left: set when the client goes away.
    """

    def __init__(self, path: str, key: str, body: Any, *, method: str = "POST") -> None:
        self.path = path
        self._method = method
        self.status = 0
        self.body = b""
        self.left = trio.Event()
        self._key = key
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        self._parts = [content[: len(content) // 2], content[len(content) // 2 :]]

    @property
    def scope(self) -> dict[str, Any]:
        """As ASGI describes it."""
        return {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "scheme": "http",
            "method": self._method, "path": self.path, "raw_path": self.path.encode(), "query_string": b"",
            "headers": [(b"host", b"x"), (b"authorization", f"Bearer {self._key}".encode())], "root_path": "",
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {}, "extensions": {},
        }  # fmt: skip

    async def receive(self) -> dict[str, Any]:
        """The body in two parts, then the client's departure, which may come before."""
        await trio.lowlevel.checkpoint()
        if self._parts and not self.left.is_set():
            part = self._parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self._parts)}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Take a message. It is seen before the server can know it: what is sent may arrive though sending fails."""
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")
        await trio.lowlevel.checkpoint()


class Building:
    """The application over a house of actors.

    Attributes:
        provider: behind all models with the prefix `openai`.
    """

    def __init__(self, house: House, upstream: Upstream, provider: FakeProvider) -> None:
        self.house = house
        self.provider = provider
        self._upstream = upstream
        parts = assemble(
            settings_for(PROVIDER, proxy=PATIENT_PROXY),
            house.store,
            house.embedder,
            house.supervisor,
            upstream,
            usage=None,
        )
        self._app = application(parts)
        self._tasks = 0

    async def new_key(self) -> tuple[str, VaultRef]:
        """A key with an empty vault behind it."""
        key = mint_key()
        principal = await self.house.store.create_key(
            1, name="user", key_hash=hash_key(key), shown="mk_", created_ms=NOW_MS
        )
        return key, principal.vault

    async def call(self, request: Request) -> Request:
        """Serve a request."""
        await self._app(request.scope, request.receive, request.send)
        return request

    async def settle_in(self) -> None:
        """Count the tasks of an empty building, after which `check_empty` can tell whether there are more."""
        await self.house.new_vault()
        await wait_all_tasks_blocked()
        self._tasks = trio.lowlevel.current_statistics().tasks_living

    async def check_empty(self, vault: VaultRef) -> None:
        """Nothing is left of any request: no place, no call, no response, and once its vault has gone, no task."""
        await wait_all_tasks_blocked()
        entry = self.house.supervisor._entries.get(vault.number)
        if entry is not None:
            assert self.house.nothing_is_held(vault)
            assert not entry.mailbox.receive.statistics().tasks_waiting_send
            entry.close()
            await entry.gone.wait()
        link = self._upstream._link("openai")
        assert (link.limiter.borrowed_tokens, link.limiter.statistics().tasks_waiting) == (0, 0)
        assert link.connections.open == link.connections.idle
        assert self.house.embedder.statistics()["interactive_waiting"] == 0
        await wait_all_tasks_blocked()
        statistics = trio.lowlevel.current_statistics()
        assert statistics.tasks_living == self._tasks + link.connections.open, "a task has stayed"


@asynccontextmanager
async def open_building() -> AsyncIterator[Building]:
    """The application, open for requests."""
    async with open_house() as house, open_upstream({"openai": PROVIDER}) as upstream, trio.open_nursery() as network:
        provider = FakeProvider(0)
        serve: Any = provider.serve  # any stream will do

        async def connect(_host: str, _port: int) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            ours, theirs = memory_stream_pair()
            network.start_soon(serve, theirs)
            return ours

        upstream._link("openai").connections._open_stream = connect
        building = Building(house, upstream, provider)
        await building.settle_in()
        yield building
        network.cancel_scope.cancel(reason="the building closes")
