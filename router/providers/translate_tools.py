"""Tools of Chat Completions as Anthropic's: definitions, and who may be called.

Owns the two fields. Must not touch schemas, unless they are strict or there is none; tools in Anthropic's own form
(web search, code execution) pass as they are. Works on decoded values.
"""

from __future__ import annotations

from typing import Any

from models.errors import InvalidRequest
from router.providers.anthropic_reply import member
from router.providers.strict_schema import fit_schema

_CHOICES = {"auto": "auto", "required": "any", "any": "any", "none": "none"}


def translate_tools(tools: Any, *, takes_strict: bool) -> list[dict[str, Any]]:
    """The definitions, in order.

    Args:
        tools: the value of the field; None for none.
        takes_strict: whether the model knows `strict`, which otherwise is left out.

    Raises:
        InvalidRequest: a tool has no name, or is of OpenAI's free-form kind, which Anthropic lacks.
    """
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise InvalidRequest("tools must be an array.", field="tools")
    return [_tool(tool, takes_strict=takes_strict, place=f"tools[{index}]") for index, tool in enumerate(tools)]


def translate_tool_choice(choice: Any, *, parallel: bool) -> dict[str, Any]:
    """`tool_choice` as members of the request; none at all when Anthropic's default says the same.

    Raises:
        InvalidRequest: a choice that Anthropic cannot be given.
    """
    if isinstance(choice, str) and choice in _CHOICES:
        chosen: dict[str, Any] = {"type": _CHOICES[choice]}
    elif isinstance(choice, dict) and choice.get("type") == "function":
        chosen = {"type": "tool", "name": member(choice, "function").get("name", choice.get("name"))}
    elif isinstance(choice, dict) and choice.get("type") in ("auto", "any", "tool", "none"):
        chosen = dict(choice)
    elif choice is None:
        chosen = {"type": "auto"}
    else:
        raise InvalidRequest(
            "tool_choice must be auto, required, none or a function for an Anthropic model.", field="tool_choice"
        )
    if not parallel and chosen["type"] != "none":
        chosen["disable_parallel_tool_use"] = True
    return {} if choice is None and parallel else {"tool_choice": chosen}


def _tool(tool: Any, *, takes_strict: bool, place: str) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise InvalidRequest(f"{place} must be an object.", field=place)
    function = tool.get("function")
    if not isinstance(function, dict):
        if "custom" in tool or tool.get("type") == "function":
            raise InvalidRequest(f"{place} must be a function for an Anthropic model.", field=place)
        return dict(tool)
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"{place}.function.name is required.", field=f"{place}.function.name")
    schema = function.get("parameters")
    translated: dict[str, Any] = {"name": name}
    if isinstance(function.get("description"), str):
        translated["description"] = function["description"]
    translated["input_schema"] = {"type": "object", **schema} if isinstance(schema, dict) else {"type": "object"}
    if function.get("strict") is True and takes_strict:
        translated["strict"] = True
        translated["input_schema"] = fit_schema(translated["input_schema"])
    mark = tool.get("cache_control", function.get("cache_control"))
    if isinstance(mark, dict):
        translated["cache_control"] = mark
    return translated
