"""The OpenAPI 3.1 document that `/openapi.json` serves, built from one table of operations.

Owns how operations, parameters, shapes and errors become one document. Does no I/O and knows no settings: the document
is the same for every server of a version.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from models.version import VERSION
from router.memory_ids import CHARACTERS_MAX, MEMORY_IDS
from router.openapi import errors, health, keys, mcp, memories, providers, usage
from router.openapi.errors import OVERLOADED, response_name
from router.openapi.operation import Operation
from router.openapi.operations import OPERATIONS
from router.openapi.options import PARAMETERS, SECURITY_SCHEMES
from router.openapi.schemas import schemas
from router.openapi.shapes import Schema

_DESCRIPTION = """\
Every end user gets a private memory vault behind the URLs that SDKs know: point an SDK at this server and use a Memory
Key. One Memory Key is one vault.

Paths are accepted without `/v1` and with it doubled. Behind every option the strictest of key suffix, header, query and
body wins for what may be read and stored; for everything else the body wins over the query, and the query over headers.

Errors come in the format of the route: our own routes answer `{error, code, hint, field}`, those of a provider's format
in that provider's shape. What a provider itself answers, errors too, is passed on byte for byte with its status.
"""
_TAGS = {
    "chat": "Providers' own formats, with memory put in and the exchange stored.",
    "memory": "One vault: ask it, fill it, empty it.",
    "keys": "Who may use which vault.",
    "providers": "Who answers models, and the account's keys for them.",
    "memories": "Single memories: list, store, change and delete them.",
    "usage": "What keys have used.",
    "mcp": "Tools and resources for models.",
    "models": "What may be asked for.",
    "passed through": "Providers' own formats, without memory.",
    "server": "The server itself; no key needed.",
}
_STATUSES = ["ok", "empty", "off", "timeout", "error", "overloaded", "not_stored"]
_HEADERS: dict[str, Schema] = {
    "X-Request-Id": {
        "required": True,
        "description": "The id of this request in our logs.",
        "schema": {"type": "string", "pattern": "^req_[0-9a-f]{24}$"},
    },
    "Request-Id": {
        "required": True,
        "description": "The same, or the provider's own, where Anthropic's SDK looks for it.",
        "schema": {"type": "string"},
    },
    "X-Memory-Status": {
        "required": True,
        "description": "What became of memory; whatever it is, the chat went on.",
        "schema": {"type": "string", "enum": _STATUSES},
    },
    MEMORY_IDS: {
        "description": "The memories that the model was given, best first: `mem_7,mem_3`. Empty for none. Where they "
        "are too many for a header, how many more there are stands last: `+12`.",
        "schema": {"type": "string", "maxLength": CHARACTERS_MAX},
    },
    "X-Provider-Detected": {
        "required": True,
        "description": "Who answered; `local` for `local/recall`.",
        "schema": {"type": "string"},
    },
    "X-Embedding-Model": {
        "description": "To who names an embedding model: the one that the vault uses.",
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}},
}
_OWN_HEADERS = ("X-Request-Id", "Request-Id", "X-Embedding-Model")
_PROXIED_HEADERS = (*_OWN_HEADERS, "X-Memory-Status", MEMORY_IDS, "X-Provider-Detected")


@cache
def openapi_json() -> bytes:
    """The document as JSON; made once."""
    return msgspec.json.encode(build_document())


def build_document() -> dict[str, Any]:
    """The document, as plain JSON values."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MemoryRouter",
            "version": VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": description} for name, description in _TAGS.items()],
        "security": [{name: []} for name in SECURITY_SCHEMES],
        "paths": _paths(),
        "components": {
            "securitySchemes": SECURITY_SCHEMES,
            "parameters": {
                **PARAMETERS,
                **health.PARAMETERS,
                **keys.PARAMETERS,
                **providers.PARAMETERS,
                **memories.PARAMETERS,
                **usage.PARAMETERS,
                **mcp.PARAMETERS,
            },
            "headers": _HEADERS,
            "responses": errors.responses(),
            "schemas": {**schemas(), **errors.SCHEMAS},
        },
    }


def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return paths


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": _responses(operation),
    }
    if operation.parameters:
        described["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in operation.parameters]
    if operation.takes:
        described["requestBody"] = {"required": operation.needs_body, "content": _taken(operation)}
    if operation.is_open:
        described["security"] = []
    return described


def _taken(operation: Operation) -> dict[str, Any]:
    example = {} if operation.example is None else {"example": operation.example}
    return {media_type: {"schema": schema, **example} for media_type, schema in operation.takes.items()}


def _responses(operation: Operation) -> dict[str, Any]:
    names = _PROXIED_HEADERS if operation.is_proxied else _OWN_HEADERS
    responses: dict[str, Any] = {
        str(status): {
            "description": "Not ready." if status == OVERLOADED else operation.summary,
            "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
            "content": {media_type: {"schema": schema} for media_type, schema in content.items()},
        }
        for status, content in operation.answers.items()
    }
    for status in sorted(operation.errors):
        name = response_name(operation.speaks, status)
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    if operation.is_proxied:
        responses["default"] = {"description": "What else the provider answered, as it came.", "content": {"*/*": {}}}
    return responses
