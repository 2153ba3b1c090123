"""What an operator reads of a running server: log lines.

Owns the shape of a line, and how it tells which request it belongs to. Must never write a body, a
key or message text: fields are short scalars, anything shaped like a key is cut, and of a foreign exception
only its type and its place are shown, since its message may quote what it choked on.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import traceback
from collections.abc import Container, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from models.errors import MemoryRouterError
from models.server_settings import LogSettings
from router.spans import current_trace_id

TEXT_CHARACTERS_MAX = 300
_ERRORS_MAX = 3
_FRAMES_MAX = 6
_KEY_SHAPED = re.compile(r"\b(mk[_-]|sk-|xai-|gsk_|AIza|Bearer )[A-Za-z0-9_.~+/=-]{6,}")
_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

# These write URLs and headers, with the keys in them, at INFO and DEBUG.
_CHATTY_LOGGERS = ("httpx", "httpcore", "hpack", "h11", "h2", "hypercorn", "quart", "asyncio")

_request_id: ContextVar[str] = ContextVar("memoryrouter_request_id", default="")
_logger = logging.getLogger("memoryrouter")


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


def configure_logging(settings: LogSettings, *, stream: TextIO | None = None, worker: int | None = None) -> None:
    """Send every log line of the process to `stream` (stderr unless given) as configured.

    Args:
        worker: the process's number, where several write to one place.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(as_json=settings.format == "json", worker=worker))
    logging.raiseExceptions = False  # a failing handler would print the line's arguments
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    for name in _CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


class LineFormatter(logging.Formatter):
    """Turns a record of any logger into one line: time, level, event, request and trace, then its extra fields."""

    def __init__(self, *, as_json: bool, worker: int | None = None) -> None:
        super().__init__()
        self._as_json = as_json
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields = _fields_of(record)
        if self._worker is not None:
            fields.setdefault("worker", self._worker)
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
    if trace_id := current_trace_id():
        fields["trace_id"] = trace_id
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
