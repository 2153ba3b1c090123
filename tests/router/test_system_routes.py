"""Health, metrics, keys, models, and what holds for every answer."""

from __future__ import annotations

import io
import json
import logging
import re
from pathlib import Path
from typing import Any

import openai
import pytest

from models.memory_settings import MemorySettings
from models.settings import KeySettings
from models.version import VERSION
from router import model_listing
from router.observe import LineFormatter
from tests.fakes.embedding import HashEmbedding
from tests.fakes.provider import Script
from tests.patience import PATIENCE_S
from tests.router.proxied import open_both, streamed
from tests.running import Client, object_of, open_server, settings_for, user

ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")


async def test_health_needs_no_key(tmp_path: Path) -> None:
    """Alive, ready, healthy, and what this is."""
    async with open_server(tmp_path / "data") as server:
        answers = {path: await server.get(path, key="") for path in ("/livez", "/readyz", "/health", "/")}
        assert {answer.status_code for answer in answers.values()} == {200}
        assert object_of(answers["/livez"]) == {"status": "ok"}
        assert object_of(answers["/readyz"]) == {"status": "ready", "missing": {}, "degraded": {}}
        health = object_of(answers["/health"])
        assert (health["status"], health["version"]) == ("healthy", VERSION)
        assert ISO_TIME.match(health["timestamp"])
        assert {"environment", "storage"} <= set(health)
        assert object_of(answers["/"])["name"] == "MemoryRouter"


async def test_metrics_count_what_happens(tmp_path: Path) -> None:
    """By route template, never by what a client put into a path; skipped memory by reason."""
    async with open_both(tmp_path) as (server, _):
        await server.chat("Anything at all?")
        await server.chat("Anything at all?", memory=False)
        await server.get("/secret/path")
        text = (await server.get("/metrics", key="")).text

    assert 'memoryrouter_requests_total{route="/v1/chat/completions",status="200"} 2' in text
    assert 'memoryrouter_memory_skipped_total{reason="empty"} 1' in text
    assert 'memoryrouter_memory_skipped_total{reason="off"} 1' in text
    assert "memoryrouter_vaults_live 1" in text
    assert "secret" not in text
    assert "mk_" not in text


# --- keys ---


async def test_an_account_key_mints_user_keys_with_vaults_of_their_own(tmp_path: Path) -> None:
    """Shown once; the name may be left out, and the body too."""
    async with open_server(tmp_path / "data") as server:
        answer = await server.post("/v1/keys", {"name": "user:42"})
        assert answer.status_code == 201
        created = object_of(answer)
        assert set(created) > {"key", "name", "created_at"}
        assert re.fullmatch(r"mk_[A-Za-z0-9_-]{32}", created["key"])
        assert created["name"] == "user:42"
        assert ISO_TIME.match(created["created_at"])
        for body in (b"", b"{}", b'{"name": null}', b'{"name": ""}'):
            named = await server.post("/v1/keys", body)
            assert (named.status_code, object_of(named)["name"]) == (201, "memory key")
        assert (await Client(server.http, created["key"]).stats())["memories"] == 0


async def test_who_may_not_mint(tmp_path: Path) -> None:
    """User keys, unless the settings say so; suffixed keys never."""
    async with open_server(tmp_path / "data") as server:
        other = await server.other()
        refused = await other.post("/v1/keys", {"name": "x"})
        assert (refused.status_code, object_of(refused)["code"]) == (403, "permission_denied")
        for suffix in (":read", ":write", ":off"):
            assert (await server.post("/v1/keys", {"name": "x"}, key=server.key + suffix)).status_code == 403
    settings = settings_for(keys=KeySettings(any_key_mints=True))
    async with open_server(tmp_path / "data", settings) as server:
        other = Client(server.http, other.key)
        assert (await other.post("/v1/keys", {"name": "x"})).status_code == 201
        assert (await other.post("/v1/keys", {"name": "x"}, key=f"{other.key}:read")).status_code == 403


@pytest.mark.parametrize("body", [b"[1]", b"{", b'{"name": 5}', b'{"name": ["x"]}'])
async def test_a_wrong_body_mints_nothing(tmp_path: Path, body: bytes) -> None:
    """400."""
    async with open_server(tmp_path / "data") as server:
        assert (await server.post("/v1/keys", body)).status_code == 400


# --- models ---


