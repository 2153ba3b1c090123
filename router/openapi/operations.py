"""Every operation of the HTTP API, in one table: what `/openapi.json` says of each route.

Areas with many routes have a file of their own, `router/openapi_<area>.py`: its `OPERATIONS` are part of the table, as
its `SCHEMAS` are of `router.openapi.schemas` and its `PARAMETERS` of `router.openapi`. A test compares the table with
the routes that the application has. Must never import a route's handler.
"""

from __future__ import annotations

from typing import Any

from models.exports import FORMAT, VERSION, ExportedMemory, ExportHeader, PartWriter
from router.openapi import keys, mcp, memories, providers, usage
from router.openapi.errors import ErrorFormat
from router.openapi.operation import (
    GUARDED,
    JSON,
    KEYED,
    OPTIONED,
    PROXIED,
    READ,
    WRITTEN,
    Content,
    Operation,
    json_content,
)
from router.openapi.options import OPTIONS
from router.openapi.shapes import TEXT, Schema, ref

_EVENTS, _LINES = "text/event-stream", "application/x-ndjson"

_STREAMED: Schema = {"contentMediaType": _EVENTS, "description": "The provider's server-sent events, byte for byte."}
_EXPORT_LINES: Schema = {
    "type": "string",
    "description": "One JSON value a line. An export that fails on the way ends with an error line.",
    "contentMediaType": _LINES,
    "contentSchema": {"anyOf": [ref(name) for name in ("ExportHeader", "ExportedMemory", "ExportEnd", "ExportError")]},
}
_UPLOAD_LINES: Schema = {
    "type": "string",
    "description": "One JSON object a line; blank lines are passed over. Any content type does.",
    "contentMediaType": _LINES,
    "contentSchema": ref("UploadLine"),
}


def _export_example() -> str:
    """A whole export of one memory."""
    header = ExportHeader(
        format=FORMAT, version=VERSION, model="none", dims=1, count=1, after=0, created_at=0, session_id=None
    )
    memory = ExportedMemory(seq=1, role="user", content="My dog is called Rex.", timestamp=1_780_000_000_000)
    writer = PartWriter()
    return (writer.header(header) + writer.memory(memory) + writer.end()).decode()


_USER = {"role": "user", "content": "My dog is called Rex."}
_REPLY = {"role": "assistant", "content": "A fine name."}
_QUESTION = {"role": "user", "content": "What is my dog called?"}

_SERVER = (
    Operation(
        method="get", path="/", name="index", tag="server", summary="What this is.",
        answers={200: json_content("Index")}, errors=(500,), is_open=True,
    ),
    Operation(
        method="get", path="/livez", name="livez", tag="server", summary="The process answers.",
        answers={200: json_content("Live")}, errors=(500,), is_open=True,
    ),
    Operation(
        method="get", path="/readyz", name="readyz", tag="server",
        summary="Whether requests would be served; with the reasons while not, and of what serves less.",
        answers={200: json_content("Ready"), 503: json_content("NotReady")}, errors=(500,), is_open=True,
        parameters=("Verbose", "Writes"),
    ),
    Operation(
        method="get", path="/health", name="health", tag="server", summary="Health, as the hosted product tells it.",
        answers={200: json_content("Health")}, errors=(500,), is_open=True,
    ),
    Operation(
        method="get", path="/metrics", name="metrics", tag="server", summary="Metrics in Prometheus' text format.",
        answers={200: {"text/plain": TEXT}}, errors=(401, 403, 429, 500, 503), is_open=True,
    ),
    Operation(
        method="get", path="/openapi.json", name="openapi", tag="server", summary="This document.",
        answers={200: {JSON: {"type": "object", "required": ["openapi", "info", "paths"]}}}, errors=(500,),
        is_open=True,
    ),
    Operation(
        method="get", path="/v1/models", name="list_models", tag="models", speaks="openai",
        summary="Every model that could be named, in OpenAI's shape and in the hosted product's.",
        answers={200: json_content("Models")}, errors=KEYED,
    ),
    Operation(
        method="get", path="/v1/models/{name}", name="get_model", tag="models", speaks="openai",
        summary="One of these models.", answers={200: json_content("Model")}, errors=(*KEYED, 404),
        parameters=("ModelName",),
    ),
)  # fmt: skip

