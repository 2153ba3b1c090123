"""Who is asking: finds the Memory Key in a request and looks it up.

The key may come in any of the places that SDKs use (design section 8). Whatever looks like a Memory Key never becomes a
provider key. A failed look-up says the same thing whatever the reason.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import trio

from actors.store.directory_protocol import Directory
from models.errors import Forbidden, StoreUnavailable, Unauthenticated
from models.ids import INVALID_KEY_HINT, Access, Credential, Principal, looks_like_memory_key, parse_key
from models.provider_settings import Secret
from router.limits import FailureGate

KEY_HEADERS = ("x-memory-key", "authorization", "x-api-key", "x-goog-api-key", "api-key")
"""Where a Memory Key is looked for, in this order; in the query after all of them."""

_PROVIDER_KEY_HEADERS = ("x-provider-key", *KEY_HEADERS[1:])

LOOKUP_TIMEOUT_S = 5.0
"""Below the connect timeouts of SDKs' retries; a look-up takes a millisecond, and none when it is cached."""


class Caller(msgspec.Struct, frozen=True):
    """An authenticated request's principal.

    Attributes:
        access: the bound that the key's suffix sets.
        suffixed: whether the key came with a suffix; such a key may not mint, list or export.
        provider_key: the caller's own key for the provider, or an empty Secret.
    """

    principal: Principal
    access: Access
    suffixed: bool
    provider_key: Secret

    def require_unsuffixed(self) -> None:
        """Refuse a suffixed key.

        Raises:
            Forbidden: the key came with `:read`, `:write` or `:off`.
        """
        if self.suffixed:
            raise Forbidden("A key with a suffix may not do this.", hint="Send the key without its suffix.")

    def require_account(self, *, user_keys_allowed: bool = False) -> None:
        """Refuse user keys.

        Raises:
            Forbidden: a user key, unless `user_keys_allowed`.
        """
        if self.principal.kind != "account" and not user_keys_allowed:
            raise Forbidden("This needs an account key.", hint="A user key can only use its own vault.")


async def authenticate(
    headers: Mapping[str, str],
    query: Mapping[str, str],
    directory: Directory,
    *,
    failures: FailureGate | None = None,
    address: str = "",
) -> Caller:
    """The caller behind a request.

    Args:
        headers: by lower-case name.
        failures: bounds what an address may try.
        address: under which this request's failure counts.

    Raises:
        Unauthenticated: no Memory Key, or a malformed, unknown or revoked one.
        RateLimited: the same, from an address that has failed too often.
        StoreUnavailable: the key could not be looked up in time.
    """
    try:
        credential = find_credential(headers, query)
    except Unauthenticated:
        if failures is not None:
            failures.attempt(address, None)
        raise
    if failures is None:
        principal = await _look_up(credential, directory)
    else:
        with failures.attempt(address, credential.key_hash) as attempt:
            principal = await _look_up(credential, directory)
            if principal is None:
                attempt.fail()
            else:
                attempt.succeed()
    if principal is None:
        raise Unauthenticated("Invalid or inactive memory key.", hint=INVALID_KEY_HINT)
    return Caller(
        principal=principal,
        access=credential.access,
        suffixed=credential.suffixed,
        provider_key=find_provider_key(headers),
    )


async def _look_up(credential: Credential, directory: Directory) -> Principal | None:
    """Whose key this is.

    Raises:
        StoreUnavailable: it was not known in time.
    """
    with trio.move_on_after(LOOKUP_TIMEOUT_S) as waiting:
        principal = await directory.find_key(credential.key_hash)
    if waiting.cancelled_caught:
        raise StoreUnavailable("The Memory Key could not be looked up in time.")
    return principal


def find_credential(headers: Mapping[str, str], query: Mapping[str, str]) -> Credential:
    """The first value that looks like a Memory Key, in the order of design section 8.

    Raises:
        Unauthenticated: there is none, or it is malformed.
    """
    candidates = [_bare(headers.get(name, "")) for name in KEY_HEADERS]
    for value in (*candidates, query.get("key", "").strip()):
        if looks_like_memory_key(value):
            return parse_key(value)
    raise Unauthenticated(
        "Missing or invalid authentication.", hint="Send your Memory Key as Authorization: Bearer mk_..."
    )


def find_provider_key(headers: Mapping[str, str]) -> Secret:
    """The caller's own provider key: X-Provider-Key, or, beside X-Memory-Key, what the SDK's own header carries."""
    is_byok = looks_like_memory_key(_bare(headers.get("x-memory-key", "")))
    for name in _PROVIDER_KEY_HEADERS if is_byok else _PROVIDER_KEY_HEADERS[:1]:
        value = _bare(headers.get(name, ""))
        if value and not looks_like_memory_key(value):
            return Secret(value)
    return Secret()


def _bare(value: str) -> str:
    """A header's value without the scheme `Bearer`."""
    scheme, _, rest = value.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else value.strip()
