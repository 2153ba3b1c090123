"""The shapes in `/openapi.json`: what our own routes take and give, and as much of the providers' as we look at.

Types that exist as Structs are taken from those; the rest is written by hand, since routes build plain dictionaries.
Our own answers are closed (no field beside those listed), so that a test notices when one is added and not documented.
"""

from __future__ import annotations

from typing import get_args

import msgspec

from models.exports import ExportedMemory, ExportEnd, ExportHeader
from models.memory import Role, Source
from router.openapi import health, keys, mcp, memories, providers, usage
from router.openapi.options import BODY_OPTIONS
from router.openapi.shapes import (
    COUNT,
    EPOCH_MS,
    EXTERNAL_ID,
    FLAG,
    FLAGGED,
    METADATA,
    MILLISECONDS,
    TEXT,
    TIME,
    Schema,
    answer,
    const,
    maybe,
    ref,
    request_body,
    with_options,
)
from router.options import CHUNKS_MAX
from router.routes.memory import SEARCH_LIMIT_DEFAULT, SEARCH_LIMIT_MAX

# --- what our own routes take ---

_CONTENT: Schema = {
    "type": ["string", "array", "null"],
    "description": "Text, or parts as the SDKs have them. Null and unknown parts say nothing.",
    "items": {
        "type": ["object", "string"],
        "properties": {"type": TEXT, "text": {"type": ["string", "null"]}},
        "additionalProperties": True,
    },
}
_MESSAGE = request_body(
    {
        "role": {"type": "string", "minLength": 1, "description": "Those other than user and assistant are not kept."},
        "content": _CONTENT,
        "id": EXTERNAL_ID,
        "timestamp": {**maybe(EPOCH_MS), "description": "When it was said; now, unless given."},
        "metadata": METADATA,
        "memory": {"description": "false: do not store this message."},
    },
    required=["role"],
)
_EXPLAIN: Schema = {
    "type": ["boolean", "null"],
    "default": False,
    "description": "Say of each memory what placed it: its features, their weights, its relevance and its rank.",
}
_MESSAGES: Schema = {"type": "array", "minItems": 1, "items": ref("Message")}
_REQUESTS: dict[str, Schema] = {
    "MemoryOptions": BODY_OPTIONS,
    "Message": _MESSAGE,
    "PrepareRequest": with_options(
        request_body({"messages": _MESSAGES, "explain": _EXPLAIN}, required=["messages"]),
    ),
    "IngestRequest": with_options(
        request_body(
            {
                "messages": _MESSAGES,
                "model": {"type": ["string", "null"], "description": "The model that answered."},
            },
            required=["messages"],
        )
    ),
    "SearchRequest": with_options(
        request_body(
            {
                "query": {"type": "string", "minLength": 1, "pattern": r"\S"},
                "limit": {
                    "type": ["integer", "null"],
                    "minimum": 1,
                    "maximum": SEARCH_LIMIT_MAX,
                    "default": SEARCH_LIMIT_DEFAULT,
                },
                "explain": _EXPLAIN,
            },
            required=["query"],
        )
    ),
    "UploadLine": request_body(
        {
            "content": {"type": "string", "minLength": 1, "pattern": r"\S"},
            "role": {"enum": ["user", "assistant", "system", None], "description": "A system line is the user's."},
            "timestamp": {**maybe(EPOCH_MS), "description": "When it was said; now, unless given."},
            "session_id": BODY_OPTIONS["properties"]["session_id"],
            "id": EXTERNAL_ID,
            "metadata": METADATA,
        },
        required=["content"],
    ),
}

# --- what our own routes give ---

_SHOWN_KEY: Schema = {"type": "string", "description": "The part of the Memory Key that may be shown."}
_STORED = dict.fromkeys(("inputItems", "chunks", "stored", "duplicates", "failed", "total", "processed"), COUNT)
_NUMBERS: Schema = {"type": "object", "additionalProperties": {"type": "number"}}
_INDEX: Schema = {"type": "object", "additionalProperties": {"type": "integer"}}


def _stored_answer(*, optional: dict[str, Schema], counted: dict[str, Schema]) -> Schema:
    return answer(
        {
            "status": const("complete"),
            "memoryKey": _SHOWN_KEY,
            "vault": {"type": "string", "enum": ["core", "session"]},
            "stats": answer({**_STORED, **counted}),
            "message": TEXT,
        },
        optional=optional,
    )


