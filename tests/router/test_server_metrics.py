"""A server that has done everything shows every metric of the document, with its labels; none grows with clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h11
import msgspec
import pytest
import trio
from trio.testing import MockClock

from models.limit_settings import LimitSettings
from models.memory_settings import MemorySettings
from models.settings import Settings
from router.metrics import SERIES_MAX
from router.server_metrics import LAG_INTERVAL_S, SKIP_REASONS, Metrics, error_codes
from router.watched_metrics import CLUSTER, FORWARDING, WORKERS
from tests.fakes.provider import Script, reply_script
from tests.fakes.trace_receiver import open_trace_receiver
from tests.router.exposition import Metric, parse, samples
from tests.router.proxied import open_both, streamed
from tests.router.test_tracing import traced_to
from tests.running import Client, user
from tests.test_observability import FAMILIES

SCRUB_INTERVAL_S = 0.05


async def refused_head(server: Client) -> None:
    """A request that has no route: its head is refused."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(b"GET http://elsewhere.example/ HTTP/1.1\r\nhost: x\r\n\r\n")
        wire = h11.Connection(h11.CLIENT)
        wire.send(h11.Request(method="GET", target="/", headers=[("host", host)]))
        while (event := wire.next_event()) is h11.NEED_DATA:
            wire.receive_data(await stream.receive_some())
        assert isinstance(event, h11.Response)
        assert event.status_code == 400


async def do_everything(server: Client, provider: Any) -> None:
    """Something of each kind: what is stored, found, proxied, refused, limited, failed and erased."""
    await server.ingest("My dog is called Rex.")
    await server.ingest("My dog is called Rex.")
    await server.upload([{"content": "Carla sails on the lake."}])
    await server.wait_embedded()
    await server.prepare("What is my dog called?")
    await server.search("dog")
    assert (await server.chat("What is my dog called?")).status_code == 200
    assert (await server.post("/v1/chat/completions", streamed("Hello there"))).status_code == 200
    provider.enqueue(Script(status=500, body=b"{}"), reply_script("No."))
    assert (await server.chat("Anything?", memory=False)).status_code == 500
    assert (await server.chat("Anything?", model="nothing/at-all")).status_code == 404
    too_much = await server.post("/v1/memory/ingest", {"messages": [user(f"Fact {number}.") for number in range(20)]})
    assert too_much.status_code == 402
    unstored = {"model": "openai/m", "messages": [user(f"Fact {number}.") for number in range(20)]}
    assert (await server.post("/v1/chat/completions", unstored)).headers["x-memory-status"] == "not_stored"
    await refused_head(server)
    other = await server.other()
    await other.ingest("I am another.")
    assert (await other.delete()).status_code == 200


@pytest.fixture(scope="module")
def settings() -> Settings:
    """With a quota, so that something is refused, and a scrub that is due at once."""
    base = Settings()
    return msgspec.structs.replace(
        base,
        limits=msgspec.structs.replace(LimitSettings(), memories_max=12),
        memory=MemorySettings(),
        store=msgspec.structs.replace(base.store, shards=1, scrub_interval_s=SCRUB_INTERVAL_S),
    )


async def page_after_everything(tmp_path: Path, base: Settings) -> tuple[str, dict[str, Metric]]:
    """What `/metrics` says when everything has been done."""
    with open_trace_receiver() as receiver:
        traced = traced_to(receiver)
        mixed = msgspec.structs.replace(traced, limits=base.limits, store=base.store)
        async with open_both(tmp_path, mixed) as (server, provider):
            await do_everything(server, provider)
            text = (await server.get("/metrics")).text
    return text, parse(text)


async def test_the_page_is_what_the_document_says(tmp_path: Path, settings: Settings) -> None:
    """Both ways: names, kinds, meanings, and the labels of all that has samples, which is nearly all."""
    text, metrics = await page_after_everything(tmp_path, settings)

    assert metrics.keys() == FAMILIES.keys() - {family.name for family in WORKERS.families.values()}
    for name, metric in metrics.items():
        family = FAMILIES[name]
        assert (metric.kind, metric.description) == (family.kind, family.description)
        assert not metric.samples or metric.labels == set(family.labels), name
    without = {name for name, metric in metrics.items() if not metric.samples}
    of_clusters = {family.name for group in (CLUSTER, FORWARDING) for family in group.families.values()}
    assert without == of_clusters | {"memoryrouter_upstream_errors_total"}  # no provider failed to answer
    for private in ("Rex", "Carla", "mk_", "nothing/at-all", "dog"):
        assert private not in text


