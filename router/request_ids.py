"""The id of the request that is being served: in logs, in `x-request-id`, and on what the request stores."""

from __future__ import annotations

import secrets
from contextvars import ContextVar

_current: ContextVar[str] = ContextVar("request_id", default="")


def begin_request() -> str:
    """Give the current request its id."""
    request_id = f"req_{secrets.token_hex(12)}"
    _current.set(request_id)
    return request_id


def current_request_id() -> str:
    """The current request's id; "" outside of one."""
    return _current.get()
