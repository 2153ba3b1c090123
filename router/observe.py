"""What an operator sees of a running server: log lines and metrics.

Owns the shape of a log line, the names of the metrics and the text of `/metrics`. Must never write a body, a
key or message text: fields are short scalars, anything shaped like a key is cut, and of a foreign exception
only its type and its place are shown, since its message may quote what it choked on.
"""

from __future__ import annotations

import json
import logging
import math
import re
import resource
import sys
import time
import traceback
from bisect import bisect_left
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from models.errors import MemoryRouterError
from models.server_settings import LogSettings
from models.version import VERSION

METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SERIES_MAX = 512
"""Label combinations of one metric; later ones count as `other`, so that no client can fill the memory."""

SKIP_REASONS = ("empty", "error", "not_stored", "off", "overloaded", "timeout")
"""Why memory was left out of a request: every value of `X-Memory-Status` but `ok` (design section 12)."""

LIMITS = ("bodies", "concurrency", "connections", "failed_auth", "headers", "memories", "requests")
"""What limits: room for bodies, requests of a key at once, connections of an address, failed authentication, the time
for headers, memories of a vault, and requests of a key a minute."""

SECONDS_BUCKETS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)

TEXT_CHARACTERS_MAX = 300
_ERRORS_MAX = 3
_FRAMES_MAX = 6
_KEY_SHAPED = re.compile(r"\b(mk[_-]|sk-|xai-|gsk_|AIza|Bearer )[A-Za-z0-9_.~+/=-]{6,}")
_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

# These write URLs and headers, with the keys in them, at INFO and DEBUG.
_CHATTY_LOGGERS = ("httpx", "httpcore", "hpack", "h11", "h2", "hypercorn", "quart", "asyncio")

_request_id: ContextVar[str] = ContextVar("memoryrouter_request_id", default="")
_logger = logging.getLogger("memoryrouter")


# --- logs ---


def log_event(event: str, /, *, level: int = logging.INFO, **fields: object) -> None:
    """Write one line: a fixed name such as `request_done`, and short scalar fields for what varies."""
    _logger.log(level, event, extra={_free(name, _RECORD_FIELDS): value for name, value in fields.items()})


@contextmanager
def request_scope(request_id: str) -> Iterator[None]:
    """Lines written inside, also by tasks started inside, carry this request id."""
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


def configure_logging(settings: LogSettings, *, stream: TextIO | None = None) -> None:
    """Send every log line of the process to `stream` (stderr unless given) as configured."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(as_json=settings.format == "json"))
    logging.raiseExceptions = False  # a failing handler would print the line's arguments
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    for name in _CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


class LineFormatter(logging.Formatter):
    """Turns a record of any logger into one line: time, level, event, request id, then its extra fields."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields = _fields_of(record)
        if self._as_json:
            return json.dumps(fields, ensure_ascii=True)
        event = "".join(c if c.isprintable() else " " for c in fields.pop("event"))
        head = f"{fields.pop('time')} {fields.pop('level'):<7} {event}"
        return " ".join([head, *(f"{name}={_one_line(value)}" for name, value in fields.items())])


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    fields: dict[str, Any] = {
        "time": when.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "event": _safe(record.getMessage()),
    }
    if record.name != _logger.name:
        fields["logger"] = record.name
    if request_id := _request_id.get():
        fields["request_id"] = _safe(request_id)
    for name, value in vars(record).items():
        if name not in _RECORD_FIELDS:
            fields[_free(name, fields)] = _safe(value)
    if record.exc_info and record.exc_info[1] is not None:
        fields["error"] = describe_error(record.exc_info[1])
    return fields


def _free(name: str, taken: Container[str]) -> str:
    """A field's name, with `_` behind it where the line or the record has that name already."""
    return f"{name}_" if name in taken else name


