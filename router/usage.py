"""What one request adds to its key's usage, collected while it is served and written to the journal.

A request is written before its answer goes out, so that what a client has been answered is counted whatever happens to
the process; what is known only later (a streamed reply's tokens, its breaking off) follows as a further record, as a
difference. Must never fail a request.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import msgspec

from actors.usage_journal import UsageJournal
from actors.usage_records import Counted
from models.ids import Principal
from models.usage import DAY_MINUTES, MINUTE_MS
from router.providers.base import Collector, Reply, Signal, Usage
from router.providers.openai_reply import read_usage
from router.sse import Event
from router.translating import TranslatedStream
from router.usage_chunks import WithoutUsage

TOKENS_MAX = 2**40
"""Of one reply; more is a provider's nonsense."""

_DIFFERENT = (
    "requests", "errors", "tokens_retrieved", "tokens_injected", "tokens_billed", "input_tokens", "output_tokens",
    "latency_us",
)  # fmt: skip


class Meter:
    """Begins the counting of each request. One for a server; without a journal nothing is counted."""

    def __init__(
        self,
        journal: UsageJournal | None,
        *,
        billing_multiplier: float,
        now_ms: Callable[[], int],
        heard: Callable[[Counted], None] = lambda _: None,
    ) -> None:
        """Make one.

        Args:
            heard: told of every count, also where nothing is journalled.
        """
        self.journal = journal
        self.heard = heard
        self._billing_multiplier = billing_multiplier
        self._now_ms = now_ms

    def begin(self, principal: Principal, *, began_s: float) -> RequestUsage:
        """A request of this caller has begun, at this `time.perf_counter()`."""
        return RequestUsage(self, principal, began_s=began_s, minute=self._now_ms() // MINUTE_MS)

    def billed(self, tokens: int) -> int:
        """The billing units of so many tokens of memory."""
        return round(tokens * self._billing_multiplier)


class RequestUsage:
    """One request's counts. `answered` before its answer goes out, `close` when it is over, in whatever way."""

    __slots__ = ("_answered", "_began_s", "_billable", "_counted", "_meter", "_provider_s", "_written")

    def __init__(self, meter: Meter, principal: Principal, *, began_s: float, minute: int) -> None:
        self._meter = meter
        self._began_s = began_s
        self._provider_s = 0.0
        self._billable = 0
        self._answered = False
        nothing = Counted(key_number=principal.key_number, account_number=principal.account_number, minute=minute)
        self._written = nothing
        self._counted = msgspec.structs.replace(nothing, requests=1)

    def name_model(self, name: str) -> None:
        """The request names a model that somebody serves."""
        if self._meter.journal is not None:
            counted = self._counted
            model = self._meter.journal.models.known(
                name, key_number=counted.key_number, day=counted.minute // DAY_MINUTES
            )
            self._counted = msgspec.structs.replace(counted, model=model)

    def use_memory(self, *, retrieved: int, injected: int = 0, billable: int = 0) -> None:
        """The request was given so many tokens of memory; `billable` ones are billed unless it fails."""
        self._counted = msgspec.structs.replace(self._counted, tokens_retrieved=retrieved, tokens_injected=injected)
        self._billable = billable

    @contextmanager
    def provider_time(self) -> Iterator[None]:
        """What passes within is not this server's doing."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self._provider_s += time.perf_counter() - began_s

    def hear(self, usage: Usage | None) -> None:
        """What the provider says of its tokens, so far."""
        if usage is not None:
            self._counted = msgspec.structs.replace(
                self._counted,
                input_tokens=min(max(usage.prompt_tokens, 0), TOKENS_MAX),
                output_tokens=min(max(usage.completion_tokens, 0), TOKENS_MAX),
            )

    def fail(self) -> None:
        """The reply broke off, or says that it failed."""
        self._counted = msgspec.structs.replace(self._counted, errors=1)

    def answered(self, status: int) -> float:
        """The answer is about to go out. Returns the seconds so far that are this server's doing."""
        added_s = max(0.0, time.perf_counter() - self._began_s - self._provider_s)
        if self._answered:
            return added_s
        self._answered = True
        self._counted = msgspec.structs.replace(
            self._counted,
            errors=int(status >= 400),
            tokens_billed=self._meter.billed(self._billable) if status < 400 else 0,
            latency_us=round(added_s * 1_000_000),
        )
        self.write()
        return added_s

    def discard(self) -> None:
        """This request is not to be counted."""
        self._answered = True
        self._counted = self._written

    def close(self) -> None:
        """The request is over. One that never got an answer, since its client left, counts all the same."""
        self._answered = True
        self.write()

    def write(self) -> None:
        """Write what has come since the last time."""
        counted, written = self._counted, self._written
        if counted == written:
            return
        self._written = counted
        if written.requests:
            difference = {name: getattr(counted, name) - getattr(written, name) for name in _DIFFERENT}
            counted = msgspec.structs.replace(counted, **difference)
        self._meter.heard(counted)
        if self._meter.journal is not None:
            self._meter.journal.count(counted)


class MeteredCollector:
    """A collector that tells a request's usage what it hears; see `router.providers.base.Collector`."""

    def __init__(self, collector: Collector, usage: RequestUsage, hidden: Callable[[], Usage | None]) -> None:
        """Listen beside a collector.

        Args:
            hidden: what the provider said of its tokens and the client does not see.
        """
        self._collector = collector
        self._usage = usage
        self._hidden = hidden
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the format's terminator has come."""
        return self._collector.ended

    def classify(self, event: Event) -> Signal:
        """What the event means, if it came next."""
        return self._collector.classify(event)

    def feed(self, event: Event) -> Signal:
        """Take the event in and say what it means. What ends a reply is written before the client sees it."""
        signal = self._collector.feed(event)
        if signal is Signal.FAILURE:
            self._usage.fail()
        ends = self._collector.ended and not self._ended
        if ends or signal is not Signal.NOTHING:
            self._ended = self._collector.ended
            self.note()
        return signal

    def reply(self) -> Reply:
        """What has been said so far."""
        return self._collector.reply()

    def close(self, *, is_cut: bool) -> None:
        """The reply is over; `is_cut` where the provider broke it off."""
        if is_cut:
            self._usage.fail()
        self.note()

    def note(self) -> None:
        """Write what is known of the reply's tokens."""
        self._usage.hear(self._collector.reply().usage or self._hidden())
        self._usage.write()


def hidden_usage(chunks: AsyncIterator[bytes]) -> Usage | None:
    """What a provider said of its tokens in a part of its reply that the client does not get."""
    if isinstance(chunks, WithoutUsage):
        return read_usage({"usage": chunks.filter.usage})
    return chunks.usage if isinstance(chunks, TranslatedStream) else None
