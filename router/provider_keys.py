"""The providers' keys that an account stores: found for its requests, put, checked, shown and deleted.

One place for the HTTP routes and the command line. Owns what counts as such a key and what a provider's answer says of
it. Must never show more of a key than the store does (its last four characters), log one, or send it anywhere but to
its own provider.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio

from actors.store.directory_protocol import PROVIDER_KEY_BYTES_MAX, Directory
from models.accounts import Actor, ProviderKeyRecord
from models.errors import CorruptRow, InvalidRequest, MemoryRouterError, NotFound, StoreUnavailable, UpstreamError
from models.provider_settings import ProviderSettings, Secret
from models.times import format_time
from router.auth import LOOKUP_TIMEOUT_S
from router.headers import holds_memory_key, is_sendable, request_headers
from router.model_listing import MODEL_LISTS, REPLY_BYTES_MAX
from router.observe import log_event
from router.plans import StoredKeys, no_provider_key
from router.upstream import Upstream

CHECK_TIMEOUT_S = 10.0
"""For the provider's answer to a check, however patient its settings are with chats."""

PROVIDER_NAME_CHARACTERS_MAX = 64
REFUSED_STATUSES = frozenset({400, 401, 403})
"""Answers that say a key is wrong. Google and xAI say 400, to a request in which nothing but the key can be wrong."""

_CHECK_PATHS = {"openrouter": "/key"}
"""Where a key is needed, of providers that list their models to anybody."""

Body = dict[str, Any]


# --- for requests ---


async def find_stored_keys(directory: Directory, account: int, providers: Iterable[str]) -> StoredKeys:
    """What an account has stored for these providers. The directory remembers, so this costs next to nothing.

    It does not fail: why a key cannot be read counts only if the request needs that key.
    """
    found: dict[str, Secret] = {}
    failed: dict[str, MemoryRouterError] = {}
    waiting = dict.fromkeys(providers)
    with trio.move_on_after(LOOKUP_TIMEOUT_S):
        for provider in list(waiting):
            try:
                secret = await directory.find_provider_key(account, provider)
            except CorruptRow:
                log_event("provider_key_damaged", level=logging.ERROR, provider=provider, account=account)
                failed[provider] = _damaged(provider)
            except MemoryRouterError as error:
                failed[provider] = error
            else:
                if secret:
                    found[provider] = secret
            del waiting[provider]
    for provider in waiting:
        failed[provider] = StoreUnavailable(f"The key for the provider {provider} could not be looked up in time.")
    return StoredKeys(found, failed)


def _damaged(provider: str) -> CorruptRow:
    return CorruptRow(
        f"The key that is stored for the provider {provider} is damaged.",
        hint=f"Store it again (PUT /v1/providers/{provider}/key) or delete it; no other key is used in its place.",
    )


# --- for the account's owner, and for the operator ---


class Checked(msgspec.Struct, frozen=True):
    """What a provider said to a key.

    Attributes:
        status: of its answer; None if there was none.
        error: the code of what went wrong instead.
    """

    status: int | None
    error: str | None
    checked_ms: int

    def body(self) -> Body:
        """As JSON. `ok`: the provider took the key."""
        ok = self.status is not None and self.status < 300
        return {"ok": ok, "status": self.status, "error": self.error, "checked_at": format_time(self.checked_ms)}