def _safe(value: object) -> object:
    """A value as it may be written: numbers, texts cut and cleared of keys, and of all else the type."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON knows no NaN
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, BaseException):
        return describe_error(value)
    if isinstance(value, str):
        text = _KEY_SHAPED.sub(r"\1****", value)
        return text if len(text) <= TEXT_CHARACTERS_MAX else text[: TEXT_CHARACTERS_MAX - 1] + "…"
    return type(value).__name__


def _one_line(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text and text else json.dumps(text)


def describe_error(error: BaseException) -> str:
    """Types and places of an exception, or of the first few of a group; messages only of our own errors."""
    leaves = list(_leaves(error))
    described = [_describe_leaf(leaf) for leaf in leaves[:_ERRORS_MAX]]
    if len(leaves) > _ERRORS_MAX:
        described.append(f"and {len(leaves) - _ERRORS_MAX} more")
    return "; ".join(described)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _describe_leaf(error: BaseException) -> str:
    words = [type(error).__name__]
    if isinstance(error, MemoryRouterError):  # their texts hold no keys and no message text, see models.errors
        words.append(f"({_safe(error.message)})")
    elif isinstance(error, OSError) and error.strerror:
        words.append(f"({error.strerror})")
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES_MAX:]
    words.extend(
        f"at {'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno} {frame.name}" for frame in reversed(frames)
    )
    if error.__cause__ is not None:
        words.append(f"because of {type(error.__cause__).__name__}")
    return " ".join(words)


# --- metrics ---

Labels = tuple[str, ...]


class Counter:
    """A number that only grows, one for each combination of label values. For Trio's thread only."""

    def __init__(self, name: str, description: str, labels: Labels = ()) -> None:
        self.name, self.description, self.labels = name, description, labels
        self._values: dict[Labels, float] = {} if labels else {(): 0}

    def increment(self, *values: object, by: float = 1) -> None:
        """Add `by` to the series of these label values, which come in the order of the labels."""
        key = _series(self._values, values, self.labels)
        self._values[key] = self._values.get(key, 0) + by

    def value(self, *values: object) -> float:
        """Where the series stands."""
        return self._values.get(tuple(str(value) for value in values), 0)

    def lines(self) -> Iterator[str]:
        """The metric in Prometheus' text format."""
        yield from _head(self.name, self.description, "counter")
        for key, value in sorted(self._values.items()):
            yield _line(self.name, zip(self.labels, key, strict=True), value)


class Histogram:
    """How many durations fell into each bucket, by combination of label values. For Trio's thread only."""

    def __init__(self, name: str, description: str, labels: Labels = ()) -> None:
        self.name, self.description, self.labels = name, description, labels
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, seconds: float, *values: object) -> None:
        """Count one duration."""
        key = _series(self._counts, values, self.labels)
        counts = self._counts.setdefault(key, [0] * (len(SECONDS_BUCKETS) + 1))
        counts[bisect_left(SECONDS_BUCKETS, seconds)] += 1
        self._sums[key] = self._sums.get(key, 0.0) + seconds

    def count(self, *values: object) -> int:
        """How many durations the series has."""
        return sum(self._counts.get(tuple(str(value) for value in values), ()))

    def lines(self) -> Iterator[str]:
        """The metric in Prometheus' text format, with cumulative buckets."""
        yield from _head(self.name, self.description, "histogram")
        bounds = [*(f"{bound:g}" for bound in SECONDS_BUCKETS), "+Inf"]
        for key, counts in sorted(self._counts.items()):
            labels = list(zip(self.labels, key, strict=True))
            below = 0
            for bound, count in zip(bounds, counts, strict=True):
                below += count
                yield _line(f"{self.name}_bucket", [*labels, ("le", bound)], below)
            yield _line(f"{self.name}_sum", labels, self._sums[key])
            yield _line(f"{self.name}_count", labels, below)


