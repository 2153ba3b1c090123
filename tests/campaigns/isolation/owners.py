"""What accounts' owners and the operator do: keys, vaults, provider keys, accounts; and what they try on others'."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable
from typing import Any

from tests.campaigns.isolation.chats import VENDORS
from tests.campaigns.isolation.doors import Reply
from tests.campaigns.isolation.ledger import wall_ms
from tests.campaigns.isolation.people import Account, Key, Vault
from tests.campaigns.isolation.provider import provider_key
from tests.campaigns.isolation.world import World

ACCOUNTS = 3
VAULTS = 6
"""Of each account."""


class Owner:
    """One owner of all accounts, and the operator; one thing after the other."""

    def __init__(self, world: World, random_: random.Random) -> None:
        self.world = world
        self.random = random_

    async def work(self) -> None:
        """Go on until cancelled, or until something has leaked."""
        doings: dict[Callable[[Account, Key], Awaitable[None]], int] = {
            self.populate: 8, self.look: 8, self.switch_key: 3, self.rotate: 3, self.delete_key: 3, self.expire: 1,
            self.store_provider_key: 3, self.list_models: 2, self.reach_out: 6, self.switch_account: 1,
            self.delete_account: 1, self.measure: 1,
        }  # fmt: skip
        while not self.world.ledger.leaks:
            await self.settle_in()
            (doing,) = self.random.choices(list(doings), list(doings.values()))
            account = self.random.choice(self.world.accounts)
            if account.owners:
                await doing(account, self.random.choice(account.owners))

    async def settle_in(self) -> None:
        """As many accounts as there should be."""
        while len(self.world.accounts) < ACCOUNTS:
            made = await self.world.administer("accounts.create", name="somebody")
            if made is None:
                continue
            account = self.world.add_account(made["account_key"], key_id="", account_id=made["id"])
            (owner,) = account.owners
            named = {"name": self.world.name(account)}
            await self.ask("rename", owner, "PATCH", "/v1/account", named)
            reply = await self.ask("keys", owner, "GET", "/v1/keys")
            if reply is not None:
                owner.public_id = reply.json()["keys"][0]["id"]

    async def ask(self, kind: str, owner: Key, method: str, target: str, body: Any = None, **more: Any) -> Reply | None:
        """A request of an owner: names of the account may come, memories never."""
        permit = self.world.nothing(account=owner.account.number, mints=more.pop("mints", False))
        return await self.world.ask(kind, owner, method, target, body, permit=permit, **more)

    # Keys and vaults.

    async def populate(self, account: Account, owner: Key) -> None:
        """A key with a vault, until there are enough of them."""
        if len(account.vaults) > VAULTS:
            return
        body: dict[str, Any] = {"name": self.world.name(account)}
        reply = await self.ask("mint", owner, "POST", "/v1/keys", body, expected=(201,), mints=True)
        if reply is not None:
            made = reply.json()
            self.world.add_key(made["key"], made["id"], self.world.add_vault(account))
            self.world.done["mint"] += 1

    async def look(self, account: Account, owner: Key) -> None:
        """Everything of the account that can be listed."""
        target = self.random.choice(
            ("/v1/keys?include_revoked=true", "/v1/vaults", "/v1/audit", "/v1/account", "/v1/providers",
             "/v1/account/usage")
        )  # fmt: skip
        await self.ask(f"look at {target}", owner, "GET", target)
        key = self._any(account)
        if key is not None and not key.is_owner:
            await self._look_as_user(key, target)

    async def _look_as_user(self, key: Key, target: str) -> None:
        """A user's key sees nothing of that but what it has used itself."""
        own = target == "/v1/account/usage"
        reply = await self.world.ask("look as user", key, "GET", target, permit=self.world.nothing(),
                                     expected=(200,) if own else (403,))  # fmt: skip
        if reply is not None and reply.json()["key_id"] != key.public_id:
            self.world.ledger.leak(f"{key.public_id} was shown the usage of {reply.json()['key_id']}")

    async def measure(self, _: Account, owner: Key) -> None:
        """Numbers of the whole server name nobody; that vaults have left memory is told by one of them."""
        reply = await self.ask("metrics", owner, "GET", "/metrics")
        left = None if reply is None else re.search(rb"^memoryrouter_vaults_passivated_total [1-9]", reply.body, re.M)
        if left is not None:
            self.world.done["vaults left memory"] += 1

    def _any(self, account: Account) -> Key | None:
        keys = [key for vault in account.vaults for key in vault.keys]
        return self.random.choice(keys) if keys else None

    def _free(self, account: Account) -> Key | None:
        """A user key whose vault's keys nobody else is changing."""
        keys = [
            key for vault in account.vaults for key in vault.keys if not vault.owned and not key.is_owner
        ]  # fmt: skip
        return self.random.choice(keys) if keys else None

    async def switch_key(self, account: Account, owner: Key) -> None:
        """Off, and on again after a while."""
        key = self._free(account)
        if key is None:
            return
        key.vault.owned = True
        for on in (False, True):
            key.begin_switch()
            reply = await self.ask("switch key", owner, "PATCH", f"/v1/keys/{key.public_id}", {"disabled": not on})
            if reply is None:
                self.world.lose(key.vault)
                return
            key.end_switch(on=on)
            await self.look(account, owner)
        key.vault.owned = False
        self.world.done["switch key"] += 1

    async def expire(self, account: Account, owner: Key) -> None:
        """A key that ends soon, with a vault of its own that then nobody opens."""
        expires_ms = wall_ms() + self.random.choice((100, 400, 900))
        body = {"name": self.world.name(account), "expires_at": expires_ms}
        reply = await self.ask("mint", owner, "POST", "/v1/keys", body, expected=(201, 400), mints=True)
        if reply is not None:
            made = reply.json()
            vault = Vault(next(self.world.numbers), account)
            key = Key(made["key"], made["id"], vault)
            key.expires_ms = (expires_ms, expires_ms)
            self.world.retire(key)
            self.world.done["expire"] += 1

    async def rotate(self, account: Account, owner: Key) -> None:
        """A new key for a vault; the old one ends at once, soon, or not so soon."""
        key = self._free(account)
        if key is None:
            return
        vault, grace_s = key.vault, self.random.choice((0, 1, 60))
        vault.owned = True
        began_ms = wall_ms()
        key.live.begin()
        reply = await self.ask(
            "rotate", owner, "POST", f"/v1/keys/{key.public_id}/rotate", {"grace_s": grace_s},
            expected=(201, 404, 409), mints=True,
        )  # fmt: skip
        if reply is None:
            self.world.lose(vault)
            return
        made = reply.json()
        if key.expires_ms is None:
            key.expires_ms = (began_ms + grace_s * 1000, wall_ms() + grace_s * 1000)
        key.live.end(on=key.live.on)
        self.world.retire(key)
        self.world.add_key(made["key"], made["id"], vault).before = key
        vault.owned = False
        self.world.done["rotate"] += 1

    async def delete_key(self, account: Account, owner: Key) -> None:
        """With its vault; or without, which is then given a new key or shredded."""
        key = self._free(account)
        if key is None or len(account.vaults) < 3:
            return
        vault, fate = key.vault, self.random.choice(("keep", "keep", "delete"))
        vault.owned = True
        key.begin_switch()
        deletion = self.world.ledger.begin_deletion(vault.number, lambda told: True) if fate == "delete" else None
        reply = await self.ask(
            "delete key", owner, "DELETE", f"/v1/keys/{key.public_id}?vault={fate}", expected=(200, 409)
        )
        if reply is None:
            self.world.lose(vault)  # another key of it is in its grace period, or nobody knows
            return
        vault.public_id = reply.json()["vault_id"]
        key.end_switch(on=False)
        self.world.retire(key)
        self.world.done[f"delete key, {fate}"] += 1
        if deletion is not None:
            deletion.end()
            self.world.lose(vault)
            return
        await self._use_kept(vault, owner)

    async def _use_kept(self, vault: Vault, owner: Key) -> None:
        """A vault that is being emptied meanwhile has another id then, and is not found under the old one."""
        name = {"name": self.world.name(vault.account)}
        if self.random.random() < 0.6:
            body = {**name, "vault_id": vault.public_id}
            reply = await self.ask("reattach", owner, "POST", "/v1/keys", body, expected=(201, 404, 409), mints=True)
            if reply is None:
                self.world.lose(vault)
                return
            made = reply.json()
            self.world.add_key(made["key"], made["id"], vault)
            vault.owned = False
            self.world.done["reattach"] += 1
        else:
            deletion = self.world.ledger.begin_deletion(vault.number, lambda told: True)
            target = f"/v1/vaults/{vault.public_id}"
            if await self.ask("shred", owner, "DELETE", target, expected=(200, 404, 409)) is not None:
                deletion.end()
                self.world.done["shred"] += 1
            self.world.lose(vault)

    # Provider keys.

    async def store_provider_key(self, account: Account, owner: Key) -> None:
        """Put one, or delete it."""
        vendor = self.random.choice(VENDORS)
        if vendor in account.busy:
            return
        account.busy.add(vendor)
        key = provider_key(account.number, vendor, next(self.world.numbers)) if self.random.random() < 0.8 else ""
        account.put.setdefault(vendor, []).append((self.world.ledger.now(), key))
        account.stored_keys.setdefault(vendor, {""}).add(key)
        target = f"/v1/providers/{vendor}/key"
        if key:
            reply = await self.ask("store provider key", owner, "PUT", target, {"key": key})
        else:
            reply = await self.ask("delete provider key", owner, "DELETE", target, expected=(200, 404))
        account.busy.discard(vendor)
        if reply is not None:
            account.stored_keys[vendor] = {key}
            self.world.done["provider key"] += 1

    async def list_models(self, account: Account, owner: Key) -> None:
        """Providers list them by key; the fake one gives them the name of whose key it was."""
        key = self._any(account) or owner
        await self.ask("models", key, "GET", "/v1/models")

    # Others' things.

    async def reach_out(self, account: Account, owner: Key) -> None:
        """Try an owner's powers on another account, and a user's key on its own."""
        others = [vault for vault in self.world.vaults if vault.account is not account]
        if not others:
            return
        keys = [key for vault in others for key in vault.keys]
        key = self.random.choice(keys) if keys else owner
        method, target, body = self.random.choice(
            (
                ("GET", f"/v1/keys/{key.public_id}", None),
                ("PATCH", f"/v1/keys/{key.public_id}", {"disabled": True}),
                ("DELETE", f"/v1/keys/{key.public_id}?vault=delete", None),
                ("POST", f"/v1/keys/{key.public_id}/rotate", {"grace_s": 0}),
                ("POST", "/v1/keys", {"vault_id": key.vault.public_id or "vault_1"}),
                ("GET", f"/v1/vaults/{key.vault.public_id or 'vault_999999'}", None),
                ("DELETE", f"/v1/vaults/{key.vault.public_id or 'vault_999999'}", None),
            )
        )
        if key.account is account or not key.public_id:
            return
        if account.number == 1 and "vault_1" in (target.rpartition("/")[2], (body or {}).get("vault_id")):
            return
        refused = (404,)
        await self.ask("reach out", owner, method, target, body, expected=refused)
        if not key.is_owner:
            permit = self.world.nothing()
            await self.world.ask("reach up", key, method, target, body, permit=permit, expected=(403,))
        self.world.done["reach out"] += 1

    # The operator.

    async def switch_account(self, account: Account, owner: Key) -> None:
        """Off: none of its keys opens anything; and on again."""
        if account.operated:
            return
        account.operated = True
        for disabled in (True, False):
            account.live.begin()
            if await self.world.administer("accounts.change", account=account.public_id, disabled=disabled) is None:
                return
            account.live.end(on=not disabled)
            await self.look(account, owner)
        account.operated = False
        self.world.done["switch account"] += 1

    async def delete_account(self, account: Account, _: Key) -> None:
        """All of it, for good."""
        busy = account.operated or any(vault.owned for vault in account.vaults)
        if busy or account is self.world.accounts[0] or self.random.random() < 0.5:
            return
        account.live.begin()
        vaults = list(account.vaults)
        deletions = [self.world.ledger.begin_deletion(vault.number, lambda told: True) for vault in vaults]
        self.world.accounts.remove(account)
        done = await self.world.administer("accounts.delete", account=account.public_id)
        for vault in vaults:
            self.world.lose(vault)
        if done is not None:
            account.live.end(on=False)
            for deletion in deletions:
                deletion.end()
            self.world.done["delete account"] += 1
