"""Whole replies and errors of Anthropic as those of Chat Completions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.providers.openai_chat import OPENAI_CHAT
from router.providers.translate_reply import translate_reply
from tests.fakes.claude import USAGE, claude_reply


def translated(body: bytes, *, status: int = 200) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(translate_reply(body, status=status, now_s=1_700_000_000))
    return value


def test_a_reply_becomes_a_chat_completion() -> None:
    """With the id's unique part, and prompt tokens that include those from the cache."""
    usage = {**USAGE, "output_tokens": 5, "service_tier": "standard", "output_tokens_details": {"thinking_tokens": 3}}

    assert translated(claude_reply(usage=usage)) == {
        "id": "chatcmpl-01abc",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "claude-sonnet-4-5",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 127,
            "completion_tokens": 5,
            "total_tokens": 132,
            "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 20},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
        "service_tier": "default",
    }


def test_thinking_and_calls_are_carried_byte_for_byte() -> None:
    """Arguments as the model wrote them; thinking once to be read and once to be sent back."""
    body = (
        b'{"id":"msg_1","model":"m","stop_reason":"tool_use","content":['
        b'{"type":"thinking","thinking":"h\\u00e4","signature":"s\\/x"},{"type":"redacted_thinking","data":"d"},'
        b'{"type":"text","text":"a"},{"type":"server_tool_use","id":"s","name":"web","input":{}},{"type":"text","text":"b"},'
        b'{"type":"tool_use","id":"t1","name":"f","input":{"x":1.50,"y":"\\u00e9"}},'
        b'{"type":"tool_use","id":"t2","name":"g","input":{}}]}'
    )
    raw = translate_reply(body, status=200, now_s=1)
    choice = json.loads(raw)["choices"][0]

    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": "ab",
        "refusal": None,
        "reasoning_content": "hä",
        "thinking_blocks": [
            {"type": "thinking", "thinking": "hä", "signature": "s/x"},
            {"type": "redacted_thinking", "data": "d"},
        ],
        "tool_calls": [
            {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"x":1.50,"y":"\\u00e9"}'}},
            {"id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }
    assert b'{"type":"thinking","thinking":"h\\u00e4","signature":"s\\/x"}' in raw


def test_only_calls_means_no_content() -> None:
    """`content` is null then, and a string in every other reply."""
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}

    assert translated(claude_reply(call))["choices"][0]["message"]["content"] is None
    assert translated(claude_reply(content=[]))["choices"][0]["message"]["content"] == ""


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("x_new", "stop"),
        (None, "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
    ],
)
def test_stop_reasons_become_finish_reasons(stop_reason: Any, finish_reason: str) -> None:
    """All that there are, and new ones."""
    assert translated(claude_reply(stop_reason=stop_reason))["choices"][0]["finish_reason"] == finish_reason


def test_a_refusal_is_explained() -> None:
    """Where Anthropic explains it."""
    details = {"type": "refusal", "category": "cyber", "explanation": "Not this."}
    message = translated(claude_reply(content=[], stop_reason="refusal", stop_details=details))["choices"][0]["message"]

    assert (message["content"], message["refusal"]) == ("", "Not this.")


def test_what_is_no_message_passes_as_it_came() -> None:
    """The collector behind finds no reply in it either."""
    for body in (b"", b"<html>", b"[]", b'{"ok":1}', b'{"content":"x"}', b"\xff"):
        assert translate_reply(body, status=200, now_s=1) == body
        assert OPENAI_CHAT.parse_reply(body, text_chars_max=10) is None


@pytest.mark.parametrize(
    ("status", "kind", "openai_kind", "code"),
    [
        (400, "invalid_request_error", "invalid_request_error", "invalid_request"),
        (401, "authentication_error", "authentication_error", "invalid_api_key"),
        (402, "billing_error", "insufficient_quota", "insufficient_quota"),
        (403, "permission_error", "permission_error", "permission_denied"),
        (404, "not_found_error", "not_found_error", "model_not_found"),
        (413, "request_too_large", "invalid_request_error", "request_too_large"),
        (429, "rate_limit_error", "rate_limit_error", "rate_limit_exceeded"),
        (500, "api_error", "server_error", "api_error"),
        (529, "overloaded_error", "server_error", "overloaded"),
        (429, "x_new", "rate_limit_error", "rate_limit_exceeded"),
        (200, "overloaded_error", "server_error", "overloaded"),
        (200, "x_new", "server_error", "api_error"),
    ],
)
def test_errors_become_those_of_openai(status: int, kind: str, openai_kind: str, code: str) -> None:
    """The message is kept; the type goes by the status, as OpenAI's does."""
    body = json.dumps({"type": "error", "error": {"type": kind, "message": "No."}, "request_id": "r"}).encode()

    assert translated(body, status=status) == {
        "error": {"message": "No.", "type": openai_kind, "param": None, "code": code}
    }


def test_a_prompt_that_is_too_long_has_openais_code() -> None:
    """Clients shorten their history when they see it."""
    error = {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}
    body = json.dumps({"type": "error", "error": error}).encode()

    assert translated(body, status=400)["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad gateway</html>", b"[]", b'{"error":"x"}', b'{"error":{"message":7}}']
)
def test_an_error_of_another_shape_is_an_error_all_the_same(body: bytes) -> None:
    """What a proxy in between says is not repeated."""
    error = translated(body, status=502)["error"]

    assert (error["type"], error["code"]) == ("server_error", "api_error")
    assert error["message"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=3,
)
_BLOCKS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "thinking", "redacted_thinking", "tool_use", "x"]) | _JSON},
    optional=dict.fromkeys(["text", "thinking", "signature", "id", "name", "input"], _JSON),
)


@settings(max_examples=40)
@given(
    st.fixed_dictionaries(
        {"content": st.lists(_BLOCKS | _JSON, max_size=4)},
        optional=dict.fromkeys(["id", "model", "stop_reason", "stop_details", "usage", "type", "error"], _JSON),
    )
    | _JSON,
    st.sampled_from([200, 400, 503]),
)
def test_any_json_becomes_json(value: Any, status: int) -> None:
    """Never a crash, whatever a server that imitates the format sends."""
    body = json.dumps(value).replace("Infinity", "1e999").encode()

    json.loads(translate_reply(body, status=status, now_s=1))


def test_an_error_with_half_a_surrogate_pair_is_an_error_all_the_same() -> None:
    """It is JSON; the half becomes U+FFFD."""
    body = translate_reply(b'{"type":"error","error":{"type":"api_error","message":"\\ud800 no"}}', status=400, now_s=0)

    assert json.loads(body)["error"]["message"] == "\ufffd no"