class Metrics:
    """Every metric of one server. Kept in memory, read at `/metrics`, gone with the process."""

    def __init__(self) -> None:
        self.requests = Counter(
            "memoryrouter_requests_total",
            "Requests answered, by route template and status.",
            ("route", "status"),
        )
        self.request_seconds = Histogram(
            "memoryrouter_request_duration_seconds", "From request to end of response.", ("route",)
        )
        self.recall_seconds = Histogram("memoryrouter_recall_duration_seconds", "Time that recall took.")
        self.memory_skipped = Counter(
            "memoryrouter_memory_skipped_total", "Requests that went on without memory.", ("reason",)
        )
        self.not_stored = Counter("memoryrouter_not_stored_total", "Exchanges that could not be stored.")
        self.limited = Counter("memoryrouter_limited_total", "What a limit refused or cut off, by limit.", ("limit",))
        self._watched: dict[str, Callable[[], Mapping[str, Any]]] = {}
        self._totals: dict[str, Callable[[], Mapping[str, int]]] = {}
        self._started_s = time.time()
        for reason in SKIP_REASONS:  # alerts on a rate need the zero before the first event
            self.memory_skipped.increment(reason, by=0)
        for limit in LIMITS:
            self.limited.increment(limit, by=0)

    def watch(self, part: str, statistics: Callable[[], Mapping[str, Any]]) -> None:
        """Show each number of a part's `statistics()` as a gauge `memoryrouter_<part>_<name>`."""
        self._watched[part] = statistics

    def watch_totals(self, part: str, totals: Callable[[], Mapping[str, int]]) -> None:
        """Show each number of a part's totals, which only grow, as a counter `memoryrouter_<part>_<name>_total`."""
        self._totals[part] = totals

    def render(self) -> str:
        """The text of `/metrics`."""
        own = (
            self.requests, self.request_seconds, self.recall_seconds, self.memory_skipped,
            self.not_stored, self.limited,
        )  # fmt: skip
        lines = [line for metric in own for line in metric.lines()]
        gauges = dict(self._process_gauges())
        for part, statistics in self._watched.items():
            gauges.update(_numbers(f"memoryrouter_{part}", statistics()))
        for part, totals in self._totals.items():
            for name, total in totals().items():
                full_name = f"memoryrouter_{part}_{name}_total"
                lines += [f"# TYPE {full_name} counter", _line(full_name, (), total)]
        for name, value in gauges.items():
            lines += [f"# TYPE {name} gauge", _line(name, (), value)]
        lines += [*_head("memoryrouter_build_info", "The running version.", "gauge")]
        lines.append(_line("memoryrouter_build_info", (("version", VERSION),), 1))
        return "\n".join(lines) + "\n"

    def _process_gauges(self) -> Iterator[tuple[str, float]]:
        yield "process_start_time_seconds", self._started_s
        with suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:
            yield "process_resident_memory_bytes", int(file.read().split()[1]) * resource.getpagesize()


def _series(known: Mapping[Labels, object], values: tuple[object, ...], labels: Labels) -> Labels:
    if len(values) != len(labels):
        raise ValueError(f"expected values of {labels}")
    key = tuple(str(value) for value in values)
    return key if key in known or len(known) < SERIES_MAX else ("other",) * len(labels)


def _numbers(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a nested mapping by joined name, at most `SERIES_MAX` of each level."""
    for name, value in list(values.items())[:SERIES_MAX]:
        full_name = f"{prefix}_{re.sub('[^a-zA-Z0-9_]', '_', str(name))}"
        if isinstance(value, int | float):
            yield full_name, value
        elif isinstance(value, Mapping):
            yield from _numbers(full_name, value)


def _head(name: str, description: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {description}"
    yield f"# TYPE {name} {kind}"


def _line(name: str, labels: Any, value: float) -> str:
    inside = ",".join(f'{label}="{_escape(text)}"' for label, text in labels)
    number = str(int(value)) if math.isfinite(value) and value == int(value) else repr(float(value))
    return f"{name}{{{inside}}} {number}" if inside else f"{name} {number}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
