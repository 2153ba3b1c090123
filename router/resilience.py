"""When a call to a provider is tried again, and when a provider is left alone for a while.

Owns both decisions as plain state and arithmetic: no I/O, no sleeping, no clock of its own. Must never see a body, and
never call for another attempt when the provider may have begun to work without saying how it went: that costs money
twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

import msgspec

from models.errors import UpstreamSuspended

BUSY_STATUSES = frozenset({429, 502, 503, 504, 529})
"""Answers after which the same request may succeed a moment later. Not 500: most of those are about the request, and
the clients' SDKs try it again themselves. 529 is Anthropic's "overloaded"."""

FAILURE_STATUSES = frozenset({502, 503, 504, 529})
"""Answers that count against the provider as a whole. A 429 is about one key, a 500 often about one request: neither
may let one caller shut the provider for all others."""

_FIRST_PAUSE_S = 0.25

BreakerState = Literal["closed", "open", "half_open"]


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often and how long a provider is waited for.

    Attributes:
        retries_max: attempts after the first.
        wait_max_s: the longest pause before one of them.
    """

    retries_max: int
    wait_max_s: float

    def pause_s(self, attempts: int, *, asked_s: float | None, jitter: float) -> float | None:
        """Seconds to wait before the next attempt, or None when there is to be none.

        Exponential from 0.25 s, half of it random, so that callers who failed together do not come back together.

        Args:
            attempts: made so far, at least 1.
            asked_s: what the provider asked for; more than `wait_max_s` means no further attempt.
            jitter: a random number from 0 to 1.
        """
        if attempts > self.retries_max or (asked_s is not None and asked_s > self.wait_max_s):
            return None
        backoff_s = _FIRST_PAUSE_S * 2.0 ** (attempts - 1) * (1 + jitter) / 2
        return min(max(asked_s or 0.0, backoff_s), self.wait_max_s)


def is_busy(status: int, headers: Iterable[tuple[str, str]]) -> bool:
    """Whether an answer says "not now": by its status, unless `x-should-retry` says that waiting will not help."""
    if status not in BUSY_STATUSES:
        return False
    return not any(name.lower() == "x-should-retry" and value.strip().lower() == "false" for name, value in headers)


def asked_pause_s(headers: Iterable[tuple[str, str]], *, now_s: float) -> float | None:
    """The pause that a provider asks for, in seconds; None when it names none that can be read.

    `retry-after-ms` (OpenAI's) goes before `retry-after`, which holds seconds, whole or not, or an HTTP date.

    Args:
        now_s: the time since 1970 in seconds.
    """
    values = {name.lower(): value.strip() for name, value in headers}
    milliseconds = _number(values.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = values.get("retry-after", "")
    seconds = _number(text)
    return seconds if seconds is not None else _seconds_until(text, now_s=now_s)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else max(number, 0.0)


def _seconds_until(date: str, *, now_s: float) -> float | None:
    try:
        then = parsedate_to_datetime(date)
    except (ValueError, IndexError):  # IndexError: date parsers of Python 3.11 on some broken texts
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max((then - datetime.fromtimestamp(now_s, UTC)).total_seconds(), 0.0)


class Ticket:
    """One admitted call. The breaker knows by it which verdicts are news and which are old."""

    __slots__ = ("openings",)

    def __init__(self, openings: int) -> None:
        self.openings = openings


class Breaker:
    """Refuses calls to one provider for a while after it failed several times in a row.

    Closed: all calls pass. Open: none does, for `open_s`. Half open, after that: one call passes as a probe; if it
    succeeds the breaker closes, if it fails it opens again. A probe that says nothing for `open_s` (a model may think
    for minutes) does not keep others out: the next call is a probe too. Verdicts on calls that were admitted before the
    last opening are old and change nothing.

    Args:
        provider: its name, for the error.
        failures: in a row that open it; 0 never does.
        open_s: seconds that it stays open.
        clock: seconds on any monotonic clock.
    """

    def __init__(self, provider: str, *, failures: int, open_s: float, clock: Callable[[], float]) -> None:
        self._provider = provider
        self._failures_max = failures
        self._open_s = open_s
        self._clock = clock
        self._failures = 0
        self._openings = 0
        self._open_until: float | None = None
        self._probe: Ticket | None = None
        self._probe_until = 0.0

    @property
    def state(self) -> BreakerState:
        """As a call would find it now."""
        if self._open_until is None:
            return "closed"
        return "open" if self._clock() < self._open_until else "half_open"

    @property
    def openings(self) -> int:
        """How often it has opened."""
        return self._openings

    @contextmanager
    def admitted(self) -> Iterator[Ticket]:
        """Let a call pass. Within the block `succeeded` or `failed` say how it went.

        A probe that leaves the block without a verdict makes room for the next one.

        Raises:
            UpstreamSuspended: not now; the error says when.
        """
        ticket = self._admit()
        try:
            yield ticket
        finally:
            if self._probe is ticket:
                self._probe = None

    def _admit(self) -> Ticket:
        ticket = Ticket(self._openings)
        match self.state:
            case "closed":
                return ticket
            case "open":
                assert self._open_until is not None
                raise self._refusal(self._open_until)
            case "half_open":
                if self._probe is not None and self._clock() < self._probe_until:
                    raise self._refusal(self._probe_until)
                self._probe, self._probe_until = ticket, self._clock() + self._open_s
                return ticket

    def succeeded(self, ticket: Ticket) -> None:
        """The provider answered, be it that the request is wrong."""
        if ticket.openings == self._openings:
            self._failures = 0
            self._open_until = self._probe = None

    def failed(self, ticket: Ticket) -> None:
        """The provider could not be reached, said nothing in time, or said that it is out of order."""
        if ticket.openings != self._openings or not self._failures_max:
            return
        self._failures += 1
        if self._open_until is not None or self._failures >= self._failures_max:
            self._openings += 1
            self._failures = 0
            self._open_until = self._clock() + self._open_s
            self._probe = None

    def _refusal(self, until: float) -> UpstreamSuspended:
        return UpstreamSuspended(
            f"The provider {self._provider} failed repeatedly and is not called for a moment.",
            retry_after_s=max(math.ceil(until - self._clock()), 1),
        )
