"""A Chat Completions request as an Anthropic Messages request.

Owns which field becomes which. Fields of Anthropic's own (`thinking`, `top_k`, `cache_control`, `container`, whatever
is new) pass as they came, so that they work on Chat Completions too; an unknown field is Anthropic's to refuse. Fields
of OpenAI without a counterpart are left out where they only tune the reply. Must never leave out what the client's code
relies on in the reply (`n`, `audio`, `functions`): that is refused.
"""

from __future__ import annotations

from typing import Any

from models.errors import InvalidRequest
from router.providers.anthropic_reply import member
from router.providers.claude_models import ClaudeModel, find_model
from router.providers.json_bytes import decode_value
from router.providers.json_values import encode_value
from router.providers.request_parts import read_model, read_object
from router.providers.strict_schema import fit_schema
from router.providers.translate_content import Conversation, translate_messages
from router.providers.translate_tools import translate_tool_choice, translate_tools

_TRANSLATED = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "output_config",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "service_tier",
        "stop",
        "stop_sequences",
        "temperature",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
        "user",
    }
)
_LEFT_OUT = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "modalities",
        "n",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "seed",
        "store",
        "stream_options",
        "top_logprobs",
        "verbosity",
    }
)
"""OpenAI's fields without a counterpart. Anthropic's own compatibility layer ignores most of them too."""

_REFUSED = {
    "audio": "Anthropic models do not speak",
    "function_call": "use tool_choice",
    "functions": "use tools",
    "system": "use a message of role system",
    "web_search_options": "use Anthropic's web search tool in tools",
}
_SERVICE_TIERS = {"auto": "auto", "priority": "auto", "default": "standard_only", "standard_only": "standard_only"}
_USER_CHARACTERS_MAX = 256

_JSON_ONLY = "Answer with one JSON object and nothing else: no words around it, no code fence."


def translate_request(chat_body: bytes) -> bytes:
    """The body for `POST /v1/messages` that asks what this Chat Completions body asks.

    Raises:
        InvalidRequest: malformed, or it asks for what Anthropic models cannot do; the field is named.
    """
    return translate_fields(read_fields(chat_body))


def read_fields(chat_body: bytes) -> dict[str, Any]:
    """The decoded fields of a Chat Completions body. Those that are null count as absent.

    Raises:
        InvalidRequest: it is malformed, or names no model.
    """
    raw = read_object(chat_body)
    read_model(raw)
    fields = {field: _decode(value, field) for field, value in raw.items()}
    return {field: value for field, value in fields.items() if value is not None}


def translate_fields(fields: dict[str, Any]) -> bytes:
    """As `translate_request`, for fields that have been read.

    Raises:
        InvalidRequest: they ask for what Anthropic models cannot do; the field is named.
    """
    name = fields["model"]
    _refuse(fields)
    model = find_model(name)
    conversation = translate_messages(fields.get("messages"), takes_system_messages=model.takes_system_messages)
    if not conversation.messages:
        raise InvalidRequest("messages must hold something that is not blank.", field="messages")
    body: dict[str, Any] = {"model": name, "max_tokens": _max_tokens(fields, model)}
    output = _output_config(fields, model)
    system = _system(fields, conversation, model)
    if system:
        body["system"] = system
    body["messages"] = conversation.messages
    body |= _tools(fields, conversation, model)
    if output:
        body["output_config"] = output
    body |= {field: value for field, value in fields.items() if field not in _TRANSLATED | _LEFT_OUT | {"model"}}
    body |= _thinking(fields, body, model)
    body |= _sampling(fields, body, model)
    body |= _small_fields(fields)
    return encode_value(body)


def _decode(raw: bytes, field: str) -> Any:
    try:
        return decode_value(raw)
    except ValueError:
        raise InvalidRequest(f"{field} is not valid JSON.", field=field) from None


def _refuse(fields: dict[str, Any]) -> None:
    if fields.get("n", 1) != 1:
        raise InvalidRequest("n must be 1 for an Anthropic model.", field="n")
    for field, advice in _REFUSED.items():
        if fields.get(field):
            raise InvalidRequest(f"{field} is not supported for an Anthropic model: {advice}.", field=field)


def _max_tokens(fields: dict[str, Any], model: ClaudeModel) -> Any:
    """The newer name wins. OpenAI lets both be absent, Anthropic does not."""
    return fields.get("max_completion_tokens", fields.get("max_tokens", model.max_tokens))


