"""LlamaIndex through an OpenAI-like base URL: what its users do and expect."""

from __future__ import annotations

from typing import Any

import openai
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from scenes import HELLO, KEY, OWN_KEY, PICTURE, PIXEL, QUESTION, URL, WRONG_KEY, play, raises, waits_as_asked


def model(scene: str, **options: Any) -> OpenAILike:
    defaults = {
        "model": f"gpt-{scene}",
        "api_base": f"{URL}/v1",
        "api_key": KEY,
        "is_chat_model": True,
        "is_function_calling_model": True,
        "max_retries": 0,
    }
    return OpenAILike(**{**defaults, **options})


def models(scene: str, **options: Any) -> list[OpenAILike]:
    names = (f"gpt-{scene}", f"anthropic/claude-{scene}", f"google/gemini-{scene}")
    return [model(scene, model=name, **options) for name in names]


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


ASK = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content=QUESTION)]


def chat() -> None:
    for llm in models("hello"):
        assert llm.complete(QUESTION).text == HELLO
        assert llm.chat(ASK).message.content == HELLO
        assert "".join(chunk.delta or "" for chunk in llm.stream_chat(ASK)) == HELLO


async def asynchronous() -> None:
    for llm in models("hello"):
        assert (await llm.achat(ASK)).message.content == HELLO
        assert "".join([chunk.delta or "" async for chunk in await llm.astream_chat(ASK)]) == HELLO


def tools() -> None:
    wanted = FunctionTool.from_defaults(get_weather)
    for llm in models("tools"):
        reply = llm.chat_with_tools([wanted], user_msg=QUESTION)
        (call,) = llm.get_tool_calls_from_response(reply)
        assert (call.tool_name, call.tool_kwargs) == ("get_weather", {"city": "Lisbon"})


def image() -> None:
    blocks = [TextBlock(text=QUESTION), ImageBlock(url=f"data:image/png;base64,{PIXEL}")]
    for llm in models("image"):
        assert llm.chat([ChatMessage(role="user", blocks=blocks)]).message.content == PICTURE


def errors() -> None:
    with raises(openai.AuthenticationError):
        model("hello", api_key=WRONG_KEY).complete(QUESTION)
    with raises(openai.NotFoundError):
        model("hello", model="nobody/m").complete(QUESTION)
    with raises(openai.RateLimitError):
        model("busy").complete(QUESTION)
    for llm in models("cut"):
        with raises(openai.APIError):
            list(llm.stream_complete(QUESTION))


def retries() -> None:
    with waits_as_asked():
        assert model("busy-once", max_retries=2).complete(QUESTION).text == HELLO


def own_key() -> None:
    for llm in models("own", api_key=OWN_KEY, default_headers={"X-Memory-Key": KEY}):
        assert llm.complete(QUESTION).text == HELLO


if __name__ == "__main__":
    play(chat, asynchronous, tools, image, errors, retries, own_key)
