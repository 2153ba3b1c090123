"""Embedding models as clients meet them: named by header or body, changed by a write, told in stats."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from models.embedder_settings import BUILT_IN_EMBEDDER, BUILT_IN_EMBEDDERS, EmbedderSettings, EmbeddersSettings
from models.memory_settings import EmbeddingSettings
from models.model_files import ModelFileError
from models.settings import Settings
from tests.fakes.embeddings_server import EmbeddingsServer, open_embeddings_server
from tests.fakes.provider import open_fake_provider
from tests.fakes.tiny_model import write_tiny_model
from tests.patience import PATIENCE_S
from tests.running import Client, open_server, settings_for, user

DOG = "My dog is called Rex."
TINY = {"x-embedding-model": "tiny"}


def settings_with(*, default: str = BUILT_IN_EMBEDDER, **embedders: EmbedderSettings) -> Settings:
    """Settings with these embedders beside the built-in one, which tests replace by a fake."""
    return settings_for(
        embedding=EmbeddingSettings(default=default),
        embedders=EmbeddersSettings(by_name={**BUILT_IN_EMBEDDERS, **embedders}),
    )


def tiny(folder: Path, **fields: Any) -> EmbedderSettings:
    """A model in a directory."""
    return EmbedderSettings(kind="onnx", path=str(write_tiny_model(folder / "tiny")), **fields)


@asynccontextmanager
async def open_with_tiny(folder: Path) -> AsyncIterator[Client]:
    async with open_server(folder / "data", settings_with(tiny=tiny(folder))) as server:
        yield server


async def wait_for(server: Client, **wanted: Any) -> dict[str, Any]:
    """The embedding's part of stats once it says so."""
    with trio.fail_after(PATIENCE_S):
        while True:
            embedding: dict[str, Any] = (await server.stats())["embedding"]
            if embedding.items() >= wanted.items():
                return embedding


@pytest.mark.parametrize(
    ("headers", "body"),
    [(TINY, {}), ({}, {"embeddings": "TINY"}), ({"x-embedding-model": BUILT_IN_EMBEDDER}, {"embeddings": "tiny"})],
)
async def test_a_write_that_names_a_model_gives_it_to_the_vault(
    tmp_path: Path, headers: dict[str, str], body: dict[str, str]
) -> None:
    """By header or body, in any case; the body wins."""
    async with open_with_tiny(tmp_path) as server:
        await server.ingest("I like tea.")
        assert (await server.stats())["embedding"]["model"] == BUILT_IN_EMBEDDER
        answer = await server.post("/v1/memory/ingest", {"messages": [user(DOG)], **body}, headers=headers)
        assert (answer.status_code, answer.headers["x-embedding-model"]) == (202, "tiny")
        embedding = await wait_for(server, model="tiny", pending=0)
        stats = await server.stats()
        assert (embedding["total"], embedding["progress"], stats["dims"], stats["memories"]) == (2, 1.0, 16, 2)
        assert embedding["model_id"].startswith("tiny-")
        assert await server.contents("what is my dog called") == {DOG, "I like tea."}


async def test_an_upload_changes_the_model_too(tmp_path: Path) -> None:
    async with open_with_tiny(tmp_path) as server:
        await server.ingest("I like tea.")
        await server.upload([user(DOG)], headers=TINY)
        assert (await wait_for(server, model="tiny", pending=0))["total"] == 2


async def test_a_read_that_names_another_model_is_answered_with_the_vaults_own_and_told(tmp_path: Path) -> None:
    async with open_with_tiny(tmp_path) as server:
        await server.ingest(DOG)
        for path, body in (("prepare", {"messages": [user("my dog?")]}), ("search", {"query": "dog"})):
            answer = await server.post(f"/v1/memory/{path}", body, headers=TINY)
            assert (answer.status_code, answer.headers["x-embedding-model"]) == (200, BUILT_IN_EMBEDDER)
            assert "x-embedding-model" not in (await server.post(f"/v1/memory/{path}", body)).headers
        assert (await server.stats())["embedding"]["model"] == BUILT_IN_EMBEDDER


