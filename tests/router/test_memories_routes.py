"""`GET /v1/memories` over HTTP: lists page by page, filters, single items, and who may see what."""

from __future__ import annotations

from pathlib import Path

from models.memory_settings import SessionSettings
from tests.router.memories import BASE_MS, CAT, DOG, SHIP, contents, every_page, id_of, lines, listed, patch
from tests.running import assistant, object_of, open_server, settings_for

# --- lists ---


async def test_the_newest_come_first_and_say_all_that_is_known(tmp_path: Path) -> None:
    """The shape of a search item without what only a search knows, and what an app shows beside it."""
    async with open_server(tmp_path / "data") as server:
        line = {"content": DOG, "timestamp": BASE_MS, "session_id": "s", "id": "d1", "metadata": {"topic": "pets"}}
        await server.upload([line])
        await server.ingest(CAT, model="openai/m")
        await server.wait_embedded()
        newest, oldest = (await listed(server))["data"]
        (found,) = [item for item in await server.search("dog") if item["content"] == DOG]

    assert newest["content"] == CAT
    assert (newest["source"], newest["model"], newest["pending"]) == ("ingest", "openai/m", False)
    assert newest["request_id"].startswith("req_")
    extra = {"created_at", "stored_at", "tokens", "model", "request_id", "pending"}
    assert {name: value for name, value in oldest.items() if name not in extra} == {
        name: value for name, value in found.items() if name not in ("matched", "score")
    }
    assert oldest["created_at"] == "2026-05-28T20:26:40.000Z"
    assert oldest["tokens"] > 0


async def test_pages_follow_each_other_in_both_orders(tmp_path: Path) -> None:
    """Also where many memories share one time."""
    async with open_server(tmp_path / "data") as server:
        await server.upload([*lines(25, step_ms=0), {"content": "Last.", "timestamp": BASE_MS + 1}])
        down = await every_page(server, "?limit=7")
        up = await every_page(server, "?limit=7&order=asc")
        whole = await listed(server, "?limit=26")

    assert down == list(reversed(up))
    assert up == [f"Note number {at}." for at in range(25)] + ["Last."]
    assert whole["next_cursor"] is None


async def test_cursors_are_stable_while_others_store_and_delete(tmp_path: Path) -> None:
    """What comes or goes meanwhile neither repeats nor skips what was there."""
    async with open_server(tmp_path / "data") as server:
        await server.upload(lines(12))
        first = await listed(server, "?limit=5")
        await server.upload([{"content": "Newer.", "timestamp": BASE_MS + 99_000}])
        await server.upload([{"content": "Older.", "timestamp": BASE_MS - 1}])
        for item in (first["data"][-1], first["data"][0]):  # the very place where the page ended, too
            assert (await server.delete(f"/v1/memories/{item['id']}")).status_code == 200
        second = await listed(server, f"?limit=50&cursor={first['next_cursor']}")

    assert [item["content"] for item in second["data"]] == [
        *(f"Note number {at}." for at in range(6, -1, -1)), "Older.",
    ]  # fmt: skip


FILTERED = [
    ("?session_id=s", {DOG}),
    ("?role=assistant", {CAT}),
    ("?source=upload", {DOG, SHIP}),
    ("?model=openai%2Fm", {CAT}),
    (f"?since={BASE_MS}&until={BASE_MS + 1}", {DOG}),
    ("?since=2026-05-28T20:26:40Z&until=2026-05-28T22:26:41%2B02:00", {DOG, SHIP}),
    ("?until=2026-05-28T22:26:40 02:00", set()),
    ("?until=2026-05-29", {DOG, SHIP}),
    ("?metadata.topic=pets", {DOG}),
    ("?metadata[topic]=pets", {DOG}),
    ("?metadata.weight=3", {DOG}),
    ("?metadata.weight=3.0&metadata.tame=true", {DOG}),
    ("?metadata.weight=4", set()),
    ("?metadata.a.b=x", {SHIP}),
    ("?metadata.none=null", {SHIP}),
    ("?metadata.tame=false", set()),
    ("?q=dogs+called", {DOG}),
    ("?q=called", {DOG, CAT}),
    ("?q=dog+ferry", set()),
    ("?q=called&source=upload", {DOG}),
    ("?flagged=true", set()),
    ("?flagged=false&session_id=s", {DOG}),
]


