"""`/v1/memories` over HTTP: single memories are stored, changed, deleted and undone; nothing else moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from actors.store.sqlite import open_store
from models.store_settings import StoreSettings
from tests.router.memories import BASE_MS, CAT, DOG, SHIP, contents, id_of, lines, listed, patch
from tests.running import assistant, object_of, open_server, user

# --- storing ---


async def test_storing_one_memory_gives_it_back(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        body = {"content": DOG, "role": "assistant", "timestamp": BASE_MS, "session_id": "s", "metadata": {"a": 1}}
        answer = await server.post("/v1/memories", {**body, "id": "d1", "model": "m"})
        item = object_of(answer)
        assert answer.status_code == 201
        assert {**item, **body} == item
        assert (item["external_id"], item["model"], item["source"]) == ("d1", "m", "ingest")
        assert object_of(await server.get(f"/v1/memories/{item['id']}"))["content"] == DOG
        assert await server.contents("dog", headers={"x-session-id": "s"}) == {DOG}


async def test_what_is_known_already_is_answered_with_what_is_there(tmp_path: Path) -> None:
    """By the client's id, by the given time, and by the words of a moment ago."""
    async with open_server(tmp_path / "data") as server:
        for body in ({"content": DOG, "id": "d1"}, {"content": CAT, "timestamp": BASE_MS}, {"content": SHIP}):
            first = await server.post("/v1/memories", body)
            again = await server.post("/v1/memories", {**body, "metadata": {"late": True}})
            assert (first.status_code, again.status_code) == (201, 200)
            assert object_of(again)["id"] == object_of(first)["id"]
            assert "metadata" not in object_of(again)
        renamed = await server.post("/v1/memories", {"content": "Other words.", "id": "d1"})
        assert (renamed.status_code, object_of(renamed)["content"]) == (200, DOG)
        assert len(await contents(server)) == 3


UNSTORABLE: list[tuple[Any, str]] = [
        ({}, "content"), ({"content": " "}, "content"), ({"content": 5}, "content"),
        ({"content": "<memory_context>x</memory_context>"}, "content"), ({"content": "x", "role": "tool"}, "role"),
        ({"content": "x", "timestamp": "now"}, "timestamp"), ({"content": "x", "metadata": []}, "metadata"),
        ({"content": "x", "model": 5}, "model"),
]  # fmt: skip


