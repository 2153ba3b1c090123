"""What each account's requests did lately: counts, and how long answers took, by minute and by hour.

Pure bookkeeping in Trio's thread, bounded in memory, gone with the process. Percentiles are of a window of a few
minutes, from buckets that are 10 percent wide; those of a whole run would hide what is slow now. Must never hold what
anybody said.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from actors.store.cache import RecentlyUsed

MINUTE_S, HOUR_S = 60, 3_600
MINUTES_KEPT, HOURS_KEPT = 60, 24
WINDOW_MINUTES = 5
RATE_S = 10
"""Whole seconds over which requests per second are counted."""

ACCOUNTS_MAX = 256
"""Accounts with figures; the one that asked for nothing the longest begins again at zero."""

Kind = Literal["all", "recall", "chat_first_byte", "chat_overhead"]
KINDS: tuple[Kind, ...] = ("all", "recall", "chat_first_byte", "chat_overhead")

_WIDTH = math.log(1.1)
_LEAST_MS = 0.01


class Latencies:
    """Durations in buckets, each 10 percent wider than the one before."""

    __slots__ = ("_counts",)

    def __init__(self, counts: Counter[int] | None = None) -> None:
        self._counts: Counter[int] = Counter() if counts is None else counts

    @classmethod
    def of(cls, parts: Iterable[Latencies]) -> Latencies:
        """All of these together."""
        counts: Counter[int] = Counter()
        for part in parts:
            counts.update(part._counts)
        return cls(counts)

    @property
    def counts(self) -> dict[int, int]:
        """How many there are in each bucket."""
        return dict(self._counts)

    def add(self, milliseconds: float) -> None:
        """One more."""
        self._counts[math.floor(math.log(max(milliseconds, _LEAST_MS)) / _WIDTH)] += 1

    def percentile(self, percent: float) -> float | None:
        """What so many percent of the durations stay below, in milliseconds to within 5 percent; None without any."""
        rank = math.ceil(self._counts.total() * percent / 100)
        for bucket, count in sorted(self._counts.items()):
            rank -= count
            if rank <= 0:
                return round(math.exp((bucket + 0.5) * _WIDTH), 2)
        return None

    def body(self) -> dict[str, float | None]:
        """As JSON."""
        return {f"p{percent}": self.percentile(percent) for percent in (50, 95, 99)}


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was answered.

    Attributes:
        took_ms: by kind; those that do not apply are not in it.
        provider: that was asked, "" for none.
    """

    status: int
    took_ms: dict[Kind, float]
    provider: str = ""


class Span:
    """The requests of one minute or hour, which `number` counts since the epoch."""

    __slots__ = ("errors", "latencies", "number", "requests")

    def __init__(self, number: int) -> None:
        self.number = number
        self.requests = self.errors = 0
        self.latencies: dict[Kind, Latencies] = {}

    def add(self, answered: Answered, kinds: Iterable[Kind]) -> None:
        """One more."""
        self.requests += 1
        self.errors += answered.status >= 400
        for kind in kinds:
            if kind in answered.took_ms:
                self.latencies.setdefault(kind, Latencies()).add(answered.took_ms[kind])


class ToldSpan(msgspec.Struct, frozen=True):
    """A `Span` as it goes from worker to worker."""

    number: int
    requests: int
    errors: int
    latencies: dict[Kind, dict[int, int]]

    @classmethod
    def of(cls, span: Span) -> ToldSpan:
        """Of this one."""
        latencies = {kind: found.counts for kind, found in span.latencies.items()}
        return cls(span.number, span.requests, span.errors, latencies)


class ProviderFigures(msgspec.Struct):
    """What an account's requests met at one provider.

    Attributes:
        failing: whether the last one failed.
        last_error_status: of the last that failed.
    """

    requests: int = 0
    errors: int = 0
    failing: bool = False
    last_error_status: int | None = None
    last_error_ms: int | None = None
    last_used_ms: int | None = None

    def add(self, other: ProviderFigures) -> None:
        """What another worker's requests met there; the later one of two last requests is the last."""
        self.requests += other.requests
        self.errors += other.errors
        if (other.last_used_ms or 0) >= (self.last_used_ms or 0):
            self.failing, self.last_used_ms = other.failing, other.last_used_ms
        if (other.last_error_ms or 0) >= (self.last_error_ms or 0):
            self.last_error_status, self.last_error_ms = other.last_error_status, other.last_error_ms


class Told(msgspec.Struct, frozen=True):
    """`AccountFigures` as they go from worker to worker."""

    requests: int
    errors: int
    tokens: dict[str, int]
    providers: dict[str, ProviderFigures]
    minutes: list[ToldSpan]
    hours: list[ToldSpan]
    seconds: list[tuple[int, int]]


