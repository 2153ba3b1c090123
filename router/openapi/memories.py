"""What `/openapi.json` says of `/v1/memories`: single memories, listed, stored, changed and deleted.

Must never import a route's handler.
"""

from __future__ import annotations

from typing import get_args

from models.ids import SESSION_ID_CHARACTERS_MAX
from models.memory import Role, Source
from models.screening import FLAGS
from router.memory_queries import DELETED_SINCE_MS_LEAST
from router.openapi.operation import GUARDED, OPTIONED, Operation, json_content
from router.openapi.options import parameter
from router.openapi.shapes import (
    COUNT,
    EPOCH_MS,
    EXTERNAL_ID,
    FLAG,
    METADATA,
    TEXT,
    TIME,
    Schema,
    answer,
    maybe,
    ref,
    request_body,
)

_ID: Schema = {"type": "string", "pattern": r"^mem_[0-9]+$"}
_REQUEST_ID: Schema = {"type": "string", "minLength": 1}
_SESSION_ID: Schema = {"type": ["string", "integer", "null"], "maxLength": SESSION_ID_CHARACTERS_MAX}
_SWITCH: Schema = {"type": "string", "enum": ["true", "false", "1", "0"]}
_DELETED_SINCE: Schema = {**EPOCH_MS, "minimum": DELETED_SINCE_MS_LEAST}
_WHEN = "Epoch milliseconds, or ISO 8601; without an offset in X-Timezone."

PARAMETERS: dict[str, Schema] = {
    "MemoryId": parameter("id", "path", {"type": "string", "minLength": 1}, "As every item says it.", "mem_1"),
    "MemoriesLimit": parameter(
        "limit", "query", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
        "At most so many. A page may hold fewer, even none, and not be the last: `next_cursor` tells.", 20,
    ),
    "MemoriesCursor": parameter(
        "cursor", "query", {"type": "string"},
        "`next_cursor` of the page before. What is stored or deleted meanwhile neither repeats nor skips others.",
    ),
    "MemoriesOrder": parameter(
        "order", "query", {"type": "string", "enum": ["desc", "asc"], "default": "desc"},
        "By the time at which they were said.", "desc",
    ),
    "FilterSession": parameter(
        "session_id", "query", {"type": "string", "maxLength": SESSION_ID_CHARACTERS_MAX},
        "Only this session; wins over X-Session-ID.",
    ),
    "FilterRole": parameter("role", "query", {"type": "string", "enum": list(get_args(Role))}, "Who said it."),
    "FilterSource": parameter(
        "source", "query", {"type": "string", "enum": list(get_args(Source))}, "How it was stored."
    ),
    "FilterModel": parameter("model", "query", {"type": "string"}, "The model that answered."),
    "FilterRequest": parameter("request_id", "query", {"type": "string"}, "What one request stored."),
    "FilterSince": parameter("since", "query", EPOCH_MS, f"Said at this time or later. {_WHEN}"),
    "DeletedSince": parameter("since", "query", _DELETED_SINCE, f"Said at this time or later. {_WHEN}"),
    "FilterUntil": parameter("until", "query", EPOCH_MS, f"Said before this time. {_WHEN}"),
    "FilterWords": parameter(
        "q", "query", {"type": "string", "minLength": 1, "pattern": r"\w"},
        "Memories that hold all of these words, whatever their endings, in the order of time; a search ranks.",
    ),
    "FilterFlagged": parameter("flagged", "query", _SWITCH, "Whether they look planted."),
    "FilterMetadata": {
        **parameter(
            "metadata", "query",
            {"type": "object", "additionalProperties": {"type": "string"}},
            "`metadata.KEY=VALUE` or `metadata[KEY]=VALUE`: exactly this text, number, true, false or null. Several "
            "all have to hold.",
        ),
        "style": "deepObject",
    },
    "DryRun": parameter("dry_run", "query", _SWITCH, "Only count what would be deleted.", "true"),
}  # fmt: skip

