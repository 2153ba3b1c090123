"""What requests may carry beside their own body, for `/openapi.json`: keys, option headers, query and body fields.

Owns the documented names, values and bounds of `router.options` and `router.auth`; the parsers are more lenient (case,
blanks, numbers as text) than what is promised here. Must never document what nobody reads.
"""

from __future__ import annotations

from typing import Any

from models.embedder_settings import BUILT_IN_EMBEDDER
from models.ids import SESSION_ID_CHARACTERS_MAX
from router.options import CHUNKS_MAX, CONTEXT_TOKENS_MAX

Schema = dict[str, Any]

MODES = ["on", "off", "read", "write", "all", "auto", "default", "none", "selective", "true", "false"]
FLAGS = ["true", "false", "1", "0", "on", "off", "yes", "no"]
_DENSITIES = ["low", "default", "high", "xhigh"]
_CHUNKS: Schema = {"type": "integer", "minimum": 0, "maximum": CHUNKS_MAX}
_MODE: Schema = {"type": "string", "enum": MODES}
_FLAG: Schema = {"type": "string", "enum": FLAGS}

# --- keys ---

SECURITY_SCHEMES: dict[str, Schema] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A Memory Key, `mk_...`, optionally with `:read`, `:write` or `:off` behind it. Beside "
        "X-Memory-Key: the provider's own key.",
    },
    "memoryKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Memory-Key",
        "description": "The Memory Key; the other headers may then carry the provider's own key.",
    },
    "anthropicHeader": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "As Anthropic's SDKs send it.",
    },
    "googleHeader": {
        "type": "apiKey",
        "in": "header",
        "name": "x-goog-api-key",
        "description": "As Google's SDKs send it.",
    },
    "azureHeader": {
        "type": "apiKey",
        "in": "header",
        "name": "api-key",
        "description": "As Azure's clients send it.",
    },
    "googleQuery": {
        "type": "apiKey",
        "in": "query",
        "name": "key",
        "description": "As plain Gemini clients send it. URLs end up in logs: prefer a header.",
    },
}
"""In the order in which a Memory Key is looked for (design section 8). Any one of them is enough."""

# --- parameters ---


def parameter(name: str, place: str, schema: Schema, description: str, example: Any = None) -> Schema:
    """One parameter. Those of a path are required, and tests ask for their example."""
    described = {"name": name, "in": place, "description": description, "schema": schema}
    described |= {} if example is None else {"example": example}
    return {**described, "required": True} if place == "path" else described


