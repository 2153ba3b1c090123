"""Traces: off they do nothing; on, a request is a tree of steps at a receiver, and says nothing of its content."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import requests
import trio

from models.errors import SettingError, SetupError
from models.provider_settings import Secret
from models.settings import Settings
from models.settings_checks import check_settings
from models.tracing_settings import TracingSettings
from router import tracing as tracing_module
from router.tracing import Untraced, open_tracing
from router.tracing_otlp import ANSWER_BYTES_MAX, ReceiverSession, endpoint_of, headers_of
from tests.fakes.provider import Script
from tests.fakes.trace_receiver import ReceivedSpan, TraceReceiver, open_trace_receiver
from tests.patience import PATIENCE_S
from tests.router.exposition import samples
from tests.router.proxied import open_both, streamed
from tests.running import ROOT, open_process, open_server, settings_for, user

CALLER_TRACE, CALLER_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{CALLER_TRACE}-{CALLER_SPAN}-01"
CHAT, PREPARE = "POST /v1/chat/completions", "POST /v1/memory/prepare"
SECRET_TEXT = "Wolfgang keeps his savings under the bed"


def traced_to(receiver: TraceReceiver, **more: Any) -> Settings:
    """Settings of a server whose traces go to this receiver."""
    return settings_for(tracing=TracingSettings(endpoint=receiver.url, **more))


def assert_within(part: ReceivedSpan, whole: ReceivedSpan) -> None:
    """One span began and ended while the other lasted, as far as two clocks of one machine agree."""
    slack_ns = 50_000_000
    assert whole.began_ns - slack_ns <= part.began_ns <= part.ended_ns <= whole.ended_ns + slack_ns


async def test_a_chat_is_a_tree_of_its_steps(tmp_path: Path) -> None:
    """Authentication, the question's embedding, the vault's answer in its two parts, the provider, the commit."""
    with open_trace_receiver() as receiver:
        async with open_both(tmp_path, traced_to(receiver, service_name="ours")) as (server, _):
            await server.ingest("My dog is called Rex.")
            assert (await server.chat("What is my dog called?")).status_code == 200
        whole, parts = receiver.trace(CHAT)

    assert parts.keys() == {"auth", "embed", "recall", "mailbox", "rank", "upstream", "commit"}
    assert (whole.kind, parts["upstream"].kind, parts["auth"].kind) == ("server", "client", "internal")
    assert whole.parent_id == ""
    assert {parts[name].parent_id for name in ("auth", "embed", "recall", "upstream", "commit")} == {whole.span_id}
    assert {parts[name].parent_id for name in ("mailbox", "rank")} == {parts["recall"].span_id}
    for name in ("auth", "embed", "recall", "upstream", "commit"):
        assert_within(parts[name], whole)
    for name in ("mailbox", "rank"):
        assert_within(parts[name], parts["recall"])
    assert whole.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "memoryrouter.memory_status": "ok",
    }
    assert parts["upstream"].attributes == {
        "memoryrouter.provider": "openai",
        "http.response.status_code": 200,
        "memoryrouter.attempts": 1,
    }
    assert parts["upstream"].events == ["first_byte"]
    assert whole.resource["service.name"] == "ours"
    assert not any(span.failed for span in (whole, *parts.values()))


async def test_a_streamed_chat_ends_when_its_stream_ends(tmp_path: Path) -> None:
    with open_trace_receiver() as receiver:
        async with open_both(tmp_path, traced_to(receiver)) as (server, _):
            assert (await server.post("/v1/chat/completions", streamed("Hello there"))).status_code == 200
        whole, parts = receiver.trace(CHAT)

    assert {"upstream", "commit"} <= parts.keys()
    assert_within(parts["upstream"], whole)
    assert whole.ended_ns >= parts["commit"].ended_ns


async def test_nothing_that_anybody_said_is_in_a_trace(tmp_path: Path) -> None:
    """No text, key, query, path, session or model, also where the request fails."""
    with open_trace_receiver() as receiver:
        async with open_both(tmp_path, traced_to(receiver)) as (server, provider):
            await server.ingest(SECRET_TEXT, session_id="secret-session")
            body = {"model": "openai/secret-model", "messages": [user(SECRET_TEXT)]}
            headers = {"x-provider-key": "sk-secret-provider", "x-session-id": "secret-session"}
            await server.post("/v1/chat/completions", body, headers=headers)
            provider.enqueue(Script(status=500, body=b'{"error": "secret-error"}'))
            await server.post("/v1/chat/completions", body)
            await server.get(f"/v1/memories/secret-id?q=secret-query&key={server.key}", key="")
            await server.get("/secret-path")
        sent = b"".join(receiver.bodies)

    assert len(receiver.spans) > 10
    assert b"secret" not in sent
    assert b"Wolfgang" not in sent
    assert server.key.encode() not in sent
    assert b"mk_" not in sent


async def test_a_callers_trace_is_continued(tmp_path: Path) -> None:
    """Its sampling too: what the caller does not record is not recorded here."""
    with open_trace_receiver() as receiver:
        async with open_server(tmp_path / "data", traced_to(receiver, sample_ratio=0.0)) as server:
            await server.get("/v1/models", headers={"traceparent": TRACEPARENT})
            await server.get("/livez", headers={"traceparent": TRACEPARENT[:-1] + "0"})
            await server.get("/health")
        (whole,) = [span for span in receiver.spans if span.kind == "server"]

    assert (whole.name, whole.trace_id, whole.parent_id) == ("GET /v1/models", CALLER_TRACE, CALLER_SPAN)
    assert {span.trace_id for span in receiver.spans} == {CALLER_TRACE}


@pytest.mark.parametrize("context", ["00-zz-00f067aa0ba902b7-01", "", f"00-{'0' * 32}-{CALLER_SPAN}-01", "x" * 5000])
async def test_a_senseless_trace_context_begins_a_new_trace(tmp_path: Path, context: str) -> None:
    with open_trace_receiver() as receiver:
        async with open_server(tmp_path / "data", traced_to(receiver)) as server:
            assert (await server.get("/livez", headers={"traceparent": context})).status_code == 200
        (whole,) = receiver.spans

    assert (whole.parent_id, len(whole.trace_id)) == ("", 32)


@pytest.mark.parametrize("propagate", [False, True])
async def test_a_provider_learns_of_the_trace_only_where_it_may(tmp_path: Path, *, propagate: bool) -> None:
    """Then it gets the id of our call to it, not the caller's."""
    with open_trace_receiver() as receiver:
        async with open_both(tmp_path, traced_to(receiver, propagate=propagate)) as (server, provider):
            headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=1"}
            await server.post(
                "/v1/chat/completions", {"model": "openai/m", "messages": [user("Hello")]}, headers=headers
            )
            (request,) = provider.requests
        whole, parts = receiver.trace(CHAT)

    told = {name: value for name, value in request.headers.items() if name.startswith("trace")}
    expected = {"traceparent": f"00-{CALLER_TRACE}-{parts['upstream'].span_id}-01", "tracestate": "vendor=1"}
    assert whole.trace_id == CALLER_TRACE
    assert told == (expected if propagate else {})


