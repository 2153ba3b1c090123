"""The whole server behind TLS, browsers, odd heads and forged headers: what HTTP itself could be used for."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import trio

from models.server_settings import CorsSettings, ServerSettings
from tests.contract.described import open_described
from tests.fakes.certificates import SelfSigned
from tests.fakes.provider import FakeProvider, Script, chat_events, open_fake_provider, rechunk, stream_script
from tests.patience import PATIENCE_S
from tests.router.proxied import PATH, open_both
from tests.running import ROOT, Client, object_of, open_server, settings_for, user

PAGE = "https://app.example.org"
FORGED = {
    "host": "evil.example",
    "x-forwarded-host": "evil.example",
    "x-forwarded-proto": "https",
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-prefix": "/evil",
    "x-original-url": "/livez",
    "x-rewrite-url": "/livez",
    "x-http-method-override": "DELETE",
    "forwarded": "for=127.0.0.1;host=evil.example;proto=https",
    "x-real-ip": "127.0.0.1",
}


async def raw(server: Client, head: str) -> bytes:
    """Everything that the server says to these bytes, on a connection of their own."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(head.encode("latin-1"))
        return b"".join([part async for part in stream])


async def test_the_whole_server_behind_tls(tmp_path: Path) -> None:
    """Requests with bodies, over connections that are used again."""
    own = SelfSigned(tmp_path)
    listening = ServerSettings(
        host="127.0.0.1", port=0, tls_certificate_file=str(own.certificate), tls_key_file=str(own.key)
    )
    settings = settings_for(server=listening)
    async with open_server(tmp_path / "data", settings, tls=own.client()) as server:
        await server.ingest("My dog is called Rex.")
        assert await server.contents("dog") == {"My dog is called Rex."}
        assert server.url.startswith("https://")


def test_listening_beyond_loopback_without_tls_is_a_loud_warning(tmp_path: Path) -> None:
    """In the log, and once more in words for whoever starts it; it starts all the same, as far as the rest is right."""
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "router", "serve", "--data-dir", str(tmp_path / "file"), "--port", "0"]
    for host, warned in (("0.0.0.0", True), ("127.0.0.1", False)):
        ended = subprocess.run(
            [*command, "--host", host], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        lines = ended.stderr.splitlines()
        assert lines[-1].startswith("error: "), lines  # the data directory is none, which is found out later
        assert [line for line in lines if line.startswith(f"warning: server.host is {host}")] == lines[-2:-1] * warned
        assert ("exposed_without_tls" in ended.stderr) is warned


# --- nothing comes from Host or from headers that anybody can write ---


async def test_forged_headers_change_nothing(tmp_path: Path) -> None:
    """Not the route, the method or the answer; no address of an answer is made of them."""
    async with open_described(tmp_path) as server:
        await server.ingest("My dog is called Rex.")
        for path in ("/", "/v1/memory/stats", "/v1/models/local/recall", "/v1/memory/stats/"):
            plain, forged = await server.get(path), await server.get(path, headers=FORGED)
            assert forged.status_code == plain.status_code
            assert set(object_of(forged)) == set(object_of(plain))
            assert "evil" not in forged.text + str(forged.headers)
        assert (await server.get("/v1/memory/stats", headers=FORGED, key="")).status_code == 401
        assert await server.contents("dog", headers=FORGED) == {"My dog is called Rex."}


async def test_forged_headers_do_not_reach_the_provider(tmp_path: Path) -> None:
    """It is asked at its configured address, under its own name."""
    async with open_both(tmp_path) as (server, provider):
        assert (await server.chat("My dog is called Rex.", headers=FORGED)).status_code == 200
        (recorded,) = provider.requests
        assert recorded.headers["host"] == provider.base_url.removeprefix("http://").removesuffix("/v1")
        assert "evil" not in str(recorded.headers)
        assert not set(FORGED) - {"host"} & set(recorded.headers)


@pytest.mark.parametrize("place", ["body", "header", "query", "model"])
async def test_a_client_cannot_choose_where_its_request_goes(tmp_path: Path, place: str) -> None:
    """Base URLs come from the configuration alone: what other gateways take for one is a field like any other here."""
    async with open_both(tmp_path) as (server, provider), open_fake_provider() as elsewhere:
        url = elsewhere.base_url
        names = ("base_url", "api_base", "api_url", "custom_host", "url", "host", "endpoint")
        body = dict.fromkeys(names, url) if place == "body" else {}
        headers = {}
        if place == "header":
            headers = {f"x-{name}".replace("_", "-"): url for name in names} | {
                "x-portkey-custom-host": url, "x-base-url": url, "x-target-url": url, "openai-base-url": url,
            }  # fmt: skip
        path = PATH + ("?" + "&".join(f"{name}={url}" for name in names) if place == "query" else "")
        model = f"{url}/m" if place == "model" else "openai/m"
        answer = await server.post(path, {"model": model, "messages": [user("hi")], **body}, headers=headers)
        assert answer.status_code == (404 if place == "model" else 200)
        assert len(provider.requests) == (0 if place == "model" else 1)
        assert elsewhere.connections == 0


async def test_only_named_hosts_are_served_where_some_are_named(tmp_path: Path) -> None:
    """A page whose own name was pointed at this server (DNS rebinding) cannot read even what is open."""
    settings = ServerSettings(host="127.0.0.1", port=0, allowed_hosts=("127.0.0.1",))
    async with open_described(tmp_path, server=settings) as server:
        assert (await server.get("/health")).status_code == 200
        for path in ("/health", "/metrics", "/v1/memory/stats", "/v1/models"):
            answer = await server.get(path, headers={"host": "evil.example"})
            assert answer.status_code == 421
            assert "evil" not in answer.text
            assert "x-request-id" in answer.headers


# --- control characters ---


@pytest.mark.parametrize(
    "target",
    ["/v1/models/a%0d%0aSet-Cookie:%20x=1", "/v1/models/a%00b", "/v1beta/models/a%0d%0ab:generateContent", "/%0a"],
)
async def test_a_path_has_no_line_breaks(tmp_path: Path, target: str) -> None:
    """Nor anything else that does not print: neither an answer nor a provider gets to see it."""
    async with open_both(tmp_path) as (server, provider):
        method = "POST" if target.endswith("generateContent") else "GET"
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\nConnection: close\r\n\r\n"
        )
        answer = (await raw(server, head)).lower()
        assert answer.startswith(b"http/1.1 404"), answer
        assert b"set-cookie" not in answer
        assert provider.requests == []


