"""The table of tools: schemas that clients and models can use, and arguments as models write them."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import jsonschema_rs
import pytest

from models.errors import InvalidRequest
from models.ids import Access
from router.mcp.shapes import SearchArguments
from router.mcp.tools import RECENT_URI, TOOLS, Tool, read_arguments, resources_for
from tests.running import ROOT

EVERY = list(TOOLS.values())
READING = {"search_memories", "date_search_memories", "inspect_memory", "search"}
WRITING = {"store_memory", "delete_memories", "forget_all_memories"}


def walk(value: Any) -> list[dict[str, Any]]:
    """Every object within a schema."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*([value] if isinstance(value, dict) else []), *(found for item in inner for found in walk(item))]


@pytest.mark.parametrize("tool", EVERY, ids=lambda tool: tool.name)
def test_schemas_are_objects_in_one_piece(tool: Tool) -> None:
    """Some clients and providers of models follow no `$ref` and know no null."""
    body = tool.body()
    for schema in (body["inputSchema"], body["outputSchema"]):
        jsonschema_rs.meta.validate(schema)
        assert schema["type"] == "object"
        assert not [found for found in walk(schema) if "$ref" in found or "$defs" in found]
    assert body["inputSchema"]["additionalProperties"] is False
    assert not [found for found in walk(body["inputSchema"]) if "anyOf" in found]
    for name, argument in body["inputSchema"]["properties"].items():
        assert argument.get("description"), f"a model does not know what {name} means"


def test_annotations_tell_what_a_tool_does() -> None:
    hints = {tool.name: tool.body()["annotations"] for tool in EVERY}
    assert {name for name, hint in hints.items() if not hint["readOnlyHint"]} == WRITING
    assert {name for name, hint in hints.items() if hint["destructiveHint"]} == WRITING - {"store_memory"}
    assert not any(hint["openWorldHint"] for hint in hints.values())


def test_a_key_sees_what_it_may_use() -> None:
    """Of tools and resources."""
    seen = {
        access: {tool.name for tool in EVERY if tool.is_allowed(access)}
        for access in (Access(), Access(write=False), Access(read=False))
    }
    assert seen[Access()] == READING | WRITING | {"memory_status"}
    assert seen[Access(write=False)] == READING | {"memory_status"}
    assert seen[Access(read=False)] == WRITING | {"memory_status"}
    assert RECENT_URI not in {resource["uri"] for resource in resources_for(Access(read=False))}
    assert len(resources_for(Access(write=False))) == 2


def test_arguments_are_read_as_models_write_them() -> None:
    """Null for what is left out, numbers as text or with a point."""
    expected = SearchArguments(query="dog", limit=7)
    for limit in (7, 7.0, "7"):
        values = {"query": "dog", "limit": limit, "session_id": None}
        assert read_arguments(TOOLS["search_memories"], values) == expected


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("search_memories", {}, "query"), ("search_memories", {"query": None}, "query"),
    ("search_memories", {"query": " "}, "not blank"), ("search_memories", {"query": 7}, "query"),
    ("search_memories", {"query": "x", "limit": 0}, "limit"), ("search_memories", {"query": "x", "limit": 251}, "250"),
    ("search_memories", {"query": "x", "limt": 3}, "limt"), ("search_memories", {"query": "x" * 20_001}, "query"),
    ("delete_memories", {"memory_ids": []}, "memory_ids"), ("delete_memories", {"memory_ids": "mem_1"}, "memory_ids"),
    ("delete_memories", {"memory_ids": ["7"]}, "memory_ids"), ("delete_memories", {"all": True}, "all"),
    ("delete_memories", {"memory_ids": ["mem_1"] * 101}, "memory_ids"),
    ("inspect_memory", {"memory_id": "mem_1;"}, "memory_id"), ("inspect_memory", {"memory_id": "mem_"}, "memory_id"),
    ("store_memory", {"content": "x", "role": "system"}, "role"), ("store_memory", {"content": ["x"]}, "content"),
    ("store_memory", {"content": "x", "tags": ["y" * 101]}, "tags"), ("memory_status", {"x": 1}, "none"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values", "blamed"), WRONG)
def test_wrong_arguments_are_told_by_name(name: str, values: dict[str, Any], blamed: str) -> None:
    """With the names that there are, so that a model can do better."""
    with pytest.raises(InvalidRequest) as caught:
        read_arguments(TOOLS[name], values)
    assert blamed in f"{caught.value.message} {caught.value.hint}"
    assert f"Arguments of {name}: " in caught.value.hint


DOCUMENT = (ROOT / "docs" / "mcp.md").read_text()


def test_the_documentation_lists_every_tool_with_its_arguments() -> None:
    """`session_id` and `time_zone` of date_search_memories are "as above"."""
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (.*?) \|", DOCUMENT, re.M))
    assert list(rows) == list(TOOLS)
    for name, tool in TOOLS.items():
        listed = rows[name] + (rows["search_memories"] if "as above" in rows[name] else "")
        assert set(tool.takes.__struct_fields__) <= set(re.findall(r"`([a-z_]+)`", listed)), name
    for uri in (resource["uri"] for resource in resources_for(Access())):
        assert f"`{uri}`" in DOCUMENT


def test_the_configurations_for_clients_can_be_read() -> None:
    """Each leads to `/mcp`, and none holds a key."""
    snippets = re.findall(r"```(json|toml)\n(.*?)```", DOCUMENT, re.S)
    assert [kind for kind, _ in snippets] == ["json", "toml", "json", "json"]
    for kind, text in snippets:
        value = json.loads(text) if kind == "json" else tomllib.loads(text)
        servers = value.get("mcpServers") or value.get("mcp_servers") or value["servers"]
        assert servers["memoryrouter"]["url"].endswith(":8080/mcp")
        assert "mk_" not in text
