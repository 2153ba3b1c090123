"""Limits over HTTP: refused in the words of each wire format, counted exactly, and nobody punished for another."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import openai
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from models.limit_settings import LimitSettings
from models.server_settings import ServerSettings
from router.limits import SUSPECT_LOOKUPS_MAX
from tests.fakes.provider import chat_chunk, chat_events, stream_script
from tests.patience import PATIENCE_S, pass_time_until
from tests.router.limited import FORMATS, MODEL, WRONG, check_shape, limited, refusals
from tests.router.proxied import PATH, open_both, streamed
from tests.running import Client, open_reply, open_server, settings_for

# --- requests a minute ---


@pytest.mark.parametrize("name", FORMATS)
async def test_a_key_that_asks_too_often_is_told_so_in_its_own_format(tmp_path: Path, name: str) -> None:
    path, body = FORMATS[name]
    async with limited(tmp_path, requests_per_minute=1, requests_burst=2) as client:
        answers = [await client.post(path, body) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429], answers[0].text
        left = [answer.headers["x-ratelimit-remaining"] for answer in answers]
        assert left == ["1", "0", "0"]
        for answer in answers:
            assert answer.headers["x-ratelimit-limit"] == "2"
            assert 0 < int(answer.headers["x-ratelimit-reset"]) <= 120
        check_shape(name, answers[2])
        assert await refusals(client, "requests") == 1


async def test_each_key_has_a_bucket_of_its_own(tmp_path: Path) -> None:
    async with limited(tmp_path, requests_per_minute=1, requests_burst=3) as client:
        other = await client.other()
        assert [(await client.chat("Hi", model=MODEL)).status_code for _ in range(3)] == [200, 200, 429]
        assert (await other.chat("Hi", model=MODEL)).status_code == 200


async def test_a_refused_request_is_not_even_read(tmp_path: Path) -> None:
    """Its body may be whatever it is: the answer is the same, and nothing was decoded or stored."""
    async with limited(tmp_path, requests_per_minute=1, requests_burst=1) as client:
        await client.ingest("I have a dog.")
        answer = await client.post("/v1/memory/ingest", b"[" * 100_000)
        check_shape("own", answer)


async def test_without_limits_there_are_no_headers_of_them(tmp_path: Path) -> None:
    async with limited(tmp_path) as client:
        answer = await client.chat("Hi", model=MODEL)
        assert not [name for name in answer.headers if name.startswith("x-ratelimit")]


async def test_openais_sdk_sees_its_own_error_and_the_headers(tmp_path: Path) -> None:
    async with limited(tmp_path, requests_per_minute=1, requests_burst=1) as client:

        def ask() -> None:
            with openai.OpenAI(base_url=f"{client.url}/v1", api_key=client.key, max_retries=0) as sdk:
                raw = sdk.chat.completions.with_raw_response.create(
                    model=MODEL, messages=[{"role": "user", "content": "Hi"}]
                )
                assert raw.headers["x-ratelimit-remaining"] == "0"
                with pytest.raises(openai.RateLimitError) as caught:
                    sdk.responses.create(model=MODEL, input="Hi")
                assert caught.value.code == "rate_limit_exceeded"
                assert caught.value.type == "rate_limit_error"

        await trio.to_thread.run_sync(ask)


# --- at once ---


async def test_a_stream_counts_until_its_end(tmp_path: Path) -> None:
    settings = settings_for(limits=LimitSettings(requests_concurrent_max=1))
    async with open_both(tmp_path, settings) as (server, provider):
        gate = trio.Event()
        events = chat_events()
        provider.enqueue(stream_script([events[0], gate, *events[1:]]))
        async with open_reply(server, PATH, streamed("Say hello")) as reply:
            assert reply.status == 200
            refused = await server.chat("Hi", model=MODEL)
            check_shape("openai", refused)
            assert "1 requests under way" in refused.json()["error"]["message"]
            gate.set()
            while await reply.next_data():
                pass
        await until_let_in(server)
        assert await refusals(server, "concurrency") >= 1


async def test_a_client_that_leaves_gives_its_place_back_once(tmp_path: Path) -> None:
    """In the middle of a stream, and before the provider has answered at all."""
    settings = settings_for(limits=LimitSettings(requests_concurrent_max=2))
    async with open_both(tmp_path, settings) as (server, provider):
        provider.enqueue(stream_script([chat_chunk("Hello"), trio.Event()]))
        async with open_reply(server, PATH, streamed("Say hello")) as reply:
            assert reply.status == 200
        provider.enqueue(stream_script([trio.Event()]))
        with trio.move_on_after(PATIENCE_S) as leaving:
            async with trio.open_nursery() as asking:
                asking.start_soon(server.chat, "Wait for ever")
                while len(provider.requests) < 2:
                    await trio.lowlevel.checkpoint()
                leaving.cancel()
        async with AsyncExitStack() as streams:
            for _ in range(2):
                provider.enqueue(stream_script([chat_chunk("Hello"), trio.Event()]))
                await streams.enter_async_context(until_streaming(server))
            refused = await server.chat("Hi", model=MODEL)  # no third place has come from giving one back twice
            check_shape("openai", refused)


@asynccontextmanager
async def until_streaming(server: Client) -> AsyncIterator[None]:
    """A stream under way, as soon as there is a place for it."""
    with trio.fail_after(PATIENCE_S):
        while True:
            async with open_reply(server, PATH, streamed("Say hello")) as reply:
                if reply.status == 200:
                    yield
                    return


async def until_let_in(server: Client) -> None:
    """Ask until there is a place: the server learns of a client's leaving some time after it."""
    with trio.fail_after(PATIENCE_S):
        while (answer := await server.chat("Hi", model=MODEL)).status_code != 200:
            check_shape("openai", answer)


