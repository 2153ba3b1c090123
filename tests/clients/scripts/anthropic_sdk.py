"""The Anthropic SDK for Python, 0.x and 2.x alike: what its users do and expect."""

from __future__ import annotations

import json
from typing import Any

import anthropic
from scenes import (
    HELLO,
    KEY,
    OWN_KEY,
    PICTURE,
    PIXEL,
    QUESTION,
    SCHEMA,
    SUNNY,
    URL,
    WRONG_KEY,
    play,
    raises,
    waits_as_asked,
)

TOOLS: Any = [{"name": "get_weather", "description": "The weather.", "input_schema": SCHEMA}]
ASK: Any = [{"role": "user", "content": QUESTION}]


def client(**options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(**{"base_url": URL, "api_key": KEY, "max_retries": 0, **options})


def async_client(**options: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(**{"base_url": URL, "api_key": KEY, "max_retries": 0, **options})


def request(scene: str, **options: Any) -> dict[str, Any]:
    return {"model": f"claude-{scene}", "max_tokens": 100, "messages": ASK, **options}


def messages() -> None:
    for model in ("claude-hello", "anthropic/claude-hello"):
        reply = client().messages.create(**request("hello", model=model, system="Be brief."))
        assert reply.content[0].text == HELLO
        assert reply.stop_reason == "end_turn"
        assert reply.usage.output_tokens > 0
        assert reply._request_id


def messages_stream() -> None:
    kinds = [event.type for event in client().messages.create(**request("hello"), stream=True)]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    with client().messages.stream(**request("hello")) as stream:
        assert "".join(stream.text_stream) == HELLO
        assert stream.get_final_message().stop_reason == "end_turn"


async def messages_async() -> None:
    async with async_client() as sdk:
        assert (await sdk.messages.create(**request("hello"))).content[0].text == HELLO
        async with sdk.messages.stream(**request("hello")) as stream:
            assert "".join([text async for text in stream.text_stream]) == HELLO


def beta() -> None:
    reply = client().beta.messages.create(**request("hello"), betas=["context-1m-2025-08-07"])
    assert reply.content[0].text == HELLO


def tools() -> None:
    first = client().messages.create(**request("tools", tools=TOOLS))
    assert first.stop_reason == "tool_use"
    (call,) = first.content
    assert (call.name, call.input) == ("get_weather", {"city": "Lisbon"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    told: Any = [*ASK, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = client().messages.create(**request("tools", messages=told, tools=TOOLS))
    assert second.content[0].text == SUNNY


def tools_stream() -> None:
    with client().messages.stream(**request("tools", tools=TOOLS)) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        assert json.loads("".join(pieces)) == {"city": "Lisbon"}
        assert stream.get_final_message().content[0].input == {"city": "Lisbon"}


def image() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    parts: Any = [{"type": "image", "source": source}, {"type": "text", "text": QUESTION}]
    reply = client().messages.create(**request("image", messages=[{"role": "user", "content": parts}]))
    assert reply.content[0].text == PICTURE


def count_tokens() -> None:
    assert client().messages.count_tokens(model="claude-hello", messages=ASK).input_tokens == 42
    assert client().beta.messages.count_tokens(model="claude-hello", messages=ASK).input_tokens == 42


def models() -> None:
    names = [model.id for model in client().models.list()]
    assert "anthropic/claude-hello" in names, names
    assert client().models.retrieve("anthropic/claude-hello").id == "anthropic/claude-hello"


def errors() -> None:
    with raises(anthropic.AuthenticationError) as caught:
        client(api_key=WRONG_KEY).messages.create(**request("hello"))
    assert caught[0].body["error"]["type"] == "authentication_error", caught[0].body
    with raises(anthropic.NotFoundError) as caught:
        client().messages.create(**request("hello", model="nobody/m"))
    assert caught[0].body["error"]["type"] == "not_found_error", caught[0].body
    with raises(anthropic.BadRequestError):
        client().messages.create(**request("hello", messages=[]))
    with raises(anthropic.RateLimitError) as caught:
        client().messages.create(**request("busy"))
    assert caught[0].response.headers["retry-after"] == "1"
    assert caught[0].response.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert caught[0].body["error"]["type"] == "rate_limit_error"
    assert caught[0].request_id
    with raises(anthropic.InternalServerError), client().messages.stream(**request("broken")) as stream:
        stream.get_final_message()


def retries() -> None:
    with waits_as_asked():
        assert client(max_retries=2).messages.create(**request("busy-once")).content[0].text == HELLO


def cut() -> None:
    pieces = ""
    with raises(anthropic.APIError) as caught, client().messages.stream(**request("cut")) as stream:
        for text in stream.text_stream:
            pieces += text
    assert HELLO.startswith(pieces)
    assert caught[0].message


async def cut_async() -> None:
    async with async_client() as sdk:
        with raises(anthropic.APIError):
            async for _ in await sdk.messages.create(**request("cut"), stream=True):
                pass


def own_key() -> None:
    sdk = client(api_key=OWN_KEY, default_headers={"X-Memory-Key": KEY})
    assert sdk.messages.create(**request("own")).content[0].text == HELLO
    sdk = client(api_key=None, auth_token=OWN_KEY, default_headers={"X-Memory-Key": KEY})
    assert sdk.messages.create(**request("own")).content[0].text == HELLO


def options() -> None:
    raw = client().messages.with_raw_response.create(**request("hello"))
    assert raw.headers["x-memory-status"] == "ok"
    assert raw.parse().usage.cache_read_input_tokens == 100
    raw = client().messages.with_raw_response.create(**request("off"), extra_headers={"X-Memory-Mode": "off"})
    assert raw.headers["x-memory-status"] == "off"
    raw = client(auth_token=None).messages.with_raw_response.create(**request("off"), extra_body={"memory": False})
    assert raw.headers["x-memory-status"] == "off"


if __name__ == "__main__":
    play(
        messages,
        messages_stream,
        messages_async,
        beta,
        tools,
        tools_stream,
        image,
        count_tokens,
        models,
        errors,
        retries,
        cut,
        cut_async,
        own_key,
        options,
    )
