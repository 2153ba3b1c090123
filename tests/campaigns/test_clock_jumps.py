"""The wall clock jumps: to 1970, far ahead, back again, between two requests or across a restart.

Nothing is lost, nothing is stored twice, contexts can always be rendered, and memories keep the order of their times.
The clock is injected into a whole server; deadlines use Trio's clock, which no wall clock disturbs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from actors.embedder import open_embedder
from actors.store.sqlite import open_store
from actors.supervisor import open_supervisor
from router import service
from router.admin import create_account
from router.listening import BoundAddress
from router.server import serve_app
from router.upstream import open_upstream
from tests.fakes.embedding import HashEmbedding
from tests.running import Client, open_http, settings_for

NOW_MS = 1_780_000_000_000
HOUR_MS = 3_600_000
YEAR_MS = 365 * 24 * HOUR_MS
LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, the latest time that an upload line may give."""

JUMPS_MS = {
    "a second back": -1000,
    "an hour back": -HOUR_MS,
    "thirty years back": -30 * YEAR_MS,
    "to 1970": -NOW_MS,
    "an hour ahead": HOUR_MS,
    "a century ahead": 100 * YEAR_MS,
}
jumps = pytest.mark.parametrize("jump_ms", JUMPS_MS.values(), ids=JUMPS_MS)


class WallClock:
    """A clock that goes only where it is put."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def read(self) -> int:
        """The time."""
        return self.now_ms


@asynccontextmanager
async def open_clocked(data_dir: Path, clock: WallClock) -> AsyncIterator[Client]:
    """A whole server whose wall clock is this one; the account key of the first start is kept beside the directory."""
    settings = settings_for()
    key_file = data_dir.with_suffix(".account-key")
    async with (
        open_store(data_dir, settings=settings.store, now_ms=clock.read) as store,
        open_embedder(HashEmbedding()) as embedder,
        open_supervisor(
            store, embedder, settings.vaults, service.vault_limits(settings), drain_timeout_s=5
        ) as supervisor,
        open_upstream({}) as upstream,
        trio.open_nursery() as serving,
    ):
        if not await store.has_account():
            announced = await create_account(store, created_ms=clock.now_ms)
            key_file.write_text(announced)
        components = service.assemble(settings, store, embedder, supervisor, upstream, usage=None)
        components.now_ms = clock.read
        app = service.application(components)

        async def serve(task_status: trio.TaskStatus[BoundAddress]) -> None:
            await serve_app(app, settings.server, shutdown_trigger=trio.sleep_forever, task_status=task_status)

        address: BoundAddress = await serving.start(serve)
        async with open_http(address.url) as http:
            yield Client(http, key_file.read_text())
        serving.cancel_scope.cancel(reason="the test is over")


@jumps
async def test_nothing_is_lost_and_everything_can_be_shown(tmp_path: Path, jump_ms: int) -> None:
    clock = WallClock()
    async with open_clocked(tmp_path / "data", clock) as client:
        await client.ingest("Anna plays the violin.")
        clock.now_ms += jump_ms
        await client.ingest("Ben plays the violin too.")
        clock.now_ms -= jump_ms
        for _ in range(2):
            context = (await client.prepare("Who plays the violin?"))["context"]
            assert "Anna plays" in context
            assert "Ben plays" in context
            assert (context.index("Anna") < context.index("Ben")) == (jump_ms > 0), "oldest first, by their own times"
            clock.now_ms += jump_ms
        stats = await client.stats()
        assert stats["memories"] == 2
        assert stats["oldestItem"] == min(NOW_MS, NOW_MS + jump_ms)
        assert stats["newestItem"] == max(NOW_MS, NOW_MS + jump_ms)


@jumps
async def test_a_request_that_is_sent_again_across_the_jump_is_stored_once(tmp_path: Path, jump_ms: int) -> None:
    """Backwards at least: there a repeat cannot be told from a retry. Ahead, beyond the window, it is said anew."""
    clock = WallClock()
    async with open_clocked(tmp_path / "data", clock) as client:
        await client.ingest("Anna plays the violin.")
        clock.now_ms += jump_ms
        await client.ingest("Anna plays the violin.")

        stats = await client.stats()
        assert (stats["memories"], stats["duplicates"]) == ((2, 0) if jump_ms >= HOUR_MS else (1, 1))


@jumps
async def test_a_restart_after_the_jump_changes_nothing(tmp_path: Path, jump_ms: int) -> None:
    clock = WallClock()
    async with open_clocked(tmp_path / "data", clock) as client:
        await client.ingest("Anna plays the violin.", session_id="music")
        await client.upload([{"content": "Ben repairs roofs.", "timestamp": NOW_MS - 5}])
        before = await client.search("violin roofs")
        context = (await client.prepare("Who plays the violin?"))["context"]
    clock.now_ms += jump_ms
    async with open_clocked(tmp_path / "data", clock) as client:
        assert {item["id"]: item["timestamp"] for item in await client.search("violin roofs")} == {
            item["id"]: item["timestamp"] for item in before
        }
        await client.upload([{"content": "Ben repairs roofs.", "timestamp": NOW_MS - 5}])
        assert (await client.stats())["memories"] == 2
        clock.now_ms -= jump_ms
        assert (await client.prepare("Who plays the violin?"))["context"] == context


@pytest.mark.parametrize("time_zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
async def test_the_ends_of_time_can_be_shown_everywhere(tmp_path: Path, time_zone: str) -> None:
    """East of Greenwich the last moment of the year 9999 is in the year 10000, which no calendar knows."""
    async with open_clocked(tmp_path / "data", WallClock()) as client:
        await client.upload(
            [
                {"content": "Anna plays the violin.", "timestamp": 0},
                {"content": "Ben plays the violin too.", "timestamp": LAST_MS},
            ]
        )
        answer = await client.prepare("Who plays the violin?", headers={"x-timezone": time_zone})

        assert answer["context"].index("Anna plays") < answer["context"].index("Ben plays")
