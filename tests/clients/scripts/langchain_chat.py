"""LangChain's OpenAI and Anthropic chat models through the base URL: what their users do and expect."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel
from scenes import (
    HELLO,
    KEY,
    OWN_KEY,
    PICTURE,
    PIXEL,
    QUESTION,
    SUNNY,
    URL,
    WRONG_KEY,
    play,
    raises,
    waits_as_asked,
)


class Place(BaseModel):
    """A place."""

    city: str


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def openai_model(scene: str, **options: Any) -> Any:
    name = options.pop("model", f"gpt-{scene}")
    return ChatOpenAI(**{"model": name, "base_url": f"{URL}/v1", "api_key": KEY, "max_retries": 0, **options})


def anthropic_model(scene: str, **options: Any) -> Any:
    return ChatAnthropic(**{"model": f"claude-{scene}", "base_url": URL, "api_key": KEY, "max_retries": 0, **options})


def every_model(scene: str, **options: Any) -> list[Any]:
    return [
        openai_model(scene, **options),
        openai_model(scene, model=f"anthropic/claude-{scene}", **options),
        openai_model(scene, model=f"google/gemini-{scene}", **options),
        openai_model(scene, use_responses_api=True, **options),
        anthropic_model(scene, **options),
    ]


def invoke() -> None:
    for model in every_model("hello"):
        reply = model.invoke([SystemMessage("Be brief."), HumanMessage(QUESTION)])
        assert reply.text == HELLO, reply
        assert reply.usage_metadata["total_tokens"] > 0


def stream() -> None:
    for model in every_model("hello"):
        assert "".join(chunk.text for chunk in model.stream(QUESTION)) == HELLO


async def asynchronous() -> None:
    for model in every_model("hello"):
        assert (await model.ainvoke(QUESTION)).text == HELLO
        assert "".join([chunk.text async for chunk in model.astream(QUESTION)]) == HELLO


def tools() -> None:
    for model in every_model("tools"):
        with_tools = model.bind_tools([get_weather])
        first = with_tools.invoke(QUESTION)
        (call,) = first.tool_calls
        assert (call["name"], call["args"]) == ("get_weather", {"city": "Lisbon"})
        result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
        assert with_tools.invoke([HumanMessage(QUESTION), first, result]).text == SUNNY
        chunks = list(with_tools.stream(QUESTION))
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        assert whole.tool_calls[0]["args"] == {"city": "Lisbon"}


def image() -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    for model in every_model("image"):
        assert model.invoke([HumanMessage([{"type": "text", "text": QUESTION}, picture])]).text == PICTURE


def structured() -> None:
    for model in every_model("json")[:4]:
        assert model.with_structured_output(Place).invoke(QUESTION).city == "Lisbon"


def embeddings() -> None:
    model = OpenAIEmbeddings(
        model="text-embedding-3-small", base_url=f"{URL}/v1", api_key=KEY, check_embedding_ctx_length=False
    )
    assert model.embed_query("a text") == [1.0, 2.0, 3.0]


def errors() -> None:
    with raises(openai.AuthenticationError):
        openai_model("hello", api_key=WRONG_KEY).invoke(QUESTION)
    with raises(anthropic.AuthenticationError):
        anthropic_model("hello", api_key=WRONG_KEY).invoke(QUESTION)
    with raises(openai.NotFoundError):
        openai_model("hello", model="nobody/m").invoke(QUESTION)
    for model in every_model("busy"):
        with raises(openai.RateLimitError, anthropic.RateLimitError):
            model.invoke(QUESTION)


def retries() -> None:
    with waits_as_asked():
        assert openai_model("busy-once", max_retries=2).invoke(QUESTION).text == HELLO
    with waits_as_asked():
        assert anthropic_model("busy-once", max_retries=2).invoke(QUESTION).text == HELLO


def cut() -> None:
    chat, translated, google, _, messages = every_model("cut")
    for model in (chat, translated, google, messages):
        with raises(openai.APIError, anthropic.APIError):
            list(model.stream(QUESTION))


def own_key() -> None:
    for model in every_model("own", api_key=OWN_KEY, default_headers={"X-Memory-Key": KEY}):
        assert model.invoke(QUESTION).text == HELLO


if __name__ == "__main__":
    play(invoke, stream, asynchronous, tools, image, structured, embeddings, errors, retries, cut, own_key)
