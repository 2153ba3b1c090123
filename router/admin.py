"""What an operator may do to accounts, keys, vaults and provider keys: one table for the socket and the command line.

Owns the names of the commands and whose account they concern where nobody says. What they do is in
`router.account_keys` and `router.provider_keys`, which HTTP uses too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from actors.store.directory_protocol import Directory
from models.accounts import OPERATOR, KeyRecord
from models.errors import Conflict, InvalidRequest, NotFound, SetupError
from models.settings import Settings
from models.version import VERSION
from router.account_keys import AccountKeys, Retire, new_key, nothing_in_memory
from router.key_bodies import read_name
from router.provider_keys import ProviderKeys
from router.public_ids import number_of
from router.upstream import Upstream

Arguments = Mapping[str, Any]
Body = dict[str, Any]


async def create_account(directory: Directory, *, created_ms: int) -> str:
    """The first start: a new account. Returns its account key, which nobody can read again.

    Raises:
        SetupError: there is an account already.
    """
    key = await first_account_key(directory, created_ms=created_ms)
    if key is None:
        raise SetupError(
            "the data directory is initialised already.",
            hint="`memoryrouter keys replace-account-key` mends a lost account key.",
        )
    return key


async def first_account_key(directory: Directory, *, created_ms: int) -> str | None:
    """The same; None if there is an account already, even if another server makes it at this moment."""
    if await directory.has_account():
        return None
    key, stored = new_key()
    try:
        await directory.create_account(created_ms=created_ms, by=OPERATOR, only_first=True, **stored)
    except Conflict:
        return None
    return key


class Administration:
    """An operator's commands on a data directory. Arguments and answers are plain JSON."""

    def __init__(
        self,
        directory: Directory,
        settings: Settings,
        upstream: Upstream,
        *,
        now_ms: Callable[[], int],
        retire: Retire = nothing_in_memory,
        url: str = "",
    ) -> None:
        """Make one.

        Args:
            directory: the store's.
            settings: for the providers, and for the grace period of rotated keys.
            upstream: asks providers about keys.
            now_ms: the wall clock.
            retire: takes a vault that was shredded out of memory.
            url: where the server that does these commands listens, or "" where none runs.
        """
        self._directory = directory
        self._url = url
        self._keys = AccountKeys(
            directory, now_ms=now_ms, retire=retire, rotation_grace_s=settings.keys.rotation_grace_s
        )
        self._providers = ProviderKeys(settings.providers.by_name, directory, upstream, now_ms=now_ms)
        self._commands: dict[str, Callable[[Arguments], Awaitable[Body]]] = {
            "ping": self._ping,
            "keys.create": self._create_key,
            "keys.list": self._list_keys,
            "keys.show": self._show_key,
            "keys.change": self._change_key,
            "keys.rotate": self._rotate_key,
            "keys.delete": self._delete_key,
            "keys.replace-account-key": self._replace_account_key,
            "vaults.list": self._list_vaults,
            "vaults.show": self._show_vault,
            "vaults.change": self._change_vault,
            "vaults.delete": self._delete_vault,
            "accounts.create": self._create_account,
            "accounts.list": self._list_accounts,
            "accounts.show": self._show_account,
            "accounts.change": self._change_account,
            "accounts.delete": self._delete_account,
            "providers.list": self._list_providers,
            "providers.set": self._set_provider_key,
            "providers.remove": self._remove_provider_key,
            "providers.check": self._check_provider_key,
            "audit.list": self._list_audit,
        }

    async def perform(self, command: str, arguments: Arguments) -> Body:
        """Do one command and return its answer.

        Raises:
            MemoryRouterError: it cannot be done: no such command, wrong arguments, nothing of that number, ...
        """
        function = self._commands.get(command)
        if function is None:
            raise InvalidRequest("no such command.", field="command")
        return await function(arguments)

    async def _ping(self, _: Arguments) -> Body:
        return {"version": VERSION, "url": self._url}

    # Keys.

    async def _create_key(self, arguments: Arguments) -> Body:
        body = {"kind": "user", **arguments, "name": read_name(arguments.get("name"))}
        if arguments.get("account") is None and arguments.get("vault_id") is not None:
            account, _ = await self._vault(arguments, "vault_id")
        else:
            account = await self._account(arguments)
        return await self._keys.create(account, body, by=OPERATOR)

    async def _list_keys(self, arguments: Arguments) -> Body:
        return await self._keys.list(_account_or_all(arguments), _query(arguments))

    async def _show_key(self, arguments: Arguments) -> Body:
        key = await self._key(arguments)
        return await self._keys.get(key.account_number, str(key.number))

    async def _change_key(self, arguments: Arguments) -> Body:
        key = await self._key(arguments)
        return await self._keys.change(key.account_number, str(key.number), arguments, by=OPERATOR)

    async def _rotate_key(self, arguments: Arguments) -> Body:
        key = await self._key(arguments)
        return await self._keys.rotate(key.account_number, str(key.number), arguments, by=OPERATOR)

    async def _delete_key(self, arguments: Arguments) -> Body:
        key = await self._key(arguments)
        fate = _text(arguments, "vault")
        return await self._keys.delete(key.account_number, str(key.number), vault=fate, by=OPERATOR)

    async def _replace_account_key(self, arguments: Arguments) -> Body:
        return await self._keys.replace_account_key(await self._account(arguments), by=OPERATOR)

    async def _key(self, arguments: Arguments) -> KeyRecord:
        """The key that the arguments name, in whichever account; also a revoked one."""
        number = number_of(_text(arguments, "key"), "key")
        for key in await self._directory.list_keys(after=number - 1, limit=1, include_revoked=True):
            if key.number == number:
                return key
        raise NotFound(f"there is no key with number {number}.")

    # Vaults.

    async def _list_vaults(self, arguments: Arguments) -> Body:
        return await self._keys.list_vaults(await self._account(arguments), _query(arguments))

    async def _show_vault(self, arguments: Arguments) -> Body:
        return await self._keys.get_vault(*await self._vault(arguments))

    async def _change_vault(self, arguments: Arguments) -> Body:
        return await self._keys.change_vault(*await self._vault(arguments), arguments, by=OPERATOR)

    async def _delete_vault(self, arguments: Arguments) -> Body:
        return await self._keys.delete_vault(*await self._vault(arguments), by=OPERATOR)

    async def _vault(self, arguments: Arguments, name: str = "vault") -> tuple[int, str]:
        """The account of the vault that the arguments name, and the vault's number as it is written."""
        number = number_of(_text(arguments, name), "vault")
        after = 0
        while accounts := await self._directory.list_accounts(after=after):
            for account in accounts:
                after = account.number
                try:
                    await self._directory.get_vault(account.number, number)
                except NotFound:
                    continue
                return account.number, str(number)
        raise NotFound(f"there is no vault with number {number}.")

    # Accounts.

    async def _create_account(self, arguments: Arguments) -> Body:
        return await self._keys.create_account(arguments, by=OPERATOR)

    async def _list_accounts(self, arguments: Arguments) -> Body:
        return await self._keys.list_accounts(_query(arguments))

    async def _show_account(self, arguments: Arguments) -> Body:
        return await self._keys.account(_named_account(arguments))

    async def _change_account(self, arguments: Arguments) -> Body:
        account, disabled = _named_account(arguments), arguments.get("disabled")
        if isinstance(disabled, bool):
            return await self._keys.switch_account(account, disabled=disabled, by=OPERATOR)
        return await self._keys.change_account(account, arguments, by=OPERATOR)

    async def _delete_account(self, arguments: Arguments) -> Body:
        return await self._keys.delete_account(_named_account(arguments), by=OPERATOR)

    async def _account(self, arguments: Arguments) -> int:
        """The account that the arguments name, else the first one: most servers have no other."""
        if arguments.get("account") is not None:
            return _named_account(arguments)
        for account in await self._directory.list_accounts(limit=1):
            return account.number
        raise SetupError("there is no account yet.", hint="Run `memoryrouter init` or `memoryrouter serve`.")

    # Provider keys, and the log.

    async def _list_providers(self, arguments: Arguments) -> Body:
        return await self._providers.list(await self._account(arguments))

    async def _set_provider_key(self, arguments: Arguments) -> Body:
        account, provider = await self._account(arguments), _text(arguments, "provider")
        return await self._providers.put(account, provider, arguments, by=OPERATOR)

    async def _remove_provider_key(self, arguments: Arguments) -> Body:
        account, provider = await self._account(arguments), _text(arguments, "provider")
        return await self._providers.delete(account, provider, by=OPERATOR)

    async def _check_provider_key(self, arguments: Arguments) -> Body:
        return await self._providers.check(await self._account(arguments), _text(arguments, "provider"))

    async def _list_audit(self, arguments: Arguments) -> Body:
        return await self._keys.audit(_account_or_all(arguments), _query(arguments))


def _text(arguments: Arguments, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is missing.", field=name)
    return value


def _named_account(arguments: Arguments) -> int:
    return number_of(_text(arguments, "account"), "acct")


def _account_or_all(arguments: Arguments) -> int | None:
    return None if arguments.get("account") is None else _named_account(arguments)


def _query(arguments: Arguments) -> dict[str, str]:
    """What of the arguments chooses a part of a list, in the form in which HTTP has it."""
    return {name: str(value) for name, value in arguments.items() if name != "account" and value is not None}
