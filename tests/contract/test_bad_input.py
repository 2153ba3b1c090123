"""Bad input, one test a kind: an honest answer in the caller's format, and nothing lost or half-written."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import trio

from models.server_settings import ServerSettings
from router.admin_socket import SOCKET_NAME, call_admin
from tests.fakes.provider import reply_script
from tests.patience import PATIENCE_S
from tests.router.proxied import PATH, open_both, told
from tests.running import object_of, open_server, settings_for, user

OWN_POSTS = ("/v1/memory/prepare", "/v1/memory/ingest", "/v1/memory/search", "/v1/memory/upload", "/v1/keys")
LIMIT = 1 << 20
SMALL = settings_for(server=ServerSettings(host="127.0.0.1", port=0, body_max_bytes=LIMIT))


def assert_own(answer: httpx.Response, status: int, code: str) -> None:
    body = object_of(answer)
    assert (answer.status_code, body["code"]) == (status, code), answer.text
    assert isinstance(body["error"], str)
    assert "x-request-id" in answer.headers


def assert_openai(answer: httpx.Response, status: int, code: str) -> None:
    body = object_of(answer)
    assert (answer.status_code, body["error"]["code"]) == (status, code), answer.text
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert "x-request-id" in answer.headers


# --- keys ---


async def test_a_missing_malformed_unknown_or_revoked_key_is_401_in_the_callers_format(tmp_path: Path) -> None:
    """On every route; what a client learns is the same for all of them."""
    async with open_both(tmp_path) as (server, _):
        other = await server.other()
        rows = await call_admin(tmp_path / "data" / SOCKET_NAME, "keys.list", {})
        assert rows is not None
        await call_admin(
            tmp_path / "data" / SOCKET_NAME, "keys.delete", {"key": rows["keys"][-1]["id"], "vault": "keep"}
        )
        for key in ("", "sk-other", "mk_", "mk_x:admin", "mk_unknown", other.key, f"{other.key}:read"):
            for path in OWN_POSTS:
                assert_own(await server.post(path, b"anything", key=key), 401, "invalid_api_key")
            assert_own(await server.get("/v1/memory/stats", key=key), 401, "invalid_api_key")
            assert_own(await server.delete(key=key), 401, "invalid_api_key")
            assert_openai(await server.post(PATH, b"anything", key=key), 401, "invalid_api_key")
            assert_openai(await server.get("/v1/models", key=key), 401, "invalid_api_key")


async def test_sdks_raise_their_own_errors(tmp_path: Path) -> None:
    """With code, message and request id where their users look for them."""
    async with open_both(tmp_path) as (server, _):

        def client(key: str) -> openai.AsyncOpenAI:
            return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)

        async with client("mk_nobody") as nobody, client(server.key) as somebody:
            with pytest.raises(openai.AuthenticationError) as refused:
                await nobody.chat.completions.create(model="openai/m", messages=[{"role": "user", "content": "x"}])
            assert refused.value.code == "invalid_api_key"
            assert str(refused.value.request_id).startswith("req_")
            with pytest.raises(openai.NotFoundError) as unknown:
                await somebody.chat.completions.create(model="nobody/m", messages=[{"role": "user", "content": "x"}])
            assert unknown.value.code == "model_not_found"
            with pytest.raises(openai.BadRequestError) as empty:
                await somebody.chat.completions.create(model="openai/m", messages=[])
            assert empty.value.param == "messages"


# --- bodies ---


@pytest.mark.parametrize("body", [b"{", b"nope", b'{"messages": [', b"\xff\xfe", b"[]", b'"text"', b"5", b"null"])
async def test_what_is_no_json_object_is_400(tmp_path: Path, body: bytes) -> None:
    """On every route that takes one."""
    async with open_both(tmp_path) as (server, _):
        for path in (*OWN_POSTS[:3], "/v1/keys"):
            assert_own(await server.post(path, body), 400, "invalid_request")
        assert_openai(await server.post(PATH, body), 400, "invalid_request")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("prepare", {}, "messages"),
        ("prepare", {"messages": []}, "messages"),
        ("prepare", {"messages": "hi"}, "messages"),
        ("prepare", {"messages": [user("x")], "density": "huge"}, "density"),
        ("prepare", {"messages": [user("x")], "context_limit": -1}, "context_limit"),
        ("prepare", {"messages": [user("x")], "session_id": []}, "session_id"),
        ("ingest", {"messages": []}, "messages"),
        ("ingest", {"messages": [5]}, "messages[0]"),
        ("ingest", {"messages": [{"content": "x"}]}, "messages[0].role"),
        ("ingest", {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ("ingest", {"messages": [user("x", timestamp="now")]}, "timestamp"),
        ("ingest", {"messages": [user("x", metadata=[1])]}, "metadata"),
        ("ingest", {"messages": [user("x", metadata={"a": 2**70})]}, "metadata"),
        ("ingest", {"messages": [user("x")], "model": 5}, "model"),
        ("search", {}, "query"),
        ("search", {"query": "  "}, "query"),
        ("search", {"query": 5}, "query"),
        ("search", {"query": "x", "limit": -5}, "limit"),
    ],
    ids=str,
)
async def test_wrong_types_and_values_are_400_and_named(
    tmp_path: Path, path: str, body: dict[str, Any], field: str
) -> None:
    """And nothing is stored."""
    async with open_server(tmp_path / "data") as server:
        answer = await server.post(f"/v1/memory/{path}", body)
        assert_own(answer, 400, "invalid_request")
        assert object_of(answer)["field"] == field
        assert (await server.stats())["memories"] == 0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [user("x")]}, "model"),
        ({"model": 5, "messages": [user("x")]}, "model"),
        ({"model": "openai/m"}, "messages"),
        ({"model": "openai/m", "messages": []}, "messages"),
        ({"model": "openai/m", "messages": "hi"}, "messages"),
        ({"model": "openai/m", "messages": [5]}, "messages[0]"),
        ({"model": "openai/m", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"model": "openai/m", "messages": [user("x")], "stream": "yes"}, "stream"),
        ({"model": "openai/m", "messages": [user("x")], "density": "huge"}, "density"),
        ({"model": "openai/m", "messages": [user("x")], "memory_limit": -1}, "memory_limit"),
        ({"model": "openai/m", "messages": [user("x")], "memory": "sometimes"}, "memory"),
        ({"model": "openai/m", "messages": [user("x")], "session_id": {}}, "session_id"),
    ],
    ids=str,
)
async def test_a_wrong_chat_is_400_and_reaches_no_provider(tmp_path: Path, body: dict[str, Any], param: str) -> None:
    """In OpenAI's shape, with `param`."""
    async with open_both(tmp_path) as (server, provider):
        answer = await server.post(PATH, body)
        assert_openai(answer, 400, "invalid_request")
        assert object_of(answer)["error"]["param"] == param
        assert (await server.stats())["memories"] == 0
    assert provider.requests == []


