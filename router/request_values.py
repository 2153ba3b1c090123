"""Single values as requests write them: whole numbers, times, switches. Pure; each refusal names its field.

Owns what counts as one of these wherever a route asks for it. Options of memory have more spellings, in
`router.options`.
"""

from __future__ import annotations

import re
from datetime import datetime, tzinfo
from typing import Any

from models.errors import InvalidRequest
from router.uploads import TIMESTAMP_MS_MAX

_DECIMAL = re.compile(r"\s*-?[0-9]{1,18}\s*\Z")
_LOST_PLUS = re.compile(r"(T[\d:.,]+) (\d\d:?\d\d)\Z")  # of a time zone, in a query that was not quoted
_SWITCHES = {"true": True, "1": True, "false": False, "0": False}


def whole_number(value: Any, name: str, least: int, most: int) -> int:
    """An integer within bounds; a header's or query's decimal text counts as one.

    Raises:
        InvalidRequest: not a whole number, or out of bounds.
    """
    is_whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    is_text = isinstance(value, str) and _DECIMAL.match(value) is not None
    number = int(value) if is_whole or is_text else None
    if number is None or not least <= number <= most:
        raise InvalidRequest(f"{name} must be a whole number from {least} to {most}.", field=name)
    return number


def read_switch(value: str | None, name: str) -> bool | None:
    """A query's switch: true, false, or None where nothing is said.

    Raises:
        InvalidRequest: anything else.
    """
    if not value:
        return None
    if value.lower() not in _SWITCHES:
        raise InvalidRequest(f"{name} must be true or false.", field=name)
    return _SWITCHES[value.lower()]


def read_flag(value: Any, name: str) -> bool:
    """A switch of a body that is off unless it is true.

    Raises:
        InvalidRequest: neither true, false nor null.
    """
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false.", field=name)
    return value is True


def parse_time(value: Any, name: str, time_zone: tzinfo) -> int | None:
    """Epoch milliseconds, from such or from ISO 8601; without an offset in this time zone.

    Raises:
        InvalidRequest: neither, or outside the years 1970 to 9999.
    """
    if value is None or value == "":
        return None
    problem = InvalidRequest(f"{name} must be milliseconds since 1970 or a time like 2026-06-03T09:14:00Z.", field=name)
    if isinstance(value, str) and not (value.isascii() and value.isdecimal()):
        try:
            when = datetime.fromisoformat(_LOST_PLUS.sub(r"\1+\2", value.strip().upper()))
            when = when if when.tzinfo else when.replace(tzinfo=time_zone)
            value = max(0, round(when.timestamp() * 1000))  # nothing was said before 1970
        except (ValueError, OverflowError):
            raise problem from None
    if isinstance(value, str):
        value = int(value[:20])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= TIMESTAMP_MS_MAX:
        raise problem
    return value
