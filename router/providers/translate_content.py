"""Messages of Chat Completions as messages of Anthropic: roles, turns, parts, tool calls and their results.

Owns the order that Anthropic wants: turns of one role merged, tool results before any text of their turn, thinking
before all else. Must keep ids, signatures and cache marks as they are. Works on decoded values.
"""

from __future__ import annotations

from typing import Any

import msgspec

from models.errors import InvalidRequest
from router.providers.anthropic_reply import member
from router.providers.json_bytes import decode_value, whole_text
from router.providers.translate_parts import content_blocks, mark_cache, text_blocks

Block = dict[str, Any]

_THINKING_TYPES = {"thinking": "signature", "redacted_thinking": "data"}
"""Kinds of blocks that are replayed, each with the member without which Anthropic refuses it."""


class Conversation(msgspec.Struct):
    """What the messages of a request have become.

    Attributes:
        system: blocks for the top-level `system`.
        messages: `{"role", "content"}`, roles alternating but for `system`.
        tool_names: of all calls among the messages, in order of appearance.
    """

    system: list[Block]
    messages: list[dict[str, Any]]
    tool_names: list[str]


def translate_messages(messages: Any, *, takes_system_messages: bool) -> Conversation:
    """All messages of a request.

    Instructions at the beginning become `system`. Later ones stay where they are if the model allows that (behind the
    next user turn, where Anthropic wants them), so that the prompt before them stays what it was; else they join the
    first ones.

    Raises:
        InvalidRequest: the field that cannot be translated is named.
    """
    if not isinstance(messages, list):
        raise InvalidRequest("messages is required and must be a non-empty array.", field="messages")
    builder = _Builder(takes_system_messages=takes_system_messages)
    for index, message in enumerate(messages):
        builder.add(message, place=f"messages[{index}]")
    return builder.finish()


class _Builder:
    """Collects blocks into turns. A turn ends when the other side speaks."""

    def __init__(self, *, takes_system_messages: bool) -> None:
        self._takes_system_messages = takes_system_messages
        self._conversation = Conversation(system=[], messages=[], tool_names=[])
        self._role = ""
        self._results: list[Block] = []
        self._blocks: list[Block] = []
        self._instructions: list[Block] = []

    def add(self, message: Any, *, place: str) -> None:
        if not isinstance(message, dict):
            raise InvalidRequest(f"{place} must be an object.", field=place)
        role = message.get("role")
        if role in ("system", "developer"):
            self._add_instructions(text_blocks(message, place=place))
        elif role == "user":
            self._speak("user")
            self._blocks += content_blocks(message, place=place)
        elif role == "tool":
            self._speak("user")
            self._results.append(_tool_result(message, place=place))
        elif role == "assistant":
            self._speak("assistant")
            self._blocks += self._assistant_blocks(message, place=place)
        else:
            raise InvalidRequest(
                f"{place}.role must be system, developer, user, assistant or tool for an Anthropic model.",
                field=f"{place}.role",
            )

    def finish(self) -> Conversation:
        self._end_turn()
        conversation = self._conversation
        conversation.system += self._instructions  # those with no user turn before them
        if not conversation.messages and conversation.system:
            # Instructions alone are a request that OpenAI answers; Anthropic wants somebody to speak.
            conversation.messages.append({"role": "user", "content": conversation.system})
            conversation.system = []
        _trim_prefill(conversation.messages)
        return conversation

    def _add_instructions(self, blocks: list[Block]) -> None:
        if self._role and self._takes_system_messages:
            self._instructions += blocks
        else:
            self._conversation.system += blocks

    def _speak(self, role: str) -> None:
        if role != self._role:
            self._end_turn()
            self._role = role

    def _end_turn(self) -> None:
        messages, content = self._conversation.messages, self._results + self._blocks
        self._results, self._blocks = [], []
        if content:
            if messages and messages[-1]["role"] == self._role:
                messages[-1]["content"] += content
            else:
                messages.append({"role": self._role, "content": content})
        if self._instructions and messages and messages[-1]["role"] == "user":
            messages.append({"role": "system", "content": self._instructions})
            self._instructions = []

    def _assistant_blocks(self, message: dict[str, Any], *, place: str) -> list[Block]:
        if message.get("function_call"):
            raise InvalidRequest(
                f"{place}.function_call is not supported for Anthropic models; use tool_calls.",
                field=f"{place}.function_call",
            )
        blocks = _thinking_blocks(message.get("thinking_blocks"))
        blocks += content_blocks(message, place=place)
        refusal = message.get("refusal")
        if not blocks and isinstance(refusal, str) and refusal.strip():
            blocks.append({"type": "text", "text": refusal})
        calls = message.get("tool_calls")
        for index, call in enumerate(calls if isinstance(calls, list) else []):
            blocks.append(_tool_use(call, place=f"{place}.tool_calls[{index}]"))
            self._conversation.tool_names.append(blocks[-1]["name"])
        return blocks


def _thinking_blocks(carried: Any) -> list[Block]:
    """The blocks that a reply carried in `thinking_blocks`, as Anthropic made them. It refuses unsigned thinking."""
    blocks: list[Block] = []
    for item in carried if isinstance(carried, list) else []:
        kind = item.get("type") if isinstance(item, dict) else None
        needed = _THINKING_TYPES.get(kind) if isinstance(kind, str) else None
        if needed is not None and item.get(needed):
            blocks.append({name: value for name, value in item.items() if name != "index"})
    return blocks


def _tool_use(call: Any, *, place: str) -> Block:
    members = call if isinstance(call, dict) else {}
    function = member(members, "function")
    call_id, name = members.get("id"), function.get("name")
    if not isinstance(call_id, str) or not isinstance(name, str):
        raise InvalidRequest(f"{place} must have an id and a function with a name.", field=place)
    use = {"type": "tool_use", "id": call_id, "name": name, "input": _tool_input(function.get("arguments"))}
    return mark_cache(use, members.get("cache_control"))


def _tool_input(arguments: Any) -> Any:
    """The arguments of a call as an object, byte for byte where they are one.

    Arguments that are no JSON object (a model was cut off in the midst of them) go into one, as Anthropic advises for
    tool input that is not valid JSON.
    """
    if isinstance(arguments, dict):
        return arguments
    text = whole_text(arguments) if isinstance(arguments, str) else ""
    if not text.strip():
        return {}
    raw = text.encode()
    try:
        value = decode_value(raw)
    except ValueError:
        value = None
    return msgspec.Raw(raw) if isinstance(value, dict) else {"INVALID_JSON": text}


def _tool_result(message: dict[str, Any], *, place: str) -> Block:
    call_id = message.get("tool_call_id")
    if not isinstance(call_id, str) or not call_id:
        raise InvalidRequest(f"{place}.tool_call_id is required.", field=f"{place}.tool_call_id")
    result: Block = {"type": "tool_result", "tool_use_id": call_id}
    content = message.get("content")
    if isinstance(content, str):
        result["content"] = content
    else:
        blocks = content_blocks({"content": content}, place=place)
        if blocks:
            result["content"] = blocks
    if message.get("is_error") is True:
        result["is_error"] = True
    return mark_cache(result, message.get("cache_control"))


def _trim_prefill(messages: list[dict[str, Any]]) -> None:
    """The beginning of a reply, put into the assistant's mouth, must not end in space."""
    if messages and messages[-1]["role"] == "assistant":
        last = messages[-1]["content"][-1]
        if last["type"] == "text":
            last["text"] = last["text"].rstrip()
