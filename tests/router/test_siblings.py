"""Workers of one server tell each other what a client asks one of them for, and nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from models.ids import VaultNumber, VaultRef
from router import siblings as siblings_module
from router.dashboard.overview import Overview
from router.forwarding import SIBLING, TOKEN
from router.siblings import PATH, Siblings
from tests.router.dashboard.browsing import sign_in
from tests.router.exposition import parse, samples
from tests.router.sibling_servers import PARTS, Worker, open_workers
from tests.router.sibling_servers import TOKEN as THE_TOKEN
from tests.running import object_of
from tests.test_observability import FAMILIES


def by_worker(page: dict[str, float], name: str) -> list[float | None]:
    """A metric without further labels, of each worker."""
    return [page.get(f'{name}{{worker="{worker}"}}') for worker in range(3)]


async def test_any_worker_shows_the_metrics_of_all(tmp_path: Path) -> None:
    async with open_workers(tmp_path, 3) as workers:
        for worker in workers:
            for number in range(worker.index + 1):
                await worker.client.ingest(f"Fact {number} is known.")
        workers[1].restarts = 5
        for worker in workers:
            text = (await worker.http.get("/metrics")).text
            metrics, page = parse(text), samples(text)
            assert metrics.keys() == FAMILIES.keys()
            for name, metric in metrics.items():
                assert not metric.samples or metric.labels == {*FAMILIES[name].labels, "worker"}, name
            assert by_worker(page, "memoryrouter_usage_requests_total") == [1, 2, 3]
            assert by_worker(page, "memoryrouter_worker_up") == [1, 1, 1]
            assert by_worker(page, "memoryrouter_worker_restarts_total") == [0, 5, 0]
            assert by_worker(page, "memoryrouter_vaults") == [1, None, None]
            assert not [route for route in page if PATH in route], "what workers ask each other is no request"


async def test_a_worker_that_is_down_is_left_out(tmp_path: Path) -> None:
    """Whether it refuses connections, or takes them and says nothing, or half of it."""
    async with open_workers(tmp_path, 3) as workers:
        workers[2].stop()
        async with trio.open_nursery() as tasks:
            workers[0].address = await half_an_answer(tasks)
            page = samples((await workers[1].http.get("/metrics")).text)
            tasks.cancel_scope.cancel()
        assert by_worker(page, "memoryrouter_worker_up") == [0, 1, 0]
        assert by_worker(page, "memoryrouter_usage_requests_total") == [None, 0, None]
        assert by_worker(page, "memoryrouter_vaults") == [None, 1, None]


async def half_an_answer(tasks: trio.Nursery) -> str:
    """The address of a worker that dies in the middle of its answer."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n# HELP a A.\n# TYPE a gauge\na 1\n")
        await stream.aclose()

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    tasks.start_soon(trio.serve_listeners, answer, [listener])
    return f"127.0.0.1:{listener.socket.getsockname()[1]}"


