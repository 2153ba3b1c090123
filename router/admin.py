"""What an operator may do to accounts and keys: one place for command line, socket and first start.

Owns minting: a key's text exists here and in the answer, nowhere else. Must never log one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from actors.store.protocol import Directory, KeyRow
from models.errors import InvalidRequest, NotFound, SetupError
from models.ids import hash_key, mint_key, show_key
from models.text import clean
from models.version import VERSION

KEY_NAME_CHARACTERS_MAX = 200


def format_time(timestamp_ms: int) -> str:
    """A time as the API writes it: ISO 8601, UTC, milliseconds, `Z`."""
    when = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def create_account(directory: Directory, *, created_ms: int) -> str:
    """The first start: a new account. Returns its account key, which nobody can read again.

    Raises:
        SetupError: there is an account already.
    """
    if await directory.has_account():
        raise SetupError(
            "the data directory is initialised already.",
            hint="`memoryrouter keys replace-account-key` mends a lost account key.",
        )
    key = mint_key()
    await directory.create_account(key_hash=hash_key(key), shown=show_key(key), created_ms=created_ms)
    return key


async def create_user_key(directory: Directory, account_number: int, *, name: str, created_ms: int) -> dict[str, Any]:
    """A new user key with a vault of its own: `{"key", "name", "created_at"}`.

    Raises:
        InvalidRequest: the name is empty or too long.
    """
    cleaned = clean(name)
    if not 1 <= len(cleaned) <= KEY_NAME_CHARACTERS_MAX:
        raise InvalidRequest(f"name must have 1 to {KEY_NAME_CHARACTERS_MAX} characters.", field="name")
    key = mint_key()
    await directory.create_key(
        account_number, name=cleaned, key_hash=hash_key(key), shown=show_key(key), created_ms=created_ms
    )
    return {"key": key, "name": cleaned, "created_at": format_time(created_ms)}


class Administration:
    """An operator's commands on the account of a data directory. Arguments and answers are plain JSON."""

    def __init__(self, directory: Directory, *, now_ms: Callable[[], int]) -> None:
        self._directory = directory
        self._now_ms = now_ms

    async def perform(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Do one command and return its answer.

        Raises:
            InvalidRequest: no such command, or wrong arguments.
            NotFound: the key that it names does not exist.
            SetupError: there is no account yet.
        """
        match command, arguments:
            case "ping", {}:
                return {"version": VERSION}
            case "keys.create", {"name": str(name)}:
                return await self._create(name)
            case "keys.list", {}:
                return {"keys": [_show(row) for row in await self._directory.list_keys()]}
            case "keys.revoke", {"number": int(number)}:
                return await self._revoke(number)
            case "keys.replace-account-key", {}:
                return await self._replace_account_key()
            case _:
                raise InvalidRequest("no such command, or wrong arguments for it.", field="command")

    async def _create(self, name: str) -> dict[str, Any]:
        account = await self._account_key()
        return await create_user_key(self._directory, account.account_number, name=name, created_ms=self._now_ms())

    async def _revoke(self, number: int) -> dict[str, Any]:
        rows = {row.key_number: row for row in await self._directory.list_keys()}
        if number in rows and rows[number].kind == "account":
            raise InvalidRequest(
                "an account key is replaced, not revoked.",
                field="number",
                hint="Use `memoryrouter keys replace-account-key`.",
            )
        if not await self._directory.revoke_key(number, revoked_ms=self._now_ms()):
            raise NotFound(f"there is no live key with number {number}.")
        return {"revoked": number}

    async def _replace_account_key(self) -> dict[str, Any]:
        await self._account_key()  # an error in words if there is none
        key = mint_key()
        await self._directory.replace_account_key(
            key_hash=hash_key(key), shown=show_key(key), created_ms=self._now_ms()
        )
        return {"account_key": key}

    async def _account_key(self) -> KeyRow:
        for row in await self._directory.list_keys():
            if row.kind == "account":
                return row
        raise SetupError("there is no account yet.", hint="Run `memoryrouter init` or `memoryrouter serve`.")


def _show(row: KeyRow) -> dict[str, Any]:
    return {
        "number": row.key_number,
        "kind": row.kind,
        "name": row.name,
        "key": row.shown,
        "created_at": format_time(row.created_ms),
        "revoked_at": None if row.revoked_ms is None else format_time(row.revoked_ms),
    }