async def test_many_requests_at_once_end_with_no_place_taken(tmp_path: Path) -> None:
    """Answered, refused, cancelled on the way: whatever becomes of them, all places are free afterwards."""
    async with limited(tmp_path, requests_concurrent_max=3) as client:
        statuses = Counter[int]()

        async def ask(number: int) -> None:
            with trio.move_on_after(0 if number % 5 == 0 else PATIENCE_S):
                statuses[(await client.chat(f"Hello {number}", model=MODEL)).status_code] += 1

        for _ in range(3):
            async with trio.open_nursery() as asking:
                for number in range(20):
                    asking.start_soon(ask, number)
        assert set(statuses) <= {200, 429}
        await until_let_in(client)
        with trio.fail_after(PATIENCE_S):
            while "memoryrouter_limits_keys_busy 0\n" not in (await client.get("/metrics")).text:
                await trio.lowlevel.checkpoint()


# --- failed authentication ---


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("key", ["", WRONG, "mk_short:nonsense"], ids=["none", "unknown", "malformed"])
async def test_an_address_that_fails_too_often_hears_429_and_valid_keys_go_on(
    tmp_path: Path, name: str, key: str
) -> None:
    path, body = FORMATS[name]
    async with limited(tmp_path, failed_auth_per_minute=1, failed_auth_burst=2) as client:
        other = await client.other()  # a key that nobody has used before the flood
        answers = [await client.post(path, body, key=key) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [401, 401, 429, 429]
        check_shape(name, answers[2], retry=False)
        for valid in (client, other, client):
            assert (await valid.post(path, body)).status_code == 200
        assert (await client.post(path, body, key=key)).status_code == 429
        assert await refusals(client, "failed_auth") == 3


async def test_a_flood_of_wrong_keys_is_refused_and_a_new_valid_key_gets_through(tmp_path: Path) -> None:
    """Only a few of the flood are looked up at once; who finds them taken may come again."""
    async with limited(tmp_path, failed_auth_per_minute=1, failed_auth_burst=2) as client:
        other = await client.other()
        statuses = Counter[int]()

        async def flood(number: int) -> None:
            answer = await client.post("/v1/memory/search", {"query": "x"}, key=f"mk_{number:032}")
            statuses[answer.status_code] += 1

        async with trio.open_nursery() as flooding:
            for number in range(SUSPECT_LOOKUPS_MAX * 4):
                flooding.start_soon(flood, number)
            with trio.fail_after(PATIENCE_S):
                while (answer := await other.post("/v1/memory/search", {"query": "x"})).status_code != 200:
                    check_shape("own", answer)
        assert statuses == {401: 2, 429: SUSPECT_LOOKUPS_MAX * 4 - 2}


async def test_forwarded_addresses_are_believed_from_trusted_proxies_only(tmp_path: Path) -> None:
    async def statuses(client: Client, *forwarded_for: str) -> list[int]:
        answers = [
            await client.post("/v1/memory/search", {}, key=WRONG, headers={"x-forwarded-for": value})
            for value in forwarded_for
        ]
        return [answer.status_code for answer in answers]

    rate = {"failed_auth_per_minute": 1, "failed_auth_burst": 1}
    async with limited(tmp_path / "1", **rate) as client:
        assert await statuses(client, "198.51.100.1", "198.51.100.2") == [401, 429]
    async with limited(tmp_path / "2", **rate, trusted_proxies=("127.0.0.0/8",)) as client:
        assert await statuses(client, "198.51.100.1", "198.51.100.2") == [401, 401]
        assert await statuses(client, "1.1.1.1, 198.51.100.1", "2.2.2.2, 198.51.100.2, 127.0.0.9") == [429, 429]
        assert await statuses(client, "2001:db8::1", "2001:db8::2") == [401, 429]


async def test_a_refused_attempt_waits_for_its_answer_and_nobody_else_does(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    """Who tries keys as fast as answers come is slowed down by the server, and what was sent along is not kept."""
    rate = {"failed_auth_per_minute": 1, "failed_auth_burst": 1, "failed_auth_delay_ms": 1_000}
    async with limited(tmp_path, **rate) as client:
        await client.stats()
        statuses: list[int] = []

        async def attempt() -> None:
            answer = await client.post("/v1/memory/search", {"query": "x" * 300_000}, key="")
            statuses.append(answer.status_code)

        await attempt()
        async with trio.open_nursery() as attempting:
            attempting.start_soon(attempt)
            await wait_all_tasks_blocked(0.05)
            assert (await client.stats())["memories"] == 0
            await until_held(client, 0)
            assert statuses == [401]
            began_s = trio.current_time()
            await pass_time_until(mock_clock, lambda: len(statuses) == 2, step_s=0.1)
        assert statuses == [401, 429]
        assert 0.4 <= trio.current_time() - began_s <= 1.7


# --- depth and size ---


@pytest.mark.parametrize("name", FORMATS)
async def test_deep_json_is_refused_before_it_is_decoded(tmp_path: Path, name: str) -> None:
    path, body = FORMATS[name]
    async with limited(tmp_path, json_depth_max=20) as client:
        for levels, status in ((15, 200), (21, 400), (100_000, 400)):
            deep = msgspec.Raw(b"[" * levels + b"]" * levels)
            answer = await client.post(path, msgspec.json.encode({**body, "user": deep if levels > 15 else "x"}))
            assert answer.status_code == status, answer.text
            if status == 400:
                assert "nested deeper than 20 levels" in answer.text
                assert name == "anthropic" or "body" in answer.text


async def test_brackets_in_texts_are_no_depth(tmp_path: Path) -> None:
    async with limited(tmp_path, json_depth_max=8) as client:
        await client.ingest("[" * 10_000 + '{"\\"' * 100 + " is true")
        await client.upload([{"content": "{" * 1_000 + " is true"}])
        answer = await client.post("/v1/memory/upload", b'{"content":"x","metadata":' + b"[" * 9 + b"]" * 9 + b"}")
        assert answer.status_code == 400
        assert "Line 1" in answer.text


async def test_bodies_share_one_budget_of_bytes(tmp_path: Path) -> None:
    """A large body that has no room beside others is refused, small ones get through, and room comes back."""
    megabyte = 1024 * 1024
    settings = settings_for(
        server=ServerSettings(port=0, body_max_bytes=megabyte), limits=LimitSettings(buffered_bodies_max_bytes=megabyte)
    )
    async with open_server(tmp_path / "data", settings) as client:
        query = msgspec.json.encode({"query": "x" * 900_000})
        packed = {"content-encoding": "gzip"}
        host, _, port = client.url.removeprefix("http://").partition(":")
        async with await trio.open_tcp_stream(host, int(port)) as slow:
            head = f"POST /v1/memory/search HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.key}\r\n"
            await slow.send_all(f"{head}Content-Length: {len(query)}\r\n\r\n".encode() + query[:-1])
            await until_held(client, 800_000)
            refused = await client.post("/v1/memory/search", gzip.compress(query), headers=packed)
            assert refused.status_code == 503
            assert refused.json()["code"] == "overloaded"
            assert int(refused.headers["retry-after"]) >= 1
            assert (await client.post("/v1/memory/search", {"query": "small"})).status_code == 200
            await slow.send_all(query[-1:])
            assert (await slow.receive_some()).startswith(b"HTTP/1.1 200")
        await until_held(client, 0)
        assert (await client.post("/v1/memory/search", gzip.compress(query), headers=packed)).status_code == 200
        assert await refusals(client, "bodies") == 1


async def until_held(client: Client, count: int) -> None:
    """Return once so many bytes are held, or none if that is what is wanted."""
    with trio.fail_after(PATIENCE_S):
        while True:
            text = (await client.get("/metrics")).text
            held = int(text.split("\nmemoryrouter_bodies_bytes ")[1].split("\n")[0])
            if held >= count > 0 or held == count == 0:
                return
