"""`/mcp`: the vault as tools and resources for models, over MCP's Streamable HTTP (docs/mcp.md).

Without sessions and without streams: every POST is answered at once as JSON, which all revisions allow, so GET and
DELETE have nothing to offer: 405. What the key's suffix or the request's mode forbids is neither listed nor done.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec
from quart import Blueprint, Response, request

from models.errors import Forbidden, InvalidRequest, MemoryRouterError
from models.ids import Access
from router.auth import Caller
from router.bodies import decode_json
from router.components import Components
from router.limits import too_many_requests
from router.mcp.calls import McpCalls
from router.mcp.messages import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    RESOURCE_NOT_FOUND,
    SUPPORTED_VERSIONS,
    Call,
    McpError,
    Post,
    initialized,
    is_origin_allowed,
    read_post,
    result_body,
)
from router.mcp.tools import INSTRUCTIONS, RESOURCES, TOOLS, Tool, listed_tools, read_arguments, resources_for
from router.observe import describe_error, log_event
from router.options import MemoryOptions
from router.requests import json_response, offload, read_body, read_caller, read_options

CAPABILITIES: dict[str, Any] = {
    "tools": {"listChanged": False},
    "resources": {"listChanged": False, "subscribe": False},
}
LISTS_FRESH_MS = 300_000
"""How long a client may keep what is listed; it changes with the key's rights and with our version."""

_LEGACY_ONLY = frozenset({"initialize", "ping"})


def mcp_routes(components: Components) -> Blueprint:
    """The blueprint of MCP."""
    routes = Blueprint("mcp", __name__)
    api = _McpApi(components)
    routes.post("/mcp")(api.answer)
    return routes


class _McpApi:
    """The one handler, over the components."""

    def __init__(self, components: Components) -> None:
        self._parts = components

    async def answer(self) -> Response:
        """What one POST asks."""
        caller = await read_caller(self._parts)
        options = self._admitted(caller)
        body = await read_body(self._parts)
        try:
            post = read_post(await self._decode(body), _headers())
        except McpError as error:
            return json_response(error.body(), error.status)
        self._charge(caller, post)
        asker = _Asker(self._parts, caller, options)
        answers = [answer for call in post.calls if (answer := await asker.answer(call)) is not None]
        if not answers:
            response = Response(b"", 202)
            del response.headers["Content-Type"]
            return response
        if post.is_batch:
            return json_response([body for body, _ in answers])
        return json_response(*answers[0])

    def _admitted(self, caller: Caller) -> MemoryOptions:
        """
        Raises:
            Forbidden: a page of another origin asks, or a key that may do nothing at all.
        """
        settings = self._parts.settings
        origins, hosts = settings.cors.origins, settings.server.allowed_hosts
        if not is_origin_allowed(request.headers.get("origin"), origins=origins, hosts=hosts):
            raise Forbidden("Pages of this origin may not use MCP here.", hint="The operator sets cors.origins.")
        options = read_options(self._parts, caller, {})
        if not options.access.read and not options.access.write:
            raise Forbidden("This key or request may not use memory.", hint="Send the key without :off.")
        return options

    async def _decode(self, body: bytes) -> Any:
        try:
            depth_max = self._parts.settings.limits.json_depth_max
            return await offload(self._parts, len(body), decode_json, body, depth_max=depth_max)
        except InvalidRequest as error:
            raise McpError(PARSE_ERROR, error.message, status=400) from None

    def _charge(self, caller: Caller, post: Post) -> None:
        """Each further request of a batch counts against the key as if it came alone.

        Raises:
            RateLimited: they are too many; none of them is done.
        """
        for _ in post.calls[1:]:
            allowance = self._parts.limits.keys.take(caller.principal)
            if allowance is not None and not allowance.allowed:
                self._parts.metrics.limited.increment("requests")
                raise too_many_requests(allowance)