def _system(fields: dict[str, Any], conversation: Conversation, model: ClaudeModel) -> list[Any]:
    """The client's instructions, and behind them what a JSON format asks for that has no field of its own."""
    wanted = _json_instruction(fields, model)
    extra = [] if wanted is None else [{"type": "text", "text": wanted}]
    return [*conversation.system, *extra]


def _json_instruction(fields: dict[str, Any], model: ClaudeModel) -> str | None:
    wanted = member(fields, "response_format")
    if wanted.get("type") == "json_object":
        return _JSON_ONLY
    if wanted.get("type") != "json_schema" or model.takes_output_format:
        return None
    schema = encode_value(_schema(wanted)).decode()
    return f"{_JSON_ONLY} It must be valid under this JSON schema: {schema}"


def _output_config(fields: dict[str, Any], model: ClaudeModel) -> dict[str, Any]:
    """`reasoning_effort` and `response_format`; what the client itself put into `output_config` wins."""
    config: dict[str, Any] = {}
    effort = fields.get("reasoning_effort")
    level = model.effort(effort) if isinstance(effort, str) else None
    if level is not None:
        config["effort"] = level
    wanted = member(fields, "response_format")
    if wanted.get("type") == "json_schema" and model.takes_output_format:
        config["format"] = {"type": "json_schema", "schema": fit_schema(_schema(wanted))}
    return config | member(fields, "output_config")


def _schema(response_format: dict[str, Any]) -> Any:
    schema = member(response_format, "json_schema").get("schema")
    if not isinstance(schema, dict):
        place = "response_format.json_schema.schema"
        raise InvalidRequest(f"{place} is required and must be an object.", field=place)
    return schema


def _tools(fields: dict[str, Any], conversation: Conversation, model: ClaudeModel) -> dict[str, Any]:
    tools = translate_tools(fields.get("tools"), takes_strict=model.takes_output_format)
    if tools:
        parallel = fields.get("parallel_tool_calls")
        return {"tools": tools} | translate_tool_choice(fields.get("tool_choice"), parallel=parallel is not False)
    if not conversation.tool_names:
        return {}
    # Calls in the history want their tools defined, which OpenAI does not ask for: stand-ins that cannot be called.
    names = dict.fromkeys(conversation.tool_names)
    stand_ins = [{"name": name, "input_schema": {"type": "object"}} for name in names]
    return {"tools": stand_ins, "tool_choice": {"type": "none"}}


def _thinking(fields: dict[str, Any], body: dict[str, Any], model: ClaudeModel) -> dict[str, Any]:
    """Who asks for effort wants the model to think, where it can decide for itself how much, and to see it.

    Not with a forced tool, which excludes thinking, nor against the client's own `thinking`.
    """
    wants = fields.get("reasoning_effort") not in (None, "none", "minimal")
    is_forced = member(body, "tool_choice").get("type") in ("any", "tool")
    if wants and model.thinks_adaptively and "thinking" not in body and not is_forced:
        return {"thinking": {"type": "adaptive", "display": "summarized"}}  # newer models show none by default
    return {}


def _sampling(fields: dict[str, Any], body: dict[str, Any], model: ClaudeModel) -> dict[str, Any]:
    """Temperature and its kin, as far as the model takes them; none of them beside thinking."""
    thinks = member(body, "thinking").get("type") in ("adaptive", "enabled", "between_tools")
    if thinks or not model.takes_sampling:
        return {}
    sampling: dict[str, Any] = {name: fields[name] for name in ("temperature", "top_p", "top_k") if name in fields}
    temperature = sampling.get("temperature")
    if isinstance(temperature, (int, float)) and temperature > 1:
        sampling["temperature"] = 1.0  # OpenAI's scale ends at 2
    if "temperature" in sampling and not model.takes_both_samplings:
        sampling.pop("top_p", None)
    return sampling


def _small_fields(fields: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    sequences = [*_listed(fields.get("stop")), *_listed(fields.get("stop_sequences"))]
    sequences = [text for text in sequences if not isinstance(text, str) or text.strip()]
    if sequences:
        found["stop_sequences"] = sequences
    own_id = member(fields, "metadata").get("user_id")
    for user in (own_id, fields.get("safety_identifier"), fields.get("user")):
        if isinstance(user, str) and user:
            found["metadata"] = {"user_id": user[:_USER_CHARACTERS_MAX]}
            break
    tier = fields.get("service_tier")
    if isinstance(tier, str) and tier in _SERVICE_TIERS:
        found["service_tier"] = _SERVICE_TIERS[tier]
    return found


def _listed(value: Any) -> list[Any]:
    """A field that takes one value or several."""
    if isinstance(value, list):
        return value
    return [] if value is None else [value]
