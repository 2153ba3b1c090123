"""Whole replies and errors of Anthropic Messages as those of Chat Completions.

Owns which words of the one stand for which of the other; the stream translator uses the same tables. Must never invent
what the provider did not say: an unreadable reply passes as it came.
"""

from __future__ import annotations

from typing import Any

import msgspec

from router.providers.anthropic_reply import error_type, member, read_usage, text_of, token_counts
from router.providers.json_bytes import decode_value, split_array, split_object
from router.providers.json_values import encode_value
from router.providers.openai_chat import OPENAI_CHAT

_FINISH_REASONS = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""Every other stop reason (end_turn, stop_sequence, pause_turn, new ones) is a `stop`."""

_ERROR_CODES = {
    "authentication_error": (401, "invalid_api_key"),
    "billing_error": (402, "insufficient_quota"),
    "permission_error": (403, "permission_denied"),
    "not_found_error": (404, "model_not_found"),
    "conflict_error": (409, "conflict"),
    "request_too_large": (413, "request_too_large"),
    "rate_limit_error": (429, "rate_limit_exceeded"),
    "timeout_error": (504, "timeout"),
    "overloaded_error": (529, "overloaded"),
    "api_error": (500, "api_error"),
    "invalid_request_error": (400, "invalid_request"),
}
"""Anthropic's type to its status and to a code as OpenAI's clients know it. The only thing that a request to the
Messages endpoint can fail to find is the model."""

_TOO_LONG = "prompt is too long"
_SERVICE_TIERS = {"standard": "default"}


def translate_reply(body: bytes, *, status: int, now_s: int) -> bytes:
    """A reply or an error as Chat Completions has it; the status stays the caller's.

    Args:
        body: what the provider sent.
        status: with which status.
        now_s: the time of the reply, in seconds since 1970.

    Returns:
        A chat completion, an error object, or the body itself if it is neither although the status is 2xx.
    """
    try:
        value = decode_value(body)
    except ValueError:
        value = None
    if status >= 400 or (isinstance(value, dict) and value.get("type") == "error"):
        return translate_error(value, status=status)
    if not isinstance(value, dict) or not isinstance(value.get("content"), list):
        return body
    return encode_value(_completion(value, _raw_blocks(body), now_s=now_s))


def translate_error(value: Any, *, status: int | None = None) -> bytes:
    """An error of Anthropic in OpenAI's shape.

    Args:
        value: the decoded error, or anything else that came in place of one.
        status: with which it came; None in a stream, where only the type tells.
    """
    error = member(value, "error") if isinstance(value, dict) else {}
    kind, message = error.get("type"), error.get("message")
    if not isinstance(kind, str) or kind not in _ERROR_CODES:
        kind = error_type(status if status is not None and status >= 400 else 500)
    own_status, code = _ERROR_CODES[kind]
    status = status if status is not None and status >= 400 else own_status
    if not isinstance(message, str) or not message:
        message = "The provider reported an error without saying which."
    if kind == "invalid_request_error" and _TOO_LONG in message:
        code = "context_length_exceeded"
    return OPENAI_CHAT.error_body(message, status=status, code=code)


def completion_id(message_id: Any) -> str:
    """`chatcmpl-` and the part of Anthropic's id that makes it unique."""
    return f"chatcmpl-{message_id.removeprefix('msg_')}" if isinstance(message_id, str) else "chatcmpl-"


def finish_reason(stop_reason: Any, *, calls_tools: bool) -> str:
    """Why the reply ended, in OpenAI's words. A server that gives no reason is judged by what it said."""
    if isinstance(stop_reason, str) and stop_reason:
        return _FINISH_REASONS.get(stop_reason, "stop")
    return "tool_calls" if calls_tools else "stop"


def refusal_text(delta: dict[str, Any]) -> str | None:
    """The explanation of a refusal, if there is one: of a message, or of a `message_delta`'s delta."""
    explanation = member(delta, "stop_details").get("explanation")
    refuses = delta.get("stop_reason") == "refusal" and isinstance(explanation, str) and explanation
    return explanation if refuses else None


def translate_usage(counts: dict[str, int], *, thinking_tokens: int) -> dict[str, Any]:
    """Token counts as OpenAI has them. Its prompt tokens include those from the cache; Anthropic's do not.

    Written to the cache is a count that OpenAI lacks: it stands under the name that OpenRouter gave it.
    """
    usage = read_usage(counts)
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": counts.get("cache_read_input_tokens", 0),
            "cache_write_tokens": counts.get("cache_creation_input_tokens", 0),
        },
        "completion_tokens_details": {"reasoning_tokens": thinking_tokens},
    }


def read_thinking_tokens(usage: Any) -> int:
    """How many of the output tokens were thinking, as far as the usage object says."""
    details = member(usage, "output_tokens_details") if isinstance(usage, dict) else {}
    return token_counts(details).get("thinking_tokens", 0)


def translate_service_tier(usage: Any) -> str | None:
    """With which priority the request was served; None if the usage object does not say."""
    tier = usage.get("service_tier") if isinstance(usage, dict) else None
    return _SERVICE_TIERS.get(tier, tier) if isinstance(tier, str) else None


def _raw_blocks(body: bytes) -> list[bytes]:
    return split_array(split_object(body)["content"])


def _completion(value: dict[str, Any], raw_blocks: list[bytes], *, now_s: int) -> dict[str, Any]:
    usage = value.get("usage")
    message = _message(value["content"], raw_blocks)
    message["refusal"] = refusal_text(value)
    reason = finish_reason(value.get("stop_reason"), calls_tools="tool_calls" in message)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    counts = token_counts(usage)
    completion: dict[str, Any] = {
        "id": completion_id(value.get("id")),
        "object": "chat.completion",
        "created": now_s,
        "model": value.get("model"),
        "choices": [choice],
        "usage": translate_usage(counts, thinking_tokens=read_thinking_tokens(usage)),
    }
    tier = translate_service_tier(usage)
    return completion if tier is None else {**completion, "service_tier": tier}


def _message(blocks: list[Any], raw_blocks: list[bytes]) -> dict[str, Any]:
    texts: list[str] = []
    reasoning: list[str] = []
    thinking: list[msgspec.Raw] = []
    calls: list[dict[str, Any]] = []
    for block, raw in zip(blocks, raw_blocks, strict=True):
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            texts.append(text_of(block))
        elif kind in ("thinking", "redacted_thinking"):
            thinking.append(msgspec.Raw(raw))
            thought = block.get("thinking")
            reasoning += [thought] if isinstance(thought, str) else []
        elif kind == "tool_use":
            function = {"name": block.get("name"), "arguments": split_object(raw).get("input", b"{}").decode()}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
    text = "".join(texts)
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
    if any(reasoning):
        message["reasoning_content"] = "".join(reasoning)
    if thinking:
        message["thinking_blocks"] = thinking
    if calls:
        message["tool_calls"] = calls
    return message
