"""What a traced request spends its time on, as the code that serves it sees it; where nothing is traced, nothing.

Owns the trace of the current request and what may be said of it: names of steps, times, a few fixed words. Must never
import a tracing library (`router.tracing` does, where it is set up), nor take a text, a key or an id of a client.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Protocol

from router.headers import HeaderList

Attributes = Mapping[str, str | int | float | bool]


class CallSpan(Protocol):
    """A call to a provider that is under way. Every method may be called on one that is not recorded."""

    def answered(self, status: int, attempts: int) -> None:
        """The head of the answer is here."""

    def headers(self) -> HeaderList:
        """What lets the provider continue the trace; nothing unless the settings say so."""

    def end(self, error: str = "") -> None:
        """The call is over; `error` is the type of what ended it early."""


class Step:
    """One step of a request that has been.

    Attributes:
        began_ns, ended_ns: since the epoch.
        parent: the step that it is a part of; None for a part of the request itself.
        error: the type of the exception that ended it.
    """

    __slots__ = ("attributes", "began_ns", "ended_ns", "error", "name", "parent")

    def __init__(self, name: str, began_ns: int, parent: Step | None = None) -> None:
        self.name = name
        self.began_ns = began_ns
        self.ended_ns = began_ns
        self.parent = parent
        self.attributes: dict[str, str | int | float | bool] = {}
        self.error = ""


class RequestTrace(Protocol):
    """The trace of one request.

    Attributes:
        trace_id: 32 hexadecimal digits, for the log.
        steps: what has been recorded; None where this request is not sampled.
        attributes: of the request itself.
    """

    trace_id: str
    steps: list[Step] | None
    attributes: dict[str, str | int | float | bool]

    def begin_call(self, provider: str) -> CallSpan:
        """A call to a provider begins."""


_current: ContextVar[RequestTrace | None] = ContextVar("memoryrouter_trace", default=None)
_NOTHING: AbstractContextManager[None] = nullcontext()


def current_trace_id() -> str:
    """The trace id of the current request; "" where nothing is traced."""
    trace = _current.get()
    return "" if trace is None else trace.trace_id


@contextmanager
def trace_scope(trace: RequestTrace) -> Iterator[None]:
    """What happens inside, also in tasks started inside, belongs to this trace."""
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)


def step(name: str) -> AbstractContextManager[Step | None]:
    """Record the block as a step of the current request. Yields the step, or None where nothing is recorded."""
    trace = _current.get()
    if trace is None or trace.steps is None:
        return _NOTHING
    return _Recording(trace.steps, Step(name, time.time_ns()))


def describe_request(attributes: Attributes) -> None:
    """Say of the current request what is known of it by now, in attributes of its own span."""
    trace = _current.get()
    if trace is not None and trace.steps is not None:
        trace.attributes.update(attributes)


def begin_call(provider: str) -> CallSpan | None:
    """A call to a provider begins, as a part of the current request; None where nothing is traced."""
    trace = _current.get()
    return None if trace is None else trace.begin_call(provider)


def record_part(whole: Step, name: str, *, after_s: float, took_s: float) -> None:
    """Record a part of a step, of which only the times are known: seconds after the step began, and its length."""
    trace = _current.get()
    if trace is not None and trace.steps is not None:
        part = Step(name, whole.began_ns + round(after_s * 1e9), parent=whole)
        part.ended_ns = part.began_ns + round(took_s * 1e9)
        trace.steps.append(part)


class _Recording(AbstractContextManager[Any]):
    """Times a block."""

    __slots__ = ("_began_s", "_step", "_steps")

    def __init__(self, steps: list[Step], new: Step) -> None:
        self._steps = steps
        self._step = new
        self._began_s = time.perf_counter()

    def __enter__(self) -> Step:
        return self._step

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._step.ended_ns = self._step.began_ns + round((time.perf_counter() - self._began_s) * 1e9)
        self._step.error = "" if kind is None else kind.__name__
        self._steps.append(self._step)
