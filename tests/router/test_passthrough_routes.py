"""The routes without memory, through a real server: JSON, forms, audio, streams and everything that goes wrong."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest
import trio

from models.provider_settings import ProviderSettings, Secret
from models.server_settings import ServerSettings
from router.passing_through import PATHS
from tests.fakes.provider import DONE, Script, open_fake_provider, stream_script
from tests.patience import PATIENCE_S, wait_until
from tests.router.proxied import open_both
from tests.running import Client, object_of, open_server, settings_for

_FORM_TYPE = "multipart/form-data; boundary=x-boundary"
_AUDIO = bytes(range(256)) * 40
_HEAD = b'--x-boundary\r\nContent-Disposition: form-data; name="model"\r\n\r\nopenai/whisper-1\r\n'
_FILE = b'--x-boundary\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
_END = b"\r\n--x-boundary--\r\n"
_FORM = _HEAD + _FILE + _AUDIO + _END
_TRANSCRIPTION = Script(body=b'{"text":"Hi."}', headers=[("content-type", "application/json")])


def sdk(server: Client) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=server.key, base_url=f"{server.url}/v1", max_retries=0, timeout=PATIENCE_S)


async def post_form(server: Client, form: Any = _FORM, path: str = PATHS[2], **headers: str) -> httpx.Response:
    return await server.http.post(
        path, content=form, headers={"authorization": f"Bearer {server.key}", "content-type": _FORM_TYPE, **headers}
    )


# --- what goes through ---


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings", "/v1/images/generations", "/v1/audio/speech"])
async def test_a_json_request_goes_through_with_the_providers_name_for_the_model(tmp_path: Path, path: str) -> None:
    sent = '{"model":"openai/m-1","input":"Grüße","x":[1e1, 2],"session_id":"s"}'.encode()
    reply = b'{ "data": [], "x_vendor": null }'
    async with open_both(tmp_path) as (server, provider):
        hints = [("content-type", "application/json"), ("x-request-id", "up-1"), ("x-ratelimit-remaining", "3")]
        provider.enqueue(Script(body=reply, headers=hints))
        answer = await server.post(path, sent, headers={"openai-organization": "org"})

        assert (answer.status_code, answer.content) == (200, reply)
        assert answer.headers["x-upstream-request-id"] == "up-1"
        assert answer.headers["x-ratelimit-remaining"] == "3"
        assert answer.headers["x-memory-status"] == "off"
        assert (answer.headers["x-provider-detected"], answer.headers["x-mr-attempts"]) == ("openai", "1")
        got = provider.requests[0]
        assert (got.path, got.body) == (path, '{"model":"m-1","input":"Grüße","x":[1e1, 2]}'.encode())
        assert (got.headers["authorization"], got.headers["openai-organization"]) == ("Bearer sk-fake", "org")
        assert await server.contents("Grüße") == set()


@pytest.mark.parametrize("known_length", [True, False])
@pytest.mark.parametrize("path", [path for path in PATHS if path.endswith(("ions", "edits"))])
async def test_a_form_goes_through_with_the_providers_name_for_the_model(
    tmp_path: Path, path: str, known_length: bool
) -> None:
    """The file untouched, whichever field comes first; the length adjusted where it was known."""
    forms = [_FORM, _FILE + _AUDIO + b"\r\n" + _HEAD.removesuffix(b"\r\n") + _END]
    async with open_both(tmp_path) as (server, provider):
        for form in forms:
            provider.enqueue(_TRANSCRIPTION)
            answer = await post_form(server, form if known_length else _in_pieces(form), path)
            assert (answer.status_code, answer.content) == (200, b'{"text":"Hi."}')

        for form, got in zip(forms, provider.requests, strict=True):
            expected = form.replace(b"openai/whisper-1", b"whisper-1")
            assert (got.path, got.body) == (path, expected)
            assert got.headers["content-type"] == _FORM_TYPE
            assert got.headers.get("content-length") == (str(len(expected)) if known_length else None)


async def _in_pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]


async def test_openais_sdk_transcribes_speaks_embeds_and_paints(tmp_path: Path) -> None:
    async with open_both(tmp_path) as (server, provider), sdk(server) as client:
        provider.enqueue(_TRANSCRIPTION)
        heard = await client.audio.transcriptions.create(model="openai/whisper-1", file=("a.wav", _AUDIO))
        assert heard.text == "Hi."
        assert b"\r\n\r\nwhisper-1\r\n" in provider.requests[0].body
        assert _AUDIO in provider.requests[0].body

        provider.enqueue(Script(steps=[_AUDIO, _AUDIO], headers=[("content-type", "audio/mpeg")]))
        spoken = await client.audio.speech.create(model="tts-1", voice="alloy", input="Hi.")
        assert await spoken.aread() == _AUDIO * 2

        embedding = {"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]}
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        provider.enqueue(Script(body=msgspec.json.encode({**embedding, "usage": usage})))
        vectors = await client.embeddings.create(model="openai/m", input="Hi.", encoding_format="float")
        assert vectors.data[0].embedding == [0.5]

        provider.enqueue(Script(body=b'{"created":1,"data":[{"b64_json":"QQ=="}]}'))
        image = await client.images.edit(model="gpt-image-1", image=("a.png", _AUDIO), prompt="A dog.")
        assert image.data is not None
        assert image.data[0].b64_json == "QQ=="


async def test_a_json_body_may_be_compressed_and_a_form_may_not(tmp_path: Path) -> None:
    async with open_both(tmp_path) as (server, provider):
        body = gzip.compress(b'{"model":"openai/m"}')
        assert (await server.post(PATHS[1], body, headers={"content-encoding": "gzip"})).status_code == 200
        assert provider.requests[0].body == b'{"model":"m"}'

        answer = await post_form(server, gzip.compress(_FORM), **{"content-encoding": "gzip"})
        assert (answer.status_code, object_of(answer)["error"]["code"]) == (415, "unsupported_encoding")


async def test_the_callers_own_key_goes_to_the_provider(tmp_path: Path) -> None:
    async with open_both(tmp_path) as (server, provider):
        headers = {"authorization": "Bearer sk-own", "x-memory-key": server.key}
        await server.post(PATHS[1], {"model": "openai/m"}, headers=headers, key="")

        assert provider.requests[0].headers["authorization"] == "Bearer sk-own"
        assert server.key not in str(provider.requests[0])


# --- what does not ---


async def test_refusals_have_openais_shape(tmp_path: Path) -> None:
    no_model = _FORM.replace(b'name="model"', b'name="other"')
    async with open_both(tmp_path) as (server, provider):
        answers = [
            (await server.post(PATHS[1], {"input": "a"}), 400, "invalid_request"),
            (await server.post(PATHS[1], {"model": "", "input": "a"}), 400, "invalid_request"),
            (await server.post(PATHS[1], b"no JSON"), 400, "invalid_request"),
            (await server.post(PATHS[1], {"model": "nobody/m"}), 404, "model_not_found"),
            (await server.post(PATHS[1], {"model": "openai/m"}, key="mk_wrong"), 401, "invalid_api_key"),
            (await post_form(server, no_model), 400, "invalid_request"),
            (await post_form(server, _HEAD), 400, "invalid_request"),
            (await post_form(server, b"no form"), 400, "invalid_request"),
            (await post_form(server, **{"content-type": "multipart/form-data"}), 400, "invalid_request"),
            (await post_form(server, authorization="Bearer mk_wrong"), 401, "invalid_api_key"),
            (await server.get(PATHS[1]), 405, "method_not_allowed"),
        ]

        for number, (answer, status, code) in enumerate(answers):
            error = object_of(answer)["error"]
            assert (number, answer.status_code, error["code"]) == (number, status, code)
            assert set(error) == {"message", "type", "param", "code"}
        assert answers[0][0].json()["error"]["param"] == "model"
        assert answers[5][0].json()["error"]["param"] == "model"
        assert provider.requests == []


@pytest.mark.parametrize("known_length", [True, False])
async def test_a_form_over_the_limit_is_refused(tmp_path: Path, known_length: bool) -> None:
    settings = settings_for(server=ServerSettings(host="127.0.0.1", port=0, body_max_bytes=5000))
    async with open_both(tmp_path, settings) as (server, provider):
        answer = await post_form(server, _FORM if known_length else _in_pieces(_FORM))

        assert (answer.status_code, object_of(answer)["error"]["code"]) == (413, "too_large")
        assert provider.requests == []


async def test_the_providers_errors_are_passed_on(tmp_path: Path) -> None:
    body = b'{"error":{"message":"Slow down.","code":"rate_limit_exceeded"}}'
    async with open_both(tmp_path) as (server, provider):
        for _ in range(2):
            provider.enqueue(Script(status=429, headers=[("retry-after", "30")], body=body))
        for answer in (await server.post(PATHS[1], {"model": "openai/m"}), await post_form(server)):
            assert (answer.status_code, answer.headers["retry-after"], answer.content) == (429, "30", body)


async def test_a_stream_passes_and_one_that_breaks_ends_with_an_error_event(tmp_path: Path) -> None:
    event = b'data: {"choices":[{"text":"Hi."}]}\n\n'
    async with open_both(tmp_path) as (server, provider):
        provider.enqueue(stream_script([event, DONE]), stream_script([event], ending="cut"))
        whole = await server.post("/v1/completions", {"model": "openai/m", "stream": True})
        cut = await server.post("/v1/completions", {"model": "openai/m", "stream": True})

        assert whole.content == event + DONE
        assert whole.headers["x-accel-buffering"] == "no"
        assert cut.content.startswith(event + b'data: {"error":')
        assert b"[DONE]" not in cut.content


async def test_audio_that_breaks_off_breaks_off_for_the_client(tmp_path: Path) -> None:
    """A clean end would pass for the whole."""
    async with open_both(tmp_path) as (server, provider):
        provider.enqueue(Script(steps=[_AUDIO], headers=[("content-type", "audio/mpeg")], ending="cut"))
        with pytest.raises(httpx.RemoteProtocolError):
            await server.post("/v1/audio/speech", {"model": "openai/m"})

        assert (await server.post("/v1/audio/speech", {"model": "openai/m"})).status_code == 200


# --- streaming ---


class Listener:
    """A provider that shows what it has received before the request is complete. It never answers.

    Attributes:
        received: raw bytes.
        left: set when its caller closes the connection.
    """

    def __init__(self) -> None:
        self.received = bytearray()
        self.left = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Read to the end."""
        async with stream:
            async for data in stream:
                self.received += data
        self.left.set()