async def chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 65_536):
        yield b"x" * 65_536


@pytest.mark.parametrize("kind", ["length", "chunked", "bomb"])
async def test_a_body_over_the_limit_is_413_in_the_callers_format(tmp_path: Path, kind: str) -> None:
    """Announced, unannounced, or unpacked; the limit itself is fine."""
    headers = {"content-encoding": "gzip"} if kind == "bomb" else {}
    packed = gzip.compress(bytes(64 * LIMIT))
    async with open_both(tmp_path, SMALL) as (server, _):
        for path in (*OWN_POSTS, PATH):
            body = packed if kind == "bomb" else b" " * (2 * LIMIT) if kind == "length" else chunks(2 * LIMIT)
            with trio.fail_after(PATIENCE_S):
                answer = await server.http.post(
                    path, content=body, headers={"authorization": f"Bearer {server.key}", **headers}
                )
            (assert_openai if path == PATH else assert_own)(answer, 413, "too_large")
        fits = b'{"query":"x"}'.ljust(LIMIT)
        assert (await server.post("/v1/memory/search", fits)).status_code == 200


async def test_an_encoding_that_nobody_can_read_is_415(tmp_path: Path) -> None:
    """And damaged gzip 400."""
    async with open_both(tmp_path) as (server, _):
        headers = {"content-encoding": "br"}
        assert_own(await server.post("/v1/memory/search", b"x", headers=headers), 415, "unsupported_encoding")
        assert_openai(await server.post(PATH, b"x", headers=headers), 415, "unsupported_encoding")
        damaged = await server.post("/v1/memory/search", b"x", headers={"content-encoding": "gzip"})
        assert_own(damaged, 400, "invalid_request")