async def test_a_write_that_may_not_write_changes_nothing(tmp_path: Path) -> None:
    async with open_with_tiny(tmp_path) as server:
        await server.post("/v1/memory/ingest", {"messages": [user(DOG)]}, headers={**TINY, "x-memory-mode": "read"})
        assert (await server.stats())["embedding"]["model"] == BUILT_IN_EMBEDDER


@pytest.mark.parametrize(
    ("headers", "body", "field"),
    [
        ({"x-embedding-model": "bge-m3"}, {}, "X-Embedding-Model"),
        ({}, {"embeddings": "bge-m3"}, "embeddings"),
        (TINY, {"embeddings": 3}, "embeddings"),
    ],
)
async def test_an_unknown_name_is_refused_with_the_names_there_are(
    tmp_path: Path, headers: dict[str, str], body: dict[str, Any], field: str
) -> None:
    async with open_with_tiny(tmp_path) as server:
        for path in ("prepare", "ingest"):
            answer = await server.post(f"/v1/memory/{path}", {"messages": [user(DOG)], **body}, headers=headers)
            error = answer.json()
            assert (answer.status_code, error["code"], error["field"]) == (400, "invalid_request", field)
            assert error["error"].endswith(f"{BUILT_IN_EMBEDDER}, tiny.")


async def test_a_vault_keeps_its_model_when_it_is_emptied_and_changes_it_when_it_is_reset(tmp_path: Path) -> None:
    async with open_with_tiny(tmp_path) as server:
        await server.upload([user(DOG)], headers=TINY)
        await wait_for(server, model="tiny", pending=0)
        assert (await server.delete()).status_code == 200
        assert (await server.stats())["embedding"]["model"] == "tiny"
        assert (await server.delete("/v1/memory?reset=true")).status_code == 200
        assert (await server.stats())["embedding"]["model"] == BUILT_IN_EMBEDDER
        assert (await server.delete("/v1/memory?reset=true", headers=TINY)).status_code == 200
        await server.ingest(DOG)
        assert (await wait_for(server, model="tiny", pending=0))["total"] == 1


async def test_the_model_and_its_vectors_survive_a_restart(tmp_path: Path) -> None:
    async with open_with_tiny(tmp_path) as server:
        await server.ingest(DOG)
        await server.upload([user("I like tea.")], headers=TINY)
        before = await wait_for(server, model="tiny", pending=0)
    async with open_with_tiny(tmp_path) as server:
        assert await wait_for(server, pending=0) == before
        assert await server.contents("dog") == {DOG, "I like tea."}


async def test_a_model_that_is_no_longer_configured_gives_way_to_the_default(tmp_path: Path) -> None:
    async with open_with_tiny(tmp_path) as server:
        await server.upload([user(DOG)], headers=TINY)
        await wait_for(server, model="tiny", pending=0)
    async with open_server(tmp_path / "data") as server:
        assert await server.contents("dog") == {DOG}
        assert (await wait_for(server, model=BUILT_IN_EMBEDDER, pending=0))["total"] == 1
        assert (await server.stats())["dims"] == 64


async def test_a_chat_chooses_for_a_new_vault_only(tmp_path: Path) -> None:
    async with open_fake_provider() as provider:
        base = settings_with(tiny=tiny(tmp_path))
        settings = settings_for(provider.settings(), base=base)
        async with open_server(tmp_path / "data", settings) as server:
            new, old = await server.other("new"), await server.other("old")
            await old.ingest(DOG)
            for client, name in ((new, "tiny"), (old, BUILT_IN_EMBEDDER)):
                answer = await client.chat("I like tea.", headers=TINY)
                assert (answer.status_code, answer.headers["x-embedding-model"]) == (200, name)
                assert (await wait_for(client, pending=0))["model"] == name


