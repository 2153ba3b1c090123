"""What `/openapi.json` says of keys, vaults, the account and its audit log.

Must never import a route's handler.
"""

from __future__ import annotations

from models.key_limits import KeyLimits
from router.key_bodies import GRACE_S_MAX, KEY_NAME_CHARACTERS_MAX, KINDS, LIMIT_MAX, RETENTION_DAYS_MAX
from router.openapi.operation import GUARDED, OPTIONED, Operation, json_content
from router.openapi.options import parameter
from router.openapi.shapes import COUNT, EPOCH_MS, FLAG, TEXT, TIME, Schema, answer, maybe, ref, request_body


def _id(prefix: str) -> Schema:
    return {"type": "string", "pattern": f"^{prefix}_[1-9][0-9]{{0,17}}$"}


def _path_id(prefix: str, what: str, example: str) -> Schema:
    return parameter("id", "path", {"type": "string", "minLength": 1}, f"Of {what}, as lists say it.", example)


_SWITCH: Schema = {"type": "string", "enum": ["true", "false", "1", "0"]}
_WHEN: Schema = {
    "type": ["integer", "string", "null"],
    "description": "Epoch milliseconds, or ISO 8601 (without an offset in UTC); null for never.",
}
_TIME_GIVEN = "Epoch milliseconds, or ISO 8601; without an offset in UTC."
_NAMED: Schema = {
    "type": "string", "pattern": r"^((key|vault|acct)_[1-9][0-9]{0,17}|[a-z]+(:[^:\s]{1,64})?)$",
}  # fmt: skip
_DAYS: Schema = {"type": ["integer", "null"], "minimum": 1, "maximum": RETENTION_DAYS_MAX}
_LIMIT: Schema = {"type": ["integer", "null"], "minimum": 0, "maximum": LIMIT_MAX}
_NAME: Schema = {"type": ["string", "null"], "maxLength": KEY_NAME_CHARACTERS_MAX}
_SECRET: Schema = {"type": "string", "pattern": r"^mk_[A-Za-z0-9_-]{32}$", "description": "Shown here, never again."}

PARAMETERS: dict[str, Schema] = {
    "KeyId": _path_id("key", "a key", "key_1"),
    "VaultId": _path_id("vault", "a vault", "vault_1"),
    "UserKeyId": _path_id("key", "a key that is not the last account key", "key_2"),
    "KeptVaultId": _path_id("vault", "a vault that no key opens", "vault_2"),
    "PageLimit": parameter(
        "limit", "query", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}, "At most so many.", 20
    ),
    "PageCursor": parameter("cursor", "query", TEXT, "`next_cursor` of the page before."),
    "KeySearch": parameter("search", "query", TEXT, "A part of the name.", "user"),
    "KeyOrder": parameter(
        "order", "query", {"type": "string", "enum": ["asc", "desc"], "default": "asc"}, "By age: oldest first.", "desc"
    ),
    "IncludeRevoked": parameter("include_revoked", "query", _SWITCH, "Whether revoked keys are listed too.", "true"),
    "WithoutKeys": parameter("without_keys", "query", _SWITCH, "Only vaults that no key opens.", "true"),
    "AuditAction": parameter(
        "action", "query", {"type": "string", "pattern": "^[a-z_.]{0,64}$"},
        "What the action begins with: `key.deleted`, or `key` for all that is done to keys.", "key",
    ),
    "AuditSubject": parameter(
        "subject", "query", _NAMED, "What it was done to: `key_12`, `vault_3`, `acct_1`, `provider:openai`.", "key_1"
    ),
    "AuditActor": parameter("actor", "query", _NAMED, "Who did it: `key_12`, `operator` or `server`.", "key_1"),
    "AuditSince": parameter("since", "query", EPOCH_MS, f"Done at this time or later. {_TIME_GIVEN}"),
    "AuditUntil": parameter("until", "query", EPOCH_MS, f"Done before this time. {_TIME_GIVEN}"),
    "VaultFate": parameter(
        "vault", "query", {"type": "string", "enum": ["keep", "delete"], "default": "keep"},
        "What becomes of the key's vault: kept for a key to come, or shredded.", "keep",
    ),
}  # fmt: skip

