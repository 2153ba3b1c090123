"""How much one key, or one address without a valid key, may ask of the server.

Pure bookkeeping in Trio's thread: token buckets by a given clock, counts of what is under way. Everything is bounded in
memory: whoever has not been seen for longest is forgotten first, which gives back a full bucket. Must never wait, and
never hold a key.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable

import msgspec

from models.errors import RateLimited
from models.ids import Principal
from models.limit_settings import LimitSettings
from router.addresses import networks_of

BURST_SHARE = 10
"""Without a burst of its own a bucket holds a tenth of a minute's requests, as the hosted product's limits do."""

CONCURRENT_RETRY_S = 1
SUSPECT_LOOKUPS_MAX = 8
"""Look-ups at once, of all addresses whose failures are used up. A reader of the store makes thousands a second."""


class Rate(msgspec.Struct, frozen=True):
    """How fast a bucket fills, and how many tokens it holds. No bucket at all where `per_minute` is 0."""

    per_minute: int
    burst: int

    @classmethod
    def of(cls, per_minute: int, burst: int) -> Rate:
        """A rate as settings say it: a burst of 0 is derived."""
        return cls(per_minute, burst or max(1, per_minute // BURST_SHARE))


class Allowance(msgspec.Struct, frozen=True):
    """What a bucket said to one request.

    Attributes:
        limit: tokens of the full bucket.
        remaining: whole tokens that are left.
        full_in_s: seconds until the bucket is full again.
        next_in_s: seconds until there is a token; 0 when the request was allowed.
    """

    allowed: bool
    limit: int
    remaining: int
    full_in_s: float
    next_in_s: float = 0.0

    def headers(self) -> dict[str, str]:
        """The customary response headers; the reset in whole seconds from now."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(math.ceil(self.full_in_s)),
        }


class TokenBuckets:
    """A token bucket for each name, kept as the one moment at which it will be full; full ones need not be kept."""

    def __init__(self, *, clock: Callable[[], float], tracked_max: int) -> None:
        self._clock = clock
        self._tracked_max = tracked_max
        self._full_at_s: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at_s)

    def take(self, name: Hashable, rate: Rate) -> Allowance:
        """Take a token, if there is one."""
        now_s = self._clock()
        token_s = 60 / rate.per_minute
        full_at_s = max(self._full_at_s.get(name, now_s), now_s)
        # A bucket whose rate has been lowered since may lack more than it can hold.
        lacking = min((full_at_s - now_s) / token_s, rate.burst)
        left = rate.burst - lacking - 1
        if left < -_ROUNDING:
            return Allowance(False, rate.burst, 0, lacking * token_s, next_in_s=-left * token_s)
        full_at_s = now_s + (lacking + 1) * token_s
        self._full_at_s[name] = full_at_s
        self._full_at_s.move_to_end(name)
        self._forget(now_s)
        return Allowance(True, rate.burst, int(left + _ROUNDING), full_at_s - now_s)

    def give_back(self, name: Hashable, rate: Rate) -> None:
        """Return a token that was taken."""
        full_at_s = self._full_at_s.get(name)
        if full_at_s is None:
            return
        full_at_s -= 60 / rate.per_minute
        if full_at_s > self._clock():
            self._full_at_s[name] = full_at_s
        else:
            del self._full_at_s[name]

    def _forget(self, now_s: float) -> None:
        """Let go of the least recent buckets: what is over the bound, and a few that are full anyway."""
        for _ in range(_FORGOTTEN_AT_ONCE_MAX):
            name, full_at_s = next(iter(self._full_at_s.items()))
            if full_at_s > now_s and len(self._full_at_s) <= self._tracked_max:
                return
            del self._full_at_s[name]


_FORGOTTEN_AT_ONCE_MAX = 2
"""One bucket comes with a request, so two to go are enough."""

_ROUNDING = 1e-6
"""Of a token: sums of fractions must not make a client that waited exactly long enough wait again."""


class Concurrency:
    """How many of something are under way, by name."""

    def __init__(self) -> None:
        self._under_way = Counter[Hashable]()

    def __len__(self) -> int:
        return len(self._under_way)

    def enter(self, name: Hashable, most: int) -> Callable[[], None] | None:
        """Count one more, unless there are `most`. Returns what ends it, harmless a second time, or None."""
        if self._under_way[name] >= most:
            if not self._under_way[name]:
                del self._under_way[name]
            return None
        self._under_way[name] += 1
        ended = False

        def leave() -> None:
            nonlocal ended
            if not ended:
                ended = True
                self._under_way[name] -= 1
                if not self._under_way[name]:
                    del self._under_way[name]

        return leave


