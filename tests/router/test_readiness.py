"""Readiness: what fails takes the server out of the balancer's hands, what only degrades does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.provider_settings import ProviderSettings
from router import service
from router.components import Components
from router.readiness import READY, PartState, Readiness
from tests.router.exposition import samples
from tests.running import Client, object_of, open_server, settings_for, user

PARTS = {"server", "store", "disk", "embedder", "vaults", "upstream"}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Components]:
    """The components of servers that the test starts."""
    found: list[Components] = []
    assemble = service.assemble

    def keep(*args: Any) -> Components:
        found.append(assemble(*args))
        return found[-1]

    monkeypatch.setattr(service, "assemble", keep)
    return found


def with_statistics(monkeypatch: pytest.MonkeyPatch, part: Any, **changed: Any) -> None:
    """Let a part tell other numbers than it has."""
    numbers = {**part.statistics(), **changed}
    monkeypatch.setattr(type(part), "statistics", lambda self: numbers)


async def readyz(server: Client, query: str = "") -> tuple[int, dict[str, Any]]:
    answer = await server.get(f"/readyz{query}", key="")
    return answer.status_code, object_of(answer)


def test_a_server_that_starts_is_not_ready() -> None:
    readiness = Readiness()
    readiness.watch("store", lambda: READY)

    assert readiness.parts() == {"server": PartState("not ready", "starting"), "store": READY}
    readiness.set_ready("server")
    assert readiness.parts() == {"server": READY, "store": READY}
    readiness.set_missing("server", "shutting down")
    assert readiness.parts()["server"] == PartState("not ready", "shutting down")


async def test_each_part_is_named_where_one_asks_for_it(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        assert await readyz(server) == (200, {"status": "ready", "missing": {}, "degraded": {}})
        for query in ("?verbose", "?verbose=true", "?verbose=1&writes"):
            status, body = await readyz(server, query)
            assert (status, body["parts"]) == (200, {part: {"status": "ready"} for part in PARTS})
        for query in ("?verbose=false", "?verbose=0"):
            assert "parts" not in (await readyz(server, query))[1]
        page = samples((await server.get("/metrics")).text)
        assert {part: page[f'memoryrouter_part_ready{{part="{part}"}}'] for part in PARTS} == dict.fromkeys(PARTS, 1)


async def test_a_full_disk_fails_only_who_wants_to_write(
    tmp_path: Path, opened: list[Components], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chats, searches and deletions go on, so the server stays in the balancer's hands unless it is asked otherwise."""
    async with open_server(tmp_path / "data") as server:
        with_statistics(monkeypatch, opened[0].store, disk_full=True)
        status, body = await readyz(server)
        assert (status, body["status"], body["missing"]) == (200, "ready", {})
        assert "full" in body["degraded"]["disk"]
        status, body = await readyz(server, "?writes&verbose")
        assert (status, body["status"], body["degraded"]) == (503, "not ready", {})
        assert "full" in body["missing"]["disk"]
        assert body["parts"]["disk"] == {"status": "not ready", "reason": body["missing"]["disk"]}


@pytest.mark.parametrize(
    ("changed", "status", "part"),
    [
        ({"shards_damaged": 1, "shards": [{}, {}]}, 200, "1 of 2"),
        ({"shards_damaged": 2, "shards": [{}, {}]}, 503, "2 of 2"),
        ({"meta": {"damaged": True}}, 503, "meta.db"),
    ],
)
async def test_a_store_fails_when_nothing_of_it_serves(
    tmp_path: Path,
    opened: list[Components],
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
    status: int,
    part: str,
) -> None:
    """One damaged file of several degrades: the other vaults are served."""
    async with open_server(tmp_path / "data") as server:
        with_statistics(monkeypatch, opened[0].store, **changed)
        answered, body = await readyz(server)
        assert answered == status
        assert part in body["missing" if status == 503 else "degraded"]["store"]


async def test_vaults_that_are_resumed_or_rest_degrade(
    tmp_path: Path, opened: list[Components], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_server(tmp_path / "data") as server:
        with_statistics(monkeypatch, opened[0].supervisor, resuming=3, resting=1)
        status, body = await readyz(server)
        assert status == 200
        assert body["degraded"]["vaults"].startswith("3 vaults are still to be taken up")
        assert "1 vaults rest" in body["degraded"]["vaults"]


async def test_a_provider_that_is_left_alone_degrades_and_is_not_named(tmp_path: Path) -> None:
    """Anybody may ask; which provider it is, the metrics tell whom they may."""
    settings = settings_for(
        ProviderSettings(prefixes=("openai",), base_url="http://127.0.0.1:9", breaker_failures=1, retries_max=0)
    )
    async with open_server(tmp_path / "data", settings) as server:
        headers = {"x-provider-key": "sk-1"}
        body = {"model": "openai/m", "messages": [user("Hello")]}
        assert (await server.post("/v1/chat/completions", body, headers=headers)).status_code == 502
        status, told = await readyz(server)
        page = samples((await server.get("/metrics")).text)
    assert status == 200
    assert told["degraded"] == {"upstream": "1 providers failed repeatedly and are left alone for now"}
    assert page['memoryrouter_upstream_breaker_open{provider="openai"}'] == 1
    assert page['memoryrouter_part_ready{part="upstream"}'] == 0.5
    assert page['memoryrouter_upstream_errors_total{provider="openai",code="upstream_unavailable"}'] == 1


async def test_a_server_that_drains_is_not_ready(tmp_path: Path, opened: list[Components]) -> None:
    async with open_server(tmp_path / "data") as server:
        opened[0].readiness.set_missing("server", "shutting down")
        status, body = await readyz(server)
        assert (status, body["missing"]) == (503, {"server": "shutting down"})
        assert (await server.get("/livez", key="")).status_code == 200