async def test_an_endpoint_embeds_memories_and_questions(tmp_path: Path) -> None:
    async with open_embeddings_server() as far:
        settings = settings_with(far=far.settings(document_prefix="passage: ", query_prefix="query: "), default="far")
        async with open_server(tmp_path / "data", settings) as server:
            await server.ingest(DOG, "I like tea.")
            embedding = await wait_for(server, model="far", pending=0)
            assert embedding["model_id"].endswith("-24")
            assert (await server.search("dog"))[0]["content"] == DOG
            metrics = (await server.get("/metrics")).text
    texts = [text for call in far.calls for text in call]
    assert sorted(text.split(": ")[0] for text in texts[1:]) == ["passage", "passage", "query"]
    assert 'memoryrouter_embedding_texts_total{embedder="far",lane="bulk"} 2' in metrics
    assert 'memoryrouter_embedder_open{embedder="far"} 1' in metrics


def down(far: EmbeddingsServer, status: int) -> None:
    far.answer = lambda texts: (status, b"{}")


@pytest.mark.parametrize("status", [401, 503])
@pytest.mark.parametrize("dims", [0, 24])
async def test_an_endpoint_that_is_down_costs_vectors_only(tmp_path: Path, status: int, dims: int) -> None:
    """Writes are durable, words answer, a restart changes nothing, and the vectors follow when it is back."""
    async with open_embeddings_server() as far:
        down(far, status)
        settings = settings_with(far=far.settings(dims=dims), default="far")
        async with open_server(tmp_path / "data", settings) as server:
            await server.ingest(DOG)
            assert await server.contents("dog") == {DOG}
            assert (await server.prepare("What is my dog called?"))["context"] is not None
            assert (await server.stats())["embedding"]["progress"] == 0.0
        far.answer = lambda texts: None
        async with open_server(tmp_path / "data", settings) as server:
            assert await server.contents("dog") == {DOG}
            assert (await wait_for(server, pending=0, model="far"))["total"] == 1


async def test_an_export_carries_its_model_and_another_model_embeds_an_import_anew(tmp_path: Path) -> None:
    async with open_with_tiny(tmp_path) as server:
        await server.upload([user(DOG)], headers=TINY)
        await wait_for(server, model="tiny", pending=0)
        export = (await server.get("/v1/memory/export")).content
        assert b'"model":"tiny-' in export.splitlines()[0]
        assert b'"dims":16' in export.splitlines()[0]
        other = await server.other()
        assert (await other.post("/v1/memory/import", export)).status_code == 200
        assert (await wait_for(other, model=BUILT_IN_EMBEDDER, pending=0))["total"] == 1
        assert (await other.stats())["dims"] == 64


async def test_a_default_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    broken = EmbedderSettings(kind="onnx", path=str(tmp_path / "tiny"))
    with pytest.raises(BaseExceptionGroup) as raised:
        async with open_server(tmp_path / "data", settings_with(tiny=broken)):
            pass
    assert raised.group_contains(ModelFileError, match="has no file model.onnx")
    write_tiny_model(tmp_path / "tiny")
    (tmp_path / "tiny" / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(BaseExceptionGroup) as raised:
        async with open_server(tmp_path / "data", settings_with(tiny=broken, default="tiny")):
            pass
    assert raised.group_contains(ModelFileError, match="embedding.default is tiny")


async def test_a_directory_that_is_broken_costs_its_vaults_their_vectors_and_no_more(tmp_path: Path) -> None:
    one = tiny(tmp_path)
    (tmp_path / "tiny" / "model.onnx").write_bytes(b"not a graph")
    async with open_server(tmp_path / "data", settings_with(tiny=one)) as server:
        await server.upload([user(DOG)], headers=TINY)
        assert await server.contents("dog") == {DOG}
        assert (await server.stats())["embedding"]["model"] == "tiny"
        assert (await server.stats())["pending"] == 1
