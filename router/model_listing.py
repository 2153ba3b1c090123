"""Which models there are: asked of the providers that there is a key for, and remembered for a while.

Owns the memory of these lists: each belongs to one key, and a stored key's to the account that has stored it, so that
nobody sees what another account's key opens. Must never keep a key.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import trio

from models.errors import MemoryRouterError
from models.memory import LOCAL_RECALL_MODEL
from models.provider_settings import ProviderSettings, Secret
from router.headers import request_headers
from router.plans import StoredKeys
from router.providers.routing import Credential
from router.upstream import Upstream

CATALOGUE_AGE_MAX_S = 300.0
FAILURE_AGE_MAX_S = 15.0
"""How long an older list stands in for a provider that gave none, before it is asked again."""

PROVIDER_TIMEOUT_S = 3.0
MODELS_MAX = 5_000
REMEMBERED_NAMES_MAX = 100_000
"""Of all lists together, some ten megabytes; the list that was asked for least recently is forgotten first."""

ANTHROPIC_PAGE = 1_000  # the most that it lists at once; it has a few dozen models
REPLY_BYTES_MAX = 4 << 20

MODEL_LISTS: dict[str, tuple[str, Credential]] = {
    "openai": ("/models", "bearer"),
    "anthropic": (f"/v1/models?limit={ANTHROPIC_PAGE}", "x-api-key"),
    "google": ("/v1beta/openai/models", "bearer"),
}
"""By wire format: where a provider lists its models, in shapes that agree on `data[].id`, and where its key goes."""


_Place = tuple[int | None, str, bytes]
"""Whose list: the account that has stored the key (None: the server's key), the provider, the key's SHA-256."""


class _List(msgspec.Struct, frozen=True):
    expires_s: float
    models: list[str]


class ModelListing:
    """Model names by provider. A provider that cannot be asked is left out: listing models must not fail."""

    def __init__(
        self,
        providers: Mapping[str, ProviderSettings],
        upstream: Upstream,
        *,
        names_max: int = REMEMBERED_NAMES_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._providers = providers
        self._upstream = upstream
        self._names_max = names_max
        self._clock = clock
        self._known: OrderedDict[_Place, _List] = OrderedDict()
        self._names = 0

    async def models(self, account: int, stored: StoredKeys) -> dict[str, list[str]]:
        """Names as a client would send them, by provider; `local/recall` is always there.

        A provider key that came with the request is not used: nobody knows which provider it belongs to.

        Args:
            account: the caller's.
            stored: what it has stored, for all providers. Those whose keys could not be read are left out.
        """
        found: dict[str, list[str]] = {"local": [LOCAL_RECALL_MODEL]}
        async with trio.open_nursery() as asking:
            for name, provider in self._providers.items():
                if name in stored.failed:
                    continue
                own = stored.key_of(name)
                key = own or provider.api_key
                if key:
                    found[name] = []
                    asking.start_soon(self._ask, name, key, account if own else None, found)
        return {name: models for name, models in found.items() if models}

    async def _ask(self, name: str, key: Secret, account: int | None, found: dict[str, list[str]]) -> None:
        provider = self._providers[name]
        place = (account, name, hashlib.sha256(key.reveal().encode()).digest())
        known = self._known.get(place, _List(0.0, []))
        if self._clock() >= known.expires_s:
            fetched = None
            with trio.move_on_after(PROVIDER_TIMEOUT_S):
                fetched = await self._fetch(name, provider, key)
            age_max_s = FAILURE_AGE_MAX_S if fetched is None else CATALOGUE_AGE_MAX_S
            known = _List(self._clock() + age_max_s, known.models if fetched is None else fetched)
            self._remember(place, known)
        else:
            self._known.move_to_end(place)
        prefix = provider.prefixes[0] if provider.prefixes else name
        found[name] = [model if provider.keep_prefix else f"{prefix}/{model}" for model in known.models]

    def _remember(self, place: _Place, known: _List) -> None:
        """An empty list counts as one name."""
        before = self._known.pop(place, None)
        if before is not None:
            self._names -= max(len(before.models), 1)
        self._known[place] = known
        self._names += max(len(known.models), 1)
        while self._names > self._names_max and len(self._known) > 1:
            _, oldest = self._known.popitem(last=False)
            self._names -= max(len(oldest.models), 1)

    async def _fetch(self, name: str, provider: ProviderSettings, key: Secret) -> list[str] | None:
        """The provider's list, or None when it gives none."""
        try:
            path, credential = MODEL_LISTS[provider.format]
            headers = request_headers([], provider=name, api_key=key, credential=credential)
            async with self._upstream.stream(name, path, headers=headers, body=b"", method="GET") as reply:
                body = await reply.read(bytes_max=REPLY_BYTES_MAX)
            listed: Any = msgspec.json.decode(body)["data"]
            return [str(model["id"]).removeprefix("models/") for model in listed[:MODELS_MAX]]
        except (MemoryRouterError, msgspec.DecodeError, RecursionError, KeyError, TypeError):
            return None
