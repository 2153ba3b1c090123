"""`/v1/keys`, `/v1/vaults`, `/v1/account`, `/v1/audit`: what an account's owner sees and changes.

All of it needs an account key without a suffix, and reaches no further than that key's account.
"""

from __future__ import annotations

from quart import Blueprint, Response, request

from router.account_keys import AccountKeys
from router.auditing import actor_of, to_the_end
from router.components import Components
from router.key_bodies import limits_body
from router.requests import json_response, read_object, read_owner


def key_routes(components: Components) -> Blueprint:
    """The blueprint of keys, vaults, the account and its audit log."""
    routes = Blueprint("keys", __name__)
    api = _KeysApi(components)
    routes.get("/v1/keys")(api.list_keys)
    routes.post("/v1/keys")(api.create_key)
    routes.get("/v1/keys/<key_id>")(api.get_key)
    routes.patch("/v1/keys/<key_id>")(api.change_key)
    routes.delete("/v1/keys/<key_id>")(api.delete_key)
    routes.post("/v1/keys/<key_id>/rotate")(api.rotate_key)
    routes.get("/v1/vaults")(api.list_vaults)
    routes.get("/v1/vaults/<vault_id>")(api.get_vault)
    routes.patch("/v1/vaults/<vault_id>")(api.change_vault)
    routes.delete("/v1/vaults/<vault_id>")(api.delete_vault)
    routes.get("/v1/account")(api.account)
    routes.patch("/v1/account")(api.change_account)
    routes.get("/v1/audit")(api.audit)
    return routes


class _KeysApi:
    """The handlers, over the components."""

    def __init__(self, components: Components) -> None:
        self._parts = components
        self._keys = AccountKeys(
            components.store,
            now_ms=components.now_ms,
            retire=components.retire,
            rotation_grace_s=components.settings.keys.rotation_grace_s,
        )

    async def list_keys(self) -> Response:
        """The account's keys, oldest first: never the keys themselves."""
        caller = await read_owner(self._parts)
        return json_response(await self._keys.list(caller.principal.account_number, request.args))

    async def create_key(self) -> Response:
        """Mint a key with a vault of its own, or for a kept vault. The key is shown here and never again."""
        caller = await read_owner(self._parts, user_keys_allowed=self._parts.settings.keys.any_key_mints)
        body = await read_object(self._parts)
        if caller.principal.kind != "account":  # `keys.any_key_mints`: a plain key and no more
            own = await self._parts.store.get_key(caller.principal.account_number, caller.principal.key_number)
            # Else a key that ends, or may do little, would make itself one that does not.
            body = {"name": body.get("name"), "limits": limits_body(own.limits), "expires_at": own.expires_ms}
        return json_response(await self._keys.create(caller.principal.account_number, body, by=actor_of(caller)), 201)

    async def get_key(self, key_id: str) -> Response:
        """One key."""
        caller = await read_owner(self._parts)
        return json_response(await self._keys.get(caller.principal.account_number, key_id))

    async def change_key(self, key_id: str) -> Response:
        """Rename it, switch it off or on, set its expiry or its limits."""
        caller = await read_owner(self._parts)
        body = await read_object(self._parts)
        return json_response(
            await self._keys.change(caller.principal.account_number, key_id, body, by=actor_of(caller))
        )

    async def rotate_key(self, key_id: str) -> Response:
        """A new key for the same vault. It is shown here and never again."""
        caller = await read_owner(self._parts)
        body = await read_object(self._parts)
        return json_response(
            await self._keys.rotate(caller.principal.account_number, key_id, body, by=actor_of(caller)), 201
        )

    async def delete_key(self, key_id: str) -> Response:
        """Revoke it for good, and keep or shred its vault."""
        caller = await read_owner(self._parts)
        vault = request.args.get("vault", "keep")
        with to_the_end():  # what was shredded leaves memory too, whether the client waits for it or not
            done = await self._keys.delete(caller.principal.account_number, key_id, vault=vault, by=actor_of(caller))
        return json_response(done)

    async def list_vaults(self) -> Response:
        """The account's vaults, oldest first."""
        caller = await read_owner(self._parts)
        return json_response(await self._keys.list_vaults(caller.principal.account_number, request.args))

    async def get_vault(self, vault_id: str) -> Response:
        """One vault, in numbers."""
        caller = await read_owner(self._parts)
        return json_response(await self._keys.get_vault(caller.principal.account_number, vault_id))

    async def change_vault(self, vault_id: str) -> Response:
        """Set after how many days its memories are deleted."""
        caller = await read_owner(self._parts)
        body = await read_object(self._parts)
        return json_response(
            await self._keys.change_vault(caller.principal.account_number, vault_id, body, by=actor_of(caller))
        )

    async def delete_vault(self, vault_id: str) -> Response:
        """Shred a vault that no key opens any more."""
        caller = await read_owner(self._parts)
        with to_the_end():
            done = await self._keys.delete_vault(caller.principal.account_number, vault_id, by=actor_of(caller))
        return json_response(done)

    async def account(self) -> Response:
        """The account, in numbers."""
        caller = await read_owner(self._parts)
        return json_response(await self._keys.account(caller.principal.account_number))

    async def change_account(self) -> Response:
        """Rename it, or set after how many days memories are deleted."""
        caller = await read_owner(self._parts)
        body = await read_object(self._parts)
        return json_response(
            await self._keys.change_account(caller.principal.account_number, body, by=actor_of(caller))
        )

    async def audit(self) -> Response:
        """Who did what to which key or vault, newest first: never content."""
        caller = await read_owner(self._parts)
        return json_response(await self._keys.audit(caller.principal.account_number, request.args))