class ProviderKeys:
    """Providers as one account sees them, and the keys that it stores for them."""

    def __init__(
        self,
        providers: Mapping[str, ProviderSettings],
        directory: Directory,
        upstream: Upstream,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        """Make one.

        Args:
            providers: those that are configured, by name.
            directory: the store's.
            upstream: asks them.
            now_ms: the wall clock.
        """
        self._providers = providers
        self._directory = directory
        self._upstream = upstream
        self._now_ms = now_ms

    async def list(self, account: int) -> Body:
        """Every provider that is configured, or that the account has stored a key for, and whose key counts."""
        stored = {record.provider: record for record in await self._directory.list_provider_keys(account)}
        items = [
            self._item(name, self._providers.get(name), stored.get(name))
            for name in dict.fromkeys([*self._providers, *stored])
        ]
        return {"data": items, "providers": items}

    def _item(self, name: str, settings: ProviderSettings | None, record: ProviderKeyRecord | None) -> Body:
        has_server_key = settings is not None and bool(settings.api_key)
        return {
            "name": name,
            "configured": settings is not None,
            "prefixes": [] if settings is None else [*(settings.prefixes or (name,))],
            "format": None if settings is None else settings.format,
            "host": None if settings is None else urlsplit(settings.base_url).hostname,
            "key_source": "account" if record is not None else "server" if has_server_key else "none",
            "last_four": None if record is None else record.last_four or None,
            "stored_at": None if record is None else format_time(record.created_ms),
        }

    async def get(self, account: int, name: str) -> Body:
        """What is stored of one key.

        Raises:
            NotFound: nothing, or there is no such provider.
        """
        for record in await self._directory.list_provider_keys(account):
            if record.provider == name:
                return _key_item(record)
        self._settings_of(name)
        raise NotFound(f"The account has stored no key for {name}.")

    async def put(self, account: int, name: str, body: Mapping[str, Any], *, by: Actor) -> Body:
        """Store a key in the place of the one before; with `check` only if the provider does not refuse it.

        Raises:
            NotFound: there is no such provider.
            InvalidRequest: no key that can be one; a Memory Key; the provider refuses it.
            UpstreamError: the provider could not be asked, and nothing is stored.
        """
        settings = self._settings_of(name)
        key = read_key(body)
        checks = body.get("check", False)
        if not isinstance(checks, bool):
            raise InvalidRequest("check must be true or false.", field="check")
        checked = None
        if checks:
            checked = await self._ask(name, settings, Secret(key))
            _require_not_refused(name, checked)
        record = await self._directory.put_provider_key(account, name, key, now_ms=self._now_ms(), by=by)
        return {**_key_item(record), "check": None if checked is None else checked.body()}

    async def delete(self, account: int, name: str, *, by: Actor) -> Body:
        """Shred the stored key, also that of a provider that is not configured any more.

        Raises:
            NotFound: nothing is stored, or there is no such provider.
        """
        if name not in self._providers:
            await self.get(account, name)
        await self._directory.delete_provider_key(account, name, now_ms=self._now_ms(), by=by)
        return {"provider": name, "deleted": True}

    async def check(self, account: int, name: str) -> Body:
        """Ask the provider whether it takes the key that the account's requests are sent with.

        Raises:
            NotFound: there is no such provider.
            NoProviderKey: there is no key for it.
            CorruptRow, StoreUnavailable: the stored one cannot be read.
        """
        settings = self._settings_of(name)
        own = (await find_stored_keys(self._directory, account, [name])).key_of(name)
        key = own or settings.api_key
        if not key and settings.base_url.startswith("https:"):
            raise no_provider_key(name)
        checked = await self._ask(name, settings, key)
        source = "account" if own else "server" if key else "none"
        return {"provider": name, "key_source": source, **checked.body()}

    def _settings_of(self, name: str) -> ProviderSettings:
        settings = self._providers.get(name)
        if settings is None:
            shown = name[:PROVIDER_NAME_CHARACTERS_MAX]
            raise NotFound(f"There is no provider `{shown}`.", hint="GET /v1/providers lists them.")
        return settings

    async def _ask(self, name: str, settings: ProviderSettings, key: Secret) -> Checked:
        """List the provider's models: it costs nothing, and needs the key."""
        path, credential = MODEL_LISTS[settings.format]
        path = _CHECK_PATHS.get(name, path)
        status, error = None, None
        with trio.move_on_after(CHECK_TIMEOUT_S) as asking:
            try:
                headers = request_headers([], provider=name, api_key=key, credential=credential)
                async with self._upstream.stream(name, path, headers=headers, body=b"", method="GET") as reply:
                    status = reply.status
                    await reply.read(bytes_max=REPLY_BYTES_MAX)  # so that the connection can be used again
            except MemoryRouterError as failure:
                error = None if status is not None else failure.code
        if asking.cancelled_caught and status is None:
            error = "upstream_timeout"
        return Checked(status, error, self._now_ms())


def read_key(body: Mapping[str, Any]) -> str:
    """The provider's key in a body.

    Raises:
        InvalidRequest: none, one that no provider can have given out, or a Memory Key.
    """
    key = body.get("key")
    if not isinstance(key, str) or not key.strip():
        raise InvalidRequest("key must be the provider's key, a string.", field="key")
    key = key.strip()
    if holds_memory_key(key):
        raise InvalidRequest("key is a Memory Key, not a provider's.", field="key")
    if len(key) > PROVIDER_KEY_BYTES_MAX or not is_sendable(key):
        raise InvalidRequest(
            f"key must have at most {PROVIDER_KEY_BYTES_MAX} characters, printable ASCII only.", field="key"
        )
    return key


def _require_not_refused(name: str, checked: Checked) -> None:
    if checked.status in REFUSED_STATUSES:
        raise InvalidRequest(
            f"The provider {name} refuses this key (status {checked.status}).",
            field="key",
            hint="Nothing was stored. Check the key, or store it unchecked.",
        )
    if checked.status is None or not (checked.status < 300 or 400 <= checked.status < 500):
        said = f"status {checked.status}" if checked.status else checked.error
        raise UpstreamError(
            f"The provider {name} could not be asked about the key ({said}).",
            hint="Nothing was stored. Try again, or store it unchecked.",
        )


def _key_item(record: ProviderKeyRecord) -> Body:
    return {
        "provider": record.provider,
        "last_four": record.last_four or None,
        "stored_at": format_time(record.created_ms),
    }