async def test_each_filter_lets_through_exactly_what_it_says(tmp_path: Path) -> None:
    metadata = {"topic": "pets", "weight": 3, "tame": True}
    async with open_server(tmp_path / "data") as server:
        await server.upload(
            [
                {"content": DOG, "timestamp": BASE_MS, "session_id": "s", "metadata": metadata},
                {"content": SHIP, "timestamp": BASE_MS + 1, "metadata": {"a.b": "x", "none": None}},
            ]
        )
        answer = await server.post("/v1/memory/ingest", {"messages": [assistant(CAT)], "model": "openai/m"})
        assert answer.status_code == 202
        for query, expected in FILTERED:
            assert set(await contents(server, query)) == expected, query
        request_id = answer.headers["x-request-id"]
        assert await contents(server, f"?request_id={request_id}") == [CAT]


async def test_a_filter_that_few_memories_pass_is_found_across_pages(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        await server.upload([*lines(40), {"content": "The one.", "timestamp": BASE_MS - 5, "metadata": {"k": "v"}}])
        assert await every_page(server, "?metadata.k=v&limit=1") == ["The one."]


WRONG_QUESTIONS = [
        ("?limit=0", "limit"), ("?limit=1001", "limit"), ("?cursor=x", "cursor"), ("?cursor=AAAA", "cursor"),
        ("?order=up", "order"), ("?role=system", "role"), ("?source=x", "source"), ("?since=soon", "since"),
        ("?until=99999999999999999999", "until"), ("?q=+", "q"), ("?flagged=perhaps", "flagged"),
]  # fmt: skip


async def test_a_wrong_question_is_told_by_its_name(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        for query, field in WRONG_QUESTIONS:
            answer = await server.get(f"/v1/memories{query}")
            assert (answer.status_code, object_of(answer)["field"]) == (400, field), query


async def test_lists_and_items_see_what_their_session_may_see(tmp_path: Path) -> None:
    """As every read does (design section 7)."""
    async with open_server(tmp_path / "data") as server:
        await server.ingest(DOG, session_id="s")
        await server.ingest(CAT)
        dog, cat = await id_of(server, DOG), await id_of(server, CAT)
        in_session = {"x-session-id": "s"}
        assert await contents(server, headers=in_session) == [DOG]
        assert set(await contents(server, headers={**in_session, "x-session-scope": "vault"})) == {DOG, CAT}
        assert (await server.get(f"/v1/memories/{dog}", headers=in_session)).status_code == 200
        for answer in (
            await server.get(f"/v1/memories/{cat}", headers=in_session),
            await patch(server, cat, {"content": "x"}, headers=in_session),
            await server.delete(f"/v1/memories/{cat}", headers=in_session),
        ):
            assert answer.status_code == 404
        assert set(await contents(server)) == {DOG, CAT}
    strict = settings_for(sessions=SessionSettings(isolation="strict"))
    async with open_server(tmp_path / "data", strict) as server:
        assert await contents(server) == [CAT]
        assert await contents(server, "?session_id=s") == [DOG]


async def test_one_memory_comes_with_its_whole_content(tmp_path: Path) -> None:
    long = "word " * 5_000
    async with open_server(tmp_path / "data") as server:
        await server.upload([{"content": long}])
        (item,) = (await listed(server))["data"]
        one = object_of(await server.get(f"/v1/memories/{item['id']}"))
    assert (len(item["content"]), item["truncated"]) == (20_000, True)
    assert one["content"] == long.strip()
    assert "truncated" not in one


async def test_an_unknown_id_is_not_found_in_our_own_shape(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        await server.ingest(DOG)
        for public_id in ("mem_99", "mem_0", "mem_", "x", "mem_99999999999", "mem_-1", "mem_%C2%B2"):
            for answer in (
                await server.get(f"/v1/memories/{public_id}"),
                await server.delete(f"/v1/memories/{public_id}"),
                await patch(server, public_id, {"content": "x"}),
            ):
                assert (answer.status_code, object_of(answer)["code"]) == (404, "not_found"), public_id
