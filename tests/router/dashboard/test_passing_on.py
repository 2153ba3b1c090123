"""The dashboard of several workers lives in the first: whoever is asked, a browser cannot tell."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from models.settings import LimitSettings
from router.dashboard.gate import API, COOKIE, ROOT, SECURITY_HEADERS, SESSION
from router.dashboard.passing_on import Taken
from router.forwarding import SIBLING, TOKEN
from tests.fakes.provider import chat_events, gated, open_fake_provider, stream_script
from tests.patience import PATIENCE_S
from tests.router.dashboard.browsing import PAGE, Browser, sign_in, token_of, try_sign_in
from tests.router.sibling_servers import TOKEN as THE_TOKEN
from tests.router.sibling_servers import Worker, open_workers
from tests.running import Client, object_of, settings_for, user

ASSET = f"{ROOT}/static/favicon.svg"


def at(worker: Worker, first: Worker) -> Client:
    """The holder of the first worker's account key, at another worker: in these tests they share no directory."""
    return Client(worker.http, first.key)


def at_worker(browser: Browser, worker: Worker) -> Browser:
    """The same browser, whose connection another worker has taken."""
    return Browser(worker.http, browser.token, browser.session)


async def test_a_session_is_one_at_every_worker(tmp_path: Path) -> None:
    async with open_workers(tmp_path, 3) as workers:
        browser = await sign_in(at(workers[1], workers[0]))
        for worker in workers:
            seen = at_worker(browser, worker)
            keys = await seen.done("GET", "v1/keys")
            assert keys == await browser.done("GET", "v1/keys")
            created = await seen.done("POST", "v1/keys", {"name": f"by {worker.index}"}, status=201)
            assert created["key"].startswith("mk_")
            assert (await worker.http.get(SESSION, headers=seen.headers)).status_code == 200
        assert [len(worker.components.dashboard.sessions) for worker in workers] == [1, 0, 0]
        ended = await workers[2].http.delete(SESSION, headers=at_worker(browser, workers[2]).headers)
        assert (ended.status_code, ended.headers["set-cookie"].partition(";")[0]) == (204, f"{COOKIE}=")
        assert (await browser.ask("GET", "v1/keys")).status_code == 401


