"""Writes docs/reference.md: every route of the OpenAPI document, its parameters, bodies, answers and errors.

`python -m docs.site.reference` writes the page (`make docs` does); a test holds the page in the repository against it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from router.openapi.document import build_document
from router.openapi.options import OPTIONS

PAGE = Path(__file__).parents[1] / "reference.md"

_HEAD = """\
# API reference

<!-- Written by `make docs` from the OpenAPI document. Change that, not this page. -->

All routes of `GET /openapi.json`, which is what programs should read. [api.md](api.md) is shorter, and says what the
routes are for; [wire.md](wire.md) says what providers are sent.
"""


def reference_markdown(document: dict[str, Any]) -> str:
    """The page for an OpenAPI document as `build_document` makes it."""
    return "\n".join([*_lines(document)]).rstrip() + "\n"


def _lines(document: dict[str, Any]) -> Iterator[str]:
    components = document["components"]
    yield _HEAD
    yield "## How to send the key\n"
    yield "Any one of these carries the Memory Key; they are looked for in this order.\n"
    yield from _table(
        ("scheme", "where", "what"),
        (
            (_code(name), _scheme(scheme), scheme.get("description", ""))
            for name, scheme in components["securitySchemes"].items()
        ),
    )
    yield "## Memory options\n"
    yield "Routes that have to do with memory take these; in a body, see [MemoryOptions](#memoryoptions).\n"
    yield from _parameters([components["parameters"][name] for name in OPTIONS])
    for tag in document["tags"]:
        yield f"## Routes: {tag['name']}\n"
        yield f"{tag['description']}\n"
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    yield from _operation(document, method, path, operation)
    yield "## Errors\n"
    yield from _errors(components)
    yield "## Shapes\n"
    yield "Fields without *required* may be left out, or be absent from an answer.\n"
    for name, schema in components["schemas"].items():
        yield f"### {name}\n"
        yield from _shape(schema)


def _operation(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### {method.upper()} {path}\n".replace("{", "`{").replace("}", "}`")
    yield operation["summary"] + (" No key needed." if operation.get("security") == [] else "") + "\n"
    names = [parameter["$ref"].rpartition("/")[2] for parameter in operation.get("parameters", [])]
    own = [document["components"]["parameters"][name] for name in names if name not in OPTIONS]
    if set(OPTIONS) <= set(names):
        yield "Takes the [memory options](#memory-options)" + (", and:\n" if own else ".\n")
    if own:
        yield from _parameters(own)
    taken: dict[str, Any] = operation.get("requestBody", {}).get("content", {})
    for media_type, content in taken.items():
        need = "" if operation["requestBody"]["required"] else ", if any"
        yield f"Body{need}: {_type(content['schema'])} as `{media_type}`.\n"
    example = next((content.get("example") for content in taken.values()), None)
    if isinstance(example, dict):
        yield f"```json\n{json.dumps(example, indent=2)}\n```\n"
    yield from _table(("status", "answer"), _answers(operation))


def _answers(operation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    errors = []
    for status, answer in operation["responses"].items():
        if "$ref" in answer:
            errors.append(status)
            continue
        contents = [_content(kind, content.get("schema", {})) for kind, content in answer["content"].items()]
        yield status, " or ".join(contents) if status != "default" else answer["description"]
    if errors:
        yield "[errors](#errors)", ", ".join(errors)


def _content(media_type: str, schema: dict[str, Any]) -> str:
    said = _type(schema)
    return f"`{media_type}`" if said == "anything" else f"{said} as `{media_type}`"


def _parameters(parameters: list[dict[str, Any]]) -> Iterator[str]:
    rows = (
        (_code(one["name"]), one["in"], _type(one["schema"]), one.get("description", "")) for one in parameters
    )  # fmt: skip
    yield from _table(("name", "in", "type", "meaning"), rows)


def _errors(components: dict[str, Any]) -> Iterator[str]:
    yield "In the format of the route, shaped as below ([Error_own](#error_own) and so on). Those of our own routes:\n"
    rows = (
        (name.removeprefix("own_"), answer["description"])
        for name, answer in components["responses"].items()
        if name.startswith("own_")
    )
    yield from _table(("status", "when"), rows)


def _shape(schema: dict[str, Any]) -> Iterator[str]:
    parts = schema.get("allOf", [schema])
    for part in parts:
        if "$ref" in part:
            yield f"The fields of {_type(part)}, and:\n"
    if description := schema.get("description", "").partition("\n")[0]:
        yield f"{description}\n"
    rows = [row for part in parts for row in _fields(part)]
    if rows:
        yield from _table(("field", "type", "meaning"), rows)
    elif "$ref" not in parts[0]:
        yield f"{_type({key: value for key, value in schema.items() if key != 'description'}).capitalize()}.\n"


def _fields(schema: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, value in schema.get("properties", {}).items():
        required = "*required* " if name in schema.get("required", ()) else ""
        default = f" Default: `{json.dumps(value['default'])}`." if "default" in value else ""
        yield _code(name), _type(value), (required + value.get("description", "") + default).strip()


def _type(schema: dict[str, Any]) -> str:
    """One line for a schema, with links to those that have a name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for join in ("anyOf", "oneOf", "allOf"):
        if join in schema:
            return (" and " if join == "allOf" else " or ").join(dict.fromkeys(_type(one) for one in schema[join]))
    if "enum" in schema:
        return ", ".join(_code(_plain(value)) for value in schema["enum"])
    if "const" in schema:
        return _code(_plain(schema["const"]))
    kinds = schema.get("type", "anything")
    if kinds == "array" and schema.get("items"):
        return f"list of {_type(schema['items'])}"
    if "contentSchema" in schema:
        return f"lines, each {_type(schema['contentSchema'])}"
    return (" or ".join(kinds) if isinstance(kinds, list) else kinds) + _bounds(schema)


def _bounds(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    match low, high:
        case None, None:
            length = schema.get("maxLength")
            return "" if length is None else f", at most {length} characters"
        case _, None:
            return f" from {low}"
        case None, _:
            return f" to {high}"
        case _:
            return f", {low} to {high}"


def _scheme(scheme: dict[str, Any]) -> str:
    return "`Authorization: Bearer`" if scheme["type"] == "http" else f"{scheme['in']} `{scheme['name']}`"


def _table(heads: tuple[str, ...], rows: Any) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in row) + " |"
    yield ""


def _code(text: str) -> str:
    return f"`{text}`"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    PAGE.write_text(reference_markdown(build_document()), encoding="utf-8")
