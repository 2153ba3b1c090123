"""LiteLLM as a client, in each format that it speaks: what its users do and expect."""

from __future__ import annotations

import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else importing it asks the internet for a price list

import litellm
from scenes import HELLO, KEY, OWN_KEY, PICTURE, PIXEL, QUESTION, SCHEMA, SUNNY, URL, WRONG_KEY, play, raises

litellm.suppress_debug_info = True

TOOLS: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]
ASK: Any = [{"role": "user", "content": QUESTION}]
MODELS = {
    "openai/gpt-{}": f"{URL}/v1",
    "openai/anthropic/claude-{}": f"{URL}/v1",
    "openai/google/gemini-{}": f"{URL}/v1",
    "anthropic/claude-{}": URL,
    "gemini/gemini-{}": f"{URL}/v1beta",
}


def requests(scene: str, **options: Any) -> list[dict[str, Any]]:
    common = {"messages": ASK, "api_key": KEY, "max_retries": 0, **options}
    return [{"model": name.format(scene), "api_base": base, **common} for name, base in MODELS.items()]


def chat() -> None:
    for request in requests("hello"):
        reply = litellm.completion(**request)
        assert reply.choices[0].message.content == HELLO
        assert reply.choices[0].finish_reason == "stop"
        stream = litellm.completion(**request, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == HELLO


async def asynchronous() -> None:
    for request in requests("hello"):
        assert (await litellm.acompletion(**request)).choices[0].message.content == HELLO
        stream = await litellm.acompletion(**request, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == HELLO


def tools() -> None:
    for request in requests("tools", tools=TOOLS):
        message = litellm.completion(**request).choices[0].message
        (call,) = message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Lisbon"})
        result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        told = {**request, "messages": [*ASK, message, result]}
        assert litellm.completion(**told).choices[0].message.content == SUNNY
        chunks = list(litellm.completion(**request, stream=True))
        whole = litellm.stream_chunk_builder(chunks)
        assert json.loads(whole.choices[0].message.tool_calls[0].function.arguments) == {"city": "Lisbon"}


def image() -> None:
    url = f"data:image/png;base64,{PIXEL}"
    parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": url}}]
    for request in requests("image", messages=[{"role": "user", "content": parts}]):
        assert litellm.completion(**request).choices[0].message.content == PICTURE


def others() -> None:
    embedded = litellm.embedding(model="openai/text-embedding-3-small", input=["a"], api_base=f"{URL}/v1", api_key=KEY)
    assert embedded.data[0]["embedding"] == [1.0, 2.0, 3.0]
    reply = litellm.responses(model="openai/gpt-hello", input=QUESTION, api_base=f"{URL}/v1", api_key=KEY)
    assert reply.output[0].content[0].text == HELLO


def errors() -> None:
    for request in requests("hello"):
        with raises(litellm.AuthenticationError):
            litellm.completion(**{**request, "api_key": WRONG_KEY})
    for request in requests("busy"):
        with raises(litellm.RateLimitError):
            litellm.completion(**request)
    with raises(litellm.NotFoundError):
        litellm.completion(model="openai/nobody/m", messages=ASK, api_base=f"{URL}/v1", api_key=KEY)
    for request in requests("cut"):
        with raises(Exception):  # of another class for each format
            list(litellm.completion(**request, stream=True))


def own_key() -> None:
    for request in requests("own", api_key=OWN_KEY, extra_headers={"X-Memory-Key": KEY}):
        assert litellm.completion(**request).choices[0].message.content == HELLO


if __name__ == "__main__":
    play(chat, asynchronous, tools, image, others, errors, own_key)
