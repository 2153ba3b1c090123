"""The wire formats, translation among them, as the tests of the wire's bad days share them.

`TRANSLATED` is a format of its own here: Chat Completions from the client, Anthropic's Messages from the provider.
Tests about bytes being the same leave it out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx
import msgspec
import pytest

from tests.fakes.provider import Script, Step
from tests.router.test_wire_formats import CHAT, DIALECTS, MESSAGES, Dialect

TRANSLATED = msgspec.structs.replace(
    MESSAGES, name="translated", path=CHAT.path, stream_path=CHAT.stream_path, body=CHAT.body
)
WITH_TRANSLATED = [*DIALECTS, TRANSLATED]
and_translated = pytest.mark.parametrize("dialect", WITH_TRANSLATED, ids=[dialect.name for dialect in WITH_TRANSLATED])

ANTHROPIC_TYPES = {
    400: {"invalid_request_error"}, 401: {"authentication_error"}, 413: {"request_too_large"},
    502: {"api_error"}, 503: {"api_error", "overloaded_error"},
}  # fmt: skip
ERROR = b'{"error": {"message": "Slow down.",  "type": "rate_limit_error", "x_more": [1e2, null]}}'


def beginning(dialect: Dialect) -> list[bytes]:
    """Its stream without what says that the reply is complete."""
    return dialect.events[: -1 if dialect.provider_format == "google" else -2]


def streaming(dialect: Dialect, steps: Iterable[Step], **more: Any) -> Script:
    """A provider that streams these steps."""
    return Script(headers=[("content-type", dialect.stream_type)], steps=steps, **more)


def assert_error_of(dialect: Dialect, answer: httpx.Response, status: int) -> None:
    """An error with this status, in the shape of the client's format, with ids."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["error"]["message"]
    if dialect.path == MESSAGES.path:
        assert body["type"] == "error"
        assert body["error"]["type"] in ANTHROPIC_TYPES[status]
    elif dialect.path == CHAT.path or "/responses" in dialect.path:
        assert set(body["error"]) == {"message", "type", "param", "code"}
    else:
        assert body["error"]["code"] == status
        assert body["error"]["status"].isupper()
