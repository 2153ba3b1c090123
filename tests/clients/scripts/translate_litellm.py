"""LiteLLM's own translator between Chat Completions and Anthropic Messages: JSON in, JSON out, no network.

Reads an object with `requests` (Chat Completions bodies), `replies` (whole replies of Anthropic), `streams` (streamed
replies, as lists of Anthropic's events) and `chunk_streams` (lists of Chat Completions chunks). Prints what LiteLLM
makes of each, under the same names: bodies for Anthropic, null for a refusal, and messages as a client would see them.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else importing it asks the internet for a price list

import httpx
import litellm
from litellm.llms.anthropic.chat.handler import ModelResponseIterator
from litellm.llms.anthropic.chat.transformation import AnthropicConfig
from litellm.llms.base_llm.chat.transformation import BaseLLMException
from litellm.types.utils import ModelResponse, ModelResponseStream
from litellm.utils import get_optional_params

litellm.suppress_debug_info = True


def translate(request: dict[str, Any]) -> dict[str, Any] | None:
    fields = copy.deepcopy(request)
    model, messages = fields.pop("model"), fields.pop("messages")
    others = {name: fields.pop(name) for name in ("metadata",) if name in fields}  # completion() hands it on like this
    try:
        options = get_optional_params(model=model, custom_llm_provider="anthropic", drop_params=False, **fields)
        body: dict[str, Any] = AnthropicConfig().transform_request(
            model=model, messages=messages, optional_params=options, litellm_params=others, headers={}
        )
    except (BaseLLMException, litellm.BadRequestError):
        return None
    return body


def read_reply(reply: dict[str, Any]) -> dict[str, Any]:
    return seen(AnthropicConfig().transform_parsed_response(reply, httpx.Response(200), ModelResponse()))


def read_stream(events: list[dict[str, Any]]) -> dict[str, Any]:
    reader = ModelResponseIterator(iter(()), sync_stream=True)
    return seen(litellm.stream_chunk_builder([reader.chunk_parser(event) for event in events]))


def read_chunks(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    return seen(litellm.stream_chunk_builder([ModelResponseStream(**chunk) for chunk in chunks]))


def seen(whole: Any) -> dict[str, Any]:
    choice = whole.choices[0]
    calls = choice.message.tool_calls or []
    return {
        "content": choice.message.content or "",
        "reasoning": getattr(choice.message, "reasoning_content", None),
        "thinking": getattr(choice.message, "thinking_blocks", None),
        "calls": [[call.id, call.function.name, json.loads(call.function.arguments)] for call in calls],
        "finish_reason": choice.finish_reason,
        "usage": [whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens],
    }


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    answers = {
        "requests": [translate(request) for request in asked["requests"]],
        "replies": [read_reply(reply) for reply in asked["replies"]],
        "streams": [read_stream(events) for events in asked["streams"]],
        "chunk_streams": [read_chunks(chunks) for chunks in asked["chunk_streams"]],
    }
    json.dump(answers, sys.stdout)