_FILTERS = (
    "FilterSession", "FilterRole", "FilterSource", "FilterModel", "FilterRequest", "FilterSince", "FilterUntil",
    "FilterWords", "FilterFlagged",
)  # fmt: skip
_DELETING_FILTERS = tuple("DeletedSince" if name == "FilterSince" else name for name in _FILTERS)
_OPTIONS = ("MemoryMode", "QueryMode", "QueryMemory", "SessionId", "SessionScope", "TimeZone")

SCHEMAS: dict[str, Schema] = {
    "MemoryItem": answer(
        {
            "id": _ID,
            "content": TEXT,
            "role": {"type": "string", "enum": list(get_args(Role))},
            "timestamp": EPOCH_MS,
            "session_id": maybe(TEXT),
            "source": {"type": "string", "enum": list(get_args(Source))},
            "created_at": {**TIME, "description": "When it was said: `timestamp` as text."},
            "stored_at": {**TIME, "description": "When its text was stored."},
            "tokens": COUNT,
            "model": {**maybe(TEXT), "description": "The model that answered."},
            "request_id": {**maybe(TEXT), "description": "The request that stored it."},
            "pending": {**FLAG, "description": "Not embedded yet; found by its words."},
        },
        optional={
            "truncated": {"type": "boolean", "const": True, "description": "`content` is only its beginning."},
            "external_id": TEXT,
            "metadata": {"type": "object"},
            "flagged": {
                "type": "array",
                "items": {"type": "string", "enum": list(FLAGS)},
                "description": "Why it looks planted.",
            },
        },
    ),
    "Memories": answer(
        {
            "data": {"type": "array", "maxItems": 1000, "items": ref("MemoryItem")},
            "memories": {"type": "array", "maxItems": 1000, "items": ref("MemoryItem"), "description": "As `data`."},
            "next_cursor": {**maybe(TEXT), "description": "null after the last page."},
        }
    ),
    "Session": answer(
        {
            "session_id": TEXT,
            "memories": COUNT,
            "tokens": COUNT,
            "first_timestamp": EPOCH_MS,
            "last_timestamp": EPOCH_MS,
            "first_at": {**TIME, "description": "When its first memory was said: `first_timestamp` as text."},
            "last_at": {**TIME, "description": "When its last memory was said: `last_timestamp` as text."},
        }
    ),
    "Sessions": answer(
        {
            "data": {"type": "array", "maxItems": 1000, "items": ref("Session")},
            "sessions": {"type": "array", "maxItems": 1000, "items": ref("Session"), "description": "As `data`."},
            "next_cursor": {**maybe(TEXT), "description": "null after the last page."},
        }
    ),
    "StoreMemoryRequest": request_body(
        {
            "content": {"type": "string", "minLength": 1, "pattern": r"\S"},
            "role": {"enum": ["user", "assistant", "system", None], "description": "system is the user's."},
            "timestamp": {**maybe(EPOCH_MS), "description": "When it was said; now, unless given."},
            "session_id": _SESSION_ID,
            "id": EXTERNAL_ID,
            "metadata": METADATA,
            "model": {"type": ["string", "null"], "description": "The model that answered."},
        },
        required=["content"],
    ),
    "StoredMemory": {
        "anyOf": [
            ref("MemoryItem"),
            {**answer({"id": _ID}), "description": "For who may not read."},
        ]
    },
    "ChangeMemoryRequest": {
        **request_body(
            {
                "content": {"type": "string", "minLength": 1, "pattern": r"\S"},
                "role": {"type": "string", "enum": ["user", "assistant", "system"]},
                "timestamp": EPOCH_MS,
                "session_id": {**_SESSION_ID, "description": "Where it goes; null for no session."},
                "metadata": {**METADATA, "description": f"In place of all there was. {METADATA['description']}"},
            },
            required=[],
        ),
        "minProperties": 1,
        "anyOf": [{"required": [name]} for name in ("content", "role", "timestamp", "session_id", "metadata")],
    },
    "DeletedMemory": answer({"id": _ID, "deleted": {"type": "boolean", "const": True}}),
    "UndoRequest": {
        **request_body(
            {
                "request_id": {**_REQUEST_ID, "description": "`X-Request-Id` of the request that stored them."},
                "since": {
                    "type": ["integer", "string"],
                    "minimum": DELETED_SINCE_MS_LEAST,
                    "maximum": EPOCH_MS["maximum"],
                    "format": "date-time",
                    "description": f"Stored at this time or later; 0 for all. {_WHEN}",
                },
                "dry_run": {"type": ["boolean", "null"]},
                "session_id": _SESSION_ID,
            },
            required=[],
        ),
        "additionalProperties": False,  # a mistyped `dry_run` must not delete
        "oneOf": [{"required": ["request_id"]}, {"required": ["since"]}],
    },
    "DeletedMemories": answer(
        {
            "deleted": COUNT,
            "matched": {**COUNT, "description": "How many were meant; the same, unless it is a dry run."},
            "dry_run": FLAG,
        }
    ),
}

