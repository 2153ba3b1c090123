"""Which models there are: asked of the providers that this server has a key for, and remembered for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import trio

from models.errors import MemoryRouterError
from models.memory import LOCAL_RECALL_MODEL
from models.provider_settings import ProviderSettings, Secret
from router.headers import request_headers
from router.providers.routing import Credential
from router.upstream import Upstream

CATALOGUE_AGE_MAX_S = 300.0
FAILURE_AGE_MAX_S = 15.0
"""How long an older list stands in for a provider that gave none, before it is asked again."""

PROVIDER_TIMEOUT_S = 3.0
MODELS_MAX = 5_000
ANTHROPIC_PAGE = 1_000  # the most that it lists at once; it has a few dozen models
REPLY_BYTES_MAX = 4 << 20

_LISTS: dict[str, tuple[str, Credential]] = {
    "openai": ("/models", "bearer"),
    "anthropic": (f"/v1/models?limit={ANTHROPIC_PAGE}", "x-api-key"),
    "google": ("/v1beta/openai/models", "bearer"),
}
"""By wire format: where a provider lists its models, in shapes that agree on `data[].id`, and where its key goes."""


class ModelListing:
    """Model names by provider. A provider that cannot be asked is left out: listing models must not fail."""

    def __init__(
        self,
        providers: Mapping[str, ProviderSettings],
        upstream: Upstream,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._providers = providers
        self._upstream = upstream
        self._clock = clock
        self._known: dict[str, tuple[float, list[str]]] = {}

    async def models(self, caller_key: Secret) -> dict[str, list[str]]:
        """Names as a client would send them, by provider; `local/recall` is always there.

        A caller's own provider key is not used: nobody knows which provider it belongs to.
        """
        found: dict[str, list[str]] = {"local": [LOCAL_RECALL_MODEL]}
        async with trio.open_nursery() as asking:
            for name, provider in self._providers.items():
                if provider.api_key:
                    found[name] = []
                    asking.start_soon(self._ask, name, provider, found)
        return {name: models for name, models in found.items() if models}

    async def _ask(self, name: str, provider: ProviderSettings, found: dict[str, list[str]]) -> None:
        expires_s, models = self._known.get(name, (0.0, []))
        if self._clock() >= expires_s:
            fetched = None
            with trio.move_on_after(PROVIDER_TIMEOUT_S):
                fetched = await self._fetch(name, provider)
            models = models if fetched is None else fetched
            age_max_s = FAILURE_AGE_MAX_S if fetched is None else CATALOGUE_AGE_MAX_S
            self._known[name] = (self._clock() + age_max_s, models)
        prefix = provider.prefixes[0] if provider.prefixes else name
        found[name] = [model if provider.keep_prefix else f"{prefix}/{model}" for model in models]

    async def _fetch(self, name: str, provider: ProviderSettings) -> list[str] | None:
        """The provider's list, or None when it gives none."""
        try:
            path, credential = _LISTS[provider.format]
            headers = request_headers([], provider=name, api_key=provider.api_key, credential=credential)
            async with self._upstream.stream(name, path, headers=headers, body=b"", method="GET") as reply:
                body = await reply.read(bytes_max=REPLY_BYTES_MAX)
            listed: Any = msgspec.json.decode(body)["data"]
            return [str(model["id"]).removeprefix("models/") for model in listed[:MODELS_MAX]]
        except (MemoryRouterError, msgspec.DecodeError, RecursionError, KeyError, TypeError):
            return None