_MEMORY = (
    Operation(
        method="post", path="/v1/memory/prepare", name="prepare", tag="memory",
        summary="A ready-to-inject context for a conversation.",
        answers={200: json_content("Prepared")}, errors=READ, takes=json_content("PrepareRequest"), parameters=OPTIONS,
        example={"messages": [_QUESTION], "density": "default"},
    ),
    Operation(
        method="post", path="/v1/memory/ingest", name="ingest", tag="memory",
        summary="Remember a finished exchange. 202 means durable, and findable by its words.",
        answers={202: json_content("Ingested")}, errors=(*WRITTEN, 402), takes=json_content("IngestRequest"),
        parameters=OPTIONS, example={"messages": [_USER, _REPLY], "model": "openai/gpt-5.1"},
    ),
    Operation(
        method="post", path="/v1/memory/search", name="search", tag="memory",
        summary="The best memories for a query, best first, without a cut-off.",
        answers={200: json_content("Found")}, errors=READ, takes=json_content("SearchRequest"), parameters=OPTIONS,
        example={"query": "dog", "limit": 5},
    ),
    Operation(
        method="post", path="/v1/memory/upload", name="upload", tag="memory",
        summary="Store JSON lines, all or none. 200 means durable, and findable by their words.",
        answers={200: json_content("Uploaded")}, errors=(*GUARDED, 402), parameters=OPTIONS,
        takes=dict.fromkeys((_LINES, "text/plain", "application/jsonl"), _UPLOAD_LINES),
        example='{"content":"My dog is called Rex.","role":"user","timestamp":1780000000000}\n',
    ),
    Operation(
        method="get", path="/v1/memory/stats", name="stats", tag="memory",
        summary="The vault, or one session of it, in numbers.",
        answers={200: json_content("Stats")}, errors=OPTIONED, parameters=OPTIONS,
    ),
    Operation(
        method="post", path="/v1/memory/warmup", name="warmup", tag="memory", summary="Bring the vault into memory.",
        answers={200: json_content("Warm")}, errors=KEYED,
    ),
    Operation(
        method="delete", path="/v1/memory", name="delete", tag="memory",
        summary="Forget the whole vault, or exactly one session of it.",
        answers={200: json_content("Deleted")}, errors=GUARDED, parameters=(*OPTIONS, "DeletedSession", "Reset"),
    ),
    Operation(
        method="get", path="/v1/memory/export", name="export", tag="memory",
        summary="The vault, or one session of it, as JSON lines.",
        answers={200: {_LINES: _EXPORT_LINES}}, errors=(*OPTIONED, 403),
        parameters=(*OPTIONS, "After", "ExportSession", "Vectors"),
    ),
    Operation(
        method="post", path="/v1/memory/import", name="import", tag="memory",
        summary="Store what the vault does not know of an export, all or none.",
        answers={200: json_content("Imported")}, errors=(*GUARDED, 402), takes={_LINES: _EXPORT_LINES},
        parameters=OPTIONS, example=_export_example(),
    ),
)  # fmt: skip


def _chat(
    path: str,
    name: str,
    speaks: ErrorFormat,
    request: str,
    example: Any,
    *,
    summary: str,
    answer: Content | None = None,
    parameters: tuple[str, ...] = (),
) -> Operation:
    """A route of the chat proxy: memory goes in, the provider's reply comes out."""
    return Operation(
        method="post",
        path=path,
        name=name,
        tag="chat",
        summary=summary,
        speaks=speaks,
        answers={200: answer or {JSON: ref("ProviderReply"), _EVENTS: _STREAMED}},
        errors=PROXIED,
        takes=json_content(request),
        parameters=(*OPTIONS, "ProviderKey", *parameters),
        example=example,
        is_proxied=True,
    )