class _Asker:
    """Answers the calls of one caller."""

    def __init__(self, components: Components, caller: Caller, options: MemoryOptions) -> None:
        self._access: Access = options.access
        self._calls = McpCalls(components, caller, options)

    async def answer(self, call: Call | McpError) -> tuple[dict[str, Any], int] | None:
        """The answer to a call with its HTTP status, or None for a notification."""
        if isinstance(call, McpError):
            return call.body(), call.status
        if call.is_notification:
            return None
        try:
            return await self._result(call), 200
        except McpError as error:
            failed = error
        except Exception as error:  # the edge: one call's bug must not end the answers to the others
            log_event("mcp_failed", level=logging.ERROR, error=describe_error(error))
            failed = McpError(INTERNAL_ERROR, "Internal server error.")
        failed.request_id = call.request_id
        return failed.body(), failed.status

    async def _result(self, call: Call) -> dict[str, Any]:
        """
        Raises:
            McpError: there is no such method, tool or resource, or its parameters are wrong.
        """
        if call.is_modern and call.method in _LEGACY_ONLY:
            raise _no_method(call)
        match call.method:
            case "initialize":
                return result_body(call, initialized(call.params, capabilities=CAPABILITIES, instructions=INSTRUCTIONS))
            case "server/discover":
                return result_body(call, _discovered(), fresh_ms=LISTS_FRESH_MS)
            case "ping":
                return result_body(call, {})
            case "tools/call":
                return result_body(call, await self._call_tool(call.params))
            case "resources/read":
                return result_body(call, await self._read_resource(call), fresh_ms=0)
            case _:
                return result_body(call, self._listed(call), fresh_ms=LISTS_FRESH_MS)

    def _listed(self, call: Call) -> dict[str, Any]:
        lists: dict[str, tuple[str, Sequence[dict[str, Any]]]] = {
            "tools/list": ("tools", listed_tools(self._access)),
            "resources/list": ("resources", resources_for(self._access)),
            "resources/templates/list": ("resourceTemplates", []),
            "prompts/list": ("prompts", []),
        }
        if call.method not in lists:
            raise _no_method(call)
        if call.params.get("cursor") is not None:
            raise McpError(INVALID_PARAMS, "cursor is none that was given: every list is one page.")
        name, items = lists[call.method]
        return {name: items}

    async def _call_tool(self, params: dict[str, Any]) -> dict[str, Any]:
        name, values = params.get("name"), params.get("arguments")
        tool = TOOLS.get(name) if isinstance(name, str) else None
        if tool is None:
            raise McpError(INVALID_PARAMS, "Unknown tool.")
        if values is not None and not isinstance(values, dict):
            raise McpError(INVALID_PARAMS, "arguments must be an object.")
        try:
            self._require(tool)
            given = await self._calls.call(tool.name, read_arguments(tool, values or {}))
        except MemoryRouterError as error:
            return _failed(error)
        text = msgspec.json.encode(given)
        return {"content": [_text(text.decode())], "structuredContent": msgspec.Raw(text), "isError": False}

    def _require(self, tool: Tool) -> None:
        if not tool.is_allowed(self._access):
            needed = "read" if tool.reads and not self._access.read else "write or delete"
            raise Forbidden(
                f"This connection may not {needed}.", hint="Its Memory Key or memory mode does not allow it."
            )

    async def _read_resource(self, call: Call) -> dict[str, Any]:
        uri = call.params.get("uri")
        uri = uri if isinstance(uri, str) else ""
        if uri not in {resource["uri"] for resource in resources_for(self._access)}:
            known = uri in {resource["uri"] for resource in RESOURCES}
            message = "This connection may not read." if known else "Resource not found."
            raise McpError(INVALID_PARAMS if call.is_modern else RESOURCE_NOT_FOUND, message)
        try:
            value = await self._calls.read(uri)
        except MemoryRouterError as error:
            raise McpError(INTERNAL_ERROR, _told(error)) from error
        text = msgspec.json.encode(value).decode()
        return {"contents": [{"uri": uri, "mimeType": "application/json", "text": text}]}


def _discovered() -> dict[str, Any]:
    return {
        "supportedVersions": list(SUPPORTED_VERSIONS),
        "capabilities": CAPABILITIES,
        "instructions": INSTRUCTIONS,
    }


def _no_method(call: Call) -> McpError:
    return McpError(METHOD_NOT_FOUND, "Method not found", status=404 if call.is_modern else 200)


def _failed(error: MemoryRouterError) -> dict[str, Any]:
    """A tool's failure, which its model is to read."""
    return {"content": [_text(_told(error))], "isError": True}


def _told(error: MemoryRouterError) -> str:
    retry = "" if error.retry_after_s is None else f"Try again in {error.retry_after_s} s."
    return " ".join(part for part in (error.message, error.hint, retry) if part)


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _headers() -> dict[str, list[str]]:
    """All values of each header, by its name in lower case."""
    return {name.lower(): request.headers.getlist(name) for name, _ in request.headers}