_KEY: dict[str, Schema] = {
    "id": _id("key"),
    "account_id": _id("acct"),
    "kind": {"type": "string", "enum": list(KINDS)},
    "name": TEXT,
    "prefix": {"type": "string", "description": "The part of the key that may be shown."},
    "state": {"type": "string", "enum": ["live", "disabled", "expired", "revoked"]},
    "created_at": TIME,
    "last_used_at": {**maybe(TIME), "description": "At most a few minutes behind."},
    "expires_at": maybe(TIME),
    "disabled_at": maybe(TIME),
    "revoked_at": maybe(TIME),
    "rotated_to": maybe(_id("key")),
    "vault_id": _id("vault"),
    "vault_memories": {**maybe(COUNT), "description": "Without those that still wait in the inbox; null if unknown."},
    "vault_bytes": maybe(COUNT),
    "limits": ref("KeyLimits"),
}
_LIMITS_REQUEST: Schema = {
    "type": ["object", "null"],
    "description": "The key's own limits; a missing or null one is what the server's settings say, 0 is none.",
    "properties": dict.fromkeys(KeyLimits.__struct_fields__, _LIMIT),
    "additionalProperties": False,
}


def _page(name: str, item: str) -> Schema:
    items: Schema = {"type": "array", "items": ref(item)}
    return answer({"data": items, name: items, "next_cursor": maybe(TEXT)})


SCHEMAS: dict[str, Schema] = {
    "KeyRequest": request_body(
        {
            "name": {**_NAME, "default": "memory key"},
            "kind": {"enum": [*KINDS, None], "description": "A user key only uses its own vault."},
            "vault_id": {**maybe(_id("vault")), "description": "A kept vault to open; a new one unless given."},
            "expires_at": _WHEN,
            "limits": _LIMITS_REQUEST,
        },
        required=[],
    ),
    "KeyChangeRequest": {
        **request_body(
            {"name": {**TEXT, "minLength": 1, "maxLength": KEY_NAME_CHARACTERS_MAX}, "disabled": FLAG,
             "expires_at": _WHEN, "limits": _LIMITS_REQUEST},
            required=[],
        ),
        "anyOf": [{"required": [name]} for name in ("name", "disabled", "expires_at", "limits")],
    },
    "RotateRequest": request_body(
        {
            "grace_s": {
                "type": ["integer", "null"], "minimum": 0, "maximum": GRACE_S_MAX,
                "description": "Seconds that the old key stays valid; `keys.rotation_grace_s` unless given.",
            }
        },
        required=[],
    ),
    "RetentionRequest": request_body({"retention_days": _DAYS}, required=["retention_days"]),
    "AccountChangeRequest": {
        **request_body(
            {"name": {**TEXT, "minLength": 1, "maxLength": KEY_NAME_CHARACTERS_MAX}, "retention_days": _DAYS},
            required=[],
        ),
        "anyOf": [{"required": [name]} for name in ("name", "retention_days")],
    },
    "KeyLimits": answer(dict.fromkeys(KeyLimits.__struct_fields__, maybe(COUNT))),
    "Key": answer(_KEY),
    "CreatedKey": answer({"key": _SECRET, **_KEY}),
    "RotatedKey": answer(
        {"key": _SECRET, **_KEY, "replaces": answer({"id": _id("key"), "valid_until": TIME})}
    ),
    "DeletedKey": answer({"id": _id("key"), "deleted": FLAG, "vault_id": _id("vault"), "vault_deleted": FLAG}),
    "Keys": _page("keys", "Key"),
    "Vault": answer(
        {
            "id": _id("vault"), "account_id": _id("acct"), "created_at": TIME, "live_keys": COUNT,
            "memories": COUNT, "bytes": COUNT,
            "retention_days": {**maybe(COUNT), "description": "Null: as the account says, then the server."},
        }
    ),
    "Vaults": _page("vaults", "Vault"),
    "DeletedVault": answer({"id": _id("vault"), "deleted": FLAG}),
    "Account": answer(
        {
            "id": _id("acct"), "name": TEXT, "created_at": TIME, "disabled_at": maybe(TIME),
            "retention_days": maybe(COUNT), "live_keys": COUNT, "vaults": COUNT,
        }
    ),
    "AuditEntry": answer(
        {
            "id": _id("audit"), "at": TIME, "account_id": maybe(_id("acct")),
            "actor": {"type": "string", "description": "`key:12`, `operator` or `server`."},
            "action": {"type": "string", "description": "For example `key.created`."},
            "target": {"type": "string", "description": "For example `key:13`."},
            "detail": {"type": "object", "additionalProperties": {"type": ["string", "integer", "null"]}},
            "request_id": maybe(TEXT),
        }
    ),
    "AuditLog": _page("entries", "AuditEntry"),
}  # fmt: skip

