"""`/v1/memory/*` over HTTP: what is stored, found, told apart and forgotten."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
import trio

from models.memory_settings import SessionSettings
from tests.running import Client, assistant, object_of, open_server, settings_for, user

DOG, CAT = "My dog is called Rex.", "My cat is called Tom."
BOTH = "What are my dog and my cat called?"


# --- prepare ---


async def test_a_context_has_the_published_form(tmp_path: Path) -> None:
    """Oldest first, a blank line between, in tags, a closing sentence behind; times as people say them."""
    async with open_server(tmp_path / "data") as server:
        now_ms = int((await server.stats())["createdAt"])
        await server.upload(
            [
                {"content": CAT, "timestamp": now_ms - 5 * 3_600_000},
                {"content": DOG, "timestamp": now_ms - 2 * 86_400_000},
            ]
        )
        prepared = await server.prepare(BOTH, headers={"x-timezone": "Europe/Vienna"})

    lines = prepared["context"].split("\n")
    assert lines[0] == "<memory_context>"
    assert lines[1].startswith("[MEMORY - 2 days ago (")
    assert lines[1].endswith(f")] {DOG}")
    assert lines[2] == ""
    assert lines[3].startswith("[MEMORY - 5 hours ago (")
    assert lines[4] == "</memory_context>"
    assert prepared["memories_found"] == 2
    assert prepared["memory_tokens"] == prepared["retrieval_tokens"] > 0


async def test_nothing_relevant_means_no_context(tmp_path: Path) -> None:
    """In an empty vault, for another subject, for no question, and for a limit of zero."""
    async with open_server(tmp_path / "data") as server:
        empty = await server.prepare(BOTH)
        await server.ingest(DOG)
        other = await server.prepare("Quarterly tax filing deadlines?")
        none = await server.post("/v1/memory/prepare", {"messages": [assistant("My dog?")]})
        zero = await server.prepare(BOTH, context_limit=0)

    for answer in (empty, other, object_of(none), zero):
        assert answer["context"] is None
        assert answer["memories_found"] == answer["memory_tokens"] == answer["tokens_billed"] == 0


async def test_density_and_limit_bound_the_context(tmp_path: Path) -> None:
    """Low takes 10 chunks, the default 30, an explicit limit that many."""
    async with open_server(tmp_path / "data") as server:
        await server.upload([{"content": f"My dog Rex ate bone number {number}."} for number in range(40)])
        await server.wait_embedded()
        for options, chunks in (
            ({"density": "low"}, 10),
            ({}, 30),
            ({"density": "high"}, 40),
            ({"context_limit": 3}, 3),
        ):
            assert (await server.prepare("What did my dog Rex eat?", **options))["memories_found"] == chunks


async def test_a_question_that_was_asked_before_does_not_answer_itself(tmp_path: Path) -> None:
    """It is stored, and stays out of the context."""
    async with open_server(tmp_path / "data") as server:
        await server.ingest(DOG, "What is my dog called?")
        context = (await server.prepare("What is my dog called?"))["context"]

    assert DOG in context
    assert "What is my dog called?" not in context


# --- ingest ---


async def test_an_exchange_is_stored_once_however_often_its_history_comes(tmp_path: Path) -> None:
    """Clients send everything again with each turn, and repeat a request that failed."""
    history: list[dict[str, Any]] = []
    async with open_server(tmp_path / "data") as server:
        for turn in range(3):
            history += [user(f"Question number {turn} about Rex?"), assistant(f"Answer number {turn} about Rex.")]
            for _ in range(2):
                answer = await server.post("/v1/memory/ingest", {"messages": history})
                assert answer.status_code == 202
        found = await server.search("Rex", limit=100)
        stats = await server.stats()

    assert sorted(item["content"] for item in found) == sorted(message["content"] for message in history)
    assert stats["stored"] == len(history)
    assert stats["duplicates"] > 0


async def test_a_lone_user_turn_is_stored_and_found_at_once(tmp_path: Path) -> None:
    """LangChain's store puts one, and reads it with `limit: 1`."""
    async with open_server(tmp_path / "data") as server:
        await server.ingest("color: teal")
        (item,) = await server.search("color", limit=1)
    assert item["content"] == "color: teal"


