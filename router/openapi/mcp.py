"""What `/openapi.json` says of `/mcp`: one operation that takes JSON-RPC messages; the tools describe themselves.

Must never import a route's handler.
"""

from __future__ import annotations

from router.mcp.messages import (
    HEADER_MISMATCH,
    METHOD_HEADER,
    NAME_HEADER,
    PARSE_ERROR,
    SUPPORTED_VERSIONS,
    VERSION_HEADER,
)
from router.openapi.operation import Operation, json_content
from router.openapi.options import parameter
from router.openapi.shapes import TEXT, Schema, answer, const, ref, request_body

_ID: Schema = {"type": ["string", "integer"], "maxLength": 1000}
_ERROR: Schema = answer(
    {
        "code": {"type": "integer", "description": f"Such as {PARSE_ERROR} (no JSON) or {HEADER_MISMATCH}."},
        "message": TEXT,
    },
    optional={"data": {"description": "Such as the versions that are spoken."}},
)

PARAMETERS: dict[str, Schema] = {
    "McpVersion": parameter(
        VERSION_HEADER, "header", {"type": "string", "enum": list(SUPPORTED_VERSIONS)},
        "The version of MCP that was agreed on, or, from 2026-07-28 on, of this request.",
    ),
    "McpMethod": parameter(METHOD_HEADER, "header", TEXT, "From 2026-07-28 on: the message's method."),
    "McpName": parameter(
        NAME_HEADER, "header", TEXT, "From 2026-07-28 on: the tool's name or the resource's URI.",
    ),
}  # fmt: skip

SCHEMAS: dict[str, Schema] = {
    "McpMessage": request_body(
        {
            "jsonrpc": const("2.0"),
            "method": {"type": "string", "description": "Such as initialize, tools/list or tools/call."},
            "id": {**_ID, "description": "Without one it is a notification, which is answered with 202."},
            "params": {"type": "object"},
        },
        required=["jsonrpc", "method"],
    ),
    "McpMessages": {
        "anyOf": [
            ref("McpMessage"),
            {
                "type": "array",
                "minItems": 1,
                "maxItems": 20,
                "items": ref("McpMessage"),
                "description": "Only in version 2025-03-26.",
            },
        ]
    },
    "McpResult": answer({"jsonrpc": const("2.0"), "id": _ID, "result": {"type": "object"}}),
    "McpError": answer({"jsonrpc": const("2.0"), "id": {"type": ["string", "integer", "null"]}, "error": _ERROR}),
    "McpAnswer": {
        "anyOf": [
            ref("McpResult"),
            ref("McpError"),
            {"type": "array", "items": {"anyOf": [ref("McpResult"), ref("McpError")]}},
        ]
    },
    "McpRefusal": {"anyOf": [ref("McpError"), ref("Error_own")]},
}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="post", path="/mcp", name="mcp", tag="mcp",
        summary="The vault as tools and resources for models: MCP over Streamable HTTP, without sessions.",
        answers={
            200: json_content("McpAnswer"), 202: {}, 400: json_content("McpRefusal"), 404: json_content("McpError"),
        },
        errors=(401, 403, 413, 415, 429, 500, 503), takes=json_content("McpMessages"),
        parameters=("SessionId", "SessionScope", "TimeZone", "MemoryMode", *PARAMETERS),
        example={
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "search_memories", "arguments": {"query": "dog", "limit": 5}},
        },
    ),
)  # fmt: skip