_OWNED = (*OPTIONED, 403)
_FOUND = (*_OWNED, 404)
_CHANGED = (*GUARDED, 404, 409)
_PAGE = ("PageLimit", "PageCursor")

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get", path="/v1/keys", name="list_keys", tag="keys", summary="The account's keys, oldest first.",
        answers={200: json_content("Keys")}, errors=_OWNED,
        parameters=(*_PAGE, "KeyOrder", "KeySearch", "IncludeRevoked"),
    ),
    Operation(
        method="post", path="/v1/keys", name="create_key", tag="keys",
        summary="Mint a key with a vault of its own, or for a kept vault. Needs an account key.",
        answers={201: json_content("CreatedKey")}, errors=_CHANGED,
        takes=json_content("KeyRequest"), needs_body=False, example={"name": "user:42"},
    ),
    Operation(
        method="get", path="/v1/keys/{id}", name="get_key", tag="keys", summary="One key, also a revoked one.",
        answers={200: json_content("Key")}, errors=_FOUND, parameters=("KeyId",),
    ),
    Operation(
        method="patch", path="/v1/keys/{id}", name="change_key", tag="keys",
        summary="Rename a key, switch it off or on, set its expiry or its limits.",
        answers={200: json_content("Key")}, errors=_CHANGED, parameters=("UserKeyId",),
        takes=json_content("KeyChangeRequest"), example={"name": "user:42", "limits": {"requests_per_minute": 600}},
    ),
    Operation(
        method="post", path="/v1/keys/{id}/rotate", name="rotate_key", tag="keys",
        summary="A new key for the same vault; the old one stays valid for a grace period.",
        answers={201: json_content("RotatedKey")}, errors=_CHANGED, parameters=("KeyId",),
        takes=json_content("RotateRequest"), needs_body=False, example={"grace_s": 600},
    ),
    Operation(
        method="delete", path="/v1/keys/{id}", name="delete_key", tag="keys",
        summary="Revoke a key for good, and keep or shred its vault.",
        answers={200: json_content("DeletedKey")}, errors=(*_FOUND, 409, 507), parameters=("UserKeyId", "VaultFate"),
    ),
    Operation(
        method="get", path="/v1/vaults", name="list_vaults", tag="keys", summary="The account's vaults, oldest first.",
        answers={200: json_content("Vaults")}, errors=_OWNED, parameters=(*_PAGE, "WithoutKeys"),
    ),
    Operation(
        method="get", path="/v1/vaults/{id}", name="get_vault", tag="keys", summary="One vault, in numbers.",
        answers={200: json_content("Vault")}, errors=_FOUND, parameters=("VaultId",),
    ),
    Operation(
        method="patch", path="/v1/vaults/{id}", name="change_vault", tag="keys",
        summary="Set after how many days a vault's memories are deleted.",
        answers={200: json_content("Vault")}, errors=_CHANGED, parameters=("VaultId",),
        takes=json_content("RetentionRequest"), example={"retention_days": 365},
    ),
    Operation(
        method="delete", path="/v1/vaults/{id}", name="delete_vault", tag="keys",
        summary="Shred a vault that no key opens any more.",
        answers={200: json_content("DeletedVault")}, errors=(*_FOUND, 409, 507), parameters=("KeptVaultId",),
    ),
    Operation(
        method="get", path="/v1/account", name="get_account", tag="keys", summary="The account, in numbers.",
        answers={200: json_content("Account")}, errors=_OWNED,
    ),
    Operation(
        method="patch", path="/v1/account", name="change_account", tag="keys",
        summary="Rename the account, or set after how many days memories are deleted.",
        answers={200: json_content("Account")}, errors=_CHANGED,
        takes=json_content("AccountChangeRequest"), example={"retention_days": None},
    ),
    Operation(
        method="get", path="/v1/audit", name="list_audit", tag="keys",
        summary="Who did what to which key or vault, newest first: never content.",
        answers={200: json_content("AuditLog")}, errors=_OWNED,
        parameters=(*_PAGE, "AuditAction", "AuditSubject", "AuditActor", "AuditSince", "AuditUntil"),
    ),
)  # fmt: skip