class AccountFigures:
    """What one account did since this server knows it.

    Attributes:
        tokens: what its requests read, were given and used of models.
    """

    def __init__(self) -> None:
        self.requests = self.errors = 0
        self.tokens: Counter[str] = Counter()
        self.providers: dict[str, ProviderFigures] = {}
        self._minutes: deque[Span] = deque(maxlen=MINUTES_KEPT)
        self._hours: deque[Span] = deque(maxlen=HOURS_KEPT)
        self._seconds: deque[tuple[int, int]] = deque(maxlen=RATE_S + 1)

    def add(self, answered: Answered, *, now_s: float) -> None:
        """A request was answered now."""
        self.requests += 1
        self.errors += answered.status >= 400
        minute = _current(self._minutes, int(now_s // MINUTE_S))
        minute.add(answered, KINDS)
        _current(self._hours, int(now_s // HOUR_S)).add(answered, KINDS[:1])
        self._count_second(int(now_s))
        self._forget_kinds(minute.number)
        if answered.provider:
            self._add_provider(answered, now_ms=int(now_s * 1000))

    def told(self) -> Told:
        """All of it, for another worker."""
        return Told(
            requests=self.requests,
            errors=self.errors,
            tokens=dict(self.tokens),
            providers=self.providers,
            minutes=[ToldSpan.of(span) for span in self._minutes],
            hours=[ToldSpan.of(span) for span in self._hours],
            seconds=list(self._seconds),
        )

    @classmethod
    def together(cls, parts: Sequence[Told]) -> AccountFigures:
        """What several workers have counted of one account."""
        figures = cls()
        figures.requests = sum(part.requests for part in parts)
        figures.errors = sum(part.errors for part in parts)
        seconds: Counter[int] = Counter()
        for part in parts:
            figures.tokens.update(part.tokens)
            seconds.update(dict(part.seconds))
            for name, met in part.providers.items():
                figures.providers.setdefault(name, ProviderFigures()).add(met)
        figures._minutes.extend(_spans(span for part in parts for span in part.minutes))
        figures._hours.extend(_spans(span for part in parts for span in part.hours))
        figures._seconds.extend(sorted(seconds.items()))
        return figures

    def _count_second(self, second: int) -> None:
        if self._seconds and self._seconds[-1][0] >= second:  # a clock that was set back counts on where it was
            last, count = self._seconds[-1]
            self._seconds[-1] = (last, count + 1)
        else:
            self._seconds.append((second, 1))

    def _forget_kinds(self, minute: int) -> None:
        """Only the window asks for other kinds than the first."""
        for span in list(self._minutes)[-WINDOW_MINUTES - 3 : -WINDOW_MINUTES]:
            if span.number < minute - WINDOW_MINUTES:
                span.latencies = {kind: span.latencies[kind] for kind in KINDS[:1] if kind in span.latencies}

    def _add_provider(self, answered: Answered, *, now_ms: int) -> None:
        figures = self.providers.setdefault(answered.provider, ProviderFigures())
        figures.requests += 1
        figures.last_used_ms = now_ms
        figures.failing = is_providers_failure(answered.status)
        if figures.failing:
            figures.errors += 1
            figures.last_error_status, figures.last_error_ms = answered.status, now_ms

    def per_second(self, now_s: float) -> float:
        """Requests a second, over the last whole seconds."""
        until = int(now_s)
        return round(sum(count for second, count in self._seconds if until - RATE_S <= second < until) / RATE_S, 2)

    def latencies(self, now_s: float) -> dict[Kind, Latencies]:
        """By kind, of the window that ends now."""
        first = int(now_s // MINUTE_S) - WINDOW_MINUTES
        recent = [span.latencies for span in self._minutes if span.number >= first]
        return {kind: Latencies.of(span[kind] for span in recent if kind in span) for kind in KINDS}

    def minutes(self, now_s: float) -> Iterator[Span]:
        """The last minutes, oldest first, also those without requests."""
        return _all_of(self._minutes, int(now_s // MINUTE_S), MINUTES_KEPT)

    def hours(self, now_s: float) -> Iterator[Span]:
        """The same of hours."""
        return _all_of(self._hours, int(now_s // HOUR_S), HOURS_KEPT)


def is_providers_failure(status: int) -> bool:
    """Whether an answer says that the provider, or our key for it, is to blame, and not the request."""
    return status >= 500 or status in {401, 402, 403, 408, 429}


def _current(spans: deque[Span], number: int) -> Span:
    if not spans or spans[-1].number < number:
        spans.append(Span(number))
    return spans[-1]


def _spans(told: Iterable[ToldSpan]) -> Iterator[Span]:
    """Those of one number together, in order."""
    spans: dict[int, Span] = {}
    for part in told:
        span = spans.setdefault(part.number, Span(part.number))
        span.requests += part.requests
        span.errors += part.errors
        for kind, counts in part.latencies.items():
            known = span.latencies.get(kind, Latencies())
            span.latencies[kind] = Latencies.of([known, Latencies(Counter(counts))])
    return (spans[number] for number in sorted(spans))


def _all_of(spans: deque[Span], last: int, kept: int) -> Iterator[Span]:
    known = {span.number: span for span in spans}
    return (known.get(number) or Span(number) for number in range(last - kept + 1, last + 1))


class RecentFigures:
    """The figures of all accounts."""

    def __init__(self, *, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._by_account: RecentlyUsed[int, AccountFigures] = RecentlyUsed(ACCOUNTS_MAX)

    def of(self, account: int) -> AccountFigures:
        """One account's."""
        figures = self._by_account.get(account)
        if figures is None:
            figures = AccountFigures()
            self._by_account.put(account, figures)
        return figures

    def add(self, account: int, answered: Answered) -> None:
        """A request of this account was answered now."""
        self.of(account).add(answered, now_s=self._now_ms() / 1000)
