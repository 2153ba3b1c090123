"""`/v1/account/usage` and `/v1/me/stats`: who sees what, for which days, in which shape."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from models.errors import InvalidRequest
from models.usage import UsageCount
from router.routes.usage import Period, csv_of, read_period, usage_body
from tests.running import Client, object_of, open_server

TODAY = date(2026, 6, 15)
DAY = (TODAY - date(1970, 1, 1)).days


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[tuple[Client, Client]]:
    """A server with an account key (key_1) and a user key (key_2) that asked two and one times."""
    async with open_server(tmp_path / "data") as account:
        user = await account.other("user")
        await user.search("dog")
        await account.search("dog")
        yield account, user


async def status_of(client: Client, query: str, *, key: str | None = None) -> int:
    return (await client.get(f"/v1/account/usage{query}", key=key)).status_code


async def test_an_account_key_sees_the_account_and_may_choose_one_key(tmp_path: Path) -> None:
    async with opened(tmp_path) as (account, _):
        whole = object_of(await account.get("/v1/account/usage"))
        one = object_of(await account.get("/v1/account/usage?key_id=key_2"))

        assert {name: sums["requests"] for name, sums in whole["by_key"].items()} == {"key_1": 2, "key_2": 1}
        assert (whole["key_id"], whole["account"]) == (None, "acct_1")
        assert (one["key_id"], one["total_requests"]) == ("key_2", 1)
        assert await status_of(account, "?key_id=key_99") == 404


async def test_a_user_key_sees_itself_and_nobody_else(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, user):
        mine = object_of(await user.get("/v1/account/usage"))

        assert set(mine["by_key"]) == {"key_2"}
        assert (mine["key_id"], mine["total_requests"]) == ("key_2", 1)
        assert await status_of(user, "?key_id=key_2") == 200
        assert await status_of(user, "?key_id=key_1") == 403
        assert await status_of(user, "?key_id=key_99") == 403


@pytest.mark.parametrize("suffix", [":read", ":write", ":off"])
async def test_a_suffixed_key_is_refused(tmp_path: Path, suffix: str) -> None:
    async with open_server(tmp_path / "data") as server:
        assert await status_of(server, "", key=server.key + suffix) == 403


@pytest.mark.parametrize(
    "query",
    ["?start=yesterday", "?start=20260601", "?start=2026-02-30", "?end=2026-W01-1", "?start=2026-06-02&end=2026-06-01",
     "?start=2020-01-01&end=2026-01-01", "?key_id=12", "?key_id=key_0", "?key_id=key_1%0a", "?format=xml"],
)  # fmt: skip
async def test_nonsense_is_refused(tmp_path: Path, query: str) -> None:
    async with open_server(tmp_path / "data") as server:
        answer = await server.get(f"/v1/account/usage{query}")

        assert answer.status_code == 400, answer.text
        assert object_of(answer)["code"] == "invalid_request"


async def test_both_published_shapes_are_there(tmp_path: Path) -> None:
    async with opened(tmp_path) as (account, _):
        body = object_of(await account.get("/v1/account/usage"))

    (day,) = body["daily"]
    assert day.keys() >= {
        "date", "requestCount", "inputTokens", "outputTokens", "memoryTokensRetrieved", "memoryTokensInjected",
        "avgLatencyMrMs",
    }  # fmt: skip
    assert body["summary"]["memoryKey"] == body["key"]
    assert body["summary"]["totalRequests"] == body["total_requests"] == day["requestCount"] == 3
    assert body.keys() >= {"key", "period", "total_input_tokens", "total_output_tokens", "total_memory_tokens"}
    assert body["by_model"]["none"]["requests"] == 3
    today = datetime.now(tz=UTC).date()
    assert body["period"]["end"] in {today.isoformat(), (today - timedelta(days=1)).isoformat()}


async def test_other_days_show_nothing_of_today(tmp_path: Path) -> None:
    async with opened(tmp_path) as (account, _):
        body = object_of(await account.get("/v1/account/usage?start=2020-01-01&end=2020-01-31"))

    assert (body["daily"], body["by_model"], body["total_requests"]) == ([], {}, 0)
    assert body["period"] == {"start": "2020-01-01", "end": "2020-01-31"}


async def test_a_table_has_a_line_for_each_day_key_and_model(tmp_path: Path) -> None:
    async with opened(tmp_path) as (account, _):
        answer = await account.get("/v1/account/usage?format=csv")

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["key_id"], row["model"], row["requests"]) for row in rows] == [
        ("key_1", "none", "2"),
        ("key_2", "none", "1"),
    ]


async def test_reading_usage_is_not_counted(tmp_path: Path) -> None:
    async with opened(tmp_path) as (account, _):
        for path in ("/v1/account/usage", "/v1/me/stats", "/v1/account/usage?start=x"):
            await account.get(path)

        assert object_of(await account.get("/v1/account/usage"))["total_requests"] == 3


async def test_my_stats_tell_the_vault_and_the_month(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        before = object_of(await (await server.other("idle")).get("/v1/me/stats"))
        await server.ingest("My dog is called Rex.")
        context = await server.prepare("What is my dog called?")
        mine = object_of(await server.get("/v1/me/stats"))

    assert (before["vaultSize"], before["tokensThisMonth"], before["lastActivity"]) == (0, 0, None)
    assert mine["vaultSize"] == 1
    assert mine["tokensThisMonth"] == context["memory_tokens"] > 0
    assert mine["lastActivity"].endswith("Z")
    assert mine["usage"]["memories_stored"] == 1


async def test_a_keys_last_use_comes_back_from_the_store(tmp_path: Path) -> None:
    async with opened(tmp_path) as (account, _):
        shown = object_of(await account.get("/v1/me/stats"))["lastActivity"]
    async with open_server(tmp_path / "data") as account:
        assert object_of(await account.get("/v1/me/stats"))["lastActivity"] == shown


# Pure functions.


def test_a_period_is_the_last_thirty_days_unless_said_otherwise() -> None:
    assert read_period(None, None, today=TODAY) == Period(date(2026, 5, 17), TODAY)
    assert read_period(None, "2026-03-31", today=TODAY) == Period(date(2026, 3, 2), date(2026, 3, 31))
    assert read_period("2026-06-01", None, today=TODAY) == Period(date(2026, 6, 1), TODAY)
    assert read_period("2026-06-15", "2026-06-15", today=TODAY).days == (DAY, DAY)
    assert read_period(None, "0001-01-05", today=TODAY).first == date(1, 1, 1)


def test_a_period_has_at_most_400_days() -> None:
    assert read_period("2025-05-12", "2026-06-15", today=TODAY).first == date(2025, 5, 12)
    with pytest.raises(InvalidRequest):
        read_period("2025-05-11", "2026-06-15", today=TODAY)


def test_sums_are_grouped_by_day_model_and_key() -> None:
    counts = [
        UsageCount(key_number=2, account_number=1, day=DAY, model="b", requests=2, latency_ms_sum=3),
        UsageCount(key_number=1, account_number=1, day=DAY, model="a", requests=1, input_tokens=5),
        UsageCount(key_number=1, account_number=1, day=DAY - 1, requests=4, tokens_retrieved=7),
    ]

    body = usage_body(
        counts, Period(TODAY, TODAY), shown="mk_1234…", account_number=1, key_number=None, billing_multiplier=5
    )

    assert [(day["date"], day["requestCount"], day["avgLatencyMrMs"]) for day in body["daily"]] == [
        ("2026-06-14", 4, 0), ("2026-06-15", 3, 1.0),
    ]  # fmt: skip
    assert {name: sums["requests"] for name, sums in body["by_model"].items()} == {"none": 4, "a": 1, "b": 2}
    assert {name: sums["requests"] for name, sums in body["by_key"].items()} == {"key_1": 5, "key_2": 2}
    assert (body["total_requests"], body["total_input_tokens"], body["total_memory_tokens"]) == (7, 5, 7)
    assert "latency_ms_sum" not in str(body["summary"])


def test_a_table_without_counts_has_its_names() -> None:
    assert csv_of([]).startswith("date,key_id,model,requests,errors,")


async def test_metrics_count_over_all_keys(tmp_path: Path) -> None:
    async with opened(tmp_path) as (account, _):
        await account.ingest("My dog is called Rex.")
        await account.stats()
        lines = (await account.get("/metrics")).text.splitlines()

    assert "# TYPE memoryrouter_usage_requests_total counter" in lines
    assert "memoryrouter_usage_requests_total 5" in lines
    assert "memoryrouter_usage_memories_stored_total 1" in lines
    assert "memoryrouter_usage_records_unwritten_total 0" in lines
