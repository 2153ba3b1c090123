"""What `/openapi.json` says of providers and the keys that accounts store for them.

Must never import a route's handler.
"""

from __future__ import annotations

from typing import get_args

from actors.store.directory_protocol import PROVIDER_KEY_BYTES_MAX
from models.provider_settings import WireFormat
from router.openapi.operation import GUARDED, OPTIONED, Operation, json_content
from router.openapi.options import parameter
from router.openapi.shapes import COUNT, FLAG, TEXT, TIME, Schema, answer, maybe, ref, request_body

PARAMETERS: dict[str, Schema] = {
    "ProviderName": parameter(
        "name", "path", {"type": "string", "minLength": 1}, "Of a provider, as the configuration has it.", "openai"
    ),
    "StoredProviderName": parameter(
        "name", "path", {"type": "string", "minLength": 1}, "Of a provider that a key is stored for.", "openai"
    ),
}

_LAST_FOUR: Schema = {**maybe(TEXT), "description": "Of the stored key; null where it is too short to be shown."}
_SOURCE: Schema = {
    "type": "string",
    "enum": ["account", "server", "none"],
    "description": "Whose key counts where a request brings none.",
}
_CHECK: dict[str, Schema] = {
    "ok": {**FLAG, "description": "The provider takes the key."},
    "status": {**maybe(COUNT), "description": "Of the provider's answer; null for none."},
    "error": {**maybe(TEXT), "description": "The code of what went wrong instead."},
    "checked_at": TIME,
}
_STORED: dict[str, Schema] = {"provider": TEXT, "last_four": _LAST_FOUR, "stored_at": TIME}
_PROVIDERS: Schema = {"type": "array", "items": ref("Provider")}

SCHEMAS: dict[str, Schema] = {
    "ProviderKeyRequest": request_body(
        {
            "key": {"type": "string", "minLength": 1, "maxLength": PROVIDER_KEY_BYTES_MAX, "writeOnly": True},
            "check": {
                **FLAG, "default": False,
                "description": "Ask the provider first; what it refuses is not stored.",
            },
        },
        required=["key"],
    ),
    "Provider": answer(
        {
            "name": TEXT,
            "configured": {**FLAG, "description": "False: only a key of it is still stored."},
            "prefixes": {"type": "array", "items": TEXT, "description": "Of model names, without the slash."},
            "format": {"enum": [*get_args(WireFormat), None]},
            "host": {**maybe(TEXT), "description": "Where its keys are sent."},
            "key_source": _SOURCE,
            "last_four": _LAST_FOUR,
            "stored_at": maybe(TIME),
        }
    ),
    "Providers": answer({"data": _PROVIDERS, "providers": _PROVIDERS}),
    "ProviderKey": answer(_STORED),
    "StoredProviderKey": answer(
        {**_STORED, "check": {"anyOf": [answer(_CHECK), {"type": "null"}], "description": "Null if not asked for."}}
    ),
    "DeletedProviderKey": answer({"provider": TEXT, "deleted": FLAG}),
    "CheckedProviderKey": answer({"provider": TEXT, "key_source": _SOURCE, **_CHECK}),
}  # fmt: skip

_OWNED = (*OPTIONED, 403)
_FOUND = (*_OWNED, 404)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get", path="/v1/providers", name="list_providers", tag="providers",
        summary="Every provider, and whose key counts for this account.",
        answers={200: json_content("Providers")}, errors=_OWNED,
    ),
    Operation(
        method="put", path="/v1/providers/{name}/key", name="put_provider_key", tag="providers",
        summary="Store a provider's key, sealed, for all requests of the account.",
        answers={200: json_content("StoredProviderKey")}, errors=(*GUARDED, 404, 502), parameters=("ProviderName",),
        takes=json_content("ProviderKeyRequest"), example={"key": "sk-example-0123456789"},
    ),
    Operation(
        method="get", path="/v1/providers/{name}/key", name="get_provider_key", tag="providers",
        summary="What is stored of a provider's key: never the key.",
        answers={200: json_content("ProviderKey")}, errors=_FOUND, parameters=("StoredProviderName",),
    ),
    Operation(
        method="post", path="/v1/providers/{name}/key/check", name="check_provider_key", tag="providers",
        summary="Ask the provider whether it takes the key that counts.",
        answers={200: json_content("CheckedProviderKey")}, errors=_FOUND, parameters=("ProviderName",),
    ),
    Operation(
        method="delete", path="/v1/providers/{name}/key", name="delete_provider_key", tag="providers",
        summary="Shred the stored key; the server's counts again, if it has one.",
        answers={200: json_content("DeletedProviderKey")}, errors=(*_FOUND, 507),
        parameters=("StoredProviderName",),
    ),
)  # fmt: skip