async def test_models_come_in_both_published_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's list, which its SDK reads, and the hosted product's."""
    monkeypatch.setattr(model_listing, "PROVIDER_TIMEOUT_S", PATIENCE_S)
    async with open_both(tmp_path) as (server, provider):
        provider.enqueue(Script(body=b'{"object":"list","data":[{"id":"gpt-x"},{"id":"gpt-y"}]}'))
        body = object_of(await server.get("/v1/models"))
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as client:
            listed = [model.id async for model in client.models.list()]
            one = await client.models.retrieve("openai/gpt-y")
            with pytest.raises(openai.NotFoundError):
                await client.models.retrieve("openai/gpt-z")

    assert (one.id, one.owned_by) == ("openai/gpt-y", "openai")
    assert listed == body["models"] == ["local/recall", "openai/gpt-x", "openai/gpt-y"]
    assert body["object"] == "list"
    assert body["providers"] == [
        {"provider": "local", "models": ["local/recall"]},
        {"provider": "openai", "models": ["openai/gpt-x", "openai/gpt-y"]},
    ]
    assert {"id", "object", "created", "owned_by"} == set(body["data"][0])
    assert body["default"] in body["models"]
    assert ISO_TIME.match(body["catalog_updated"])


# --- every answer ---


async def test_every_answer_has_an_id_of_its_own(tmp_path: Path) -> None:
    """Also refusals and failures; the provider's own id moves aside."""
    async with open_both(tmp_path) as (server, _):
        answers = [
            await server.get("/livez"),
            await server.get("/nowhere"),
            await server.post("/v1/memory/search", b"{"),
            await server.post("/v1/chat/completions", {}, key="mk_nobody"),
            await server.chat("Anything?"),
        ]
    ids = [answer.headers["x-request-id"] for answer in answers]

    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"req_[0-9a-f]{24}", request_id) for request_id in ids)
    assert answers[-1].headers["x-upstream-request-id"] == "req-1"


async def test_every_log_line_of_a_request_has_the_id_that_goes_out(tmp_path: Path) -> None:
    """Lines of the route, of what it calls, and the last one."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(LineFormatter(as_json=True))
    root = logging.getLogger()
    level = root.level
    settings = settings_for(memory=MemorySettings(content_max_chars=10))
    async with open_server(tmp_path / "data", settings) as server:
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        try:
            answer = await server.chat("A text of more than ten characters.", model="local/recall")
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
    logged = [json.loads(line) for line in lines.getvalue().splitlines()]
    ours = [entry for entry in logged if not entry.get("logger", "").startswith(("httpx", "httpcore"))]

    assert [entry["event"] for entry in ours] == ["content_cut", "request_done"]
    assert {entry["request_id"] for entry in ours} == {answer.headers["x-request-id"]}


async def test_every_line_of_the_router_that_a_request_causes_has_its_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also of what runs in its child tasks and after its answer; a vault's own lines have none of a single request."""
    formatter = LineFormatter(as_json=True)
    lines: list[dict[str, Any]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(formatter.format(record)))

    async with open_both(tmp_path) as (server, provider):
        root, handler = logging.getLogger(), Keep()
        root.addHandler(handler)
        try:
            with caplog.at_level(logging.DEBUG):
                provider.enqueue(Script(status=500, body=b"{}"))
                answers = [await server.chat("Hello"), await server.chat("Hello", model="nothing/at-all")]
                answers.append(await server.post("/v1/chat/completions", streamed("And now?")))
                answers.append(await server.post("/v1/memory/upload", b'{"content": "Carla sails."}'))
        finally:
            root.removeHandler(handler)
    ours = [line for line in lines if line.get("logger", "memoryrouter").startswith(("memoryrouter", "router"))]
    of_vaults = [line for line in lines if line["event"] == "vault_life_cycle"]

    assert {line["request_id"] for line in ours} == {answer.headers["x-request-id"] for answer in answers}
    assert of_vaults
    assert not any("request_id" in line for line in of_vaults)


class BrokenEncoder(HashEmbedding):
    """A model that cannot count."""

    def count_tokens(self, text: str) -> int:
        if "BUG" in text:
            raise ZeroDivisionError("BUG in the text")
        return super().count_tokens(text)


async def test_a_bug_is_a_500_that_says_nothing_of_the_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither to the client nor to the log."""
    async with open_server(tmp_path / "data", encoder=BrokenEncoder()) as server:
        with caplog.at_level(logging.INFO):
            body = {"messages": [user("BUG secret")]}
            answer = await server.post("/v1/memory/ingest", body, key=f"{server.key}:read")
    failed = [record for record in caplog.records if record.getMessage() == "request_failed"]

    assert answer.status_code == 500
    assert object_of(answer)["code"] == "internal_error"
    assert len(failed) == 1
    assert "ZeroDivisionError" in vars(failed[0])["error"]
    assert "secret" not in answer.text + str([vars(record) for record in caplog.records])
