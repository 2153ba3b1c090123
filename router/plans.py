"""Which providers a request may go to, in which order, with whose key.

Owns the rule that a caller's own key goes to the provider that the caller named and to no other (design section 8).
Does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from models.errors import ModelNotFound, NoProviderKey
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


class Planner:
    """Makes plans from the settings. Immutable."""

    def __init__(self, settings: Settings) -> None:
        self._table = RoutingTable(settings.providers.by_name, default=settings.providers.default)
        self._fallbacks = settings.fallbacks

    def plans(
        self, model: str, caller: Caller, call_of: CallOf, client_headers: Sequence[tuple[str, str]]
    ) -> list[Plan]:
        """The provider of this model, and after it those of its fallbacks that this server has keys for.

        Raises:
            ModelNotFound: no provider is configured for the model, or it does not take this format.
            NoProviderKey: there is no key for it.
        """
        plans = [self.plan(model, caller.provider_key, call_of, client_headers)]
        for name in self._fallbacks.get(model, ()):
            try:
                plans.append(self.plan(name, Secret(), call_of, client_headers))
            except (ModelNotFound, NoProviderKey):
                continue
        return plans

    def plan(
        self,
        model: str,
        own_key: Secret,
        call_of: CallOf,
        client_headers: Sequence[tuple[str, str]],
        *,
        content_type: str = "application/json",
    ) -> Plan:
        """The provider of one model.

        Args:
            own_key: the caller's own key for it, or an empty one.

        Raises:
            ModelNotFound, NoProviderKey: as `plans`.
        """
        route = self._table.resolve(model)
        call = call_of(route)
        key = own_key or route.settings.api_key
        # Servers on plain HTTP (Ollama, vLLM) may need none.
        if not key and route.settings.base_url.startswith("https:"):
            raise NoProviderKey(
                f"No API key configured for provider: {route.provider}.",
                hint="Send it in X-Provider-Key, or set it in config.toml or the environment.",
            )
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
