"""Chat Completions requests as Anthropic's: every field, and what happens to those without a counterpart."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InvalidRequest
from router.providers.translate_request import translate_request

MESSAGES = [{"role": "user", "content": "hi"}]
SENT = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}
FUNCTION = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}}
SUMMARIZED = {"type": "adaptive", "display": "summarized"}
CLOSED = {**SCHEMA, "additionalProperties": False}
TOOL = {"name": "f", "description": "d", "input_schema": CLOSED, "strict": True}


def translated(*, model: str = "claude-sonnet-4-5", **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(
        translate_request(json.dumps({"model": model, "messages": MESSAGES, **fields}).encode())
    )
    return body


def added(*, model: str = "claude-sonnet-4-5", **fields: Any) -> dict[str, Any]:
    """What these fields add to the request; None as a value for what they take away."""
    plain, full = translated(model=model), translated(model=model, **fields)
    return {name: full.get(name) for name in full | plain if full.get(name) != plain.get(name)}


def test_a_plain_request_gets_a_limit_and_nothing_else() -> None:
    """`max_tokens` is required there and optional here."""
    assert translated() == {"model": "claude-sonnet-4-5", "max_tokens": 64_000, "messages": SENT}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"max_completion_tokens": 6, "max_tokens": 5}, {"max_tokens": 6}),
        ({"max_completion_tokens": None, "max_tokens": 5}, {"max_tokens": 5}),
        ({"stream": True}, {"stream": True}),
        ({"stop": "X"}, {"stop_sequences": ["X"]}),
        ({"stop": ["X", " \n", ""]}, {"stop_sequences": ["X"]}),
        ({"stop": "\n"}, {}),
        ({"stop": ["X"], "stop_sequences": ["Y"]}, {"stop_sequences": ["X", "Y"]}),
        ({"temperature": 0.5}, {"temperature": 0.5}),
        ({"temperature": 1.7}, {"temperature": 1.0}),
        ({"temperature": 0, "top_p": 0.9, "top_k": 5}, {"temperature": 0, "top_k": 5}),
        ({"top_p": 0.9}, {"top_p": 0.9}),
        ({"user": "u"}, {"metadata": {"user_id": "u"}}),
        ({"user": "u", "safety_identifier": "s"}, {"metadata": {"user_id": "s"}}),
        ({"user": "u", "metadata": {"user_id": "m", "topic": "t"}}, {"metadata": {"user_id": "m"}}),
        ({"user": "u" * 300}, {"metadata": {"user_id": "u" * 256}}),
        ({"metadata": {"topic": "t"}}, {}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"service_tier": "flex"}, {}),
        ({"n": 1, "seed": 1, "logprobs": True, "store": True, "stream_options": {"include_usage": True}}, {}),
        ({"frequency_penalty": 1, "logit_bias": {"1": 1}, "verbosity": "low", "prompt_cache_key": "k"}, {}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
        ),
        (
            {"cache_control": {"type": "ephemeral"}, "x_new": [1]},
            {"cache_control": {"type": "ephemeral"}, "x_new": [1]},
        ),
        ({"response_format": {"type": "text"}}, {}),
        ({"tools": []}, {}),
        ({"tool_choice": "auto"}, {}),
    ],
)
def test_fields_become_their_counterparts(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """Unknown ones pass: a new field of Anthropic's works on its first day."""
    assert added(**fields) == expected


@pytest.mark.parametrize("model", ["claude-opus-4-7", "claude-sonnet-5", "claude-haiku-5-5", "claude-next"])
def test_models_that_refuse_sampling_get_none(model: str) -> None:
    """Their API answers 400 to it, and OpenAI's clients send it always."""
    assert added(model=model, temperature=0.5, top_p=0.5, top_k=5) == {}


def test_sampling_does_not_go_with_thinking() -> None:
    """Anthropic refuses the two together."""
    thinking = {"type": "enabled", "budget_tokens": 2000}

    assert added(temperature=0.5, thinking=thinking) == {"thinking": thinking}


def test_both_samplings_are_for_old_models() -> None:
    """From 4.1 on they exclude each other."""
    assert added(model="claude-3-7-sonnet-latest", temperature=0.5, top_p=0.5) == {"temperature": 0.5, "top_p": 0.5}


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        ("claude-opus-4-6", "medium", {"output_config": {"effort": "medium"}, "thinking": SUMMARIZED}),
        ("claude-opus-4-6", "none", {"output_config": {"effort": "low"}}),
        ("claude-opus-4-5", "high", {"output_config": {"effort": "high"}}),
        ("claude-sonnet-4-5", "high", {}),
        ("claude-opus-5-5", ["x"], {"thinking": SUMMARIZED}),
    ],
)
def test_effort_is_translated_for_models_that_have_it(model: str, effort: Any, expected: dict[str, Any]) -> None:
    """And lets those think that can decide for themselves how much."""
    assert added(model=model, reasoning_effort=effort) == expected


def test_effort_bows_to_what_the_client_says_in_anthropics_words() -> None:
    """Its own `thinking` and `output_config` win; a forced tool excludes thinking."""
    own = {"thinking": {"type": "disabled"}, "output_config": {"effort": "max", "x": 1}}

    assert added(model="claude-opus-4-6", reasoning_effort="low", **own) == own
    forced = added(model="claude-opus-4-6", reasoning_effort="low", tools=[FUNCTION], tool_choice="required")
    assert "thinking" not in forced