async def test_a_million_characters_are_taken_and_found_by_their_last_words(tmp_path: Path) -> None:
    """By ingest, upload and chat."""
    filler = "Nothing happened on that day either. " * 27_100
    text = filler[: 1_000_000 - 40] + " The xylophonist lives in Graz."
    async with open_both(tmp_path, settings_for()) as (server, _):
        for path, body in (
            ("/v1/memory/ingest", {"messages": [user(text)]}),
            ("/v1/memory/upload", {"content": text}),
            (PATH, {"model": "openai/m", "messages": [user(text)]}),
        ):
            assert (await server.post(path, body)).status_code in (200, 202)
            found = await server.search("Where does the xylophonist live?", limit=1)
            assert "xylophonist lives in Graz" in found[0]["matched"]
            await server.delete()


async def test_more_than_a_million_characters_are_413_and_a_chat_stores_the_first_part(tmp_path: Path) -> None:
    """Naming the message or the line; nothing of an upload is stored, and the provider gets the whole text."""
    text = "told " * 200_001
    async with open_both(tmp_path) as (server, provider):
        ingested = await server.post("/v1/memory/ingest", {"messages": [user("ok then"), user(text)]})
        assert_own(ingested, 413, "too_large")
        assert "messages[1]" in object_of(ingested)["error"]
        uploaded = await server.post("/v1/memory/upload", b'{"content":"a"}\n{"content":"' + text.encode() + b'"}')
        assert_own(uploaded, 413, "too_large")
        assert object_of(uploaded)["error"].startswith("Line 2")
        assert (await server.stats())["memories"] == 0
        assert (await server.post("/v1/memory/prepare", {"messages": [user(text)]})).status_code == 200

        assert (await server.chat(text)).status_code == 200
        assert text in provider.requests[0].body.decode()
        assert (await server.stats())["memories"] == 2


async def test_nul_bytes_and_lone_surrogates_become_replacement_characters(tmp_path: Path) -> None:
    """In texts, questions, session ids and model names, on every route."""
    strange = rb"told \u0000 and \ud800 the end"
    clean = "told \ufffd and \ufffd the end"
    async with open_both(tmp_path) as (server, provider):
        for path, body in (
            ("/v1/memory/ingest", rb'{"messages":[{"role":"user","content":"%s"}]}' % strange),
            ("/v1/memory/upload", rb'{"content":"%s"}' % strange),
            (
                PATH,
                rb'{"model":"openai/\ud800","session_id":"\udfff","messages":[{"role":"user","content":"%s"}]}'
                % strange,
            ),
        ):
            answer = await server.post(path, body)
            assert answer.status_code in (200, 202), answer.text
            assert clean in await server.contents("told")
            await server.delete()
        assert (await server.post("/v1/memory/search", rb'{"query":"%s"}' % strange)).status_code == 200
        assert (
            await server.post("/v1/memory/prepare", rb'{"messages":[{"role":"user","content":"%s"}]}' % strange)
        ).status_code == 200
    assert len(provider.requests) == 1


