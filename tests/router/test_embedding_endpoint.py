"""An embedding endpoint is asked politely and believed nothing: what it sends is checked, its failures told apart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import pytest
import trio

from actors.embedder import Embedder
from actors.embedding_source import EmbedderUnavailable
from models.embedder_settings import EmbedderSettings
from router.embedding_endpoint import DOWN_FIRST_S, PROBE, EndpointSource, TextsRefused
from tests.fakes.embedding import HashEmbedding
from tests.fakes.embeddings_server import KEY, Answer, EmbeddingsServer, open_embeddings_server

DIMS = 24
TEXTS = ["My dog is called Rex.", "I like tea.", "Vienna \ud800"]


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def open_source(settings: EmbedderSettings, clock: Clock | None = None) -> AsyncIterator[EndpointSource]:
    source = EndpointSource("far", settings, HashEmbedding(), clock=clock or Clock())
    try:
        yield source
    finally:
        await source.aclose()


async def test_texts_become_unit_vectors_in_their_order_whatever_the_order_of_the_answer() -> None:
    async with open_embeddings_server(dims=DIMS) as server, open_source(server.settings(dims=DIMS)) as source:
        vectors = await source.lane()(TEXTS)
    assert np.allclose(vectors, server.encoder.encode([*TEXTS[:2], "Vienna \ufffd"]), atol=1e-6)
    assert vectors.dtype == np.float32
    assert server.headers["authorization"] == f"Bearer {KEY}"
    assert server.requests == [{"model": "hash", "input": [*TEXTS[:2], "Vienna \ufffd"], "dimensions": DIMS}]


async def test_the_length_of_vectors_is_found_out_by_a_call_unless_it_is_set() -> None:
    async with open_embeddings_server(dims=DIMS) as server, open_source(server.settings()) as source:
        assert (source.is_open, source.model.id, source.model.dims) == (False, "", 0)
        await source.open()
        assert (source.is_open, source.model.dims) == (True, DIMS)
        assert server.calls == [[PROBE]]
        assert "dimensions" not in server.requests[0]
        await source.open()
        assert len(server.calls) == 1
        assert source.model.id.startswith("far-")
        assert source.model.id.endswith(f"-{DIMS}")


async def test_the_id_tells_endpoints_models_prefixes_and_lengths_apart() -> None:
    base = EmbedderSettings(kind="openai", base_url="http://a/v1", model="m", dims=8)
    others: list[dict[str, Any]] = [
        {"base_url": "http://b/v1"}, {"model": "n"}, {"dims": 9}, {"query_prefix": "q"}, {"document_prefix": "q"},
    ]  # fmt: skip
    ids = []
    for fields in ({}, *others):
        async with open_source(msgspec.structs.replace(base, **fields)) as source:
            ids.append(source.model.id)
    async with open_source(msgspec.structs.replace(base, timeout_s=1, calls_max=9)) as source:
        assert source.model.id == ids[0]
    assert len(set(ids)) == len(ids)


async def test_without_a_key_none_is_sent_and_long_texts_are_cut() -> None:
    async with open_embeddings_server(dims=DIMS) as server:
        settings = EmbedderSettings(kind="openai", base_url=server.url, model="hash", dims=DIMS, tokens_max=16)
        async with open_source(settings) as source:
            await source.lane()(["x" * 1_000])
    assert "authorization" not in server.headers
    assert server.calls == [["x" * 128]]


def refuses(*marks: str, status: int = 400) -> Callable[[list[str]], Answer | None]:
    """Refuse calls with a text that holds a mark."""

    def answer(texts: list[str]) -> Answer | None:
        return (status, b"{}") if any(mark in text for text in texts for mark in marks) else None

    return answer


async def test_a_text_that_the_endpoint_refuses_is_blamed_only_if_the_endpoint_works() -> None:
    async with open_embeddings_server(dims=DIMS) as server, open_source(server.settings(dims=DIMS)) as source:
        server.answer = refuses("tea")
        with pytest.raises(TextsRefused, match="status 400"):
            await source.lane()(TEXTS)
        assert len(await source.lane()(["I like coffee."])) == 1
        server.answer = refuses("")
        with pytest.raises(EmbedderUnavailable, match="status 400"):
            await source.lane()(TEXTS)


@pytest.mark.parametrize("status", [401, 403, 429, 502, 503])
async def test_what_is_no_texts_fault_makes_the_endpoint_unavailable(status: int) -> None:
    async with open_embeddings_server(dims=DIMS) as server, open_source(server.settings(dims=DIMS)) as source:
        server.answer = lambda texts: (status, b"sk-embeddings")
        with pytest.raises(EmbedderUnavailable, match=str(status)) as raised:
            await source.lane()(TEXTS)
        assert KEY not in str(raised.value)
        assert len(server.calls) == 1


async def test_an_endpoint_that_failed_is_left_alone_longer_each_time_and_then_asked_again() -> None:
    clock = Clock()
    async with open_embeddings_server(dims=DIMS) as server, open_source(server.settings(dims=DIMS), clock) as source:
        server.answer = lambda texts: (503, b"")
        for pause_s in (DOWN_FIRST_S, 2 * DOWN_FIRST_S):
            calls = len(server.calls)
            with pytest.raises(EmbedderUnavailable):
                await source.lane()(TEXTS)
            with pytest.raises(EmbedderUnavailable) as raised:
                await source.lane()(TEXTS)
            assert raised.value.retry_after_s == pause_s
            assert len(server.calls) == calls + 1
            clock.now_s += pause_s
        server.answer = lambda texts: None
        assert len(await source.lane()(TEXTS)) == 3
        server.answer = lambda texts: (503, b"")
        with pytest.raises(EmbedderUnavailable) as raised:
            await source.lane()(TEXTS)
        assert raised.value.retry_after_s == DOWN_FIRST_S


async def test_an_endpoint_that_is_not_there_is_unavailable() -> None:
    async with open_embeddings_server(dims=DIMS) as server:
        settings = server.settings(dims=DIMS)
    async with open_source(settings) as source:
        with pytest.raises(EmbedderUnavailable, match="cannot be reached"):
            await source.lane()(TEXTS)


async def test_an_endpoint_that_does_not_answer_is_unavailable_after_its_time() -> None:
    async with open_embeddings_server(dims=DIMS) as server:
        server.gate = trio.Event()
        async with open_source(server.settings(dims=DIMS, timeout_s=0.05)) as source:
            with pytest.raises(EmbedderUnavailable):
                await source.lane()(TEXTS)


async def test_vectors_of_another_length_than_known_are_no_texts_fault() -> None:
    async with open_embeddings_server(dims=DIMS) as server, open_source(server.settings(dims=DIMS + 1)) as source:
        with pytest.raises(EmbedderUnavailable, match="of length 24, not 25"):
            await source.lane()(TEXTS)


HOSTILE: dict[str, Callable[[int], Any]] = {
    "too few": lambda n: {"data": [{"index": 0, "embedding": [1.0] * DIMS}] * (n - 1)},
    "too many": lambda n: {"data": [{"index": 0, "embedding": [1.0] * DIMS}] * (n + 1)},
    "one number twice": lambda n: {"data": [{"index": 0, "embedding": [1.0] * DIMS}] * n},
    "of different lengths": lambda n: {"data": [{"embedding": [1.0] * (DIMS + i)} for i in range(n)]},
    "empty": lambda n: {"data": [{"embedding": []}] * n},
    "all zeros": lambda n: {"data": [{"embedding": [0.0] * DIMS}] * n},
    "no numbers": lambda n: {"data": [{"embedding": ["a"] * DIMS}] * n},
    "null": lambda n: {"data": [{"embedding": None}] * n},
    "no list": lambda n: {"error": "none"},
}
RAW = {
    "NaN": b'{"data":[' + b",".join([b'{"embedding":[' + b",".join([b"NaN"] * DIMS) + b"]}"] * 3) + b"]}",
    "infinite": b'{"data":[' + b",".join([b'{"embedding":[' + b",".join([b"1e300"] * DIMS) + b"]}"] * 3) + b"]}",
    "no JSON": b"<html>",
    "deep": b"[" * 100_000,
    "giant": b'{"data":[' + b" " * 1_000_000,
}


@pytest.mark.parametrize("kind", [*HOSTILE, *RAW])
async def test_what_is_no_vectors_is_refused_and_blamed_on_the_texts_if_others_work(kind: str) -> None:
    async with open_embeddings_server(dims=DIMS) as server, open_source(server.settings(dims=DIMS)) as source:
        data = RAW[kind] if kind in RAW else msgspec.json.encode(HOSTILE[kind](len(TEXTS)))
        server.answer = lambda texts: (200, data) if len(texts) > 1 else None
        with pytest.raises(TextsRefused):
            await source.lane()(TEXTS)
        server.answer = lambda texts: (200, data)
        with pytest.raises(EmbedderUnavailable):
            await source.lane()(TEXTS)


async def test_calls_run_side_by_side_up_to_the_limit_and_questions_do_not_wait_for_memories() -> None:
    async with open_embeddings_server(dims=DIMS) as server:
        settings = server.settings(dims=DIMS, calls_max=2, batch_texts_max=1)
        async with open_source(settings) as source, trio.open_nursery() as callers:
            embedder = Embedder(source, name="far", interactive_max=9, bulk_max=9)
            callers.start_soon(embedder.serve, lambda name, reason: None)
            server.gate = trio.Event()
            async with trio.open_nursery() as bulk:
                for number in range(4):
                    bulk.start_soon(lambda n: embedder.encode([f"note {n}"], lane="bulk"), number)
                bulk.start_soon(lambda: embedder.encode(["what"], lane="interactive"))
                while ["what"] not in server.calls or server.running < 3:
                    await trio.lowlevel.checkpoint()
                server.gate.set()
            callers.cancel_scope.cancel()
    assert server.running_most == 3
    assert sorted(map(str, server.calls)) == sorted(map(str, [["what"], *([f"note {n}"] for n in range(4))]))


def test_the_fake_is_an_endpoint_of_the_right_kind() -> None:
    status, body = EmbeddingsServer(4).reply([[1.0], [2.0]])
    assert status == 200
    assert [item["index"] for item in msgspec.json.decode(body)["data"]] == [1, 0]
