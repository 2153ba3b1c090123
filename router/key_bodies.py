"""Keys, vaults and accounts in JSON: how bodies ask for them and how answers show them. Pure; knows no Quart, no store.

Must never show a key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from typing import Any

import msgspec
from msgspec import UNSET

from models.accounts import AccountChange, AccountRecord, AuditEntry, AuditFilter, KeyChange, KeyRecord, VaultRecord
from models.errors import InvalidRequest
from models.key_limits import NO_OWN_LIMITS, KeyLimits
from models.text import clean
from models.times import format_time
from router.public_ids import public_id
from router.request_values import parse_time, whole_number

KEY_NAME_CHARACTERS_MAX = 200
LIMIT_MAX = 1_000_000_000
RETENTION_DAYS_MAX = 36_500
GRACE_S_MAX = 30 * 86_400
SEARCH_CHARACTERS_MAX = 200
KINDS = ("user", "account")

_KEY_FIELDS = ("name", "disabled", "expires_at", "limits")
_ACCOUNT_FIELDS = ("name", "retention_days")

_ACTION = re.compile(r"[a-z_.]{0,64}\Z")
_PUBLIC = re.compile(r"(key|vault|acct)_([1-9][0-9]{0,17})\Z")
_AUDITED = re.compile(r"[a-z]+(:[^:\s]{1,64})?\Z")
_TARGETS = {"key": "key", "vault": "vault", "acct": "account"}


# What bodies ask for.


def read_name(value: Any) -> str:
    """A name of a key or an account.

    Raises:
        InvalidRequest: no string, empty, or too long.
    """
    if not isinstance(value, str):
        raise InvalidRequest("name must be a string.", field="name")
    name = clean(value)
    if not 1 <= len(name) <= KEY_NAME_CHARACTERS_MAX:
        raise InvalidRequest(f"name must have 1 to {KEY_NAME_CHARACTERS_MAX} characters.", field="name")
    return name


def read_limits(value: Any) -> KeyLimits:
    """The limits of one key; null for none of its own.

    Raises:
        InvalidRequest: an unknown limit, or one that is no whole number.
    """
    if value is None:
        return NO_OWN_LIMITS
    if not isinstance(value, Mapping):
        raise InvalidRequest("limits must be an object.", field="limits")
    limits: dict[str, int | None] = {}
    for name, limit in value.items():
        if name not in KeyLimits.__struct_fields__:
            names = ", ".join(KeyLimits.__struct_fields__)
            raise InvalidRequest(f"limits.{str(name)[:40]} is no limit.", field="limits", hint=f"Limits are {names}.")
        limits[name] = None if limit is None else whole_number(limit, f"limits.{name}", 0, LIMIT_MAX)
    return KeyLimits(**limits)


def read_expiry(value: Any, *, now_ms: int) -> int | None:
    """When a key ends: epoch milliseconds or ISO 8601; null for never.

    Raises:
        InvalidRequest: no time, or one in the past.
    """
    expires_ms = parse_time(value, "expires_at", UTC)
    if expires_ms is not None and expires_ms <= now_ms:
        raise InvalidRequest("expires_at lies in the past.", field="expires_at", hint="To end a key now, delete it.")
    return expires_ms


def read_key_change(body: Mapping[str, Any], *, now_ms: int) -> KeyChange:
    """What a body asks to change of a key.

    Raises:
        InvalidRequest: nothing, or a value that cannot be one.
    """
    _require_one_of(body, _KEY_FIELDS)
    disabled = body.get("disabled", UNSET)
    if disabled is not UNSET and not isinstance(disabled, bool):
        raise InvalidRequest("disabled must be true or false.", field="disabled")
    return KeyChange(
        name=read_name(body["name"]) if "name" in body else UNSET,
        disabled=disabled,
        expires_ms=read_expiry(body["expires_at"], now_ms=now_ms) if "expires_at" in body else UNSET,
        limits=read_limits(body["limits"]) if "limits" in body else UNSET,
    )


def read_account_change(body: Mapping[str, Any]) -> AccountChange:
    """What a body asks to change of an account.

    Raises:
        InvalidRequest: nothing, or a value that cannot be one.
    """
    _require_one_of(body, _ACCOUNT_FIELDS)
    return AccountChange(
        name=read_name(body["name"]) if "name" in body else UNSET,
        retention_days=read_retention(body) if "retention_days" in body else UNSET,
    )


def read_retention(body: Mapping[str, Any]) -> int | None:
    """After how many days memories are deleted; null for what stands above: the account, then the server.

    Raises:
        InvalidRequest: missing, or no whole number of days.
    """
    _require_one_of(body, ("retention_days",))
    value = body["retention_days"]
    return None if value is None else whole_number(value, "retention_days", 1, RETENTION_DAYS_MAX)


def read_grace_s(body: Mapping[str, Any], *, default_s: int) -> int:
    """How long a rotated key stays valid, in seconds.

    Raises:
        InvalidRequest: no whole number, or out of range.
    """
    value = body.get("grace_s")
    return default_s if value is None else whole_number(value, "grace_s", 0, GRACE_S_MAX)


def read_audit_filter(query: Mapping[str, str]) -> AuditFilter:
    """Which entries of the audit log a query asks for. Ids stand as clients know them, or as entries name them.

    Raises:
        InvalidRequest: a value that no entry could have.
    """
    action = query.get("action", "")
    if not _ACTION.match(action):
        raise InvalidRequest("action must be the beginning of one, like key. or key.deleted.", field="action")
    return AuditFilter(
        action=action,
        target=_audited(query, "subject", "key_12, vault_3, acct_1 or provider:openai"),
        actor=_audited(query, "actor", "key_12, operator or server"),
        since_ms=parse_time(query.get("since"), "since", UTC),
        until_ms=parse_time(query.get("until"), "until", UTC),
    )


def _audited(query: Mapping[str, str], name: str, examples: str) -> str:
    """Whom or what a query names, as entries do."""
    value = query.get(name, "")
    if (public := _PUBLIC.match(value)) is not None:
        return f"{_TARGETS[public[1]]}:{public[2]}"
    if value and not _AUDITED.match(value):
        raise InvalidRequest(f"{name} must be one of {examples}.", field=name)
    return value


def _require_one_of(body: Mapping[str, Any], fields: tuple[str, ...]) -> None:
    if not any(name in body for name in fields):
        raise InvalidRequest(f"Nothing is changed: send at least one of {', '.join(fields)}.", field="body")


# What answers show.


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_time(at_ms)


def key_item(key: KeyRecord, *, now_ms: int, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """One key: never the key itself. `size` is its vault's (memories, bytes), where known."""
    memories, size_bytes = (None, None) if size is None else size
    return {
        "id": public_id("key", key.number),
        "account_id": public_id("acct", key.account_number),
        "kind": key.kind,
        "name": key.name,
        "prefix": key.shown,
        "state": key.state(now_ms),
        "created_at": format_time(key.created_ms),
        "last_used_at": _time(key.last_used_ms),
        "expires_at": _time(key.expires_ms),
        "disabled_at": _time(key.disabled_ms),
        "revoked_at": _time(key.revoked_ms),
        "rotated_to": None if key.rotated_to is None else public_id("key", key.rotated_to),
        "vault_id": public_id("vault", key.vault.number),
        "vault_memories": memories,
        "vault_bytes": size_bytes,
        "limits": limits_body(key.limits),
    }


