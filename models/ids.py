"""Identities: Memory Keys with their suffixes, vaults, session ids.

Owns how a key is minted, parsed, hashed and shown. Must never log or render a whole key.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import NewType

import msgspec

from models.errors import InvalidRequest, Unauthenticated
from models.key_limits import KeyLimits

VaultNumber = NewType("VaultNumber", int)
"""An opaque number of one vault; a key row points to it, so that rotation and reattachment keep the vault."""

INVALID_KEY_HINT = "Check the key and its suffix; it may have been revoked."
"""One for every key that is not accepted, so that no answer tells why."""

KEY_RANDOM_BYTES = 24  # 192 bits, the least that design section 8 allows
KEY_CHARACTERS_MAX = 200
SESSION_ID_CHARACTERS_MAX = 512
_KEY = re.compile(r"mk[_-][A-Za-z0-9_-]{1,190}\Z")
_SUFFIXES = {"read": (True, False), "write": (False, True), "off": (False, False)}


class Access(msgspec.Struct, frozen=True):
    """What a request may do with memory. Suffix, header, query and body each give an upper bound; `&` joins them."""

    read: bool = True
    write: bool = True

    def __and__(self, other: Access) -> Access:
        """The strictest of both."""
        return Access(read=self.read and other.read, write=self.write and other.write)

    @property
    def mode(self) -> str:
        """The name clients know: on, read, write or off."""
        return {(True, True): "on", (True, False): "read", (False, True): "write"}.get((self.read, self.write), "off")


class Credential(msgspec.Struct, frozen=True):
    """A Memory Key as it came in a request: its hash, and the bound that its suffix sets. Holds no key text."""

    key_hash: bytes
    access: Access
    suffixed: bool


class VaultRef(msgspec.Struct, frozen=True):
    """Where a vault lives: its number and its partition (the shard today, an owner's part later)."""

    number: VaultNumber
    shard: int


class Principal(msgspec.Struct, frozen=True):
    """Who is asking: the key row behind a credential.

    Attributes:
        kind: "account" or "user".
        shown: the part of the key that may be shown.
        limits: what this key may do, as its account has set it.
    """

    key_number: int
    account_number: int
    kind: str
    name: str
    vault: VaultRef
    shown: str = ""
    limits: KeyLimits = KeyLimits()


def mint_key() -> str:
    """A new Memory Key: `mk_` and 192 random bits in URL-safe base64."""
    return f"mk_{secrets.token_urlsafe(KEY_RANDOM_BYTES)}"


def hash_key(key: str) -> bytes:
    """SHA-256 of a key without suffix. Keys carry 192 random bits, so a plain hash cannot be reversed by guessing."""
    return hashlib.sha256(key.encode()).digest()


def looks_like_memory_key(value: str) -> bool:
    """Whether this is shaped like a Memory Key; such a value is never sent to a provider."""
    return value.startswith(("mk_", "mk-"))


def parse_key(value: str) -> Credential:
    """Split a key from its suffix and hash it.

    Raises:
        Unauthenticated: the value is not shaped like a Memory Key or has an unknown suffix.
    """
    key, colon, suffix = value.partition(":")
    bounds = _SUFFIXES.get(suffix) if colon else (True, True)
    if bounds is None or len(value) > KEY_CHARACTERS_MAX or not _KEY.match(key):
        raise Unauthenticated("Invalid or inactive memory key.", hint=INVALID_KEY_HINT)
    return Credential(key_hash=hash_key(key), access=Access(read=bounds[0], write=bounds[1]), suffixed=bool(colon))


def show_key(key: str) -> str:
    """The part of a key that may be shown again: its first seven characters."""
    return f"{key[:7]}…"


def parse_session_id(value: object) -> str | None:
    """A session id as a string; integers keep their decimal form, empty means none.

    Raises:
        InvalidRequest: any other type, or longer than `SESSION_ID_CHARACTERS_MAX`.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidRequest("session_id must be a string or an integer.", field="session_id")
    text = str(value)
    if len(text) > SESSION_ID_CHARACTERS_MAX:
        raise InvalidRequest(f"session_id may have at most {SESSION_ID_CHARACTERS_MAX} characters.", field="session_id")
    return text