_ANSWERS: dict[str, Schema] = {
    "Prepared": answer(
        {
            "context": {
                "type": ["string", "null"],
                "description": "Ready to inject, inside `<memory_context>`; null when nothing is relevant.",
            },
            "memories_found": {**COUNT, "description": "Chunks that were found; short turns beside them do not count."},
            "memory_ids": {
                "type": "array",
                "items": {"type": "string"},
                "description": "All that is in the context, best first, short turns beside what was found last.",
            },
            "memory_tokens": COUNT,
            "retrieval_tokens": COUNT,
            "tokens_billed": COUNT,
            "metrics": answer({"total_ms": MILLISECONDS, "embedding_ms": MILLISECONDS}),
        },
        optional={
            "memories": {
                "type": "array",
                "maxItems": CHUNKS_MAX,
                "items": ref("Memory"),
                "description": "With `explain`: what the context is made of, best first.",
            }
        },
    ),
    "Ingested": answer(
        {
            "accepted": {**FLAG, "description": "Durable, and findable by its words."},
            "queued": FLAG,
            "retrieval_tokens": COUNT,
            "response_tokens": COUNT,
            "message": TEXT,
        },
        optional={"reason": {**TEXT, "description": "Why nothing was stored."}},
    ),
    "Found": answer(
        {
            "memories": {"type": "array", "maxItems": SEARCH_LIMIT_MAX, "items": ref("Memory")},
            "count": COUNT,
            "metrics": answer({"total_ms": MILLISECONDS}),
        }
    ),
    "Memory": answer(
        {
            "id": {"type": "string", "pattern": r"^mem_[0-9]+$"},
            "content": TEXT,
            "matched": {**TEXT, "description": "The chunk that scored."},
            "role": {"type": "string", "enum": list(get_args(Role))},
            "timestamp": EPOCH_MS,
            "session_id": maybe(TEXT),
            "score": {"type": "number", "minimum": 0, "maximum": 1},
            "source": {"type": "string", "enum": list(get_args(Source))},
        },
        optional={
            "truncated": {"type": "boolean", "const": True, "description": "`content` is only its beginning."},
            "external_id": TEXT,
            "metadata": {"type": "object"},
            "flagged": FLAGGED,
            "explanation": ref("Explanation"),
        },
    ),
    "Explanation": answer(
        {
            "features": {**_NUMBERS, "description": "What was measured of the memory, by name."},
            "weights": {**_NUMBERS, "description": "What each feature is worth, in log-odds per unit."},
            "relevance": {"type": "number", "minimum": 0, "maximum": 1, "description": "As `score`."},
            "rank": {"type": "integer", "minimum": 1},
        }
    ),
    "Uploaded": _stored_answer(optional={"sessionId": TEXT}, counted={"inputTokens": COUNT}),
    "Imported": _stored_answer(optional={}, counted={}),
    "Stats": answer(
        {
            "key": _SHOWN_KEY,
            "memories": COUNT,
            "pending": {**COUNT, "description": "Not embedded yet; found by their words."},
            "flagged": {**COUNT, "description": "Memories that look planted."},
            **dict.fromkeys(("chunks", "sessions", "stored", "duplicates", "total_tokens", "totalTokens"), COUNT),
            **dict.fromkeys(("totalVectors", "vectorCount", "hotVectors", "dims"), COUNT),
            "embedding": {
                **answer(
                    {
                        "model": TEXT,
                        "model_id": maybe(TEXT),
                        "pending": COUNT,
                        "total": COUNT,
                        "progress": {"type": "number", "minimum": 0, "maximum": 1},
                    }
                ),
                "description": "The vault's embedding model, and how many of its memories it has yet to embed. "
                "`model_id` is null and `dims` 0 while an endpoint has not said yet what it is.",
            },
            "storage": const("sqlite"),
            **dict.fromkeys(("oldestItem", "newestItem"), maybe(EPOCH_MS)),
            **dict.fromkeys(("oldest", "newest", "oldestMemory", "newestMemory"), maybe(TIME)),
            **dict.fromkeys(("createdAt", "lastAccess"), EPOCH_MS),
            "kronos_config": {"type": "null"},
            "index": _INDEX,
        }
    ),
    "Warm": answer(
        {
            "status": const("warm"),
            "key": _SHOWN_KEY,
            "vaults": {
                "type": "array",
                "items": answer({"vault": const("core"), "vectors": COUNT, "timeMs": MILLISECONDS}),
            },
            "totalVectors": COUNT,
            "warmupTimeMs": MILLISECONDS,
            "memories_loaded": COUNT,
            "warmup_ms": MILLISECONDS,
        }
    ),
    "Deleted": answer(
        {"key": _SHOWN_KEY, "sessionCleared": FLAG, "deleted": FLAG, "d1Synced": FLAG, "reset": FLAG, "message": TEXT}
    ),
    "Index": answer(
        {
            **dict.fromkeys(("name", "version", "runtime", "status", "storage", "docs"), TEXT),
            "endpoints": answer({"chat": TEXT, "memory": TEXT}),
        }
    ),
    "Live": answer({"status": const("ok")}),
    "Health": answer(
        {
            "status": const("healthy"),
            "timestamp": TIME,
            **dict.fromkeys(("environment", "storage", "version"), TEXT),
        }
    ),
    "Model": answer({"id": TEXT, "object": const("model"), "created": COUNT, "owned_by": TEXT}),
    "Models": answer(
        {
            "object": const("list"),
            "data": {"type": "array", "items": ref("Model")},
            "providers": {
                "type": "array",
                "items": answer({"provider": TEXT, "models": {"type": "array", "items": TEXT}}),
            },
            "models": {"type": "array", "items": TEXT},
            "default": TEXT,
            "catalog_updated": TIME,
        }
    ),
    "ExportError": answer({"error": TEXT, "code": TEXT}),
}

