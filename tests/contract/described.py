"""The served description of the API as tests use it, and a server whose provider answers every route that it names."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trio

from models.embedding import TextEncoder
from models.provider_settings import ProviderSettings, Secret
from models.server_settings import ServerSettings
from models.settings import ProvidersSettings
from router.openapi.options import OPTIONS
from tests.fakes.claude import claude_events
from tests.fakes.provider import FakeProvider, Recorded, Script, chat_reply, reply_script, stream_script
from tests.running import Client, open_server, settings_for

AnyProvider = TypeVar("AnyProvider", bound=FakeProvider)

BODY_BYTES_MAX = 1 << 20
JSON = [("content-type", "application/json")]
CANDIDATE = {"candidates": [{"content": {"role": "model", "parts": [{"text": "Rex."}]}, "finishReason": "STOP"}]}
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "Rex."}], "usage": {"input_tokens": 1, "output_tokens": 1},
}  # fmt: skip
RESPONSE = {"id": "resp_1", "object": "response", "status": "completed", "model": "m", "output": []}
COMPLETED = b"event: response.completed\ndata: " + msgspec.json.encode(
    {"type": "response.completed", "sequence_number": 0, "response": RESPONSE}
)
METADATA = {"type": ["object", "null"], "additionalProperties": {"type": ["string", "boolean", "null"]}}
MODELS = {
    "ChatRequest": ["openai/m", "anthropic/m", "google/m", "local/recall"],
    "ResponsesRequest": ["openai/m"],
    "MessagesRequest": ["anthropic/m"],
    "CountTokensRequest": ["anthropic/m"],
    "ModelRequest": ["openai/m", "google/m"],
}
"""Models that the providers behind the server take, by the shape of the request."""


class Provider(FakeProvider):
    """Answers by path, in the format that the path speaks, streamed if that was asked for."""

    def script_for(self, recorded: Recorded) -> Script:
        """The answer to one request."""
        path, _, query = recorded.path.partition("?")
        streams = _asks_for_stream(recorded.body)
        if path.endswith(":streamGenerateContent"):
            whole = msgspec.json.encode(CANDIDATE)
            return stream_script([b"data: " + whole + b"\r\n\r\n"]) if "alt=sse" in query else _json([CANDIDATE])
        if path.endswith(":generateContent"):
            return _json(CANDIDATE)
        if path.endswith("/messages"):
            return stream_script(claude_events()) if streams else _json(MESSAGE)
        if path.endswith("/responses"):
            return stream_script([COMPLETED + b"\n\n"]) if streams else _json(RESPONSE)
        if path.endswith("/audio/speech"):
            return Script(body=b"RIFF", headers=[("content-type", "audio/wav")])
        if path.endswith("/chat/completions"):
            return stream_script() if streams else reply_script()
        return Script(body=chat_reply(), headers=JSON)


def _asks_for_stream(body: bytes) -> bool:
    try:
        return msgspec.json.decode(body)["stream"] is True
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        return False


def _json(value: Any) -> Script:
    return Script(body=msgspec.json.encode(value), headers=JSON)


@asynccontextmanager
async def open_described(tmp_path: Path, **sections: Any) -> AsyncIterator[Client]:
    """A server with small limits and a provider of each format, all of them one `Provider`.

    Args:
        sections: further sections of the settings, such as `metrics=MetricsSettings(...)`.
    """
    async with open_beside(tmp_path, Provider, **sections) as (client, _):
        yield client


@asynccontextmanager
async def open_beside(
    tmp_path: Path,
    kind: Callable[[int], AnyProvider],
    *,
    api_key: str = "sk-fake",
    encoder: TextEncoder | None = None,
    **sections: Any,
) -> AsyncIterator[tuple[Client, AnyProvider]]:
    """The same with a provider of this kind, which comes along, and with this key for it in the configuration.

    It is asked once for each request, however it fails.
    """
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    provider = kind(listeners[0].socket.getsockname()[1])
    origin = provider.base_url.removesuffix("/v1")
    once = ProviderSettings(base_url=origin, api_key=Secret(api_key), retries_max=0, breaker_failures=0)
    replace = msgspec.structs.replace
    providers = ProvidersSettings(
        by_name={
            "openai": replace(once, base_url=provider.base_url, serves=("responses",)),
            "anthropic": replace(once, format="anthropic"),
            "google": replace(once, format="google"),
        }
    )
    server = ServerSettings(host="127.0.0.1", port=0, body_max_bytes=BODY_BYTES_MAX)
    settings = settings_for(**{"providers": providers, "server": server, **sections})
    async with trio.open_nursery() as connections:
        connections.start_soon(trio.serve_listeners, provider.serve, listeners)
        async with open_server(tmp_path / "data", settings, encoder=encoder) as client:
            yield client, provider
        connections.cancel_scope.cancel(reason="the test is over")


def for_fuzzing(document: dict[str, Any], *, options_at: Collection[str] | None = None) -> dict[str, Any]:
    """The same document, stricter, so that made-up requests get far and every answer is looked at.

    Models that exist are named; an upload is lines; an import is one that fits; what only a provider can answer
    (`default`) is not expected of ours.

    Args:
        options_at: paths where the options of memory are tried out, one parser reads them all; everywhere unless given.
    """
    document = copy.deepcopy(document)
    schemas = document["components"]["schemas"]
    if options_at is not None:
        _without_options(document, besides=options_at)
    for name, models in MODELS.items():
        schemas[name]["allOf"][1]["properties"]["model"] = {"enum": models}
    schemas["FormRequest"]["properties"]["model"] = {"enum": MODELS["ModelRequest"]}
    parameters = document["components"]["parameters"]
    parameters["Model"]["schema"] = {"enum": ["gemini-3-pro", "google/m"]}
    parameters["TimeZone"]["schema"] = {"enum": ["UTC", "Europe/Berlin", "America/New_York"]}
    schemas["Message"]["properties"]["metadata"] = schemas["UploadLine"]["properties"]["metadata"] = METADATA
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("default", None)
    upload = document["paths"]["/v1/memory/upload"]["post"]["requestBody"]
    lines = {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/UploadLine"}}
    upload["content"] = {"application/x-ndjson": {"schema": lines}}
    export = document["paths"]["/v1/memory/import"]["post"]["requestBody"]["content"]["application/x-ndjson"]
    export["schema"] = {"enum": [export["example"]]}  # its checksums cannot be made up
    return document


def _without_options(document: dict[str, Any], *, besides: Collection[str]) -> None:
    """Leave the parameters and body fields that are options of memory out, but for these paths."""
    unused = {f"#/components/parameters/{name}" for name in OPTIONS}
    for path, operations in document["paths"].items():
        if path in besides:
            continue
        for operation in operations.values():
            kept = [parameter for parameter in operation.get("parameters", ()) if parameter["$ref"] not in unused]
            operation["parameters"] = kept
            for content in operation.get("requestBody", {}).get("content", {}).values():
                _leave_options_out(content, document["components"]["schemas"])


def _leave_options_out(content: dict[str, Any], schemas: dict[str, Any]) -> None:
    schema = schemas[content["schema"]["$ref"].rpartition("/")[2]] if "$ref" in content["schema"] else {}
    if "allOf" in schema:
        content["schema"] = schema["allOf"][1]