async def test_ingested_messages_keep_time_id_and_metadata(tmp_path: Path) -> None:
    """And the model and the session of the request."""
    message = user(DOG, timestamp=1_600_000_000_000, id="m-1", metadata={"a": [1]}, x_unknown=1)
    async with open_server(tmp_path / "data") as server:
        body = {"messages": [message], "session_id": 7, "model": "gpt-x", "embeddings": "all-minilm-L6-v2"}
        assert (await server.post("/v1/memory/ingest", body)).status_code == 202
        (item,) = await server.search("dog")

    assert item["timestamp"] == 1_600_000_000_000
    assert item["external_id"] == "m-1"
    assert item["metadata"] == {"a": [1]}
    assert item["session_id"] == "7"
    assert item["source"] == "ingest"


async def test_nothing_to_store_is_accepted_all_the_same(tmp_path: Path) -> None:
    """A message object of an SDK may have no text."""
    async with open_server(tmp_path / "data") as server:
        messages = [{"role": "system", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": []}]
        answer = await server.post("/v1/memory/ingest", {"messages": messages})
        assert answer.status_code == 202
        assert object_of(answer)["accepted"] is True
        assert (await server.stats())["memories"] == 0


@pytest.mark.parametrize(
    ("headers", "stored"),
    [({"x-store-input": "false"}, {CAT}), ({"x-memory-store-response": "false"}, {DOG})],
    ids=["input", "response"],
)
async def test_ingest_leaves_out_the_side_that_is_not_to_be_stored(
    tmp_path: Path, headers: dict[str, str], stored: set[str]
) -> None:
    """By the same headers as chat."""
    async with open_server(tmp_path / "data") as server:
        answer = await server.post("/v1/memory/ingest", {"messages": [user(DOG), assistant(CAT)]}, headers=headers)
        assert object_of(answer)["accepted"] is True
        assert await server.contents("called") == stored


# --- search ---


async def test_search_returns_whole_memories_best_first(tmp_path: Path) -> None:
    """Up to the limit, without a cut-off; the matching chunk beside a long text, which is cut at 20 000 characters."""
    long = "Filler sentence about nothing at all. " * 800 + "The wine cellar key hangs behind the clock."
    async with open_server(tmp_path / "data") as server:
        await server.ingest(DOG, long)
        await server.wait_embedded()
        found = await server.search("wine cellar key")
        (one,) = await server.search("wine cellar key", limit=1)
        both = await server.search("zzz qqq")

    assert [len(item["content"]) for item in found] == [20_000, len(DOG)]
    assert found[0]["truncated"] is True
    assert "wine cellar key" in found[0]["matched"]
    assert "truncated" not in found[1]
    assert 1 >= found[0]["score"] >= found[1]["score"] >= 0
    assert one == found[0]
    assert len(both) == 2


async def test_an_empty_vault_finds_nothing(tmp_path: Path) -> None:
    """With 200."""
    async with open_server(tmp_path / "data") as server:
        assert await server.search("anything") == []


# --- upload ---


async def test_an_upload_is_searchable_with_everything_it_said(tmp_path: Path) -> None:
    """Time, id, metadata; its own session beats that of the header."""
    lines = [
        {"content": DOG, "timestamp": 1_600_000_000_000, "id": "a", "metadata": {"file": "x"}, "session_id": "s1"},
        {"content": CAT, "role": "assistant"},
    ]
    async with open_server(tmp_path / "data") as server:
        answer = await server.upload(lines, headers={"x-session-id": "s2", "content-type": "text/plain"})
        dog, cat = sorted(await server.search("called"), key=lambda item: item["content"], reverse=True)

    assert answer["vault"] == "session"
    assert answer["sessionId"] == "s2"
    assert (dog["session_id"], dog["timestamp"], dog["external_id"]) == ("s1", 1_600_000_000_000, "a")
    assert dog["metadata"] == {"file": "x"}
    assert (cat["session_id"], cat["role"], cat["source"]) == ("s2", "assistant", "upload")
    assert "external_id" not in cat
    assert "metadata" not in cat


async def test_uploading_again_changes_nothing(tmp_path: Path) -> None:
    """The client's id is the identity, whatever else the line says; without one, who said what, where and when."""
    lines = [{"content": DOG, "id": "a"}, {"content": CAT, "timestamp": 5}, {"content": "No time and no id."}]
    async with open_server(tmp_path / "data") as server:
        first = await server.upload(lines)
        second = await server.upload(
            [*lines, {"content": "Changed text.", "id": "a"}, {"content": CAT, "timestamp": 6}]
        )
        stats = await server.stats()
        contents = await server.contents("called")

    assert (first["stats"]["stored"], first["stats"]["duplicates"]) == (3, 0)
    assert (second["stats"]["stored"], second["stats"]["duplicates"]) == (1, 4)
    assert stats["memories"] == 4
    assert contents == {DOG, CAT, "No time and no id."}


async def test_ten_thousand_lines_are_taken_and_one_more_is_not(tmp_path: Path) -> None:
    """413, and nothing of it is stored."""
    lines = [b'{"content":"Entry number %d of the diary."}' % number for number in range(10_001)]
    async with open_server(tmp_path / "data") as server:
        refused = await server.post("/v1/memory/upload", b"\n".join(lines))
        assert refused.status_code == 413
        assert (await server.stats())["memories"] == 0

        body = gzip.compress(b"\xef\xbb\xbf\r\n" + b"\r\n\r\n".join(lines[:10_000]) + b"\n")
        taken = await server.post("/v1/memory/upload", body, headers={"content-encoding": "gzip"})
        assert taken.status_code == 200, taken.text
        assert object_of(taken)["stats"]["stored"] == 10_000
        (item,) = await server.search("Entry number 9999", limit=1)
    assert item["content"] == "Entry number 9999 of the diary."


async def test_a_bad_line_stores_nothing(tmp_path: Path) -> None:
    """And is named."""
    async with open_server(tmp_path / "data") as server:
        answer = await server.post("/v1/memory/upload", b'{"content":"fine"}\n\n{"content":5}\n')
        assert answer.status_code == 400
        assert object_of(answer)["error"].startswith("Line 3: ")
        assert (await server.stats())["memories"] == 0


# --- sessions ---


async def test_a_session_sees_itself_and_no_session_sees_everything(tmp_path: Path) -> None:
    """Header and body name the same session, also as an integer and beyond ASCII."""
    async with open_server(tmp_path / "data") as server:
        await server.ingest(DOG, session_id=5)
        await server.post("/v1/memory/ingest", {"messages": [user(CAT)]}, headers={"X-Session-Id": "ünï".encode()})  # type: ignore[dict-item]  # as clients write UTF-8
        await server.ingest("My bird is called Bo.")

        assert await server.contents("called", headers={"x-session-id": "5"}) == {DOG}
        assert {item["content"] for item in await server.search("called", session_id="ünï")} == {CAT}
        assert len(await server.contents("called")) == 3
        assert len(await server.contents("called", headers={"x-session-id": "5", "x-session-scope": "vault"})) == 3
        assert (await server.stats())["sessions"] == 2
        assert (await server.stats(headers={"x-session-id": "5"}))["memories"] == 1
        assert DOG not in str(await server.prepare(BOTH, session_id="ünï"))


async def test_strict_isolation_hides_sessions_from_requests_without_one(tmp_path: Path) -> None:
    """They see what has no session."""
    settings = settings_for(sessions=SessionSettings(isolation="strict"))
    async with open_server(tmp_path / "data", settings) as server:
        await server.ingest(DOG, session_id="a")
        await server.ingest(CAT)
        assert await server.contents("called") == {CAT}
        assert await server.contents("called", headers={"x-session-id": "a"}) == {DOG}


async def test_deleting_a_session_deletes_exactly_that(tmp_path: Path) -> None:
    """Deleting without one deletes the vault, for good, and it can be used again."""
    async with open_server(tmp_path / "data") as server:
        await server.ingest(DOG, session_id="a")
        await server.ingest(CAT)
        answer = object_of(await server.delete(headers={"x-session-id": "a"}))
        assert answer["sessionCleared"] is True
        assert await server.contents("called") == {CAT}

        answer = object_of(await server.delete("/v1/memory?reset=true"))
        assert (answer["deleted"], answer["reset"], answer["sessionCleared"]) == (True, True, False)
        assert await server.contents("called") == set()
        await server.ingest(DOG)
    async with open_server(tmp_path / "data") as server:
        assert await server.contents("called") == {DOG}


# --- suffixes and modes ---


@pytest.mark.parametrize("how", ["suffix", "header", "query", "body"])
@pytest.mark.parametrize("mode", ["read", "write", "off"])
async def test_the_strictest_bound_holds_on_every_route(tmp_path: Path, how: str, mode: str) -> None:
    """Reading skips to nothing, ingest says no, upload and delete are forbidden (design section 12)."""
    async with open_server(tmp_path / "data") as server:
        await server.ingest(DOG)
        key = f"{server.key}:{mode}" if how == "suffix" else server.key
        headers = {"x-memory-mode": mode} if how == "header" else {}
        query = f"?mode={mode}" if how == "query" else ""
        more = {"memory_mode": mode} if how == "body" else {}

        async def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = await server.post(f"/v1/memory/{path}{query}", {**body, **more}, key=key, headers=headers)
            assert answer.status_code == (202 if path == "ingest" else 200), answer.text
            return object_of(answer)

        reads, writes = mode == "read", mode == "write"
        prepared = await post("prepare", {"messages": [user("What is my dog called?")]})
        assert (prepared["context"] is not None) is reads
        assert ((await post("search", {"query": "dog"}))["count"] == 1) is reads
        ingested = await post("ingest", {"messages": [user(CAT)]})
        assert ingested["accepted"] is ingested["queued"] is writes
        assert ("reason" in ingested) is not writes
        if how == "body":  # neither takes a JSON body
            return
        upload = await server.post(f"/v1/memory/upload{query}", b'{"content":"x y z"}', key=key, headers=headers)
        assert upload.status_code == (200 if writes else 403)
        deleted = await server.delete(f"/v1/memory{query}", key=key, headers=headers)
        assert deleted.status_code == (200 if writes else 403)


async def test_no_mode_widens_what_a_suffix_allows(tmp_path: Path) -> None:
    """`:read` with `X-Memory-Mode: write` may do neither."""
    async with open_server(tmp_path / "data") as server:
        await server.ingest(DOG)
        headers = {"x-memory-mode": "write"}
        found = await server.post("/v1/memory/search", {"query": "dog"}, key=f"{server.key}:read", headers=headers)
        assert object_of(found)["memories"] == []
        ingested = await server.post(
            "/v1/memory/ingest", {"messages": [user(CAT)]}, key=f"{server.key}:read", headers=headers
        )
        assert object_of(ingested)["accepted"] is False
        assert await server.contents("called") == {DOG}


# --- vaults and clients side by side ---


async def test_no_key_sees_the_vault_of_another(tmp_path: Path) -> None:
    """Search, context, stats and deletion stay inside."""
    async with open_server(tmp_path / "data") as server:
        other = await server.other()
        await server.ingest(DOG)
        assert await other.search("dog") == []
        assert (await other.prepare("What is my dog called?"))["context"] is None
        assert (await other.stats())["memories"] == 0
        await other.delete()
        assert await server.contents("called") == {DOG}


async def test_every_client_reads_its_own_writes(tmp_path: Path) -> None:
    """Eight at once, on one vault and on their own: a search that starts after the 202 finds the words."""
    async with open_server(tmp_path / "data") as server:
        other = await server.other()

        async def write_and_read(client: Client, number: int) -> None:
            for turn in range(12):
                word = f"token{number}x{turn}"
                text = f"Remember {word} please."
                if turn % 3:
                    await client.ingest(text)
                else:
                    await client.upload([{"content": text}])
                found = await client.search(word, limit=1)
                assert [item["content"] for item in found] == [text]

        async with trio.open_nursery() as clients:
            for number in range(8):
                clients.start_soon(write_and_read, server if number < 4 else other, number)
        assert (await server.stats())["memories"] == (await other.stats())["memories"] == 4 * 12


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """Memories, their order, the keys, and what counts as known."""
    async with open_server(tmp_path / "data") as server:
        await server.upload([{"content": DOG, "id": "a", "session_id": "s"}, {"content": CAT}])
        await server.wait_embedded()
        before = await server.search("called")
        other = await server.other()
        await other.ingest("My bird is called Bo.")
    async with open_server(tmp_path / "data") as server:
        await server.wait_embedded()
        assert await server.search("called") == before
        assert (await server.upload([{"content": DOG, "id": "a"}]))["stats"]["stored"] == 0
        assert await Client(server.http, other.key).contents("called") == {"My bird is called Bo."}


async def test_bodies_are_read_in_any_content_type(tmp_path: Path) -> None:
    """JSON stays JSON."""
    async with open_server(tmp_path / "data") as server:
        for kind in ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain"):
            answer = await server.post("/v1/memory/search", {"query": "dog"}, headers={"content-type": kind})
            assert object_of(answer)["count"] == 0
