"""The messages of MCP, the Model Context Protocol: what a POST says, whether it may say so, how its answer is written.

Owns JSON-RPC, the protocol's versions, the headers that have to agree with the body, and the codes of errors. Pure:
knows nothing of Quart, of tools or of vaults. Must never keep anything between two requests (no session is issued), nor
repeat in an error what a caller wrote.

Facts are from modelcontextprotocol.io: revisions 2025-03-26, 2025-06-18 and 2025-11-25, which begin with `initialize`
("legacy" here, as the newest revision says), and 2026-07-28, where every request says its version ("modern").
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from models.version import VERSION

MODERN_VERSION = "2026-07-28"
LEGACY_VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26")
"""The newest first: that is the one offered to a client that asks for another."""

SUPPORTED_VERSIONS = (MODERN_VERSION, *LEGACY_VERSIONS)
BATCHING_VERSION = "2025-03-26"
"""The only version whose messages may come as an array; also the one of a request that names none."""

BATCH_MESSAGES_MAX = 20
REQUEST_ID_CHARACTERS_MAX = 1_000

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
RESOURCE_NOT_FOUND = -32002
"""Of the legacy versions; the modern one says INVALID_PARAMS."""

HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022

VERSION_HEADER, METHOD_HEADER, NAME_HEADER = "mcp-protocol-version", "mcp-method", "mcp-name"
NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Which parameter the header Mcp-Name repeats."""

_PREFIX = "io.modelcontextprotocol/"
META_VERSION, META_CAPABILITIES = f"{_PREFIX}protocolVersion", f"{_PREFIX}clientCapabilities"
SERVER_INFO = {"name": "memoryrouter", "title": "MemoryRouter", "version": VERSION}

_INTEGER_MAX = 2**63 - 1
_DATE_LIKE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_ENCODED = re.compile(r"=\?base64\?([A-Za-z0-9+/]*={0,2})\?=\Z")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

RequestId = int | str
Headers = Mapping[str, Sequence[str]]
"""The values of each header, by its name in lower case."""