async def test_what_was_done_is_in_the_numbers(tmp_path: Path, settings: Settings) -> None:
    text, _ = await page_after_everything(tmp_path, settings)
    page = samples(text)

    def number(name: str, labels: str = "") -> float:
        return page[f"memoryrouter_{name}{labels}"]

    chats = '{route="/v1/chat/completions",status="%s"}'
    assert number("requests_total", chats % 200) == 3
    assert number("requests_total", chats % 500) == number("requests_total", chats % 404) == 1
    assert number("errors_total", '{code="model_not_found"}') == 1
    assert number("errors_total", '{code="payment_required"}') == 1
    assert number("heads_refused_total", '{status="400"}') == 1
    assert number("limited_total", '{limit="memories"}') >= 1
    assert number("not_stored_total", '{reason="payment_required"}') == 1
    assert number("memory_skipped_total", '{reason="not_stored"}') == 1
    assert number("memory_skipped_total", '{reason="off"}') == 1
    assert number("recall_duration_seconds_count", '{operation="search"}') >= 1
    assert number("recall_duration_seconds_count", '{operation="recall"}') >= 3
    assert number("added_seconds_count", '{route="/v1/chat/completions"}') == 5
    assert number("upstream_responses_total", '{provider="openai",status="500"}') == 1
    assert number("upstream_first_byte_seconds_count", '{provider="openai"}') == 4
    assert number("upstream_duration_seconds_count", '{provider="openai"}') == 4
    assert number("memories_duplicates_total") >= 1
    assert number("vaults") == 2
    assert number("memories") >= 1
    assert number("requests_in_progress") >= 1  # the scrape itself
    lane = '{embedder="all-MiniLM-L6-v2",lane="bulk"}'
    assert number("embedding_batch_seconds_count", lane) == number("embedding_batch_texts_count", lane)
    assert number("embedding_batch_texts_sum", lane) == number("embedding_texts_total", lane) >= 2
    assert number("store_commit_seconds_count", '{file="shard-0"}') == number("store_commits_total", '{file="shard-0"}')
    assert number("store_queue_wait_seconds_count", '{file="shard-0"}') >= 1
    assert number("vaults_mailbox_wait_seconds_count") >= 5
    assert number("loop_lag_seconds_count") >= 0
    assert page["process_threads"] > 1
    assert page["process_open_fds"] < page["process_max_fds"]
    assert page["process_resident_memory_bytes"] > 1_000_000
    assert page["process_cpu_seconds_total"] > 0
    assert page["process_start_time_seconds"] > 1_700_000_000


async def test_clients_cannot_make_series(tmp_path: Path) -> None:
    """Neither by paths, nor by models, nor by methods."""
    async with open_both(tmp_path) as (server, _):
        await server.get("/metrics")
        before = set(samples((await server.get("/metrics")).text))
        for number in range(50):
            await server.get(f"/path/{number}")
            await server.chat("Hello", model=f"x{number}/y")
            await server.http.request(f"M{number}", f"/v1/models/{number}")
        after = set(samples((await server.get("/metrics")).text))

    new = {name for name in after - before if not name.startswith("memoryrouter_request")}
    routes = {name.partition('route="')[2].partition('"')[0] for name in after if 'route="' in name}
    assert routes <= {"unknown", "/metrics", "/v1/chat/completions", "/v1/models/<path:name>", "/v1/memory/stats"}
    assert len(new) < 40 < SERIES_MAX


def test_alerts_have_their_zeros_from_the_start() -> None:
    """A rate needs the series before the first event."""
    page = samples(Metrics().render())

    for reason in SKIP_REASONS:
        assert page[f'memoryrouter_memory_skipped_total{{reason="{reason}"}}'] == 0
    for code in error_codes():
        assert page[f'memoryrouter_errors_total{{code="{code}"}}'] == 0


async def test_the_loops_lag_is_how_late_a_sleeper_wakes(autojump_clock: MockClock) -> None:
    """A step that holds the loop up for a second shows; a quiet loop does not."""
    metrics = Metrics()
    async with trio.open_nursery() as tasks:
        tasks.start_soon(metrics.measure_lag)
        await trio.sleep(LAG_INTERVAL_S * 10.5)
        quiet = samples(metrics.render())
        autojump_clock.jump(1.0)  # as if one step had taken so long
        await trio.sleep(LAG_INTERVAL_S * 1.5)
        held_up = samples(metrics.render())
        tasks.cancel_scope.cancel()

    name = "memoryrouter_loop_lag_seconds"
    assert quiet[f'{name}_bucket{{le="0.001"}}'] == quiet[f"{name}_count"] == 10
    assert held_up[f"{name}_sum"] == pytest.approx(0.95, abs=0.1)
