"""Accounts, keys and vaults as the campaign knows them, and whether a key may be answered at a moment.

A switch (an account, a key) that somebody is changing is unknown until the change is acknowledged; a request that it
changed under may be answered either way.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tests.campaigns.isolation.ledger import wall_ms

SESSIONS = 3
"""Of every vault, under the same names in all of them; 0 stands for none."""


def session_name(session: int) -> str | None:
    """What requests call a session."""
    return f"room-{session}" if session else None


class Switch:
    """Something that is on or off."""

    __slots__ = ("_version", "changing", "on")

    def __init__(self) -> None:
        self.on = True
        self.changing = 0
        self._version = 0

    def begin(self) -> None:
        """Somebody is about to change it."""
        self.changing += 1
        self._version += 1

    def end(self, *, on: bool) -> None:
        """The change was acknowledged; or it was refused, and `on` is what it was."""
        self.changing -= 1
        self._version += 1
        self.on = on

    def look(self) -> tuple[int, bool | None]:
        """What to compare a later look with, and what it is now, if that is known."""
        return self._version, None if self.changing else self.on


class Account:
    """One account.

    Attributes:
        number: in the ledger; also the server's own.
        operated: whether the operator is doing something to it.
        stored_keys: by vendor, every provider key that may be the stored one: "" for none.
        put: by vendor, the moments at which a change of it began, with its key.
        busy: vendors whose key is being changed.
    """

    def __init__(self, number: int, *, public_id: str) -> None:
        self.number = number
        self.public_id = public_id
        self.live = Switch()
        self.operated = False
        self.owners: list[Key] = []
        self.vaults: list[Vault] = []
        self.stored_keys: dict[str, set[str]] = {}
        self.put: dict[str, list[tuple[int, str]]] = {}
        self.busy: set[str] = set()


class Vault:
    """One vault.

    Attributes:
        public_id: once a key of it is deleted, what it can be given a new key with.
        ids: public ids of memories by the numbers of their canaries, as replies have shown them.
        changing: numbers of canaries of which somebody is changing or deleting the memory.
        erasing: whether somebody is deleting all of it; ids of memories begin anew then.
        owned: whether somebody is changing its keys.
    """

    def __init__(self, number: int, account: Account) -> None:
        self.number = number
        self.account = account
        self.generation = 1
        self.public_id = ""
        self.keys: list[Key] = []
        self.ids: dict[int, str] = {}
        self.changing: set[int] = set()
        self.erasing = False
        self.owned = False


class Key:
    """One Memory Key.

    Attributes:
        public_id: such as `key_12`.
        expires_ms: between these two times it ends, by the wall clock.
        before: the key whose place it took; its grace period ends when this one is switched off or deleted.
    """

    def __init__(self, text: str, public_id: str, vault: Vault) -> None:
        self.text = text
        self.public_id = public_id
        self.vault = vault
        self.live = Switch()
        self.expires_ms: tuple[float, float] | None = None
        self.before: Key | None = None

    @property
    def account(self) -> Account:
        """Whose it is."""
        return self.vault.account

    @property
    def is_owner(self) -> bool:
        """Whether it is an account key."""
        return self in self.account.owners

    def begin_switch(self) -> None:
        """Somebody is about to switch it."""
        for key in self._with_those_before():
            key.live.begin()

    def end_switch(self, *, on: bool) -> None:
        """It was switched; those before it never come back."""
        for key in self._with_those_before():
            key.live.end(on=on if key is self else False)

    def _with_those_before(self) -> Iterator[Key]:
        key: Key | None = self
        while key is not None:
            yield key
            key = key.before

    def look(self) -> Look:
        """What is known of it now."""
        return Look(key=self.live.look(), account=self.account.live.look(), at_ms=wall_ms())

    def opened(self, before: Look) -> bool | None:
        """Whether it was to be answered from `before` until now; None: nobody knows."""
        after = self.look()
        if (before.key, before.account) != (after.key, after.account):
            return None
        expired: bool | None = False
        if self.expires_ms is not None:
            least, most = self.expires_ms
            expired = True if before.at_ms > most else (False if after.at_ms < least else None)
        states = (before.key[1], before.account[1], None if expired is None else not expired)
        if False in states:
            return False
        return None if None in states else True


class Look(msgspec.Struct, frozen=True):
    """What was known of a key at a moment."""

    key: tuple[int, bool | None]
    account: tuple[int, bool | None]
    at_ms: int