async def test_line_breaks_in_texts_stay_what_they_are(tmp_path: Path) -> None:
    """A session may be called so. The header that repeats it has question marks; providers hear nothing of it."""
    session = "a\r\nSet-Cookie: x=1\0"
    async with open_both(tmp_path) as (server, provider):
        answer = await server.chat("My dog is called Rex.", session_id=session)
        assert (answer.status_code, answer.headers["x-session-id"]) == (200, "a??Set-Cookie: x=1?")
        stats = await server.http.get(
            "/v1/memory/stats", params={"session_id": session}, headers={"x-memory-key": server.key}
        )
        assert stats.status_code == 200
        assert "set-cookie" not in (*answer.headers, *stats.headers)
        (recorded,) = provider.requests
        assert "Set-Cookie" not in recorded.path + str(recorded.headers)
        assert await server.contents("dog", headers={"x-session-id": "a"}) == set()


async def test_a_provider_must_prove_who_it_is(tmp_path: Path) -> None:
    """With a certificate that nobody vouches for it gets neither the key nor the question."""
    own = SelfSigned(tmp_path)
    presented = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    presented.load_cert_chain(own.certificate, own.key)
    provider = FakeProvider(0)

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()

    listeners = await trio.open_ssl_over_tcp_listeners(0, presented, host="127.0.0.1")
    port = listeners[0].transport_listener.socket.getsockname()[1]  # type: ignore[attr-defined]  # a SocketListener
    settings = msgspec.structs.replace(provider.settings(), base_url=f"https://127.0.0.1:{port}/v1", retries_max=0)
    async with trio.open_nursery() as connections:
        connections.start_soon(trio.serve_listeners, serve, listeners)
        async with open_server(tmp_path / "data", settings_for(settings)) as server:
            answer = await server.chat("My dog is called Rex.")
        connections.cancel_scope.cancel()
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unavailable")


# --- browsers ---