# --- what goes to providers and comes back ---


def _forwarded(properties: dict[str, Schema], *, required: list[str]) -> Schema:
    return with_options(
        {
            **request_body(properties, required=required),
            "description": "Everything else is passed on as it comes.",
        }
    )


_MODEL: Schema = {
    "type": "string",
    "minLength": 1,
    "pattern": r"\S",
    "description": "With the provider before it, as in `openai/gpt-5.1`, or a well-known name without.",
}
_STREAM: Schema = {"type": ["boolean", "null"]}
_TURN = request_body(
    {
        "role": {"type": "string", "minLength": 1},
        "content": {"type": ["string", "array", "null"], "items": {"type": "object"}},
        "memory": {"description": "false: do not store this message. Not sent on."},
    },
    required=["role"],
)
_TURNS: Schema = {"type": "array", "minItems": 1, "items": ref("Turn")}
_SAID: Schema = {"type": "object", "description": "What the provider answered, byte for byte."}

_FORWARDED: dict[str, Schema] = {
    "Turn": _TURN,
    "ChatRequest": _forwarded({"model": _MODEL, "messages": _TURNS, "stream": _STREAM}, required=["model", "messages"]),
    "ResponsesRequest": _forwarded(
        {"model": _MODEL, "input": {"type": ["string", "array"], "items": {"type": "object"}}, "stream": _STREAM},
        required=["model"],
    ),
    "MessagesRequest": _forwarded(
        {"model": _MODEL, "messages": _TURNS, "max_tokens": {"type": "integer"}, "stream": _STREAM},
        required=["model", "messages", "max_tokens"],
    ),
    "CountTokensRequest": _forwarded({"model": _MODEL, "messages": _TURNS}, required=["model", "messages"]),
    "GenerateRequest": _forwarded(
        {
            "contents": {
                "type": "array",
                "minItems": 1,
                "items": request_body(
                    {"role": TEXT, "parts": {"type": "array", "items": {"type": "object"}}, "memory": {}}, required=[]
                ),
            }
        },
        required=["contents"],
    ),
    "ModelRequest": _forwarded({"model": _MODEL}, required=["model"]),
    "FormRequest": request_body({"model": _MODEL, "file": {"type": "string", "format": "binary"}}, required=["model"]),
    "ProviderReply": _SAID,
    "ProviderChunks": {"type": "array", "items": {"type": "object"}, "description": "The reply in pieces."},
}


def schemas() -> dict[str, Schema]:
    """Every schema that is not an error, by name."""
    _, exported = msgspec.json.schema_components(
        (ExportHeader, ExportedMemory, ExportEnd), ref_template="#/components/schemas/{name}"
    )
    return {
        **_REQUESTS,
        **_ANSWERS,
        **health.SCHEMAS,
        **keys.SCHEMAS,
        **providers.SCHEMAS,
        **memories.SCHEMAS,
        **usage.SCHEMAS,
        **mcp.SCHEMAS,
        **_FORWARDED,
        **exported,
    }