def limits_body(limits: KeyLimits) -> dict[str, int | None]:
    """A key's own limits; null where the server's settings count."""
    return msgspec.structs.asdict(limits)


def vault_item(vault: VaultRecord) -> dict[str, Any]:
    """One vault, in numbers."""
    return {
        "id": public_id("vault", vault.vault.number),
        "account_id": public_id("acct", vault.account_number),
        "created_at": format_time(vault.created_ms),
        "live_keys": vault.live_keys,
        "memories": vault.memories,
        "bytes": vault.content_bytes,
        "retention_days": vault.retention_days,
    }


def account_item(account: AccountRecord) -> dict[str, Any]:
    """One account, in numbers."""
    return {
        "id": public_id("acct", account.number),
        "name": account.name,
        "created_at": format_time(account.created_ms),
        "disabled_at": _time(account.disabled_ms),
        "retention_days": account.retention_days,
        "live_keys": account.live_keys,
        "vaults": account.vaults,
    }


def audit_item(entry: AuditEntry) -> dict[str, Any]:
    """One line of the audit log."""
    return {
        "id": public_id("audit", entry.number),
        "at": format_time(entry.at_ms),
        "account_id": None if entry.account_number is None else public_id("acct", entry.account_number),
        "actor": entry.actor,
        "action": entry.action,
        "target": entry.target,
        "detail": entry.detail,
        "request_id": entry.request_id,
    }
