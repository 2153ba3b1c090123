"""Which providers a request may go to, in which order, with whose key.

Owns the order in which keys count: the request's own, the one that the account has stored, the server's. And the rule
that a request's own key goes to the provider that the request named and to no other (design section 8). Does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from models.errors import MemoryRouterError, ModelNotFound, NoProviderKey
from models.provider_settings import Secret
from models.settings import Settings
from router.auth import Caller
from router.headers import HeaderList, request_headers
from router.providers.routing import Call, Route, RoutingTable

CallOf = Callable[[Route], Call]
"""How a route's provider is asked in the format of the request; raises ModelNotFound where it cannot be."""


class Plan(msgspec.Struct, frozen=True):
    """One provider to try: where, how, and with which headers."""

    route: Route
    call: Call
    headers: HeaderList


class StoredKeys(msgspec.Struct, frozen=True):
    """The providers' keys that the caller's account has stored, of the providers that a request may go to.

    Attributes:
        found: by provider.
        failed: by provider, why it is not known what the account has stored; no other key may be used in its place.
    """

    found: Mapping[str, Secret] = {}
    failed: Mapping[str, MemoryRouterError] = {}

    def key_of(self, provider: str) -> Secret:
        """The account's key for a provider, an empty one if it has stored none.

        Raises:
            CorruptRow, StoreUnavailable: it cannot be read.
        """
        if provider in self.failed:
            raise self.failed[provider]
        return self.found.get(provider, Secret())


class Planner:
    """Makes plans from the settings. Immutable."""

    def __init__(self, settings: Settings) -> None:
        self._table = RoutingTable(settings.providers.by_name, default=settings.providers.default)
        self._fallbacks = settings.fallbacks

    def providers(self, model: str, own_key: Secret, *, with_fallbacks: bool = True) -> list[str]:
        """The providers whose stored keys a plan may need: not that of the model itself if the request brings a key."""
        models = [] if own_key else [model]
        if with_fallbacks:
            models += self._fallbacks.get(model, ())
        found: dict[str, None] = {}
        for name in models:
            try:
                found[self._table.resolve(name).provider] = None
            except ModelNotFound:
                continue
        return list(found)

    def plans(
        self,
        model: str,
        caller: Caller,
        stored: StoredKeys,
        call_of: CallOf,
        client_headers: Sequence[tuple[str, str]],
    ) -> list[Plan]:
        """The provider of this model, and after it those of its fallbacks that there are keys for.

        Args:
            stored: what the caller's account has stored for `providers(model, caller.provider_key)`.

        Raises:
            ModelNotFound: no provider is configured for the model, or it does not take this format.
            NoProviderKey: there is no key for it.
            CorruptRow, StoreUnavailable: the key that the account has stored for it cannot be read.
        """
        plans = [self.plan(model, caller.provider_key, stored, call_of, client_headers)]
        for name in self._fallbacks.get(model, ()):
            try:
                plans.append(self.plan(name, Secret(), stored, call_of, client_headers))
            except MemoryRouterError:  # not this one, then: none of its reasons is one of the model that was asked for
                continue
        return plans

    def plan(
        self,
        model: str,
        own_key: Secret,
        stored: StoredKeys,
        call_of: CallOf,
        client_headers: Sequence[tuple[str, str]],
        *,
        content_type: str = "application/json",
    ) -> Plan:
        """The provider of one model.

        Args:
            own_key: the caller's own key for it, or an empty one.
            stored: what the caller's account has stored.

        Raises:
            ModelNotFound, NoProviderKey, CorruptRow, StoreUnavailable: as `plans`.
        """
        route = self._table.resolve(model)
        call = call_of(route)
        key = own_key or stored.key_of(route.provider) or route.settings.api_key
        # Servers on plain HTTP (Ollama, vLLM) may need none.
        if not key and route.settings.base_url.startswith("https:"):
            raise no_provider_key(route.provider)
        if call.edit == "translation":  # the version decides what the translator must write, so it is not the client's
            client_headers = [(name, value) for name, value in client_headers if name.lower() != "anthropic-version"]
        headers = request_headers(
            client_headers,
            provider=route.provider,
            api_key=key,
            credential=call.credential,
            content_type=content_type,
        )
        return Plan(route, call, headers)


def no_provider_key(provider: str) -> NoProviderKey:
    """Neither the request nor the account nor the configuration has a key for a provider."""
    return NoProviderKey(
        f"No API key configured for provider: {provider}.",
        hint=f"Send it in X-Provider-Key, store it for the account (PUT /v1/providers/{provider}/key), "
        "or set it in config.toml or the environment.",
    )
