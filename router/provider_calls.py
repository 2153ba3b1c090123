"""What became of calls to each provider: how long they took, how they were answered, how they failed.

Owns the counts and the span of a call. Must never see what a call says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

from models.distributions import REQUEST_SECONDS, Distribution
from models.errors import MemoryRouterError
from router.headers import HeaderList
from router.spans import CallSpan, begin_call

STATUSES_MAX = 64
"""Different statuses that are told apart for one provider; a provider chooses them."""


class CallUnderWay:
    """One call, as far as it has come."""

    __slots__ = ("_began_s", "_calls", "_span", "is_answered")

    def __init__(self, calls: ProviderCalls, span: CallSpan | None) -> None:
        self._calls = calls
        self._span = span
        self._began_s = trio.current_time()
        self.is_answered = False

    def trace_headers(self) -> HeaderList:
        """What lets the provider continue the trace, if it may."""
        return [] if self._span is None else self._span.headers()

    def answered(self, status: int, attempts: int) -> None:
        """The head of the answer is here."""
        self.is_answered = True
        self._calls.first_byte_seconds.observe(trio.current_time() - self._began_s)
        responses = self._calls.responses
        responses[str(status) if str(status) in responses or len(responses) < STATUSES_MAX else "other"] += 1
        if self._span is not None:
            self._span.answered(status, attempts)

    def end(self, error: str) -> None:
        """It is over; `error` is the type of what ended it early."""
        self._calls.total_seconds.observe(trio.current_time() - self._began_s)
        if self._span is not None:
            self._span.end(error)


class ProviderCalls:
    """The counts of one provider."""

    __slots__ = ("_provider", "errors", "first_byte_seconds", "responses", "total_seconds")

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self.first_byte_seconds = Distribution(REQUEST_SECONDS)
        self.total_seconds = Distribution(REQUEST_SECONDS)
        self.responses = Counter[str]()
        self.errors = Counter[str]()

    @contextmanager
    def under_way(self) -> Iterator[CallUnderWay]:
        """Count a call, for the length of the block."""
        call = CallUnderWay(self, begin_call(self._provider))
        error = "abandoned"
        try:
            yield call
            error = ""
        except MemoryRouterError as failure:
            error = failure.code
            if not call.is_answered:
                self.errors[failure.code] += 1
            raise
        finally:
            call.end("" if call.is_answered and error == "abandoned" else error)

    def statistics(self) -> dict[str, Any]:
        """All of it, for metrics."""
        return {
            "first_byte_seconds": self.first_byte_seconds,
            "total_seconds": self.total_seconds,
            "responses": self.responses,
            "errors": self.errors,
        }
