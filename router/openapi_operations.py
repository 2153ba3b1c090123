"""Every operation of the HTTP API, in one table: what `/openapi.json` says of each route.

A test compares it with the routes that the application has. Must never import a route's handler.
"""

from __future__ import annotations

from typing import Any

import msgspec

from models.exports import FORMAT, VERSION, ExportedMemory, ExportHeader, PartWriter
from router.openapi_errors import ErrorFormat
from router.openapi_options import OPTIONS
from router.openapi_schemas import TEXT, Schema, ref

Content = dict[str, Schema]
"""Media types with their schemas."""

_JSON, _EVENTS, _LINES = "application/json", "text/event-stream", "application/x-ndjson"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path.

    Attributes:
        speaks: the wire format of its errors.
        answers: contents by the status of a success, or of an answer with a shape of its own.
        errors: statuses in the wire format's error shape.
        takes: contents of the request's body; empty for none.
        needs_body: False where an empty body does too.
        parameters: names among the documented parameters.
        example: a request that is answered with a success.
        is_open: it needs no key.
        is_proxied: a provider answers, whose status and body come through as they are.
    """

    method: str
    path: str
    name: str
    tag: str
    summary: str
    speaks: ErrorFormat = "own"
    answers: dict[int, Content]
    errors: tuple[int, ...]
    takes: Content = {}
    needs_body: bool = True
    parameters: tuple[str, ...] = ()
    example: Any = None
    is_open: bool = False
    is_proxied: bool = False


def _json(name: str) -> Content:
    return {_JSON: ref(name)}


_KEYED = (401, 500, 503)
_OPTIONED = (400, *_KEYED)
_READ = (400, 401, 413, 415, 500, 503)
_WRITTEN = (*_READ, 507)
_GUARDED = (*_WRITTEN, 403)
_PROXIED = (*_READ, 404, 502, 504)
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
        answers={200: _json("Index")}, errors=(500,), is_open=True,
    ),
    Operation(
        method="get", path="/livez", name="livez", tag="server", summary="The process answers.",
        answers={200: _json("Live")}, errors=(500,), is_open=True,
    ),
    Operation(
        method="get", path="/readyz", name="readyz", tag="server",
        summary="Whether requests would be served; with the reasons while not.",
        answers={200: _json("Ready"), 503: _json("NotReady")}, errors=(500,), is_open=True,
    ),
    Operation(
        method="get", path="/health", name="health", tag="server", summary="Health, as the hosted product tells it.",
        answers={200: _json("Health")}, errors=(500,), is_open=True,
    ),
    Operation(
        method="get", path="/metrics", name="metrics", tag="server", summary="Metrics in Prometheus' text format.",
        answers={200: {"text/plain": TEXT}}, errors=(500,), is_open=True,
    ),
    Operation(
        method="get", path="/openapi.json", name="openapi", tag="server", summary="This document.",
        answers={200: {_JSON: {"type": "object", "required": ["openapi", "info", "paths"]}}}, errors=(500,),
        is_open=True,
    ),
    Operation(
        method="post", path="/v1/keys", name="create_key", tag="keys",
        summary="Mint a user key with a vault of its own. Needs an account key.",
        answers={201: _json("CreatedKey")}, errors=_GUARDED,
        takes=_json("KeyRequest"), needs_body=False, example={"name": "user:42"},
    ),
    Operation(
        method="get", path="/v1/models", name="list_models", tag="models", speaks="openai",
        summary="Every model that could be named, in OpenAI's shape and in the hosted product's.",
        answers={200: _json("Models")}, errors=_KEYED,
    ),
    Operation(
        method="get", path="/v1/models/{name}", name="get_model", tag="models", speaks="openai",
        summary="One of these models.", answers={200: _json("Model")}, errors=(*_KEYED, 404),
        parameters=("ModelName",),
    ),
)  # fmt: skip

_MEMORY = (
    Operation(
        method="post", path="/v1/memory/prepare", name="prepare", tag="memory",
        summary="A ready-to-inject context for a conversation.",
        answers={200: _json("Prepared")}, errors=_READ, takes=_json("PrepareRequest"), parameters=OPTIONS,
        example={"messages": [_QUESTION], "density": "default"},
    ),
    Operation(
        method="post", path="/v1/memory/ingest", name="ingest", tag="memory",
        summary="Remember a finished exchange. 202 means durable, and findable by its words.",
        answers={202: _json("Ingested")}, errors=_WRITTEN, takes=_json("IngestRequest"), parameters=OPTIONS,
        example={"messages": [_USER, _REPLY], "model": "openai/gpt-5.1"},
    ),
    Operation(
        method="post", path="/v1/memory/search", name="search", tag="memory",
        summary="The best memories for a query, best first, without a cut-off.",
        answers={200: _json("Found")}, errors=_READ, takes=_json("SearchRequest"), parameters=OPTIONS,
        example={"query": "dog", "limit": 5},
    ),
    Operation(
        method="post", path="/v1/memory/upload", name="upload", tag="memory",
        summary="Store JSON lines, all or none. 200 means durable, and findable by their words.",
        answers={200: _json("Uploaded")}, errors=_GUARDED, parameters=OPTIONS,
        takes=dict.fromkeys((_LINES, "text/plain", "application/jsonl"), _UPLOAD_LINES),
        example='{"content":"My dog is called Rex.","role":"user","timestamp":1780000000000}\n',
    ),
    Operation(
        method="get", path="/v1/memory/stats", name="stats", tag="memory",
        summary="The vault, or one session of it, in numbers.",
        answers={200: _json("Stats")}, errors=_OPTIONED, parameters=OPTIONS,
    ),
    Operation(
        method="post", path="/v1/memory/warmup", name="warmup", tag="memory", summary="Bring the vault into memory.",
        answers={200: _json("Warm")}, errors=_KEYED,
    ),
    Operation(
        method="delete", path="/v1/memory", name="delete", tag="memory",
        summary="Forget the whole vault, or exactly one session of it.",
        answers={200: _json("Deleted")}, errors=(*_OPTIONED, 403, 507), parameters=(*OPTIONS, "Reset"),
    ),
    Operation(
        method="get", path="/v1/memory/export", name="export", tag="memory",
        summary="The vault, or one session of it, as JSON lines.",
        answers={200: {_LINES: _EXPORT_LINES}}, errors=(*_OPTIONED, 403),
        parameters=(*OPTIONS, "After", "ExportSession", "Vectors"),
    ),
    Operation(
        method="post", path="/v1/memory/import", name="import", tag="memory",
        summary="Store what the vault does not know of an export, all or none.",
        answers={200: _json("Imported")}, errors=_GUARDED, takes={_LINES: _EXPORT_LINES}, parameters=OPTIONS,
        example=_export_example(),
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
        answers={200: answer or {_JSON: ref("ProviderReply"), _EVENTS: _STREAMED}},
        errors=_PROXIED,
        takes=_json(request),
        parameters=(*OPTIONS, "ProviderKey", *parameters),
        example=example,
        is_proxied=True,
    )


_SAID = {"messages": [_QUESTION]}
_CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "What is my dog called?"}]}]}
_CHUNKS: Content = {_JSON: ref("ProviderChunks"), _EVENTS: _STREAMED}
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
            ("generateContent", _json("ProviderReply"), ("Model",)),
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
        answers={200: answer or _json("ProviderReply")},
        errors=_PROXIED,
        takes={"multipart/form-data": ref("FormRequest")} if is_form else _json(request),
        parameters=("ProviderKey",),
        example=None if is_form else example,
        is_proxied=True,
    )


_BYTES: Content = {"application/octet-stream": {}, "audio/*": {}, _EVENTS: _STREAMED}
_TRANSCRIPT: Content = {**_json("ProviderReply"), "text/plain": TEXT, _EVENTS: _STREAMED}
_IMAGES: Content = {**_json("ProviderReply"), _EVENTS: _STREAMED}
_PASSED = (
    _passed(
        "/v1/messages/count_tokens", {"model": "anthropic/claude-sonnet-5", **_SAID}, request="CountTokensRequest",
        speaks="anthropic",
    ),
    _passed(
        "/v1/completions", {"model": "openai/gpt-3.5-turbo-instruct", "prompt": "Once"},
        answer={**_json("ProviderReply"), _EVENTS: _STREAMED},
    ),
    _passed("/v1/embeddings", {"model": "openai/text-embedding-3-small", "input": "Rex"}),
    _passed("/v1/audio/speech", {"model": "openai/tts-1", "input": "Rex", "voice": "alloy"}, answer=_BYTES),
    _passed("/v1/audio/transcriptions", None, answer=_TRANSCRIPT, is_form=True),
    _passed("/v1/audio/translations", None, answer=_TRANSCRIPT, is_form=True),
    _passed("/v1/images/generations", {"model": "openai/gpt-image-1", "prompt": "A dog"}, answer=_IMAGES),
    _passed("/v1/images/edits", None, answer=_IMAGES, is_form=True),
    _passed("/v1/images/variations", None, is_form=True),
)  # fmt: skip

OPERATIONS: tuple[Operation, ...] = (*_SERVER, *_MEMORY, *_CHAT, *_PASSED)
