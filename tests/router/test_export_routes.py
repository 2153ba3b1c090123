"""`/v1/memory/export` and `/v1/memory/import` over HTTP: what went out comes back the same, and nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from models.exports import PartsReader, lines_of
from tests.fakes.embedding import HashEmbedding
from tests.running import Client, object_of, open_server

LINES: list[dict[str, Any]] = [
    {"content": "My dog is called Rex.", "timestamp": 1_700_000_000_000, "id": "m-1", "metadata": {"a": [1, None]}},
    {"content": "My cat is called Tom.", "session_id": "s1"},
    {"content": "Your cat eats fish.\u2028On Fridays. 🐟", "role": "assistant", "session_id": "s1"},
    {"content": "ok"},
    *({"content": f"Walk number {number} went round the lake."} for number in range(40)),
]


class CountingEmbedding(HashEmbedding):
    """Remembers what it embedded."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def encode(self, texts: Any) -> Any:
        self.texts += texts
        return super().encode(texts)


async def exported(client: Client, query: str = "") -> bytes:
    """The caller's export."""
    answer = await client.get(f"/v1/memory/export{query}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return answer.content


async def imported(client: Client, body: bytes) -> dict[str, Any]:
    """The stats of an import that went well."""
    answer = await client.post("/v1/memory/import", body)
    assert answer.status_code == 200, answer.text
    stats: dict[str, Any] = object_of(answer)["stats"]
    return stats


def told(items: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What search items say, but for where the memory came from and which number it has."""
    names = ("content", "role", "timestamp", "session_id", "score", "external_id", "metadata", "matched")
    return [tuple(str(item.get(name)) for name in names) for item in items]


async def test_an_import_elsewhere_is_searchable_alike_and_embeds_nothing(tmp_path: Path) -> None:
    """All of it, a session of it, twice, and into the vault it came from."""
    async with open_server(tmp_path / "old") as server:
        await server.upload(LINES)
        await server.wait_embedded()
        body = await exported(server)
        before = [told(await server.search(query, limit=50)) for query in ("cat", "lake walk", "Rex dog")]
        again = await imported(server, body)
        assert (again["stored"], again["duplicates"]) == (0, len(LINES))

    encoder = CountingEmbedding()
    async with open_server(tmp_path / "new", encoder=encoder) as server:
        stats = await imported(server, body)
        assert (stats["stored"], stats["duplicates"]) == (len(LINES), 0)
        assert (await server.stats())["pending"] == 0
        assert encoder.texts == []
        after = [told(await server.search(query, limit=50)) for query in ("cat", "lake walk", "Rex dog")]
        assert after == before
        again = await imported(server, body)
        assert (again["stored"], again["duplicates"]) == (0, len(LINES))
        assert (await server.stats())["stored"] == len(LINES)

    async with open_server(tmp_path / "new") as server:
        assert [told(await server.search(query, limit=50)) for query in ("cat", "lake walk", "Rex dog")] == before


async def test_without_vectors_the_texts_are_embedded_anew(tmp_path: Path) -> None:
    """And with those of another model, too."""
    async with open_server(tmp_path / "old") as server:
        await server.upload(LINES)
        await server.wait_embedded()
        bare, full = await exported(server, "?vectors=false"), await exported(server)
        assert b'"vector"' not in bare
        other = await server.other()
        assert (await imported(other, bare))["stored"] == len(LINES)
        await other.wait_embedded()
        assert told(await other.search("lake walk")) == told(await server.search("lake walk"))

    async with open_server(tmp_path / "new", encoder=HashEmbedding(dims=32)) as server:
        assert (await imported(server, full))["stored"] == len(LINES)
        await server.wait_embedded()
        assert "My cat is called Tom." in await server.contents("cat")


async def test_an_export_goes_on_behind_a_seq_and_keeps_to_a_session(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        await server.upload(LINES)
        whole = [memory.seq for memory in memories_of(await exported(server))]
        behind = [memory.seq for memory in memories_of(await exported(server, "?after=3&vectors=false"))]
        session = memories_of(await exported(server, "?session_id=s1"))
        header = await server.get("/v1/memory/export", headers={"x-session-id": "s1"})

    assert whole == list(range(1, len(LINES) + 1))
    assert behind == whole[3:]
    assert [memory.session_id for memory in session] == ["s1", "s1"]
    assert memories_of(header.content) == session


def memories_of(body: bytes) -> list[Any]:
    """The memories of an export that is verified on the way."""
    reader = PartsReader()
    values = [reader.read(line) for line in lines_of(body)]
    reader.finish()
    return [value for value in values if hasattr(value, "content")]


async def test_an_empty_vault_gives_an_empty_export_that_is_one(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        body = await exported(server)
        assert memories_of(body) == []
        assert body.count(b"\n") == 2
        assert (await imported(server, body))["stored"] == 0


async def test_a_suffix_or_a_mode_that_may_not_is_refused(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        body = await exported(server)
        for suffix in (":read", ":write", ":off"):
            assert (await server.get("/v1/memory/export", key=server.key + suffix)).status_code == 403
        for suffix, status in ((":read", 403), (":off", 403), (":write", 200)):
            assert (await server.post("/v1/memory/import", body, key=server.key + suffix)).status_code == status
        off = {"x-memory-mode": "off"}
        assert (await server.get("/v1/memory/export", headers=off)).status_code == 403
        assert (await server.post("/v1/memory/import", body, headers=off)).status_code == 403
        assert (await server.get("/v1/memory/export", key="")).status_code == 401
        for query in ("after=-1", "after=x", "vectors=maybe"):
            assert (await server.get(f"/v1/memory/export?{query}")).status_code == 400


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[:-1], "Line 4: the export is cut here; its end line is missing."),
        (lambda lines: [*lines[:-1], lines[-1][:20]], "Line 4: the export is cut here"),
        (lambda lines: [lines[0], lines[2], lines[3]], "Line 3: the lines before this end line"),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], "Line 3: memories must come in ascending order"),
        (lambda lines: [lines[0], lines[1].replace(b"dog", b"cat"), *lines[2:]], "Line 4: the lines before"),
        (lambda lines: [lines[0].replace(b'"dims":64', b'"dims":32'), *lines[1:]], "Line 1: the header fails"),
        (lambda lines: lines[1:], "Line 1: it must be the header"),
        (lambda lines: [lines[0], b"{}\n", *lines[2:]], "Line 2: not a valid memory"),
        (lambda lines: [lines[0], b"nonsense\n", *lines[2:]], "Line 2: not valid JSON"),
        (lambda _: [], "Line 1: the export is empty"),
        (lambda lines: [*lines, *lines[:2]], "Line 7: the export is cut here"),
    ],
)
async def test_what_is_cut_or_changed_is_refused_and_nothing_is_stored(tmp_path: Path, change: Any, words: str) -> None:
    async with open_server(tmp_path / "data") as server:
        await server.upload(LINES[:2])
        lines = (await exported(server)).splitlines(keepends=True)
        other = await server.other()
        answer: httpx.Response = await other.post("/v1/memory/import", b"".join(change(lines)))
        assert (answer.status_code, object_of(answer)["code"]) == (400, "invalid_request")
        assert object_of(answer)["error"].startswith(words)
        assert (await other.stats())["stored"] == 0
        assert (await imported(other, b"".join([*lines, *lines])))["stored"] == 2