@asynccontextmanager
async def open_listener(tmp_path: Path) -> AsyncIterator[tuple[Client, Listener]]:
    """A server in front of a listener."""
    listener = Listener()
    async with trio.open_nursery() as nursery:
        sockets: list[Any] = await nursery.start(trio.serve_tcp, listener.serve, 0)
        url = f"http://127.0.0.1:{sockets[0].socket.getsockname()[1]}/v1"
        settings = settings_for(ProviderSettings(base_url=url, api_key=Secret("sk-fake")))
        async with open_server(tmp_path / "data", settings) as server:
            yield server, listener
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_upload(server: Client, length: int) -> AsyncIterator[trio.SocketStream]:
    """A connection on which the head of a form of this length has been sent."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    head = (
        f"POST {PATHS[2]} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {server.key}\r\n"
        f"content-type: {_FORM_TYPE}\r\ncontent-length: {length}\r\n\r\n"
    )
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(head.encode())
        yield stream


async def test_a_form_is_on_its_way_before_it_has_all_come(tmp_path: Path) -> None:
    async with open_listener(tmp_path) as (server, listener):
        async with open_upload(server, len(_FORM)) as stream:
            await stream.send_all(_HEAD + _FILE + _AUDIO[:100])
            await wait_until(lambda: listener.received.endswith(_AUDIO[:100]))
            await stream.send_all(_AUDIO[100:] + _END)
            await wait_until(lambda: listener.received.endswith(_END))

        with trio.fail_after(PATIENCE_S):  # the client has left without its answer
            await listener.left.wait()


async def test_a_client_that_leaves_in_the_middle_of_its_upload_ends_the_call(tmp_path: Path) -> None:
    async with open_listener(tmp_path) as (server, listener):
        async with open_upload(server, len(_FORM)) as stream:
            await stream.send_all(_HEAD + _FILE)
            await wait_until(lambda: listener.received.endswith(_FILE))

        with trio.fail_after(PATIENCE_S):
            await listener.left.wait()


async def test_a_client_that_leaves_during_the_reply_ends_the_call(tmp_path: Path) -> None:
    async with open_both(tmp_path) as (server, provider):
        provider.enqueue(Script(steps=[_AUDIO, trio.Event()], headers=[("content-type", "audio/mpeg")]))
        async with open_upload(server, len(_FORM)) as stream:
            await stream.send_all(_FORM)
            received = bytearray()
            while _AUDIO not in received:
                received += await stream.receive_some()

        with trio.fail_after(PATIENCE_S):
            await provider.disconnected.wait()


@pytest.mark.parametrize("path", PATHS[:2])
async def test_a_refusal_comes_back_as_it_is_but_for_the_providers_key(tmp_path: Path, path: str) -> None:
    """Some quote the key that they were sent, which may be the operator's."""
    body = b'{"error": {"message": "Wrong API key: sk-of-the-operator.", "x": [1e2, null]}}'
    async with open_fake_provider() as provider:
        settings = settings_for(provider.settings(api_key="sk-of-the-operator"))
        async with open_server(tmp_path / "data", settings) as server:
            provider.enqueue(Script(status=401, body=body, headers=[("content-type", "application/json")]))
            answer = await server.post(path, {"model": "openai/m"})

    assert (answer.status_code, answer.content) == (401, body.replace(b"sk-of-the-operator", b"*" * 18))
    assert answer.headers["content-length"] == str(len(body))
    assert answer.headers["content-type"] == "application/json"
