"""What is told of the cluster: to metrics, to readiness, and to the operator's page; and to nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio

from actors.cluster.view import PartRow, View
from router import service
from router.components import Components
from tests.patience import PATIENCE_S
from tests.postgres import running_postgres
from tests.router.administered import another_account
from tests.router.dashboard.browsing import sign_in
from tests.router.exposition import samples
from tests.router.nodes import PARTS, at, open_node, open_nodes, users
from tests.running import Client, open_server


async def test_the_page_shows_nodes_and_partitions(tmp_path: Path, postgres_url: str) -> None:
    async with open_nodes(tmp_path, postgres_url, "a", "b") as nodes:
        browser = await sign_in(nodes[0])
        shown: dict[str, Any] = {}
        with trio.fail_after(PATIENCE_S):
            while not (shown.get("settled") and len(shown["nodes"]) == 2 and not shown["astray"]):
                shown = await browser.done("GET", "cluster")
        assert (shown["store"], shown["clustered"], shown["node_id"]) == ("postgres", True, "a")
        assert 0 < shown["lease_remaining_s"] <= shown["ttl_s"]
        assert shown["heartbeat_ms"] > 0
        by_name = {node["id"]: node for node in shown["nodes"]}
        assert {node["state"] for node in by_name.values()} == {"alive"}
        assert by_name["b"]["address"] == nodes[1].url.removeprefix("http://")
        assert sum(node["parts"] for node in by_name.values()) == shown["parts"]["total"] == PARTS
        assert shown["counted"]["parts_owned"] == by_name["a"]["parts"]
        assert shown["parts"] == {"total": PARTS, "unowned": 0, "astray": 0, "pinned": 0}


async def test_a_pin_to_a_node_that_is_not_there_is_only_a_pin(tmp_path: Path, postgres_url: str) -> None:
    async with open_nodes(tmp_path, postgres_url, "a") as (node,):
        browser = await sign_in(node)
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("UPDATE part SET pinned = 'nobody' WHERE part = 3")
        shown: dict[str, Any] = {"parts": {"pinned": 0}}
        with trio.fail_after(PATIENCE_S):
            while not shown["parts"]["pinned"]:
                shown = await browser.done("GET", "cluster")
        assert shown["parts"] == {"total": PARTS, "unowned": 0, "astray": 0, "pinned": 1}


async def test_a_server_on_files_is_alone(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        browser = await sign_in(server)
        assert await browser.done("GET", "cluster") == {"store": "sqlite", "clustered": False}
        page = samples((await server.get("/metrics")).text)
        assert not [name for name in page if name.startswith(("memoryrouter_cluster_", "memoryrouter_forwarded_"))]
        assert 'memoryrouter_store_commits_total{file="shard-0"}' in page


async def test_only_the_operators_account_sees_it(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        stranger = await another_account(server, tmp_path / "data")
        browser = await sign_in(stranger)
        answer = await browser.ask("GET", "cluster")
        assert answer.status_code == 403
        assert (await server.http.get("/dashboard/api/cluster")).status_code == 401


async def test_metrics_have_it(tmp_path: Path, postgres_url: str) -> None:
    async with open_nodes(tmp_path, postgres_url, "a", "b") as nodes:
        for user in await users(nodes[0], PARTS):
            await at(nodes[0], user).get("/v1/memory/stats")
        for node in nodes:  # what was handed over has an owner again at the next look
            await wait_readiness(node, 200, {}, degraded={})
        pages = [samples((await node.get("/metrics")).text) for node in nodes]
        owned = [page["memoryrouter_cluster_parts_owned"] for page in pages]
        assert (sum(owned), min(owned) > 0) == (PARTS, True)
        assert pages[0]["memoryrouter_forwarded_requests_total"] >= owned[1]  # users are spread over all partitions
        assert pages[0]["memoryrouter_cluster_hand_overs_total"] == owned[1]
        assert pages[0]["memoryrouter_cluster_lease_remaining_seconds"] > 0
        assert pages[0]["memoryrouter_cluster_heartbeat_seconds_count"] > 0
        assert pages[0]['memoryrouter_store_commits_total{file="writer-0"}'] >= 0
        assert pages[0]['memoryrouter_part_ready{part="cluster"}'] == 1


async def test_without_the_database_a_node_is_not_ready_until_it_has_a_lease_again(tmp_path: Path) -> None:
    with running_postgres() as server:
        async with open_node(tmp_path, "a", server.create_database(), ttl_s=1.0) as node:
            await wait_readiness(node, 200, {})
            await trio.to_thread.run_sync(server.kill)
            reason = "the lease is over: PostgreSQL does not answer, or another node has this name"
            await wait_readiness(node, 503, {"cluster": reason})
            await trio.to_thread.run_sync(server.start)
            await wait_readiness(node, 200, {})


async def wait_readiness(
    node: Client, status: int, missing: dict[str, str], *, degraded: dict[str, str] | None = None
) -> None:
    """Wait until `/readyz` says so."""
    with trio.fail_after(PATIENCE_S):
        while True:
            answer = await node.http.get("/readyz")
            said = answer.json()
            if (answer.status_code, said["missing"]) == (status, missing) and degraded in (None, said["degraded"]):
                return


async def test_partitions_without_an_owner_degrade(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Components] = []
    assemble = service.assemble

    def keep(*args: Any) -> Components:
        found.append(assemble(*args))
        return found[-1]

    monkeypatch.setattr(service, "assemble", keep)
    async with open_node(tmp_path, "a", postgres_url) as node:
        (components,) = found
        cluster = components.cluster
        assert cluster is not None
        await cluster.wait_settled()
        view = cluster.view
        assert view is not None
        orphans = (PartRow(owner="gone", incarnation=1, epoch=1, pinned=None),) * 2
        seen = View(nodes=view.nodes, parts=(*view.parts, *orphans))
        monkeypatch.setattr(type(cluster), "view", property(lambda _: seen))
        reason = "2 partitions have no owner: their vaults answer 503 until they have one"
        assert (await node.http.get("/readyz")).json()["degraded"] == {"cluster": reason}
        shown = await (await sign_in(node)).done("GET", "cluster")
        assert (shown["parts"]["unowned"], shown["parts"]["astray"]) == (2, 2)
        assert [part["part"] for part in shown["astray"]] == [PARTS, PARTS + 1]
        components.cluster = None
        assert components.readiness.parts()["cluster"].status == "not ready"
        components.cluster = cluster