# --- uploads ---


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "Empty"), (b" \n", "Empty"), (b'{"content":"a"}\n{', "Line 2"), (b'{"content":"a"}\n\n[]', "Line 3"),
        (b'{"content":""}', "Line 1"), (b'{"content":"a"}\n{"content":"\xff"}', "Line 2"),
        (b'{"content":"a","role":"robot"}', "Line 1"), (b'{"content":"a","timestamp":"x"}', "Line 1"),
    ],
)  # fmt: skip
async def test_a_bad_upload_is_400_names_its_line_and_stores_nothing(tmp_path: Path, body: bytes, words: str) -> None:
    """All or nothing."""
    async with open_server(tmp_path / "data") as server:
        answer = await server.post("/v1/memory/upload", body)
        assert_own(answer, 400, "invalid_request")
        assert object_of(answer)["error"].startswith(words)
        assert (await server.stats())["memories"] == 0


# --- routes and models ---


@pytest.mark.parametrize("model", ["nobody/m", "local/other", "local/", "openai/", "/m", "unheard-of", "a" * 10_000])
async def test_an_unknown_model_is_404_model_not_found(tmp_path: Path, model: str) -> None:
    """And reaches nobody."""
    async with open_both(tmp_path) as (server, provider):
        assert_openai(await server.chat("x", model=model), 404, "model_not_found")
    assert provider.requests == []


async def test_an_unknown_path_is_404_and_a_wrong_method_405_in_json(tmp_path: Path) -> None:
    """With the methods that are allowed."""
    async with open_both(tmp_path) as (server, provider):
        for path in ("/nope", "/v1/nope", "/v1/chat/completions/x", "/%ff%00", "/v1/memory/x"):
            assert_own(await server.get(path), 404, "not_found")
        for path in OWN_POSTS:
            answer = await server.http.put(path, headers={"authorization": f"Bearer {server.key}"})
            assert_own(answer, 405, "method_not_allowed")
            assert "POST" in answer.headers["allow"]
        assert_openai(await server.get(PATH), 405, "method_not_allowed")
        assert_openai(await server.post("/v1/models", {}), 405, "method_not_allowed")
        provider.enqueue(reply_script())
        assert (
            await server.post(f"{PATH}/", {"model": "openai/m", "messages": [user("I told you.")]})
        ).status_code == 200
        assert "I told you." in await told(server)


async def test_odd_json_in_a_chat_is_an_honest_answer(tmp_path: Path) -> None:
    """Half a surrogate pair in a name that is quoted, and numbers of thousands of digits: never a 500."""
    digits = b"9" * 5_000
    async with open_both(tmp_path) as (server, provider):
        answer = await server.post(PATH, b'{"model":"\\ud800/m","messages":[{"role":"user","content":"hi"}]}')
        assert_openai(answer, 404, "model_not_found")
        said = (
            b'{"model":"openai/m","messages":[{"role":"user","content":"hi","refusal":' + digits + b'}],"x":' + digits
        )
        answer = await server.post(PATH, said + b',"context_limit":' + digits + b"}")
        assert_openai(answer, 400, "invalid_request")
        provider.enqueue(reply_script())
        assert (await server.post(PATH, said + b"}")).status_code == 200
        assert provider.requests[-1].body.endswith(b'"x":' + digits + b"}")


@pytest.mark.parametrize(("path", "status"), [("/v1/responses", 405), ("/v1/memory/search", 405), ("/elsewhere", 404)])
async def test_a_websocket_is_refused_in_json(tmp_path: Path, path: str, status: int) -> None:
    """Some SDKs try one first. It is taken for the GET that it is, and no fault here."""
    upgrade = {
        "connection": "Upgrade", "upgrade": "websocket",
        "sec-websocket-version": "13", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }  # fmt: skip
    async with open_both(tmp_path) as (server, _):
        answer = await server.get(path, headers=upgrade)
        assert answer.status_code == status
        assert object_of(answer)["error"]