async def test_what_failed_is_marked(tmp_path: Path) -> None:
    """A provider's failure on its call; a failure of ours on the request, by its status."""
    with open_trace_receiver() as receiver:
        async with open_both(tmp_path, traced_to(receiver)) as (server, provider):
            provider.enqueue(Script(status=500, body=b"{}"))
            await server.chat("Hello")
            await server.post("/v1/memory/search", b"{")
        whole, parts = receiver.trace(CHAT)
        refused, _ = receiver.trace("POST /v1/memory/search")

    assert (whole.failed, whole.attributes["error.type"]) == (True, "500")
    assert (parts["upstream"].failed, parts["upstream"].attributes["error.type"]) == (True, "500")
    assert (refused.failed, refused.attributes["http.response.status_code"]) == (False, 400)


async def test_a_receiver_that_is_gone_or_slow_holds_nobody_up(tmp_path: Path) -> None:
    """Requests are answered, the numbers say what was lost, and the end comes within its deadline."""
    with open_trace_receiver() as receiver:
        receiver.hold.clear()
        async with open_server(tmp_path / "data", traced_to(receiver, timeout_s=0.2)) as server:
            for _ in range(5):
                assert (await server.get("/livez")).status_code == 200
            with trio.fail_after(PATIENCE_S):
                page: dict[str, float] = {}
                while not page.get("memoryrouter_trace_spans_failed_total"):
                    page = samples((await server.get("/metrics")).text)
        assert page["memoryrouter_trace_spans_exported_total"] == 0
        assert page["memoryrouter_trace_spans_total"] >= page["memoryrouter_trace_spans_failed_total"] >= 1


async def test_delivery_waits_in_a_bounded_queue(tmp_path: Path) -> None:
    """What is too much goes, the oldest first; what was delivered and what not adds up to no more than there was."""
    with open_trace_receiver() as receiver:
        receiver.hold.clear()
        settings = TracingSettings(endpoint=receiver.url, queue_max=512)
        async with open_tracing(settings) as tracing:
            wrapped = tracing.wrap(answer_at_once)
            for _ in range(3_000):
                await wrapped(SCOPE, None, send_nowhere)
            receiver.hold.set()
        numbers = tracing.statistics()

    assert numbers["ended"] == 3_000
    assert 512 <= numbers["exported"] <= 512 * 3
    assert numbers["exported"] == len(receiver.spans)


