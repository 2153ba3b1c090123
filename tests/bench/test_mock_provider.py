"""The mock says what the name of a model asks for, in every way in which it can be asked."""

from __future__ import annotations

import json
import socket

import httpx
import pytest

from bench._provider_replies import ANSWER, random_stream
from tests.patience import PATIENCE_S

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"


def ask(provider: int, model: str, *, stream: bool = True, path: str = CHAT) -> httpx.Response:
    body = {"model": f"openai/{model}", "stream": stream, "messages": [{"role": "user", "content": "\u00e9"}]}
    return httpx.post(f"http://127.0.0.1:{provider}{path}", json=body, timeout=PATIENCE_S, trust_env=False)


def events(reply: httpx.Response) -> list[str]:
    return [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]


def test_whole_replies_are_those_of_the_api_that_was_asked(provider: int) -> None:
    chat = ask(provider, "mock", stream=False).json()
    assert chat["choices"][0]["message"]["content"] == ANSWER * 100
    message = ask(provider, "mock", stream=False, path=MESSAGES).json()
    assert (message["type"], message["content"][0]["text"]) == ("message", ANSWER * 100)


@pytest.mark.parametrize(("model", "pieces"), [("burst", 50), ("burst-3", 3), ("pace-1-4", 4), ("slow-1", 50)])
def test_streams_have_as_many_chunks_as_the_name_says(provider: int, model: str, pieces: int) -> None:
    *chunks, done = events(ask(provider, model))
    assert (len(chunks), done) == (pieces + 1, "[DONE]")
    texts = [json.loads(chunk)["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert all(text.startswith(f"{ANSWER}at=") for text in texts[:-1])
    kinds = [json.loads(event)["type"] for event in events(ask(provider, model, path=MESSAGES))]
    assert (kinds[0], kinds[-1], kinds.count("content_block_delta")) == ("message_start", "message_stop", pieces)


def test_a_random_stream_is_the_same_for_its_seed(provider: int) -> None:
    assert ask(provider, "random-7").content == b"".join(random_stream(7)) != b"".join(random_stream(8))


def test_faults(provider: int) -> None:
    refused = ask(provider, "fault-529", stream=False)
    assert (refused.status_code, refused.json()["error"]["type"]) == (529, "mock_error")
    for stream in (True, False):
        with pytest.raises(httpx.RemoteProtocolError):
            ask(provider, "cut-2", stream=stream)


def test_what_is_no_chat_is_refused_and_models_are_listed(provider: int) -> None:
    url = f"http://127.0.0.1:{provider}/v1"
    assert httpx.post(f"{url}/chat/completions", content=b"{", trust_env=False).status_code == 400
    assert httpx.get(f"{url}/models", trust_env=False).json()["data"][0]["id"] == "mock"


def test_a_body_in_chunks_and_requests_behind_each_other_are_understood(provider: int) -> None:
    body = b'{"model":"fault-%d","messages":[]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
    first, second = body % 401, body % 503
    data = head + b"Transfer-Encoding: chunked\r\n\r\n3\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (
        first[:3], len(first) - 3, first[3:],
    ) + head + b"content-length:%d\r\n\r\n" % len(second) + second  # fmt: skip
    received = b""
    with socket.create_connection(("127.0.0.1", provider), timeout=PATIENCE_S) as connection:
        for place in range(0, len(data), 50):
            connection.sendall(data[place : place + 50])
        while received.count(b"mock_error") < 2:
            received += connection.recv(1 << 16)
    assert received.index(b"HTTP/1.1 401") < received.index(b"HTTP/1.1 503")


@pytest.mark.parametrize("model", ["endless", "hang"])
def test_it_tells_when_it_was_left(provider: int, model: str) -> None:
    left = f"http://127.0.0.1:{provider}/left"
    assert httpx.get(left, trust_env=False).json() == []
    body = b'{"model":"%b","stream":true,"messages":[]}' % model.encode()
    with socket.create_connection(("127.0.0.1", provider), timeout=PATIENCE_S) as connection:
        connection.sendall(b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(body)) + body)
        if model == "endless":
            while b"An answer" not in connection.recv(1 << 16):
                pass
    for _ in range(10_000):
        if times_ns := httpx.get(left, trust_env=False).json():
            break
    assert len(times_ns) == 1