async def test_pages_files_and_refusals_are_the_first_workers(tmp_path: Path) -> None:
    async with open_workers(tmp_path, 2) as (first, other):
        answers: list[Callable[[httpx.AsyncClient], Any]] = [
            lambda http: http.get(ROOT),
            lambda http: http.head(ROOT),
            lambda http: http.get(f"/{ROOT}/keys"),
            lambda http: http.get(ASSET),
            lambda http: http.get(f"{ROOT}/static/nothing.js"),
            lambda http: http.get(f"{API}/overview"),
            lambda http: http.options(f"{API}/v1/keys"),
            lambda http: http.put(SESSION, content=b"x" * 100_000),
            lambda http: http.get(SESSION),
            lambda http: http.get(SESSION, headers={b"x-dashboard": b"1", b"x-name": "caf\xe9".encode()}),
        ]
        for ask in answers:
            here, there = await ask(first.http), await ask(other.http)
            assert (here.status_code, here.content) == (there.status_code, there.content)
            for name in {name.decode() for name in SECURITY_HEADERS} | {"cache-control", "content-type", "etag"}:
                assert here.headers.get(name) == there.headers.get(name), (here.request.url, name)
            assert not {TOKEN, SIBLING} & set(there.headers)
        kept = (await other.http.get(ASSET)).headers["etag"]
        assert (await other.http.get(ASSET, headers={"if-none-match": kept})).status_code == 304


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://elsewhere.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://me.example", "host": "me.example"}, 200),
        ({"origin": "https://me.example", "host": "me.example:80"}, 403),
        ({"origin": "https://me.example", "host": "me.example:443"}, 200),
    ],
)
async def test_origins_are_judged_by_what_the_browser_sent(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    async with open_workers(tmp_path, 2) as (first, other):
        for worker in (first, other):
            answer = await try_sign_in(worker.client, {"key": first.key}, headers=headers)
            assert answer.status_code == status, worker.index
            if status == 200:
                cookie = answer.headers["set-cookie"]
                assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", f"Path={ROOT}"))
                assert ("Secure" in cookie) == headers["origin"].startswith("https")
                csrf = object_of(answer)["csrf"]
                cookies = {**PAGE, "cookie": f"{COOKIE}={token_of(answer)}"}
                assert (await worker.http.get(f"{API}/v1/keys", headers=cookies)).status_code == 403
                asked = await worker.http.get(f"{API}/v1/keys", headers={**cookies, "x-csrf-token": csrf})
                assert asked.status_code == 200


async def test_failed_attempts_count_for_the_clients_address(tmp_path: Path) -> None:
    """Not for the worker's that passed them on: all clients of it would share one."""
    limits = LimitSettings(failed_auth_per_minute=3, failed_auth_delay_ms=0)
    async with open_workers(tmp_path, 2, settings_for(limits=limits)) as (first, other):
        wrong = {"key": "mk_" + "x" * 32}
        statuses = [(await try_sign_in(worker.client, wrong)).status_code for worker in (other, first) * 4]
        assert (statuses[0], statuses[-1]) == (401, 429)
        assert statuses.count(401) <= 3
        assert first.components.limits.statistics()["addresses_tracked"] == 1
        assert other.components.limits.statistics()["addresses_tracked"] == 0


async def test_only_who_knows_the_token_may_say_whom_a_request_is_from(tmp_path: Path) -> None:
    taken = Taken(client=("203.0.113.7", 1), scheme="https", host="me.example")
    said = base64.urlsafe_b64encode(msgspec.msgpack.encode(taken)).decode()
    async with open_workers(tmp_path, 2) as (first, other):
        headers = {SIBLING: said, "origin": "https://me.example:443"}
        for worker in (first, other):
            for token in ({}, {TOKEN: ""}, {TOKEN: "0" * 64}):
                answer = await try_sign_in(worker.client, {"key": first.key}, headers={**headers, **token})
                assert answer.status_code == 403
        believed = {**headers, TOKEN: THE_TOKEN}
        assert (await try_sign_in(first.client, {"key": first.key}, headers=believed)).status_code == 200
        for nonsense in ("metrics", "gqFhoQ==", "%"):
            mixed = {TOKEN: THE_TOKEN, SIBLING: nonsense}
            assert (await try_sign_in(first.client, {"key": first.key}, headers=mixed)).status_code == 200


async def test_a_stream_passes_unbuffered_and_ends_when_its_client_leaves(tmp_path: Path) -> None:
    async with open_fake_provider() as provider:
        providers = settings_for(provider.settings()).providers
        async with open_workers(tmp_path, 2, settings_for(providers=providers)) as (first, other):
            browser = at_worker(await sign_in(first.client), other)
            events = chat_events()
            gates = [trio.Event() for _ in events]
            provider.enqueue(stream_script(gated(events, gates)))
            body = msgspec.json.encode({"model": "openai/m", "messages": [user("Who is Rex?")], "stream": True})
            head = "".join(f"{name}: {value}\r\n" for name, value in browser.headers.items())
            request = f"POST {API}/v1/chat/completions HTTP/1.1\r\nhost: x\r\n{head}content-length: {len(body)}\r\n\r\n"
            host, _, port = other.address.partition(":")
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await stream.send_all(request.encode() + body)
                said = b""
                for event, gate in zip(events[:2], gates[:2], strict=True):
                    gate.set()  # what the provider has not sent cannot arrive
                    while event not in said:
                        said += await stream.receive_some()
                assert said.startswith(b"HTTP/1.1 200 ")
            with trio.fail_after(PATIENCE_S):
                await provider.disconnected.wait()


async def test_uploads_pass_as_they_come(tmp_path: Path) -> None:
    """With a length, and in chunks."""
    async with open_workers(tmp_path, 2) as (first, other):
        browser = at_worker(await sign_in(first.client), other)
        lines = [
            msgspec.json.encode({"content": f"Carla sails on day {number}. " + "x" * 500}) for number in range(300)
        ]
        whole = await browser.ask("POST", "v1/memory/upload", b"\n".join(lines[:150]))
        assert whole.json()["stats"]["stored"] == 150

        async def chunks() -> Any:
            for line in lines[150:]:
                yield line + b"\n"

        chunked = await other.http.post(f"{API}/v1/memory/upload", content=chunks(), headers=browser.headers)
        assert chunked.json()["stats"]["stored"] == 150
        assert len(await first.client.contents("Carla sails")) == 300


async def test_without_the_first_worker_there_is_a_page_that_says_so(tmp_path: Path) -> None:
    async with open_workers(tmp_path, 2) as (first, other):
        browser = at_worker(await sign_in(first.client), other)
        assert (await browser.ask("GET", "v1/keys")).status_code == 200
        first.stop()
        page = await other.http.get(f"{ROOT}/keys")
        assert (page.status_code, page.headers["content-type"]) == (503, "text/html; charset=utf-8")
        assert "being started again" in page.text
        head = await other.http.head(f"{ROOT}/keys")
        assert (head.status_code, head.content) == (503, b"")
        asked = await browser.ask("POST", "v1/memory/search", {"query": "dog"})
        assert (asked.status_code, object_of(asked)["code"]) == (503, "store_unavailable")
        for answer in (page, head, asked):
            assert int(answer.headers["retry-after"]) > 0
            assert answer.headers["cache-control"] == "no-store"
            for name, value in SECURITY_HEADERS.items():
                assert answer.headers[name.decode()] == value.decode()
        assert (await other.client.get("/v1/memory/stats")).status_code == 200


async def test_nobody_waits_for_a_first_worker_that_took_a_request_and_froze(tmp_path: Path) -> None:
    """Only that it is not heard of any more tells; before its answer, and in the middle of it."""
    asked = trio.Event()

    def freezing(begin: bytes) -> Callable[[trio.SocketStream], Awaitable[None]]:
        async def freeze(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            await stream.send_all(begin)
            asked.set()
            await trio.sleep_forever()

        return freeze

    async with open_workers(tmp_path, 2) as (first, other), trio.open_nursery() as tasks:
        for begin in (b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"):
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            tasks.start_soon(trio.serve_listeners, freezing(begin), [listener])
            first.address, first.alive, asked = f"127.0.0.1:{listener.socket.getsockname()[1]}", True, trio.Event()
            answers: list[int] = []

            async def ask(answers: list[int] = answers) -> None:
                try:
                    answers.append((await other.http.get(ROOT)).status_code)
                except httpx.RemoteProtocolError:
                    answers.append(0)

            async with trio.open_nursery() as asking:
                asking.start_soon(ask)
                await asked.wait()
                first.alive = False
            assert answers == [0 if begin else 503]
        tasks.cancel_scope.cancel()


async def test_an_answer_that_breaks_off_is_broken_off(tmp_path: Path) -> None:
    """The first worker dies in the middle of it: the browser must not take a part for the whole."""

    async def die(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        await stream.aclose()

    async with open_workers(tmp_path, 2) as (first, other), trio.open_nursery() as tasks:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        tasks.start_soon(trio.serve_listeners, die, [listener])
        first.address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        with pytest.raises(httpx.RemoteProtocolError):
            await other.http.get(ROOT)
        tasks.cancel_scope.cancel()