_CHANGED = (*GUARDED, 404)
OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get", path="/v1/memories", name="list_memories", tag="memories",
        summary="Memories in the order of time, a page at a time.",
        answers={200: json_content("Memories")}, errors=OPTIONED,
        parameters=(*_OPTIONS, *_FILTERS, "FilterMetadata", "MemoriesLimit", "MemoriesCursor", "MemoriesOrder"),
        example_query={"q": "dog", "limit": "20"},
    ),
    Operation(
        method="get", path="/v1/sessions", name="list_sessions", tag="memories",
        summary="Sessions of the vault in numbers, the one with the newest memory first, a page at a time.",
        answers={200: json_content("Sessions")}, errors=OPTIONED,
        parameters=(*_OPTIONS, "MemoriesLimit", "MemoriesCursor"), example_query={"limit": "20"},
    ),
    Operation(
        method="post", path="/v1/memories", name="store_memory", tag="memories",
        summary="Store one memory. 201 means durable, and findable by its words; 200, that it is known.",
        answers={200: json_content("StoredMemory"), 201: json_content("StoredMemory")}, errors=(*GUARDED, 402, 404),
        takes=json_content("StoreMemoryRequest"), parameters=_OPTIONS,
        example={"content": "My dog is called Rex.", "id": "note-1", "metadata": {"topic": "pets"}},
    ),
    Operation(
        method="get", path="/v1/memories/{id}", name="get_memory", tag="memories",
        summary="One memory, with its whole content.",
        answers={200: json_content("MemoryItem")}, errors=(*OPTIONED, 403, 404), parameters=(*_OPTIONS, "MemoryId"),
    ),
    Operation(
        method="patch", path="/v1/memories/{id}", name="change_memory", tag="memories",
        summary="Change one memory. A changed text takes the place of the old one at once, of which nothing is kept.",
        answers={200: json_content("MemoryItem")}, errors=_CHANGED, parameters=(*_OPTIONS, "MemoryId"),
        takes=json_content("ChangeMemoryRequest"), example={"content": "My dog was called Rex."},
    ),
    Operation(
        method="post", path="/v1/memories/undo", name="undo", tag="memories",
        summary="Delete what one request stored, or all that was stored since a time.",
        answers={200: json_content("DeletedMemories")}, errors=GUARDED, parameters=(*_OPTIONS, "DryRun"),
        takes=json_content("UndoRequest"), example={"request_id": "req_0123456789abcdef01234567", "dry_run": True},
    ),
    Operation(
        method="delete", path="/v1/memories/{id}", name="delete_memory", tag="memories",
        summary="Delete one memory, for good.",
        answers={200: json_content("DeletedMemory")}, errors=(*OPTIONED, 403, 404, 507),
        parameters=(*_OPTIONS, "MemoryId"),
    ),
    Operation(
        method="delete", path="/v1/memories", name="delete_memories", tag="memories",
        summary="Delete the memories that fulfil a filter, for good. Without any filter it is refused.",
        answers={200: json_content("DeletedMemories")}, errors=GUARDED,
        parameters=(*_OPTIONS, *_DELETING_FILTERS, "FilterMetadata", "DryRun"),
        example_query={"role": "assistant", "dry_run": "true"},
    ),
)  # fmt: skip