def test_a_json_schema_becomes_the_output_format() -> None:
    """Closed, as Anthropic demands, where the schema does not say otherwise."""
    assert added(response_format=FORMAT) == {"output_config": {"format": {"type": "json_schema", "schema": CLOSED}}}
    assert translated(response_format=FORMAT, reasoning_effort="low", model="claude-opus-4-6")["output_config"] == {
        "effort": "low",
        "format": {"type": "json_schema", "schema": CLOSED},
    }


def test_json_without_a_field_of_its_own_is_asked_for_in_words() -> None:
    """Any object, and schemas for models that know no output format. Behind the client's own instructions."""
    messages = [{"role": "system", "content": "Be brief."}, *MESSAGES]
    wanted = translated(messages=messages, response_format={"type": "json_object"})["system"]
    old = translated(model="claude-3-5-haiku-latest", response_format=FORMAT)

    assert wanted[0] == {"type": "text", "text": "Be brief."}
    assert "JSON" in wanted[1]["text"]
    assert json.dumps(SCHEMA, separators=(",", ":")) in old["system"][0]["text"]
    assert "output_config" not in old


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        ("auto", None, {"type": "auto"}),
        ("required", None, {"type": "any"}),
        ("none", False, {"type": "none"}),
        ({"type": "function", "function": {"name": "f"}}, True, {"type": "tool", "name": "f"}),
        ({"type": "tool", "name": "f"}, None, {"type": "tool", "name": "f"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
    ],
)
def test_tool_choice_is_translated(choice: Any, parallel: bool | None, expected: Any) -> None:
    """With what it says of several calls at once."""
    body = translated(tools=[FUNCTION], tool_choice=choice, parallel_tool_calls=parallel)

    assert body["tools"] == [TOOL]
    assert body.get("tool_choice") == expected


def test_tools_keep_marks_and_native_ones_pass() -> None:
    """`strict` is for models that know it."""
    mark = {"type": "ephemeral"}
    bare = {"type": "function", "function": {"name": "g"}, "cache_control": mark}
    untyped = {"type": "function", "function": {"name": "h", "parameters": {"properties": {}}, "strict": False}}
    native = {"type": "web_search_20250305", "name": "web_search"}

    assert translated(tools=[bare, untyped, native])["tools"] == [
        {"name": "g", "input_schema": {"type": "object"}, "cache_control": mark},
        {"name": "h", "input_schema": {"type": "object", "properties": {}}},
        native,
    ]
    old = translated(model="claude-sonnet-4-0", tools=[FUNCTION])["tools"][0]
    assert old == {"name": "f", "description": "d", "input_schema": SCHEMA}


def test_calls_in_the_history_get_tools_that_cannot_be_called() -> None:
    """OpenAI needs no definitions to read a conversation; Anthropic does."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    history = [*MESSAGES, {"role": "assistant", "tool_calls": [call, {**call, "id": "2"}]}]
    body = translated(messages=[*history, {"role": "tool", "tool_call_id": "1", "content": "x"}])

    assert body["tools"] == [{"name": "f", "input_schema": {"type": "object"}}]
    assert body["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"n": 2}, "n"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"web_search_options": {"x": 1}}, "web_search_options"),
        ({"system": "x"}, "system"),
        ({"messages": "x"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"tools": "x"}, "tools"),
        ({"tools": ["x"]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [FUNCTION], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"model": 7}, "model"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], field: str) -> None:
    """A 400 of ours, before the provider is asked."""
    with pytest.raises(InvalidRequest) as caught:
        translate_request(json.dumps({"model": "claude-x", "messages": MESSAGES, **fields}).encode())

    assert caught.value.field == field


_TEXT = st.text(st.characters(exclude_categories=()), max_size=6)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=3,
)
_PART_MEMBERS = ["text", "image_url", "file", "source", "cache_control", "refusal"]
_PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "file", "refusal", "thinking", "x"]) | _JSON},
    optional=dict.fromkeys(_PART_MEMBERS, _JSON),
)
_CALLS = st.fixed_dictionaries(
    {
        "id": _TEXT | _JSON,
        "function": st.fixed_dictionaries({"name": _TEXT | _JSON}, optional={"arguments": _TEXT | _JSON}),
    }
)
_ANY_MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]) | _JSON},
    optional={
        "content": _TEXT | st.lists(_PARTS, max_size=3) | _JSON,
        "tool_calls": st.lists(_CALLS, max_size=2) | _JSON,
        "tool_call_id": _TEXT | _JSON,
        "thinking_blocks": st.lists(_PARTS, max_size=2) | _JSON,
    },
)
_FIELDS = [
    "max_tokens stop temperature top_p user metadata reasoning_effort response_format tools tool_choice service_tier",
    "parallel_tool_calls thinking output_config n safety_identifier stop_sequences x_new",
]


@settings(max_examples=40)
@given(
    st.lists(_ANY_MESSAGE | _JSON, max_size=4) | _JSON,
    st.dictionaries(st.sampled_from(" ".join(_FIELDS).split()), _JSON, max_size=5),
    st.sampled_from(["claude-3-haiku", "claude-sonnet-4-5", "claude-opus-4-8", "x"]),
)
def test_any_json_is_translated_or_refused(messages: Any, fields: dict[str, Any], model: str) -> None:
    """Never a crash, and what is sent has what Anthropic demands."""
    try:
        raw = translate_request(json.dumps({"model": model, "messages": messages, **fields}).encode())
    except InvalidRequest:
        return
    body = json.loads(raw)
    assert body["model"] == model
    assert "max_tokens" in body
    assert body["messages"]
    roles = [message["role"] for message in body["messages"]]
    assert all(first != second for first, second in itertools.pairwise(roles))
    for message in body["messages"]:
        kinds = [block["type"] == "tool_result" for block in message["content"]]
        assert kinds
        assert kinds == sorted(kinds, reverse=True)