async def test_no_page_may_call_unless_it_is_named(tmp_path: Path) -> None:
    """By default no answer has a header that a browser takes for a permission."""
    asking = {"origin": PAGE, "access-control-request-method": "POST"}
    async with open_described(tmp_path) as server:
        for answer in (
            await server.http.options(PATH, headers=asking),
            await server.get("/v1/memory/stats", headers={"origin": PAGE}),
        ):
            assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_a_named_page_may_call_and_reads_errors_and_streams(tmp_path: Path) -> None:
    """The question of its browser needs no key; the answer differs by origin, and caches are told so."""
    cors = CorsSettings(origins=(PAGE,))
    wanted = "authorization,content-type,x-stainless-lang"
    async with open_described(tmp_path, cors=cors) as server:
        asking = {"access-control-request-method": "POST", "access-control-request-headers": wanted}
        allowed = await server.http.options(PATH, headers={"origin": PAGE, **asking})
        assert (allowed.status_code, allowed.content) == (204, b"")
        assert allowed.headers["access-control-allow-origin"] == PAGE
        assert allowed.headers["access-control-allow-headers"] == wanted
        other = await server.http.options(PATH, headers={"origin": "https://evil.example", **asking})
        assert not [name for name in other.headers if name.startswith("access-control-")]
        body = {"model": "openai/m", "messages": [user("hi")], "stream": True}
        for answer in (
            await server.post(PATH, body, headers={"origin": PAGE}),
            await server.post(PATH, b"no json", headers={"origin": PAGE}),
            await server.get("/v1/memory/stats", headers={"origin": PAGE}, key=""),
            await server.get("/nowhere", headers={"origin": PAGE}),
        ):
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
            assert "access-control-allow-credentials" not in answer.headers
            assert "Origin" in answer.headers["vary"]
        assert "Origin" in (await server.get("/health")).headers["vary"]


async def test_a_page_without_a_key_gets_nowhere_by_a_form(tmp_path: Path) -> None:
    """What a browser sends without asking, such as a form, is worth nothing without a key: there are no cookies."""
    async with open_described(tmp_path) as server:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"):
            headers = {"origin": "https://evil.example", "content-type": content_type, "cookie": "key=" + server.key}
            answer = await server.post("/v1/memory/ingest", {"messages": [user("hi")]}, headers=headers, key="")
            assert answer.status_code == 401
            assert "set-cookie" not in answer.headers


# --- keys that providers repeat ---

KEY = "sk-proj-7Qw9ert9ZxC4vBnM"


@pytest.mark.parametrize("border", [1, 4, 9, 20])
async def test_a_key_in_a_streamed_reply_is_masked_wherever_it_is_cut(tmp_path: Path, border: int) -> None:
    """In the first event, whose status is 200; bytes beside it come through as they are, and so does the memory."""
    async with open_both(tmp_path) as (server, provider):
        events = b"".join(chat_events([f"Your key is {KEY}", ", and sk-proj-7Q is not."]))
        at = events.index(KEY.encode()) + border
        provider.enqueue(stream_script(rechunk(events, [at])))
        body = {"model": "openai/m", "messages": [user("What is my key?")], "stream": True}
        answer = await server.post(PATH, body, headers={"x-provider-key": KEY, "x-memory-key": server.key}, key="")
        begun = [KEY[:shown].encode() for shown in (0, min(border, 4))]  # 0: both pieces came in one read
        assert answer.content in [events.replace(KEY.encode(), seen.ljust(len(KEY), b"*")) for seen in begun]
        stored = " ".join(await server.contents("key"))
        assert KEY not in stored
        assert "sk-proj-7Q is not" in stored


@pytest.mark.parametrize("status", [200, 400])
async def test_a_key_in_a_whole_reply_and_its_headers_is_masked(tmp_path: Path, status: int) -> None:
    """Of the configuration as well as of the request, with the length that was announced."""
    async with open_both(tmp_path) as (server, provider):
        for path, request in (
            (PATH, {"model": "openai/m", "messages": [user("hi")]}),
            ("/v1/embeddings", {"model": "openai/m", "input": "hi"}),
        ):
            body = msgspec.json.encode({"error": {"message": f"{KEY} is wrong"}, "key": KEY})
            quoting = [("content-type", "application/json"), ("x-debug", f"Bearer {KEY}")]
            provider.enqueue(Script(status=status, body=body, headers=quoting))
            headers = {"x-provider-key": KEY, "x-memory-key": server.key}
            answer = await server.post(path, request, headers=headers, key="")
            assert answer.status_code == status
            assert answer.content == body.replace(KEY.encode(), b"*" * len(KEY))
            assert answer.headers["x-debug"] == "Bearer " + "*" * len(KEY)
