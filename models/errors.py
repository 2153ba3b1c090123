"""The error tree, on one page.

Every failure that a caller can meet is one of these. Each class carries its HTTP status and its code (a slug that
clients may switch on); the router turns them into the caller's wire format in one place. Error texts name the field or
the resource, never a key and never message text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class MemoryRouterError(Exception):
    """Base of every error that MemoryRouter raises on purpose.

    Attributes:
        status: the HTTP status that this error becomes.
        code: a slug for programs.
        hint: one sentence that says what to do about it, or "".
        retry_after_s: seconds after which a retry makes sense, or None.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, hint: str = "", retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after_s = retry_after_s


class InvalidRequest(MemoryRouterError):
    """The request is malformed: a wrong type, a missing field, a number out of range. Nothing was changed."""

    status = 400
    code = "invalid_request"

    def __init__(self, message: str, *, field: str | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class Unauthenticated(MemoryRouterError):
    """No Memory Key, or one that is unknown, malformed or revoked. The answer is the same for all of them."""

    status = 401
    code = "invalid_api_key"


class Forbidden(MemoryRouterError):
    """The key is valid but may not do this: a user key minting keys, a read-only key writing."""

    status = 403
    code = "permission_denied"


class NotFound(MemoryRouterError):
    """The path or the resource does not exist."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """The model names no configured provider."""

    code = "model_not_found"


class Conflict(MemoryRouterError):
    """The request is well-formed, but what it names is in a state that forbids it. Nothing was changed."""

    status = 409
    code = "conflict"


class TooLarge(MemoryRouterError):
    """A body, a line count or a text is over its limit; the message says which and how large it may be."""

    status = 413
    code = "too_large"


class RateLimited(MemoryRouterError):
    """A key or an address does more than it may; nothing was done. Retry after `retry_after_s`.

    Attributes:
        retry_helps: whether the same request may succeed later; a wrong key stays wrong.
    """

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, hint: str = "", retry_after_s: int = 1, retry_helps: bool = True) -> None:
        super().__init__(message, hint=hint, retry_after_s=retry_after_s)
        self.retry_helps = retry_helps


class QuotaExceeded(MemoryRouterError):
    """The vault may not hold that many memories. Nothing of this request was stored.

    Attributes:
        details: numbers that tell more.
    """

    status = 402
    code = "payment_required"

    def __init__(self, message: str, *, hint: str = "", details: Mapping[str, int] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.details = details or {}


class MethodNotAllowed(MemoryRouterError):
    """The path exists, the method does not."""

    status = 405
    code = "method_not_allowed"


class MisdirectedRequest(MemoryRouterError):
    """The request names a host that this server does not serve (`server.allowed_hosts`)."""

    status = 421
    code = "misdirected_request"


class UnsupportedEncoding(MemoryRouterError):
    """The body's content encoding is not one that the server can decode."""

    status = 415
    code = "unsupported_encoding"


class Overloaded(MemoryRouterError):
    """A bounded queue is full. Nothing was accepted; retry after `retry_after_s`."""

    status = 503
    code = "overloaded"

    def __init__(self, message: str, *, hint: str = "", retry_after_s: int = 1) -> None:
        super().__init__(message, hint=hint, retry_after_s=retry_after_s)


class DeadlineExceeded(Overloaded):
    """The answer did not come within its deadline."""

    code = "deadline_exceeded"


class VaultUnavailable(Overloaded):
    """The vault's actor failed while it held this request, or is starting again. Retrying is safe."""

    code = "vault_unavailable"


class VaultQuarantined(VaultUnavailable):
    """The vault failed repeatedly and rests before it is tried again."""

    code = "vault_quarantined"


class ShuttingDown(Overloaded):
    """The server is draining and takes no new work."""

    code = "shutting_down"


class StoreUnavailable(Overloaded):
    """The store cannot commit or read right now. Nothing of this request was acknowledged."""

    code = "store_unavailable"


class ShardDamaged(StoreUnavailable):
    """A database file lost commits or cannot be read. It refuses to serve until the operator has acted."""

    code = "shard_damaged"


class NotOwner(MemoryRouterError):
    """Another node owns the partition. Nothing was done; the router forwards the request, or answers 503.

    Attributes:
        owner_address: where the owner may be reached, or "". Never shown to clients.
    """

    status = 421
    code = "not_owner"

    def __init__(self, message: str, *, hint: str = "", owner_address: str = "") -> None:
        super().__init__(message, hint=hint, retry_after_s=1)
        self.owner_address = owner_address


class StorageFull(MemoryRouterError):
    """The disk is full. Nothing of this request was stored."""

    status = 507
    code = "storage_full"


class CorruptRow(MemoryRouterError):
    """A stored row failed its checksum (the AES-GCM tag) or cannot be decoded."""

    code = "corrupt_row"


class UpstreamError(MemoryRouterError):
    """The provider cannot be reached or broke the protocol before a reply could be passed on."""

    status = 502
    code = "upstream_unavailable"


class UpstreamTimeout(UpstreamError):
    """The provider did not answer within its timeout."""

    status = 504
    code = "upstream_timeout"


class UpstreamSuspended(UpstreamError):
    """The provider failed repeatedly and is not called for a while; `retry_after_s` says how long."""

    status = 503
    code = "upstream_suspended"


class NoProviderKey(InvalidRequest):
    """No key for this provider: neither in the request nor in the configuration."""

    code = "no_provider_key"


class SetupError(MemoryRouterError):
    """The server cannot start as configured; the CLI prints the message in one line and exits with 2."""

    code = "setup_error"


class SettingError(SetupError):
    """A setting is unknown, of the wrong type or out of range; the message names the key."""
