"""The OpenAI SDK for Python, 1.x and 3.x alike: what its users do and expect."""

from __future__ import annotations

import base64
import io
import json
import os
from typing import Any

import openai
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

TOOLS: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]
FLAT_TOOLS: Any = [{"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False}]
ASK: Any = [{"role": "user", "content": QUESTION}]
CHAT_MODELS = os.environ.get("TEST_CHAT_MODELS", "gpt-{} openai/gpt-{} anthropic/claude-{} google/gemini-{}").split()


def client(**options: Any) -> openai.OpenAI:
    return openai.OpenAI(**{"base_url": f"{URL}/v1", "api_key": KEY, "max_retries": 0, **options})


def async_client(**options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(**{"base_url": f"{URL}/v1", "api_key": KEY, "max_retries": 0, **options})


def chat() -> None:
    for model in CHAT_MODELS:
        reply = client().chat.completions.create(
            model=model.format("hello"), messages=[{"role": "system", "content": "Be brief."}, *ASK]
        )
        assert reply.choices[0].message.content == HELLO, reply
        assert reply.choices[0].finish_reason == "stop"
        assert reply.usage is not None
        assert reply.usage.total_tokens > 0
        assert reply._request_id


def chat_stream() -> None:
    for model in CHAT_MODELS:
        chunks = list(client().chat.completions.create(model=model.format("hello"), messages=ASK, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == HELLO
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert all(chunk.usage is None for chunk in chunks), "token counts that nobody asked for"


def chat_stream_usage() -> None:
    for model in CHAT_MODELS:
        chunks = list(
            client().chat.completions.create(
                model=model.format("hello"), messages=ASK, stream=True, stream_options={"include_usage": True}
            )
        )
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens > 0


async def chat_async() -> None:
    async with async_client() as sdk:
        for model in CHAT_MODELS:
            reply = await sdk.chat.completions.create(model=model.format("hello"), messages=ASK)
            assert reply.choices[0].message.content == HELLO
            stream = await sdk.chat.completions.create(model=model.format("hello"), messages=ASK, stream=True)
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == HELLO


def chat_tools() -> None:
    for model in CHAT_MODELS:
        name = model.format("tools")
        first = client().chat.completions.create(model=name, messages=ASK, tools=TOOLS)
        message = first.choices[0].message
        assert first.choices[0].finish_reason == "tool_calls"
        (call,) = message.tool_calls or []
        assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Lisbon"})
        answer: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        told: Any = [*ASK, message, answer]
        second = client().chat.completions.create(model=name, messages=told, tools=TOOLS)
        assert second.choices[0].message.content == SUNNY


def chat_tools_stream() -> None:
    for model in CHAT_MODELS:
        name, arguments, finish = "", "", None
        for chunk in client().chat.completions.create(
            model=model.format("tools"), messages=ASK, tools=TOOLS, stream=True
        ):
            for call in chunk.choices[0].delta.tool_calls or []:
                assert call.index == 0
                name += (call.function and call.function.name) or ""
                arguments += (call.function and call.function.arguments) or ""
            finish = chunk.choices[0].finish_reason or finish
        assert (name, json.loads(arguments), finish) == ("get_weather", {"city": "Lisbon"}, "tool_calls")


def chat_stream_helper() -> None:
    with client().chat.completions.stream(model="gpt-tools", messages=ASK, tools=TOOLS) as stream:
        assert {event.type for event in stream} >= {"chunk", "tool_calls.function.arguments.done"}
        assert stream.get_final_completion().choices[0].finish_reason == "tool_calls"


def chat_image() -> None:
    url = f"data:image/png;base64,{PIXEL}"
    parts: Any = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": url}}]
    for model in CHAT_MODELS:
        reply = client().chat.completions.create(
            model=model.format("image"), messages=[{"role": "user", "content": parts}]
        )
        assert reply.choices[0].message.content == PICTURE


def chat_json() -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    for model in CHAT_MODELS:
        reply = client().chat.completions.create(model=model.format("json"), messages=ASK, response_format=wanted)
        assert json.loads(reply.choices[0].message.content or "")["city"] == "Lisbon"


def responses() -> None:
    for model in ("gpt-hello", "openai/gpt-hello"):
        reply = client().responses.create(model=model, input=QUESTION)
        assert (reply.output_text, reply.status) == (HELLO, "completed")
        assert reply._request_id


def responses_stream() -> None:
    kinds = []
    pieces = ""
    for event in client().responses.create(model="gpt-hello", input=ASK, stream=True):
        kinds.append(event.type)
        pieces += event.delta if event.type == "response.output_text.delta" else ""
    assert (pieces, kinds[-1]) == (HELLO, "response.completed")
    with client().responses.stream(model="gpt-hello", input=QUESTION) as stream:
        assert stream.get_final_response().output_text == HELLO


async def responses_async() -> None:
    async with async_client() as sdk:
        assert (await sdk.responses.create(model="gpt-hello", input=QUESTION)).output_text == HELLO
        async with sdk.responses.stream(model="gpt-hello", input=QUESTION) as stream:
            assert (await stream.get_final_response()).output_text == HELLO


def responses_tools() -> None:
    first = client().responses.create(model="gpt-tools", input=ASK, tools=FLAT_TOOLS)
    (call,) = first.output
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "Lisbon"}
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    told: Any = [*ASK, call.model_dump(exclude_none=True), result]
    assert client().responses.create(model="gpt-tools", input=told, tools=FLAT_TOOLS).output_text == SUNNY
    with client().responses.stream(model="gpt-tools", input=ASK, tools=FLAT_TOOLS) as stream:
        assert "response.function_call_arguments.done" in {event.type for event in stream}


def responses_image() -> None:
    parts = [
        {"type": "input_text", "text": QUESTION},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"},
    ]
    told: Any = [{"role": "user", "content": parts}]
    assert client().responses.create(model="gpt-image", input=told).output_text == PICTURE


def embeddings() -> None:
    reply = client().embeddings.create(model="text-embedding-3-small", input="a text")
    assert reply.data[0].embedding == [1.0, 2.0, 3.0]
    floats = client().embeddings.create(model="openai/text-embedding-3-small", input=["a"], encoding_format="float")
    assert floats.data[0].embedding == [1.0, 2.0, 3.0]


def models() -> None:
    names = [model.id for model in client().models.list()]
    assert "local/recall" in names
    assert "openai/gpt-hello" in names
    assert client().models.retrieve("openai/gpt-hello").id == "openai/gpt-hello"
    with raises(openai.NotFoundError):
        client().models.retrieve("openai/nothing")


def legacy_completions() -> None:
    reply = client().completions.create(model="gpt-3.5-turbo-instruct", prompt="Say hello.")
    assert reply.choices[0].text == HELLO


def audio_and_images() -> None:
    speech = client().audio.speech.create(model="tts-1", voice="alloy", input="Hello.")
    assert speech.content.startswith(b"ID3")
    assert len(speech.content) == 3 + 256 * 40
    sound = io.BytesIO(bytes(range(256)) * 4_000)
    sound.name = "sound.wav"
    assert client().audio.transcriptions.create(model="whisper-1", file=sound).text == HELLO
    picture = client().images.generate(model="gpt-image-1", prompt="A dog.")
    assert picture.data is not None
    assert picture.data[0].b64_json == PIXEL
    edited = client().images.edit(
        model="gpt-image-1", prompt="A cat.", image=("a.png", base64.b64decode(PIXEL), "image/png")
    )
    assert edited.data is not None
    assert edited.data[0].b64_json == PIXEL


def errors() -> None:
    with raises(openai.AuthenticationError) as caught:
        client(api_key=WRONG_KEY).chat.completions.create(model="gpt-hello", messages=ASK)
    assert (caught[0].status_code, caught[0].code) == (401, "invalid_api_key"), caught[0].body
    for model in ("nobody/m", "unheard-of"):
        with raises(openai.NotFoundError) as caught:
            client().chat.completions.create(model=model, messages=ASK)
        assert caught[0].code == "model_not_found", caught[0].body
    with raises(openai.NotFoundError) as caught:
        client().responses.create(model="nobody/m", input=QUESTION)
    assert caught[0].code == "model_not_found", caught[0].body
    with raises(openai.BadRequestError) as caught:
        client().chat.completions.create(model="gpt-hello", messages=[])
    for model in CHAT_MODELS:
        with raises(openai.RateLimitError) as caught:
            client().chat.completions.create(model=model.format("busy"), messages=ASK)
        assert caught[0].response.headers["retry-after"] == "1"
        assert "Slow down." in caught[0].message, caught[0].message
        assert caught[0].code, caught[0].body
        assert caught[0].request_id
        with raises(openai.InternalServerError) as caught:
            client().chat.completions.create(model=model.format("broken"), messages=ASK, stream=True)
        assert "Oh no." in caught[0].message, caught[0].message


def retries() -> None:
    with waits_as_asked():
        reply = client(max_retries=2).chat.completions.create(model="gpt-busy-once", messages=ASK)
    assert reply.choices[0].message.content == HELLO
    with waits_as_asked():
        assert client(max_retries=2).responses.create(model="gpt-busy-once", input=QUESTION).output_text == HELLO


def cut() -> None:
    for model in CHAT_MODELS:
        pieces = ""
        with raises(openai.APIError) as caught:
            for chunk in client().chat.completions.create(model=model.format("cut"), messages=ASK, stream=True):
                pieces += chunk.choices[0].delta.content or ""
        assert pieces
        assert HELLO.startswith(pieces)
        assert caught[0].message
    with raises(RuntimeError, openai.APIError), client().responses.stream(model="gpt-cut", input=QUESTION) as stream:
        stream.get_final_response()


async def cut_async() -> None:
    async with async_client() as sdk:
        with raises(openai.APIError):
            async for _ in await sdk.chat.completions.create(model="gpt-cut", messages=ASK, stream=True):
                pass


def own_key() -> None:
    sdk = client(api_key=OWN_KEY, default_headers={"X-Memory-Key": KEY})
    for model in CHAT_MODELS:
        assert sdk.chat.completions.create(model=model.format("own"), messages=ASK).choices[0].message.content == HELLO
    assert sdk.responses.create(model="gpt-own", input=QUESTION).output_text == HELLO


def options() -> None:
    raw = client().chat.completions.with_raw_response.create(model="gpt-hello", messages=ASK)
    assert raw.headers["x-memory-status"] == "ok"
    assert int(raw.headers["x-memory-chunks-retrieved"]) > 0
    raw = client().chat.completions.with_raw_response.create(
        model="gpt-off", messages=ASK, extra_body={"memory_mode": "off", "session_id": "s1"}
    )
    assert raw.headers["x-memory-status"] == "off"
    raw = client(api_key=f"{KEY}:off").chat.completions.with_raw_response.create(model="gpt-off", messages=ASK)
    assert raw.headers["x-memory-status"] == "off"


if __name__ == "__main__":
    play(
        chat,
        chat_stream,
        chat_stream_usage,
        chat_async,
        chat_tools,
        chat_tools_stream,
        chat_stream_helper,
        chat_image,
        chat_json,
        responses,
        responses_stream,
        responses_async,
        responses_tools,
        responses_image,
        embeddings,
        models,
        legacy_completions,
        audio_and_images,
        errors,
        retries,
        cut,
        cut_async,
        own_key,
        options,
    )
