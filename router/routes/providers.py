"""`/v1/providers`: which providers there are, and the keys that an account stores for them.

All of it needs an account key without a suffix, and reaches no further than that key's account.
"""

from __future__ import annotations

from quart import Blueprint, Response

from router.auditing import actor_of
from router.components import Components
from router.provider_keys import ProviderKeys
from router.requests import json_response, read_object, read_owner


def provider_routes(components: Components) -> Blueprint:
    """The blueprint of providers and their keys."""
    routes = Blueprint("providers", __name__)
    api = _ProvidersApi(components)
    routes.get("/v1/providers")(api.list_providers)
    routes.get("/v1/providers/<name>/key")(api.get_key)
    routes.put("/v1/providers/<name>/key")(api.put_key)
    routes.delete("/v1/providers/<name>/key")(api.delete_key)
    routes.post("/v1/providers/<name>/key/check")(api.check_key)
    return routes


class _ProvidersApi:
    """The handlers, over the components."""

    def __init__(self, components: Components) -> None:
        self._parts = components
        self._keys = ProviderKeys(
            components.settings.providers.by_name, components.store, components.upstream, now_ms=components.now_ms
        )

    async def list_providers(self) -> Response:
        """Every provider, and where the key for it comes from."""
        caller = await read_owner(self._parts)
        return json_response(await self._keys.list(caller.principal.account_number))

    async def get_key(self, name: str) -> Response:
        """What is stored: never the key itself."""
        caller = await read_owner(self._parts)
        return json_response(await self._keys.get(caller.principal.account_number, name))

    async def put_key(self, name: str) -> Response:
        """Store a key for all requests of the account."""
        caller = await read_owner(self._parts)
        body = await read_object(self._parts)
        return json_response(await self._keys.put(caller.principal.account_number, name, body, by=actor_of(caller)))

    async def delete_key(self, name: str) -> Response:
        """Shred it."""
        caller = await read_owner(self._parts)
        return json_response(await self._keys.delete(caller.principal.account_number, name, by=actor_of(caller)))

    async def check_key(self, name: str) -> Response:
        """Ask the provider whether it takes the key that counts."""
        caller = await read_owner(self._parts)
        return json_response(await self._keys.check(caller.principal.account_number, name))