class McpError(Exception):
    """A request that is answered with an error of the protocol.

    Attributes:
        code: of JSON-RPC or MCP.
        status: of HTTP, where the request stands alone.
        request_id: what it answers, as far as that is known.
    """

    def __init__(
        self, code: int, message: str, *, status: int = 200, data: Any = None, request_id: RequestId | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.data = data
        self.request_id = request_id

    def body(self) -> dict[str, Any]:
        """The answer; an id that could not be read is null."""
        error = {"code": self.code, "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        return {"jsonrpc": "2.0", "id": self.request_id, "error": error}


class Call(msgspec.Struct, frozen=True):
    """One message that calls a method.

    Attributes:
        request_id: None for a notification, which nobody answers.
        is_modern: it says its version itself.
    """

    method: str
    params: dict[str, Any]
    request_id: RequestId | None
    is_modern: bool

    @property
    def is_notification(self) -> bool:
        """Whether nobody waits for an answer."""
        return self.request_id is None


class Post(msgspec.Struct, frozen=True):
    """What one POST holds.

    Attributes:
        calls: requests and notifications in their order, or why one is none. Responses are left out: nothing is ever
            asked of a client.
    """

    calls: tuple[Call | McpError, ...]
    is_batch: bool = False


def read_post(value: Any, headers: Headers) -> Post:
    """The calls of a POST.

    Args:
        value: its JSON.

    Raises:
        McpError: none of it is to be done. A single message that is wrong raises its error.
    """
    _check_repeated(headers)
    if not isinstance(value, list):
        call = _read_message(value, headers)
        return Post(calls=() if call is None else (call,))
    if _legacy_version(headers) != BATCHING_VERSION:
        raise McpError(INVALID_REQUEST, "This version of MCP takes one message a request, no array.", status=400)
    if not value or len(value) > BATCH_MESSAGES_MAX:
        raise McpError(INVALID_REQUEST, f"A batch has 1 to {BATCH_MESSAGES_MAX} messages.", status=400)
    calls = [_read_item(item, headers) for item in value]
    return Post(calls=tuple(call for call in calls if call is not None), is_batch=True)


def _read_item(value: Any, headers: Headers) -> Call | McpError | None:
    """One message of a batch."""
    try:
        call = _read_message(value, headers)
    except McpError as error:
        return error
    if call is not None and (call.is_modern or call.method == "initialize"):
        return McpError(INVALID_REQUEST, "This may not be part of a batch.", request_id=call.request_id)
    return call


def _read_message(value: Any, headers: Headers) -> Call | None:
    """One message; None for a response.

    Raises:
        McpError: it is malformed, of a version that is not spoken, or its headers say something else.
    """
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise McpError(INVALID_REQUEST, 'A message is a JSON object with "jsonrpc": "2.0".', status=400)
    request_id = _request_id(value)
    if "method" not in value and ("result" in value or "error" in value):
        return None
    try:
        return _read_call(value, request_id, headers)
    except McpError as error:
        error.request_id = request_id
        raise


def _read_call(value: dict[str, Any], request_id: RequestId | None, headers: Headers) -> Call:
    method, params = value.get("method"), value.get("params")
    params = {} if params is None else params
    if not isinstance(method, str):
        raise McpError(INVALID_REQUEST, "method must be a string.", status=400)
    if not isinstance(params, dict):
        raise McpError(INVALID_PARAMS, "params must be an object.", status=400)
    is_modern = _is_modern(method, params, headers)
    call = Call(method=method, params=params, request_id=request_id, is_modern=is_modern)
    if is_modern and not call.is_notification:  # the revision defines no headers for notifications
        _check_modern(call, headers)
    elif not is_modern and method != "initialize":  # which says its version in its body
        _legacy_version(headers)
    return call


def _request_id(value: dict[str, Any]) -> RequestId | None:
    """The id of a request; None where there is none.

    Raises:
        McpError: it can be no id.
    """
    if "id" not in value:
        return None
    request_id = value["id"]
    is_number = isinstance(request_id, int) and not isinstance(request_id, bool) and abs(request_id) <= _INTEGER_MAX
    is_text = isinstance(request_id, str) and len(request_id) <= REQUEST_ID_CHARACTERS_MAX
    if not is_number and not is_text and ("method" in value or request_id is not None):
        raise McpError(INVALID_REQUEST, "id must be a string or an integer.", status=400)
    return request_id  # type: ignore[no-any-return]  # one of both, as was just seen


def _is_modern(method: str, params: dict[str, Any], headers: Headers) -> bool:
    """Whether a message is of the modern revision, or wants to be of one like it."""
    meta = params.get("_meta")
    if isinstance(meta, dict) and META_VERSION in meta:
        return True
    return method != "initialize" and (MODERN_VERSION in headers.get(VERSION_HEADER, ()) or method == "server/discover")


def _check_modern(call: Call, headers: Headers) -> None:
    """What the modern revision asks of every request, in the order in which its own SDKs look.

    Raises:
        McpError: something is missing, the headers do not agree with the body, or the version is another.
    """
    meta = call.params.get("_meta")
    if not isinstance(meta, dict) or META_VERSION not in meta or not isinstance(meta.get(META_CAPABILITIES), dict):
        message = f"params._meta must hold {META_VERSION} and {META_CAPABILITIES}."
        raise McpError(INVALID_PARAMS, message, status=400)
    if not isinstance(meta[META_VERSION], str):
        raise McpError(INVALID_PARAMS, f"{META_VERSION} must be a string.", status=400)
    expected = {VERSION_HEADER: meta[META_VERSION], METHOD_HEADER: call.method}
    if call.method in NAMED_BY and (name := call.params.get(NAMED_BY[call.method])) is not None:
        expected[NAME_HEADER] = name
    for header, said in expected.items():
        value = _header(headers, header)
        if value is None or (decode_header(value) if header == NAME_HEADER else value) != said:
            raise McpError(HEADER_MISMATCH, f"The header {header} must say what the body says.", status=400)
    if meta[META_VERSION] != MODERN_VERSION:
        raise unsupported_version(meta[META_VERSION])


def _legacy_version(headers: Headers) -> str:
    """The version that a request without one in its body speaks.

    Raises:
        McpError: its header names one that is not spoken.
    """
    value = _header(headers, VERSION_HEADER) or BATCHING_VERSION
    if value not in SUPPORTED_VERSIONS:
        raise unsupported_version(value)
    return value


def unsupported_version(requested: str) -> McpError:
    """The refusal of a version. What is no version at all is not repeated."""
    said = requested if _DATE_LIKE.match(requested) else ""
    data = {"supported": list(SUPPORTED_VERSIONS), "requested": said}
    return McpError(UNSUPPORTED_VERSION, "Unsupported protocol version", status=400, data=data)


def _check_repeated(headers: Headers) -> None:
    """Readers of the first and of the last value would not agree."""
    for name in (VERSION_HEADER, METHOD_HEADER, NAME_HEADER):
        if len(headers.get(name, ())) > 1:
            raise McpError(HEADER_MISMATCH, f"The header {name} may come once.", status=400)


def _header(headers: Headers, name: str) -> str | None:
    values = headers.get(name, ())
    return values[0].strip() if values else None


def decode_header(value: str) -> str | None:
    """What a header says that may be written as `=?base64?...?=`; None where that is damaged."""
    match = _ENCODED.match(value)
    if match is None:
        return None if value.startswith("=?base64?") and value.endswith("?=") else value
    try:
        return base64.b64decode(match[1], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


# --- answers ---


def initialized(params: Mapping[str, Any], *, capabilities: Any, instructions: str) -> dict[str, Any]:
    """The answer to `initialize`: the client's version where it is spoken, else the newest of its kind.

    Raises:
        McpError: the client names no version.
    """
    wanted = params.get("protocolVersion")
    if not isinstance(wanted, str):
        raise McpError(INVALID_PARAMS, "protocolVersion must be a string.")
    return {
        "protocolVersion": wanted if wanted in LEGACY_VERSIONS else LEGACY_VERSIONS[0],
        "capabilities": capabilities,
        "serverInfo": SERVER_INFO,
        "instructions": instructions,
    }


def result_body(call: Call, result: Mapping[str, Any], *, fresh_ms: int | None = None) -> dict[str, Any]:
    """The answer to a request.

    Args:
        fresh_ms: how long a client may keep it, where the revision lets it keep this kind of answer. Never for others:
            what is listed depends on the key.
    """
    if call.is_modern:
        kept = {} if fresh_ms is None else {"ttlMs": fresh_ms, "cacheScope": "private"}
        meta = {f"{_PREFIX}serverInfo": SERVER_INFO}
        result = {**result, **kept, "resultType": "complete", "_meta": meta}
    return {"jsonrpc": "2.0", "id": call.request_id, "result": result}


# --- who may ask ---


def is_origin_allowed(origin: str | None, *, origins: Sequence[str], hosts: Sequence[str]) -> bool:
    """Whether a page of this origin may ask; programs that are no browsers send none.

    A page that has its own name point to this machine (DNS rebinding) is told by its origin, which stays that name: so
    what counts is never whether `Origin` and `Host` agree, but whether the operator named the origin or its host.

    Args:
        origin: the header.
        origins: `cors.origins`.
        hosts: `server.allowed_hosts`.
    """
    if origin is None or origin in origins:
        return True
    try:
        parts = urlsplit(origin)
        host = (parts.hostname or "").lower()
    except ValueError:
        return False
    named = _LOOPBACK | {name.lower() for name in hosts}
    return parts.scheme in ("http", "https") and host in named and "@" not in parts.netloc