SCOPE = {"type": "http", "method": "GET", "scheme": "http", "http_version": "1.1", "headers": []}


async def answer_at_once(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def send_nowhere(message: Any) -> None:
    await trio.lowlevel.checkpoint()


async def test_headers_for_the_receiver_go_with_each_delivery(tmp_path: Path) -> None:
    with open_trace_receiver() as receiver:
        settings = traced_to(receiver, headers=Secret("authorization=Basic%20c2VjcmV0, x-scope=one"))
        async with open_server(tmp_path / "data", settings) as server:
            await server.get("/livez")
        (headers,) = receiver.headers

    assert (headers["authorization"], headers["x-scope"]) == ("Basic c2VjcmV0", "one")


async def test_a_request_whose_client_leaves_has_no_answer() -> None:
    with open_trace_receiver() as receiver:
        async with open_tracing(TracingSettings(endpoint=receiver.url)) as tracing:

            async def leave(scope: Any, receive: Any, send: Any) -> None:
                await trio.sleep_forever()

            with trio.CancelScope() as scope:
                scope.cancel()
                await tracing.wrap(leave)({**SCOPE, "method": "BREW"}, None, send_nowhere)
        (span,) = receiver.spans

    assert (span.name, span.failed, span.attributes["error.type"]) == ("_OTHER", True, "no_answer")


async def test_without_an_endpoint_there_is_nothing() -> None:
    """The same application, no numbers."""
    async with open_tracing(TracingSettings()) as tracing:
        assert isinstance(tracing, Untraced)
        assert tracing.wrap(answer_at_once) is answer_at_once
        assert set(tracing.statistics().values()) == {0}


async def test_missing_packages_are_a_mistake_of_the_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "router.tracing_otlp", None)
    with pytest.raises(SetupError) as raised:
        async with open_tracing(TracingSettings(endpoint="http://127.0.0.1:1")):
            pass

    assert "pip install 'memoryrouter[tracing]'" in raised.value.hint
    assert tracing_module.FLUSH_TIMEOUT_S < 10


def test_the_library_is_loaded_only_where_it_is_wanted() -> None:
    """Neither it nor what it brings."""
    code = "import router.service, router.cli, sys; print([name for name in sys.modules if 'opentel' in name])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "[]"


async def test_a_server_process_delivers_what_is_left_when_it_ends(tmp_path: Path) -> None:
    """The log tells the trace's id beside the request's."""
    with open_trace_receiver() as receiver:
        environment = {"MEMORYROUTER_TRACING__ENDPOINT": f"{receiver.url}/v1/traces"}
        async with open_process(tmp_path / "data", environment=environment) as server:
            async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=PATIENCE_S) as http:
                answer = await http.get("/livez")
            server.process.terminate()
            assert await server.wait() == 0
        (span,) = receiver.spans

    (line,) = [line for line in server.log if line["event"] == "request_done"]
    assert (line["trace_id"], line["request_id"]) == (span.trace_id, answer.headers["x-request-id"])


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:4318", "ftp://x/", "http://user:key@x/", "http:///v1", "http://x/?key=1"]
)
def test_an_endpoint_is_a_plain_url(endpoint: str) -> None:
    settings = msgspec.structs.replace(Settings(), tracing=TracingSettings(endpoint=endpoint))
    with pytest.raises(SettingError, match=r"tracing\.endpoint"):
        check_settings(settings)


def test_an_endpoint_without_a_path_gets_the_standards() -> None:
    assert endpoint_of("http://x:4318") == endpoint_of("http://x:4318/") == "http://x:4318/v1/traces"
    assert endpoint_of("https://x/otlp/v1/traces") == "https://x/otlp/v1/traces"


def test_headers_are_pairs() -> None:
    assert headers_of("") == {}
    assert headers_of("A=b%3D1, c=d") == {"a": "b=1", "c": "d"}
    for text in ("a", "a=", "=b", "a=b,c"):
        with pytest.raises(SettingError, match=r"tracing\.headers"):
            headers_of(text)


class Receiver(BaseHTTPRequestHandler):
    """Answers with far more than it was asked, or sends the asker elsewhere."""

    def do_POST(self) -> None:
        if self.path == "/elsewhere":
            self.send_response(307)
            self.send_header("location", "/huge")
            self.send_header("content-length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            for _ in range(1024):
                self.wfile.write(bytes(64 * 1024))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_of_a_huge_answer_only_the_beginning_is_read_and_a_redirect_is_no_delivery() -> None:
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        with ReceiverSession() as session:
            assert len(session.post(f"{url}/huge", timeout=PATIENCE_S).content) == ANSWER_BYTES_MAX
            with pytest.raises(requests.TooManyRedirects):
                session.post(f"{url}/elsewhere", timeout=PATIENCE_S, allow_redirects=False)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