class KeyGate:
    """What each key may do: so many requests a minute, and so many at once. The key's own limits come first."""

    def __init__(self, settings: LimitSettings, *, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._buckets = TokenBuckets(clock=clock, tracked_max=settings.tracked_max)
        self._concurrency = Concurrency()

    def rate_of(self, principal: Principal) -> Rate | None:
        """How fast this key may ask, or None where nothing limits it."""
        own, general = principal.limits, self._settings
        per_minute = general.requests_per_minute if own.requests_per_minute is None else own.requests_per_minute
        burst = general.requests_burst if own.requests_burst is None else own.requests_burst
        return Rate.of(per_minute, burst) if per_minute else None

    def take(self, principal: Principal) -> Allowance | None:
        """Count a request; None where nothing limits the key."""
        rate = self.rate_of(principal)
        return None if rate is None else self._buckets.take(principal.key_number, rate)

    def enter(self, principal: Principal) -> Callable[[], None] | None:
        """Count a request as under way. Returns what ends it, or None where nothing limits the key.

        Raises:
            RateLimited: the key has as many under way as it may.
        """
        own = principal.limits.concurrent_max
        most = self._settings.requests_concurrent_max if own is None else own
        if not most:
            return None
        leave = self._concurrency.enter(principal.key_number, most)
        if leave is None:
            raise RateLimited(
                f"This key has {most} requests under way, which is all that it may have.",
                hint="Wait for one of them to end.",
                retry_after_s=CONCURRENT_RETRY_S,
            )
        return leave

    def statistics(self) -> dict[str, int]:
        """What is tracked, for metrics."""
        return {"keys_tracked": len(self._buckets), "keys_busy": len(self._concurrency)}


def too_many_requests(allowance: Allowance) -> RateLimited:
    """The refusal of a key whose bucket is empty."""
    return RateLimited(
        "This key has made too many requests.",
        hint="Retry-After says when the next one is allowed.",
        retry_after_s=_whole_seconds(allowance.next_in_s),
    )


class FailureGate:
    """How often each address may come without a valid key. Valid keys are never refused for what others did.

    An attempt takes a token before anything is looked up, and gets it back when its key is valid. Where there is no
    token: a key that has proved valid before goes on as ever; a request without a well-formed key is refused at once;
    any other key is looked up beside few others, and refused unless it is valid.
    """

    def __init__(self, settings: LimitSettings, *, clock: Callable[[], float]) -> None:
        per_minute = settings.failed_auth_per_minute
        self._rate = Rate.of(per_minute, settings.failed_auth_burst) if per_minute else None
        self._buckets = TokenBuckets(clock=clock, tracked_max=settings.tracked_max)
        self._tracked_max = settings.tracked_max
        self._proven: OrderedDict[bytes, None] = OrderedDict()
        self._suspects = Concurrency()

    @property
    def active(self) -> bool:
        """Whether failures are limited at all."""
        return self._rate is not None

    def attempt(self, address: str, key_hash: bytes | None) -> Attempt:
        """Begin to authenticate.

        Args:
            key_hash: of a well-formed key; None where the request has none.

        Raises:
            RateLimited: the address has used its failures up, and nothing speaks for this request.
        """
        if self._rate is None or (key_hash is not None and key_hash in self._proven):
            return Attempt(self, address, key_hash, None)
        allowance = self._buckets.take(address, self._rate)
        if allowance.allowed:
            return Attempt(self, address, key_hash, allowance)
        leave = self._suspects.enter("", SUSPECT_LOOKUPS_MAX) if key_hash is not None else None
        if leave is None:
            raise self._refusal(allowance, retry_helps=key_hash is not None)
        return Attempt(self, address, key_hash, allowance, leave)

    def statistics(self) -> dict[str, int]:
        """What is tracked, for metrics."""
        return {"addresses_tracked": len(self._buckets), "keys_proven": len(self._proven)}

    def _prove(self, attempt: Attempt) -> None:
        assert attempt.key_hash is not None
        if self._rate is None:
            return
        self._proven[attempt.key_hash] = None
        self._proven.move_to_end(attempt.key_hash)
        while len(self._proven) > self._tracked_max:
            self._proven.popitem(last=False)
        if attempt.allowance is not None and attempt.allowance.allowed:
            self._buckets.give_back(attempt.address, self._rate)

    def _fail(self, attempt: Attempt) -> RateLimited | None:
        """The refusal of an attempt that failed, or None where the address may still fail."""
        allowance = attempt.allowance
        if allowance is None and self._rate is not None and attempt.key_hash is not None:
            # It was valid once: revoked or expired since. From here on it is as any other.
            self._proven.pop(attempt.key_hash, None)
            allowance = self._buckets.take(attempt.address, self._rate)
        if allowance is None or allowance.allowed:
            return None
        return self._refusal(allowance, retry_helps=False)

    @staticmethod
    def _refusal(allowance: Allowance, *, retry_helps: bool) -> RateLimited:
        return RateLimited(
            "Too many requests without a valid Memory Key came from this address.",
            hint="Check the key. Retry-After says when the next attempt is allowed.",
            retry_after_s=1 if retry_helps else _whole_seconds(allowance.next_in_s),
            retry_helps=retry_helps,
        )


class Attempt:
    """One request on its way to be authenticated. Use it as a context manager, around the look-up."""

    __slots__ = ("_gate", "_leave", "address", "allowance", "key_hash")

    def __init__(
        self,
        gate: FailureGate,
        address: str,
        key_hash: bytes | None,
        allowance: Allowance | None,
        leave: Callable[[], None] | None = None,
    ) -> None:
        self._gate = gate
        self._leave = leave
        self.address = address
        self.key_hash = key_hash
        self.allowance = allowance

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._leave is not None:
            self._leave()

    def succeed(self) -> None:
        """The key is valid."""
        self._gate._prove(self)

    def fail(self) -> None:
        """There is no valid key.

        Raises:
            RateLimited: the address had no failure left.
        """
        refusal = self._gate._fail(self)
        if refusal is not None:
            raise refusal


class RequestLimits:
    """Everything that is asked of a request before it may cost anything."""

    def __init__(self, settings: LimitSettings, *, clock: Callable[[], float]) -> None:
        self.keys = KeyGate(settings, clock=clock)
        self.failures = FailureGate(settings, clock=clock)
        self.trusted_proxies = networks_of(settings.trusted_proxies)

    def statistics(self) -> dict[str, int]:
        """What is tracked, for metrics."""
        return {**self.keys.statistics(), **self.failures.statistics()}


def _whole_seconds(seconds: float) -> int:
    """At least one: clients take 0 as no advice at all."""
    return max(1, math.ceil(seconds))