async def test_what_cannot_be_stored_is_told_by_its_name(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        for body, field in UNSTORABLE:
            answer = await server.post("/v1/memories", body)
            assert (answer.status_code, object_of(answer)["field"]) == (400, field), body
        assert await contents(server) == []


# --- changing ---


async def test_a_changed_text_takes_the_old_ones_place_at_once(tmp_path: Path) -> None:
    """Same id, same place in lists; found by its own words only, and embedded anew."""
    async with open_server(tmp_path / "data") as server:
        await server.upload(lines(3))
        public_id = await id_of(server, "Note number 1.")
        answer = await patch(server, public_id, {"content": "My parrot is called Coco."})
        item = object_of(answer)
        assert (answer.status_code, item["id"], item["timestamp"]) == (200, public_id, BASE_MS + 1_000)
        assert await contents(server) == ["Note number 2.", "My parrot is called Coco.", "Note number 0."]
        assert await server.contents("parrot") >= {"My parrot is called Coco."}
        assert "Note number 1." not in await server.contents("note number 1")
        await server.wait_embedded()
        assert (await server.search("parrot"))[0]["id"] == public_id
        again = object_of(await patch(server, public_id, {"content": "My parrot is called Lola."}))
        assert again["id"] == public_id
        assert (await server.stats())["memories"] == 3
    async with open_server(tmp_path / "data") as server:  # from the store
        assert await contents(server) == ["Note number 2.", "My parrot is called Lola.", "Note number 0."]
        assert object_of(await server.get(f"/v1/memories/{public_id}"))["content"] == "My parrot is called Lola."


async def test_what_is_said_of_a_memory_changes_without_its_text(tmp_path: Path) -> None:
    """It needs no new vectors; it moves in time and between sessions."""
    async with open_server(tmp_path / "data") as server:
        await server.upload([{"content": DOG, "metadata": {"a": 1, "b": 2}}, *lines(2)])
        await server.wait_embedded()
        public_id = await id_of(server, DOG)
        change = {"metadata": {"c": 3}, "timestamp": BASE_MS - 1, "session_id": "s"}
        item = object_of(await patch(server, public_id, change))
        assert (item["metadata"], item["timestamp"], item["session_id"]) == ({"c": 3}, BASE_MS - 1, "s")
        assert item["pending"] is False
        assert (await contents(server))[-1] == DOG
        assert await server.contents("dog", headers={"x-session-id": "s"}) == {DOG}
        bare = object_of(await patch(server, public_id, {"metadata": None, "session_id": None}))
        assert bare["session_id"] is None
        assert "metadata" not in bare
        assert (await server.stats())["sessions"] == 0
    async with open_server(tmp_path / "data") as server:
        assert (await contents(server))[-1] == DOG


NO_CHANGES: list[tuple[Any, str]] = [
        ({}, "body"), ({"id": "x"}, "body"), ({"content": ""}, "content"), ({"content": None}, "content"),
        ({"role": "tool"}, "role"), ({"timestamp": None}, "timestamp"), ({"metadata": 5}, "metadata"),
        ({"session_id": []}, "session_id"),
]  # fmt: skip


async def test_a_change_that_cannot_be_is_told_by_its_name(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        await server.ingest(DOG)
        public_id = await id_of(server, DOG)
        for body, field in NO_CHANGES:
            answer = await patch(server, public_id, body)
            assert (answer.status_code, object_of(answer)["field"]) == (400, field), body
        assert await contents(server) == [DOG]


# --- deleting ---


async def test_a_deleted_memory_is_gone_everywhere_and_may_come_again(tmp_path: Path) -> None:
    """From lists, recall and later exports, also after a restart; its words may be stored again at once."""
    async with open_server(tmp_path / "data") as server:
        await server.ingest(DOG, CAT)
        public_id = await id_of(server, DOG)
        answer = await server.delete(f"/v1/memories/{public_id}")
        assert object_of(answer) == {"id": public_id, "deleted": True}
        assert (await server.delete(f"/v1/memories/{public_id}")).status_code == 404
        assert await server.contents("dog called") == {CAT}
        assert (await server.prepare("What is my dog called?"))["context"] is None or DOG not in str(
            await server.prepare("What is my dog called?")
        )
        assert DOG not in (await server.get("/v1/memory/export")).text
        await server.ingest(DOG)
        assert await id_of(server, DOG) != public_id
        assert (await server.delete(f"/v1/memories/{await id_of(server, DOG)}")).status_code == 200
    async with open_server(tmp_path / "data") as server:
        assert await contents(server) == [CAT]


async def test_a_deletion_by_filter_deletes_that_and_counts_before(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        await server.upload([{"content": f"Pet {at}.", "metadata": {"topic": "pets"}} for at in range(30)] + lines(5))
        dry = object_of(await server.delete("/v1/memories?metadata.topic=pets&dry_run=true"))
        assert dry == {"deleted": 0, "matched": 30, "dry_run": True}
        assert (await server.stats())["memories"] == 35
        done = object_of(await server.delete("/v1/memories?metadata.topic=pets"))
        assert done == {"deleted": 30, "matched": 30, "dry_run": False}
        assert len(await contents(server)) == 5
        by_session = await server.delete("/v1/memories", headers={"x-session-id": "nobody"})
        assert object_of(by_session)["matched"] == 0


NO_FILTERS = [
        ("", "filter"), ("?dry_run=true", "filter"), ("?session_id=", "session_id"), ("?sesion_id=s", "sesion_id"),
        ("?role=user&limit=1", "limit"), ("?role=user&dry_run=perhaps", "dry_run"),
]  # fmt: skip


async def test_a_deletion_without_a_filter_or_with_one_that_is_none_is_refused(tmp_path: Path) -> None:
    """A typing error must not delete more than was meant."""
    async with open_server(tmp_path / "data") as server:
        await server.ingest(DOG)
        for query, field in NO_FILTERS:
            answer = await server.delete(f"/v1/memories{query}")
            assert (answer.status_code, object_of(answer)["field"]) == (400, field), query
        assert await contents(server) == [DOG]


async def test_undo_takes_back_one_request_or_all_since_a_time(tmp_path: Path) -> None:
    """By when it was stored, not by when it was said; what is stored afterwards stays."""
    async with open_server(tmp_path / "data") as server:
        await server.upload([{"content": CAT, "timestamp": BASE_MS + 10**12}])
        planted = await server.post("/v1/memory/ingest", {"messages": [user(DOG), assistant(SHIP)]})
        request_id = planted.headers["x-request-id"]
        dry = await server.post("/v1/memories/undo", {"request_id": request_id, "dry_run": True})
        assert object_of(dry) == {"deleted": 0, "matched": 2, "dry_run": True}
        done = await server.post("/v1/memories/undo", {"request_id": request_id})
        assert object_of(done)["deleted"] == 2
        assert await contents(server) == [CAT]
        assert object_of(await server.post("/v1/memories/undo", {"request_id": request_id}))["matched"] == 0
        (item,) = (await listed(server))["data"]
        later = await server.post("/v1/memories/undo", {"since": "9999-01-01T00:00:00Z"})
        assert object_of(later)["matched"] == 0
        since = await server.post("/v1/memories/undo", {"since": item["stored_at"]})
        assert object_of(since)["deleted"] == 1
        assert await contents(server) == []


NO_UNDOS: list[tuple[Any, str]] = [
        ({}, "request_id"), ({"request_id": "r", "since": 1}, "request_id"), ({"request_id": 5}, "request_id"),
        ({"since": "soon"}, "since"), ({"since": ""}, "since"), ({"since": True}, "since"),
        ({"request_id": "r", "dry_run": "no"}, "dry_run"),
]  # fmt: skip


async def test_an_undo_of_nothing_in_particular_is_refused(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        await server.ingest(DOG)
        for body, field in NO_UNDOS:
            answer = await server.post("/v1/memories/undo", body)
            assert (answer.status_code, object_of(answer)["field"]) == (400, field), body
        assert await contents(server) == [DOG]


# --- who may ---


async def test_suffixes_bound_what_a_key_may_do(tmp_path: Path) -> None:
    """A list that may not be read is empty, as a search is; what may not be done is refused."""
    async with open_server(tmp_path / "data") as server:
        await server.ingest(DOG)
        public_id = await id_of(server, DOG)
        path = f"/v1/memories/{public_id}"
        for suffix, reads, writes in ((":read", True, False), (":write", False, True), (":off", False, False)):
            key = server.key + suffix
            page = await server.get("/v1/memories", key=key)
            assert [item["content"] for item in object_of(page)["data"]] == ([DOG] if reads else [])
            assert (await server.get(path, key=key)).status_code == (200 if reads else 403)
            stored = await server.post("/v1/memories", {"content": DOG}, key=key)
            assert stored.status_code == (200 if writes else 403)
            if writes:
                assert object_of(stored) == {"id": public_id}, "who may not read learns nothing of what is known"
            assert (await patch(server, public_id, {"role": "user"}, key=key)).status_code == 403
            dry = await server.delete("/v1/memories?role=user&dry_run=true", key=key)
            assert dry.status_code == 403
            if not writes:
                assert (await server.delete(path, key=key)).status_code == 403
                assert (await server.delete("/v1/memories?role=user", key=key)).status_code == 403
                assert (await server.post("/v1/memories/undo", {"since": 0}, key=key)).status_code == 403
        assert (await server.delete(path, key=f"{server.key}:write")).status_code == 200


async def test_no_key_sees_or_touches_the_memories_of_another(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        other = await server.other()
        await server.ingest(DOG)
        public_id = await id_of(server, DOG)
        assert await contents(other) == []
        assert (await other.get(f"/v1/memories/{public_id}")).status_code == 404
        assert (await patch(other, public_id, {"content": "x"})).status_code == 404
        assert (await other.delete(f"/v1/memories/{public_id}")).status_code == 404
        assert object_of(await other.post("/v1/memories/undo", {"since": 0}))["matched"] == 0
        assert await contents(server) == [DOG]


# --- at once ---


async def test_deletions_recalls_and_uploads_at_once_leave_exactly_what_should_be_left(tmp_path: Path) -> None:
    """No recall shows what was deleted before it began, and nothing that was stored is lost."""
    async with open_server(tmp_path / "data") as server:
        await server.upload([{"content": f"Doomed harbour {at}.", "session_id": "d"} for at in range(16)])
        doomed = [item["id"] for item in (await listed(server, "?session_id=d"))["data"]]
        gone: set[str] = set()

        async def delete() -> None:
            for public_id in doomed:
                content = object_of(await server.get(f"/v1/memories/{public_id}"))["content"]
                assert (await server.delete(f"/v1/memories/{public_id}")).status_code == 200
                gone.add(content)

        async def recall() -> None:
            while len(gone) < len(doomed):
                before = set(gone)
                assert not before & await server.contents("doomed harbour")

        async def store() -> None:
            for at in range(10):
                await server.upload([{"content": f"Kept harbour {at}-{line}."} for line in range(4)])

        async with trio.open_nursery() as together:
            for task in (delete, recall, store):
                together.start_soon(task)
        left = set(await contents(server))
        assert left == {f"Kept harbour {at}-{line}." for at in range(10) for line in range(4)}
        assert (await server.stats())["memories"] == 40


# --- what is kept of it ---


async def test_the_audit_log_says_who_deleted_how_many_and_never_what(tmp_path: Path) -> None:
    """Counting changes nothing, and leaves no entry."""
    async with open_server(tmp_path / "data") as server:
        await server.upload([{"content": DOG}, {"content": CAT}, {"content": SHIP, "session_id": "s"}, *lines(3)])
        dog = await id_of(server, DOG)
        await patch(server, dog, {"metadata": {"secret": DOG}})
        await server.delete(f"/v1/memories/{dog}")
        await server.delete("/v1/memories?q=note&dry_run=true")
        await server.delete("/v1/memories?q=note")
        await server.delete(headers={"x-session-id": "s"})
        undone = await server.post("/v1/memories/undo", {"since": 0})
    async with open_store(tmp_path / "data", settings=StoreSettings(shards=1)) as store:
        entries = [entry for entry in await store.list_audit(1) if entry.action.startswith("memories.")]
    assert [(entry.action, entry.detail) for entry in reversed(entries)] == [
        ("memories.changed", {"memories": 1}),
        ("memories.deleted", {"memories": 1, "by": "id"}),
        ("memories.deleted", {"memories": 3, "by": "filter"}),
        ("memories.deleted", {"memories": 1, "by": "session"}),
        ("memories.deleted", {"memories": 1, "by": "undo"}),
    ]
    assert entries[0].request_id == undone.headers["x-request-id"]
    assert {entry.actor for entry in entries} == {"key:1"}
    assert "Rex" not in str(entries)