PARAMETERS: dict[str, Schema] = {
    # Options of memory, as headers.
    "MemoryMode": parameter(
        "X-Memory-Mode", "header", _MODE,
        "What the request may do with memory; the strictest of key suffix, header, query and body wins.", "on",
    ),
    "MemoryStore": parameter("X-Memory-Store", "header", _FLAG, "Whether to store what the user says.", "true"),
    "StoreInput": parameter("X-Store-Input", "header", _FLAG, "The same as X-Memory-Store.", "true"),
    "MemoryStoreResponse": parameter(
        "X-Memory-Store-Response", "header", _FLAG, "Whether to store what the assistant says.", "false"
    ),
    "StoreResponse": parameter("X-Store-Response", "header", _FLAG, "The same as X-Memory-Store-Response.", "false"),
    "SessionId": parameter(
        "X-Session-ID", "header", {"type": "string", "maxLength": SESSION_ID_CHARACTERS_MAX},
        "A tag on memories: with it, reads see that session only. A session_id in the body wins.", "thread-7",
    ),
    "SessionScope": parameter(
        "X-Session-Scope", "header", {"type": "string", "enum": ["session", "vault"]},
        "With a session id: see that session only, or the whole vault with that session preferred.", "vault",
    ),
    "MemoryContextLimit": parameter(
        "X-Memory-Context-Limit", "header", _CHUNKS, "How many chunks a context may have; overrides the density.", 30
    ),
    "ContextLimit": parameter("X-Context-Limit", "header", _CHUNKS, "The same as X-Memory-Context-Limit.", 30),
    "MemoryMaxTokens": parameter(
        "X-Memory-Max-Tokens", "header", {"type": "integer", "minimum": 0, "maximum": CONTEXT_TOKENS_MAX},
        "How many tokens a context may have, as the embedding model counts; the server's own bound holds too. 0: none.",
        2_000,
    ),
    "MemoryDensity": parameter(
        "X-Memory-Density", "header", {"type": "string", "enum": _DENSITIES}, "How much a context may hold.", "high"
    ),
    "MemoryInjection": parameter(
        "X-Memory-Injection", "header", {"type": "string", "enum": ["tail", "system"]},
        "Where memory goes: into the last user message, which keeps prompt caches, or into the system prompt.", "tail",
    ),
    "TimeZone": parameter(
        "X-Timezone", "header", {"type": "string"}, "An IANA name; times in contexts are shown in it.", "Europe/Berlin"
    ),
    "EmbeddingModel": parameter(
        "X-Embedding-Model", "header", {"type": "string"},
        "A configured embedding model. Ingest, upload and DELETE with reset=true give it to the vault, a chat only to "
        "a new one; reads use the vault's own. The answer's header of the same name says which that is.",
        BUILT_IN_EMBEDDER,
    ),
    # The same in the query.
    "QueryMode": parameter("mode", "query", _MODE, "The same as X-Memory-Mode.", "on"),
    "QueryMemory": parameter("memory", "query", _MODE, "The same as X-Memory-Mode.", "on"),
    "QueryStore": parameter("store", "query", _FLAG, "The same as X-Memory-Store.", "true"),
    "QueryStoreResponse": parameter(
        "store_response", "query", _FLAG, "The same as X-Memory-Store-Response.", "false"
    ),
    "QueryLimit": parameter("limit", "query", _CHUNKS, "The same as X-Memory-Context-Limit.", 30),
    # What single routes take.
    "ProviderKey": parameter(
        "X-Provider-Key", "header", {"type": "string", "pattern": "^[ -~]*$"},
        "Your own key for the provider: used for this request, never stored. Wins over one in an SDK's own header.",
    ),
    "Alt": parameter(
        "alt", "query", {"type": "string", "enum": ["sse"]},
        "Stream as server-sent events; without it a stream is one JSON array.", "sse",
    ),
    "Model": parameter(
        "model", "path", {"type": "string", "minLength": 1}, "Google's name of a model.", "gemini-3-pro"
    ),
    "ModelName": parameter(
        "name", "path", {"type": "string", "minLength": 1}, "As `/v1/models` lists it.", "local/recall"
    ),
    "Reset": parameter(
        "reset", "query", {"type": "string", "enum": ["true", "false"]},
        "Taken for the hosted product's clients and given back; here every deletion is complete.", "true",
    ),
    "DeletedSession": parameter(
        "session_id", "query", {"type": "string", "minLength": 1, "maxLength": SESSION_ID_CHARACTERS_MAX},
        "Only this session, as by X-Session-ID; without either, the whole vault.", "thread-7",
    ),
    "After": parameter(
        "after", "query", {"type": "integer", "minimum": 0, "maximum": 2**53 - 1},
        "Begin behind this `seq`: continues an export that was cut.", 0,
    ),
    "ExportSession": parameter(
        "session_id", "query", {"type": "string", "maxLength": SESSION_ID_CHARACTERS_MAX},
        "Only this session; wins over X-Session-ID.", "thread-7",
    ),
    "Vectors": parameter(
        "vectors", "query", {"type": "string", "enum": ["true", "false", "1", "0"]},
        "Whether embeddings come along.", "false",
    ),
}  # fmt: skip
"""By the name that operations refer to them with."""

OPTIONS = (
    "MemoryMode", "MemoryStore", "StoreInput", "MemoryStoreResponse", "StoreResponse", "SessionId", "SessionScope",
    "MemoryContextLimit", "ContextLimit", "MemoryMaxTokens", "MemoryDensity", "MemoryInjection", "TimeZone",
    "EmbeddingModel", "QueryMode", "QueryMemory", "QueryStore", "QueryStoreResponse", "QueryLimit",
)  # fmt: skip
"""Parameters of every route that has to do with memory."""

# --- body fields ---

_BODY_MODE: Schema = {"enum": [True, False, None, *MODES]}
_BODY_FLAG: Schema = {"enum": [True, False, None, *FLAGS]}
_BODY_CHUNKS: Schema = {**_CHUNKS, "type": ["integer", "null"]}

BODY_OPTIONS: Schema = {
    "type": "object",
    "description": "Our own fields in a request's body. They win over query and headers, and never reach a provider.",
    "properties": {
        "memory": {**_BODY_MODE, "description": "As X-Memory-Mode."},
        "memory_mode": {**_BODY_MODE, "description": "As X-Memory-Mode."},
        "memory_store": {**_BODY_FLAG, "description": "Whether to store either side."},
        "memory_store_response": {**_BODY_FLAG, "description": "As X-Memory-Store-Response."},
        "store_input": {**_BODY_FLAG, "description": "As X-Memory-Store."},
        "store_response": {**_BODY_FLAG, "description": "As X-Memory-Store-Response."},
        "memory_limit": {**_BODY_CHUNKS, "description": "As X-Memory-Context-Limit."},
        "context_limit": {**_BODY_CHUNKS, "description": "As X-Memory-Context-Limit; wins over memory_limit."},
        "density": {"enum": [*_DENSITIES, None], "description": "As X-Memory-Density."},
        "session_id": {
            "type": ["string", "integer", "null"],
            "maxLength": SESSION_ID_CHARACTERS_MAX,
            "description": "As X-Session-ID.",
        },
        "embeddings": {"type": ["string", "null"], "description": "As X-Embedding-Model."},
    },
}