_SAID = {"messages": [_QUESTION]}
_CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "What is my dog called?"}]}]}
_CHUNKS: Content = {JSON: ref("ProviderChunks"), _EVENTS: _STREAMED}
_CHAT = (
    _chat(
        "/v1/chat/completions", "chat_completions", "openai", "ChatRequest", {"model": "local/recall", **_SAID},
        summary="OpenAI Chat Completions, for every provider. `local/recall` answers without one.",
    ),
    _chat(
        "/v1/responses", "responses", "openai", "ResponsesRequest",
        {"model": "openai/gpt-5.1", "input": "What is my dog called?"}, summary="OpenAI Responses.",
    ),
    _chat(
        "/v1/messages", "messages", "anthropic", "MessagesRequest",
        {"model": "anthropic/claude-sonnet-5", "max_tokens": 1024, **_SAID}, summary="Anthropic Messages.",
    ),
    *(
        _chat(
            f"/{version}/models/{{model}}:{method}", f"{method}_{version}", "gemini", "GenerateRequest", _CONTENTS,
            summary=f"Gemini's {method}.", answer=answer, parameters=parameters,
        )
        for version in ("v1", "v1beta")
        for method, answer, parameters in (
            ("generateContent", json_content("ProviderReply"), ("Model",)),
            ("streamGenerateContent", _CHUNKS, ("Model", "Alt")),
        )
    ),
)  # fmt: skip


def _passed(
    path: str,
    example: Any,
    *,
    request: str = "ModelRequest",
    speaks: ErrorFormat = "openai",
    answer: Content | None = None,
    is_form: bool = False,
) -> Operation:
    """A route without memory."""
    return Operation(
        method="post",
        path=path,
        name=path.removeprefix("/v1/").replace("/", "_"),
        tag="passed through",
        summary="Passed to the model's provider and back as it is, without memory.",
        speaks=speaks,
        answers={200: answer or json_content("ProviderReply")},
        errors=PROXIED,
        takes={"multipart/form-data": ref("FormRequest")} if is_form else json_content(request),
        parameters=("ProviderKey",),
        example=None if is_form else example,
        is_proxied=True,
    )


_BYTES: Content = {"application/octet-stream": {}, "audio/*": {}, _EVENTS: _STREAMED}
_TRANSCRIPT: Content = {**json_content("ProviderReply"), "text/plain": TEXT, _EVENTS: _STREAMED}
_IMAGES: Content = {**json_content("ProviderReply"), _EVENTS: _STREAMED}
_PASSED = (
    _passed(
        "/v1/messages/count_tokens", {"model": "anthropic/claude-sonnet-5", **_SAID}, request="CountTokensRequest",
        speaks="anthropic",
    ),
    _passed(
        "/v1/completions", {"model": "openai/gpt-3.5-turbo-instruct", "prompt": "Once"},
        answer={**json_content("ProviderReply"), _EVENTS: _STREAMED},
    ),
    _passed("/v1/embeddings", {"model": "openai/text-embedding-3-small", "input": "Rex"}),
    _passed("/v1/audio/speech", {"model": "openai/tts-1", "input": "Rex", "voice": "alloy"}, answer=_BYTES),
    _passed("/v1/audio/transcriptions", None, answer=_TRANSCRIPT, is_form=True),
    _passed("/v1/audio/translations", None, answer=_TRANSCRIPT, is_form=True),
    _passed("/v1/images/generations", {"model": "openai/gpt-image-1", "prompt": "A dog"}, answer=_IMAGES),
    _passed("/v1/images/edits", None, answer=_IMAGES, is_form=True),
    _passed("/v1/images/variations", None, is_form=True),
)  # fmt: skip

OPERATIONS: tuple[Operation, ...] = (
    *_SERVER,
    *_MEMORY,
    *keys.OPERATIONS,
    *providers.OPERATIONS,
    *memories.OPERATIONS,
    *usage.OPERATIONS,
    *mcp.OPERATIONS,
    *_CHAT,
    *_PASSED,
)
