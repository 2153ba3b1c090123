"""The world of an isolation campaign: who there is, how they ask, and the check of every reply.

Every request of every client goes through `World.ask`, which compares what came back with what the ledger allows. The
provider's side is `World.said`: whatever a provider is sent counts as a reply too.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import trio

from models.errors import MemoryRouterError
from router.admin_socket import SOCKET_NAME, call_admin
from tests.campaigns.isolation.doors import Door, Reply
from tests.campaigns.isolation.ledger import Ledger, Permit, Told
from tests.campaigns.isolation.people import SESSIONS, Account, Key, Vault, session_name
from tests.campaigns.isolation.provider import Asked, provider_key
from tests.campaigns.moments import dice

BUSY = {429, 502, 503, 504}
"""Answers that promise nothing."""

OUTSIDERS_MAX = 200
"""Keys that are over and are still tried."""


class Misbehaved(AssertionError):
    """A server answered what it must not answer."""


class Chat(msgspec.Struct, frozen=True):
    """What the provider has to know of a chat: what it may be sent, with which keys, and what it replies.

    Attributes:
        vendor: who is asked first.
        own: the provider key of the request itself, which goes to that vendor and to nobody else; or "".
        keys: by vendor, the account's own keys that may come.
        reply: "" to repeat everything.
    """

    permit: Permit
    account: Account
    vendor: str
    own: str
    keys: Mapping[str, frozenset[str]]
    reply: str


class World:
    """Accounts, keys and vaults over the starts of one server.

    Attributes:
        leaks_on_purpose: whether the server may hide what it should find: only leaks count.
        door: into the server that runs now.
        data_dir: of that server, with its admin socket.
        strict: whether sessions are strictly isolated now.
        done: counts what was acknowledged, by kind.
        retired: keys that are over.
    """

    def __init__(self, seed: int, *, leaks_on_purpose: bool = False) -> None:
        self.seed = seed
        self.leaks_on_purpose = leaks_on_purpose
        self.ledger = Ledger()
        self.accounts: list[Account] = []
        self.retired: list[Key] = []
        self.done: Counter[str] = Counter()
        self.strict = False
        self.chats: dict[str, Chat] = {}
        self.door: Door
        self.data_dir: Path
        self.numbers = itertools.count(1)
        self._goal = 0
        self._reached = trio.Event()

    async def wait_checked(self, goal: int) -> None:
        """Return once so many retrievals were checked, or something has leaked."""
        self._goal, self._reached = goal, trio.Event()
        self.progressed()
        await self._reached.wait()

    def progressed(self) -> None:
        """Something was checked."""
        if self.ledger.retrievals >= self._goal or self.ledger.leaks:
            self._reached.set()

    # Who there is.

    @property
    def vaults(self) -> list[Vault]:
        """All that are open for use."""
        return [vault for account in self.accounts for vault in account.vaults]

    def add_account(self, text: str, *, key_id: str, account_id: str) -> Account:
        """An account that was made, with its key and that key's vault."""
        account = Account(int(account_id.removeprefix("acct_")), public_id=account_id)
        self.accounts.append(account)
        account.owners.append(self.add_key(text, key_id, self.add_vault(account)))
        return account

    def add_vault(self, account: Account) -> Vault:
        """A vault that was made."""
        vault = Vault(next(self.numbers), account)
        account.vaults.append(vault)
        return vault

    def add_key(self, text: str, key_id: str, vault: Vault) -> Key:
        """A key that was handed out."""
        key = Key(text, key_id, vault)
        vault.keys.append(key)
        return key

    def retire(self, key: Key) -> None:
        """A key that was deleted, or lost sight of; it is tried further on."""
        if key in key.vault.keys:
            key.vault.keys.remove(key)
        self.retired.append(key)
        del self.retired[:-OUTSIDERS_MAX]

    def lose(self, vault: Vault) -> None:
        """Nobody knows any more what this vault holds: all of it may be gone. It is used no further."""
        for key in list(vault.keys):
            self.retire(key)
        if vault in vault.account.vaults:
            vault.account.vaults.remove(vault)

    def tell(self, vault: Vault, session: int, *, tag: str | None = None) -> Told:
        """A text for this vault."""
        return self.ledger.tell(
            account=vault.account.number, vault=vault.number, session=session, generation=vault.generation, tag=tag
        )

    def name(self, account: Account) -> str:
        """A name with a canary that only its account may see."""
        told = self.ledger.tell(account=account.number, vault=0)
        self.ledger.settle(told, stored=True)
        return told.canary

    def restart(self) -> None:
        """The server has ended. What somebody was changing is lost sight of."""
        self.ledger.restart()
        self.chats.clear()
        for account in list(self.accounts):
            account.busy.clear()
            for vault in list(account.vaults):
                vault.changing.clear()
                if vault.owned or vault.erasing or any(key.live.changing for key in vault.keys):
                    self.lose(vault)
            account.owners = [key for key in account.owners if key in key.vault.keys]
            if account.operated or not account.owners:
                for vault in list(account.vaults):
                    self.lose(vault)
                self.accounts.remove(account)

    # Asking.

    def permit(self, vault: Vault, session: int, *, whole: bool = False, **more: Any) -> Permit:
        """What a reading request of this vault may be shown."""
        seen: int | None = session
        if whole or (not session and not self.strict):
            seen = None
        return Permit(began=self.ledger.now(), vault=vault.number, session=seen, **more)

    def nothing(self, **more: Any) -> Permit:
        """For requests that may be shown no memory."""
        return Permit(began=self.ledger.now(), **more)

    async def ask(
        self,
        kind: str,
        key: Key,
        method: str,
        target: str,
        body: Any = None,
        *,
        permit: Permit,
        headers: Mapping[str, str] | None = None,
        suffix: str = "",
        expected: tuple[int, ...] = (200,),
        counts: bool = False,
    ) -> Reply | None:
        """Send a request with this key and check the reply; None unless it is an expected success.

        Args:
            expected: statuses that are right, if the key is; errors among them give None.
            counts: whether this is a retrieval.
        """
        before, generation = key.look(), key.vault.generation
        content = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        sent = {"authorization": f"Bearer {key.text}{suffix}", **(headers or {})}
        reply = await self.door.ask(method, target, sent, content)
        opened = key.opened(before)
        if opened is False and reply.status not in {401, *BUSY}:
            self.ledger.leak(f"{kind}: {key.public_id}, which is over, was answered {reply.status}")
        if opened is True and reply.status == 401:
            raise Misbehaved(f"{kind}: {key.public_id} is live, and was refused")
        fine = reply.status < 400
        self.ledger.check(kind, permit if fine else self._of_error(permit), reply.everything)
        vanished = reply.status == 404 and (opened is None or key.vault.erasing or key.vault.generation != generation)
        if reply.status not in {*expected, 401, *BUSY} and not vanished:
            raise Misbehaved(f"{kind}: {method} {target}: {reply.status} {reply.body[:300]!r}")
        if counts and reply.status in {200, 404}:  # a vault was looked into
            self.ledger.count(kind)
            self.progressed()
        if not fine:
            self.done[f"{kind}: {reply.status}"] += 1
        return reply if fine and reply.status in expected else None

    def _of_error(self, permit: Permit) -> Permit:
        """An error may hold nothing, but for what a provider said."""
        return permit if permit.sent else Permit(began=permit.began)

    async def administer(self, command: str, **arguments: Any) -> Any:
        """A command of the operator; None if the server is busy or gone."""
        try:
            return await call_admin(self.data_dir / SOCKET_NAME, command, arguments)
        except MemoryRouterError as error:
            self.done[f"{command}: {error.code}"] += 1
            return None

    # The provider's side.

    def said(self, asked: Asked) -> str:
        """Judge what a provider was sent; what it replies."""
        if not asked.title:  # a list of models: it has the name of whose key it was asked with
            return self._model_of(asked.key)
        chat = self.chats.get(asked.title)
        if chat is None:
            return "Who is asking?"  # a request of before the restart
        self.ledger.check(f"sent to {asked.vendor}", chat.permit, asked.everything.replace(asked.key.encode(), b"", 1))
        own = bool(chat.own) and asked.vendor == chat.vendor
        if asked.key not in ({chat.own} if own else self._due_keys(chat, asked.vendor)):
            self.ledger.leak(f"{asked.vendor} was sent {asked.key} for account {chat.account.number}")
        whose = "the request's" if own else "the server's" if asked.key.startswith("sk-zq0a") else "the account's"
        self.done[f"asked with {whose} key"] += 1
        return chat.reply or asked.everything.decode("latin-1").replace("\r\n", " ")

    def _due_keys(self, chat: Chat, vendor: str) -> set[str]:
        """The account's keys when the chat began, and those that came since."""
        none = provider_key(0, vendor, 0)
        late = {key or none for began, key in chat.account.put.get(vendor, ()) if began > chat.permit.began}
        return {*chat.keys[vendor], *late}

    def _model_of(self, key: str) -> str:
        number = key.removeprefix("sk-zq").partition("a")[0]
        for account in self.accounts:
            if str(account.number) == number:
                return self.name(account)
        return "anybodys-model"

    def stored_keys(self, account: Account, vendor: str) -> frozenset[str]:
        """The provider keys that may count for an account now; the server's own where it has none."""
        none = provider_key(0, vendor, 0)
        return frozenset(key or none for key in account.stored_keys.get(vendor, {""}))

    # When nothing is under way.

    async def verify(self) -> None:
        """Every vault holds what it must and nothing else, as its own key sees it."""
        for vault in self.vaults:
            key = next((key for key in vault.keys if key.opened(key.look())), None)
            if key is None:
                continue
            permit = Permit(began=self.ledger.now(), vault=vault.number)
            held = await self._exported(key, permit)
            if not self.strict and await self._listed(key, permit) != held and not self.leaks_on_purpose:
                raise Misbehaved(f"seed {self.seed}: vault {vault.number} exports other memories than it lists")
            missing = self.ledger.missing(vault.number, held)
            if missing and not self.leaks_on_purpose:
                raise Misbehaved(f"seed {self.seed}: vault {vault.number} has lost {missing[:5]}")
            self.done["memories verified"] += sum(told.required for told in self.ledger.of_vault(vault.number))
            await self._find_some(vault, key, permit)

    async def _listed(self, key: Key, permit: Permit) -> set[int]:
        held: set[int] = set()
        cursor: str | None = ""
        while cursor is not None:
            target = f"/v1/memories?limit=200&cursor={quote(cursor)}"
            reply = await self.ask("list", key, "GET", target, permit=permit, counts=True)
            if reply is None:
                raise Misbehaved("a quiet server did not list a vault")
            held |= self.ledger.find(reply.body)
            cursor = reply.json()["next_cursor"]
        return held

    async def _exported(self, key: Key, permit: Permit) -> set[int]:
        reply = await self.ask("export", key, "GET", "/v1/memory/export?vectors=0", permit=permit, counts=True)
        if reply is None:
            raise Misbehaved("a quiet server did not export a vault")
        return self.ledger.find(reply.body)

    async def _find_some(self, vault: Vault, key: Key, permit: Permit) -> None:
        """What is there is found by its own word."""
        required = [told for told in self.ledger.of_vault(vault.number) if told.required]
        random_ = dice(self.seed, "verify", self.ledger.now())
        for told in random_.sample(required, min(3, len(required))):
            headers = {"x-session-id": str(session_name(told.session))} if told.session else {}
            body = {"query": told.word, "limit": 20}
            reply = await self.ask("search", key, "POST", "/v1/memory/search", body, permit=permit, headers=headers,
                                   counts=True)  # fmt: skip
            found = reply is not None and told.number in self.ledger.find(reply.body)
            if not found and not self.leaks_on_purpose:
                raise Misbehaved(f"seed {self.seed}: searching {told.word} does not find {told.canary}")
            self.done["found again"] += 1


def any_session(random_: random.Random) -> int:
    """One of a vault's sessions, or none."""
    return random_.randrange(SESSIONS + 1)
