"""Lists in pages: which part a request asks for, and how it carries the place where the next one begins. Pure.

A cursor is text that clients only hand back. It tells a number of the directory, or a memory's place in time.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from models.errors import InvalidRequest
from router.request_values import whole_number

PAGE_DEFAULT = 100
PAGE_MAX = 1_000

_NUMBER = re.compile(rb"([0-9]{1,18})\Z")
_PLACE = re.compile(rb"([0-9]{1,16})\.([0-9]{1,16})\Z")


class PageOf(msgspec.Struct, frozen=True):
    """Which part of a list is asked for: at most `limit` entries beyond `cursor`."""

    limit: int
    cursor: int | None


def read_page(query: Mapping[str, str]) -> PageOf:
    """The part that a query asks for, of a list in the order of numbers.

    Raises:
        InvalidRequest: a limit out of range, or a cursor that is none of ours.
    """
    match = _decode(query.get("cursor"), _NUMBER)
    return PageOf(limit=read_limit(query), cursor=None if match is None else int(match[1]))


def read_newest_first(query: Mapping[str, str]) -> bool:
    """Whether a list that begins with its oldest entry is asked for backwards: `order=desc`.

    Raises:
        InvalidRequest: neither asc nor desc.
    """
    order = query.get("order") or "asc"
    if order not in {"asc", "desc"}:
        raise InvalidRequest("order must be asc or desc.", field="order")
    return order == "desc"


def read_limit(query: Mapping[str, str]) -> int:
    """How many entries a page may have.

    Raises:
        InvalidRequest: out of range.
    """
    return whole_number(query.get("limit") or PAGE_DEFAULT, "limit", 1, PAGE_MAX)


def page_body(name: str, items: list[dict[str, Any]], page: PageOf, *, last: int | None) -> dict[str, Any]:
    """A page of a list; `last` is the number of its last entry."""
    more = last is not None and len(items) == page.limit
    return list_body(name, items, encode_cursor(last) if last is not None and more else None)


def list_body(name: str, items: list[dict[str, Any]], next_cursor: str | None) -> dict[str, Any]:
    """A page under its own name and as `data`, and the cursor of the next one, if there may be one."""
    return {"data": items, name: items, "next_cursor": next_cursor}


def encode_cursor(*numbers: int) -> str:
    """A number, or a place of two, as clients carry it."""
    return base64.urlsafe_b64encode(b".".join(b"%d" % number for number in numbers)).rstrip(b"=").decode()


def decode_place(value: str | None) -> tuple[int, int] | None:
    """The place of two numbers that a cursor stands for.

    Raises:
        InvalidRequest: it is none of ours.
    """
    match = _decode(value, _PLACE)
    return None if match is None else (int(match[1]), int(match[2]))


def _decode(value: str | None, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
    if not value:
        return None
    try:
        match = pattern.match(base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True))
    except ValueError:
        match = None
    if match is None:
        raise InvalidRequest("cursor is not one that an earlier page ended with.", field="cursor")
    return match
