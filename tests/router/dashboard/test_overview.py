"""The overview: it costs the same however many vaults there are, and shows what is of whom."""

from __future__ import annotations

from pathlib import Path

import msgspec
import trio

from models.errors import StoreUnavailable
from models.provider_settings import ProviderSettings, Secret
from models.settings import ProvidersSettings
from router.dashboard.overview import COST_SHARE_MAX, KEPT_S, Kept
from tests.fakes.provider import Script, chat_reply
from tests.router.dashboard.browsing import sign_in
from tests.router.proxied import open_both
from tests.running import open_server, settings_for


class Work:
    """What is kept: it takes some of a clock's time, and counts how often it was done."""

    def __init__(self, took_s: float = 0.0) -> None:
        self.now_s = 1000.0
        self.took_s = took_s
        self.done = 0
        self.fails = False

    def clock(self) -> float:
        return self.now_s

    async def __call__(self) -> int:
        await trio.lowlevel.checkpoint()
        self.now_s += self.took_s
        if self.fails:
            raise StoreUnavailable("The disk is busy.")
        self.done += 1
        return self.done


async def test_a_sum_is_worked_out_once_in_a_while() -> None:
    work = Work()
    kept = Kept(work, clock=work.clock)
    assert [await kept.get() for _ in range(100)] == [1] * 100
    work.now_s += KEPT_S
    assert (await kept.get(), work.done) == (2, 2)


async def test_what_costs_more_is_done_less_often() -> None:
    """However many ask, it takes a hundredth of a thread."""
    work = Work(took_s=0.5)
    kept, began_s = Kept(work, clock=work.clock), work.now_s
    while work.now_s < began_s + 1000:
        await kept.get()
        work.now_s += 0.25
    assert work.done * work.took_s <= (1000 * COST_SHARE_MAX) + 2 * work.took_s


async def test_those_who_come_meanwhile_get_the_old_value_and_do_not_wait() -> None:
    work, gate = Work(), trio.Event()

    async def slow() -> int:
        value = await work()
        if value > 1:
            await gate.wait()
        return value

    kept = Kept(slow, clock=work.clock)
    assert await kept.get() == 1
    work.now_s += KEPT_S
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.get)
        await trio.testing.wait_all_tasks_blocked()
        assert await kept.get() == 1
        gate.set()
    assert await kept.get() == 2


async def test_a_store_that_does_not_answer_leaves_the_value_of_before() -> None:
    work = Work()
    kept = Kept(work, clock=work.clock)
    work.fails = True
    assert await kept.get() is None
    work.fails, work.now_s = False, work.now_s + KEPT_S
    assert await kept.get() == 1
    work.fails, work.now_s = True, work.now_s + KEPT_S
    assert await kept.get() == 1


async def test_providers_are_those_that_the_account_can_or_did_ask(tmp_path: Path) -> None:
    async with open_both(tmp_path) as (server, provider):
        browser = await sign_in(server)
        (before,) = (await browser.done("GET", "overview"))["providers"]
        assert (before["name"], before["state"], before["has_key"], before["last_used_at"]) == (
            "openai",
            "unknown",
            True,
            None,
        )
        await server.chat("Hello there")
        assert (await browser.done("GET", "overview"))["providers"][0]["state"] == "ok"
        provider.enqueue(Script(status=401, body=chat_reply()))
        await server.chat("Hello there")
        shown = await browser.done("GET", "overview")
        (after,) = shown["providers"]
        assert (after["state"], after["requests"], after["errors"], after["last_error_status"]) == (
            "failing",
            2,
            1,
            401,
        )
        assert shown["tokens"]["input"] > 0
        assert shown["latency_ms"]["chat_first_byte"]["p50"] > 0


async def test_the_servers_own_numbers_are_there(tmp_path: Path) -> None:
    """Queues with what they hold at most, memory, disk; by the hour there are 24 of them."""
    hidden = ProvidersSettings(by_name={"silent": ProviderSettings(base_url="http://127.0.0.1:1", api_key=Secret())})
    async with open_server(tmp_path / "data", msgspec.structs.replace(settings_for(), providers=hidden)) as server:
        browser = await sign_in(server)
        shown = await browser.done("GET", "overview?series=hour")
        assert len(shown["series"]) == 24
        assert {queue["name"]: queue["waiting"] for queue in shown["queues"]}["commits"] == 0
        assert all(queue["scope"] == "server" for queue in shown["queues"])
        assert shown["memory_bytes"] > 1 << 20
        assert shown["disk"]["free_bytes"] > 0
        assert shown["providers"] == []  # no key, never asked
        assert (await browser.ask("GET", "overview?series=day")).status_code == 400