async def test_a_worker_that_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    """It has taken the question, and its connection stays open."""

    async def keep(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with open_workers(tmp_path, 2) as workers, trio.open_nursery() as tasks:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        tasks.start_soon(trio.serve_listeners, keep, [listener])
        workers[0].address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        found = workers[1].components.siblings
        assert found is not None
        siblings = Siblings(
            found.share,
            forwarder=found.forwarder,
            address_of=found.address_of,
            alive=lambda _: True,
            restarts=found.restarts,
            parts=PARTS,
            answer_timeout_s=0.05,
        )
        assert await siblings.ask_all("metrics") == {}
        tasks.cancel_scope.cancel()


async def test_an_answer_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings_module, "ANSWER_BYTES_MAX", 1 << 20)

    async def flood(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n")
        try:
            while True:
                await stream.send_all(bytes(1 << 20))
        except trio.BrokenResourceError:
            flooded.set()

    flooded = trio.Event()
    async with open_workers(tmp_path, 2) as workers, trio.open_nursery() as tasks:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        tasks.start_soon(trio.serve_listeners, flood, [listener])
        workers[0].address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        assert workers[1].components.siblings is not None
        assert await workers[1].components.siblings.ask_all("metrics") == {}
        await flooded.wait()
        tasks.cancel_scope.cancel()


async def test_clients_cannot_ask_what_workers_ask(tmp_path: Path) -> None:
    async with open_workers(tmp_path, 2) as (worker, _):
        right = {TOKEN: THE_TOKEN, SIBLING: "metrics"}
        assert (await worker.http.get(PATH, headers=right)).text.startswith("# HELP")
        assert (await worker.http.get(PATH, headers={**right, SIBLING: "keys"})).status_code == 404
        for wrong in ({**right, TOKEN: THE_TOKEN[:-1]}, {SIBLING: "metrics"}, {TOKEN: THE_TOKEN}, {}):
            answer = await worker.http.get(PATH, headers=wrong)
            assert answer.status_code == 404
            assert object_of(answer)["code"] == "not_found"


async def test_readiness_degrades_while_a_worker_is_down(tmp_path: Path) -> None:
    async with open_workers(tmp_path, 3) as workers:
        answer = await workers[0].http.get("/readyz?verbose")
        assert object_of(answer)["parts"]["workers"] == {"status": "ready"}
        workers[1].alive = False
        answer = await workers[0].http.get("/readyz")
        assert (answer.status_code, object_of(answer)["missing"]) == (200, {})
        assert object_of(answer)["degraded"]["workers"].startswith("worker 1 is being started again")
        page = samples((await workers[0].http.get("/metrics")).text)
        assert page['memoryrouter_part_ready{worker="0",part="workers"}'] == 0.5


async def test_a_worker_that_can_serve_nothing_does_not_fail_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A balancer that takes the server out would take the vaults of the others with it."""
    async with open_workers(tmp_path, 2) as workers:
        store: Any = workers[1].components.store
        numbers = {**store.statistics(), "shards_damaged": 1}
        monkeypatch.setattr(type(store), "statistics", lambda self: numbers)
        answer = await workers[1].http.get("/readyz")
        assert (answer.status_code, list(object_of(answer)["degraded"])) == (200, ["store"])


async def test_the_operators_page_shows_the_workers(tmp_path: Path) -> None:
    async with open_workers(tmp_path, 3) as workers:
        workers[2].alive, workers[2].restarts = False, 7
        browser = await sign_in(workers[0].client)
        assert await browser.done("GET", "cluster") == {
            "store": "sqlite",
            "clustered": False,
            "workers": [
                {"worker": 0, "up": True, "restarts": 0, "shards": [0, 3]},
                {"worker": 1, "up": True, "restarts": 0, "shards": [1]},
                {"worker": 2, "up": False, "restarts": 7, "shards": [2]},
            ],
        }


async def test_the_overview_adds_up_the_workers(tmp_path: Path) -> None:
    """Whichever worker answered: here each has an account of its own, and all of them have the number 1."""
    async with open_workers(tmp_path, 2) as workers:
        for worker in workers:
            for _ in range(worker.index + 2):
                await worker.client.search("dog")
            assert (await worker.client.post("/v1/memory/search", {})).status_code == 400
        shown = await overview(workers[0])
        assert (shown["requests"]["total"], shown["requests"]["errors"]) == (7, 2)
        assert sum(minute["requests"] for minute in shown["series"]) == 7
        assert shown["latency_ms"]["recall"]["p50"] > 0
        other = await overview(workers[1])
        assert (other["requests"]["total"], other["tokens"]) == (7, shown["tokens"])
        assert shown["memory_bytes"] > 0
        commits = {queue["name"]: queue["capacity"] for queue in shown["queues"]}["commits"]
        workers[1].stop()
        alone = await overview(workers[0])
        assert alone["requests"]["total"] == 3
        assert {queue["name"]: queue["capacity"] for queue in alone["queues"]}["commits"] * 2 == commits


async def overview(worker: Worker) -> dict[str, Any]:
    return await Overview(worker.components).body(1)


async def test_what_a_chat_did_is_told_by_the_worker_that_has_its_vault(tmp_path: Path) -> None:
    """To the session that had the chat, and only while the vault is its account's."""
    async with open_workers(tmp_path, 2) as (first, other):
        browser, stranger = await sign_in(first.client), await sign_in(first.client)
        session = first.components.dashboard.sessions.find(browser.token)
        assert session is not None
        own = int(browser.session["vault_id"].removeprefix("vault_"))
        chats = other.components.dashboard.chats
        chats.begin(session.number, "req_1", VaultRef(VaultNumber(own), 1)).block = "what was injected"
        chats.begin(session.number, "req_2", VaultRef(VaultNumber(99), 1))
        shown = await browser.done("GET", "requests/req_1")
        assert (shown["vault_id"], shown["block"]) == (f"vault_{own}", "what was injected")
        for asking, request_id in ((stranger, "req_1"), (browser, "req_2"), (browser, "req_3"), (browser, "req%201")):
            assert (await asking.ask("GET", f"requests/{request_id}")).status_code == 404
