"""Errors become HTTP in one place, in the format of the caller."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from models import errors
from models.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MemoryRouterError,
    NotFound,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    StorageFull,
    TooLarge,
    Unauthenticated,
)
from router.wire_errors import error_body, error_headers, error_status

OWN, CHAT, MODELS = "/v1/memory/search", "/v1/chat/completions", "/v1/models"


def all_errors() -> Iterator[MemoryRouterError]:
    """One of each class of the tree."""
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, MemoryRouterError):
            yield kind("A sentence.", hint="A hint.")


def test_own_routes_say_error_code_and_hint() -> None:
    """For every error there is; the field where one is to blame. Those of limits say more, see below."""
    for error in all_errors():
        if isinstance(error, QuotaExceeded | RateLimited):
            continue
        assert msgspec.json.decode(error_body(error, OWN)) == {
            "error": "A sentence.", "code": error.code, "hint": "A hint.",
        }  # fmt: skip
        assert error_status(error, OWN) == error.status
    assert msgspec.json.decode(error_body(InvalidRequest("No.", field="limit"), OWN)) == {
        "error": "No.", "code": "invalid_request", "field": "limit",
    }  # fmt: skip


@pytest.mark.parametrize("path", [CHAT, f"{CHAT}/", MODELS])
def test_openai_routes_speak_as_openai_does(path: str) -> None:
    """`code` is a slug, `param` the field; the hint joins the message."""
    for error in all_errors():
        body = msgspec.json.decode(error_body(error, path))
        assert set(body) == {"error"}
        more = {"retry_after"} if isinstance(error, RateLimited) else set()
        assert set(body["error"]) == {"message", "type", "param", "code"} | more
        assert body["error"]["message"] == "A sentence. A hint."
        assert body["error"]["code"] == error.code
    assert msgspec.json.decode(error_body(InvalidRequest("No.", field="model"), path))["error"]["param"] == "model"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Unauthenticated("x"), "authentication_error"),
        (TooLarge("x"), "invalid_request_error"),
        (Overloaded("x"), "server_error"),
    ],
)
def test_openai_error_types(error: MemoryRouterError, kind: str) -> None:
    """As the vendor names them."""
    assert msgspec.json.decode(error_body(error, CHAT))["error"]["type"] == kind


def test_a_full_disk_is_507_on_own_routes_only() -> None:
    """SDKs retry a 503 and do not know the other."""
    assert error_status(StorageFull("x"), OWN) == 507
    assert error_status(StorageFull("x"), CHAT) == 503


def test_overload_says_when_to_retry() -> None:
    """Deadlines too; other errors do not."""
    assert error_headers(Overloaded("x", retry_after_s=7)) == {"Retry-After": "7"}
    assert error_headers(DeadlineExceeded("x")) == {"Retry-After": "1"}
    assert error_headers(NotFound("x")) == {}


def test_a_401_says_how_to_authenticate() -> None:
    """RFC 9110 demands it."""
    assert error_headers(Unauthenticated("x")) == {"WWW-Authenticate": "Bearer"}


def test_a_rate_limit_says_when_to_retry_in_the_body_too() -> None:
    """Where the format has a place for it: ours, OpenAI's (as the hosted product has it), Google's."""
    error = RateLimited("Slow down.", retry_after_s=7)

    assert msgspec.json.decode(error_body(error, OWN)) == {
        "error": "Slow down.", "code": "rate_limit_exceeded", "retry_after": 7,
    }  # fmt: skip
    openai = msgspec.json.decode(error_body(error, CHAT))["error"]
    assert (openai["type"], openai["code"], openai["retry_after"]) == ("rate_limit_error", "rate_limit_exceeded", 7)
    gemini = msgspec.json.decode(error_body(error, "/v1beta/models/m:generateContent"))["error"]
    assert gemini["status"] == "RESOURCE_EXHAUSTED"
    assert {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"} in gemini["details"]
    anthropic = msgspec.json.decode(error_body(error, "/v1/messages"))
    assert anthropic == {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down."}}


def test_sdks_are_told_not_to_try_a_wrong_key_again() -> None:
    """They would, three times; the same wrong key stays wrong."""
    assert error_headers(RateLimited("x", retry_after_s=7)) == {"Retry-After": "7"}
    assert error_headers(RateLimited("x", retry_after_s=7, retry_helps=False)) == {
        "Retry-After": "7", "X-Should-Retry": "false",
    }  # fmt: skip


def test_a_full_vault_is_told_in_the_hosted_products_shape() -> None:
    """An object, also on our own routes (contract section 6)."""
    error = QuotaExceeded("Full.", hint="Delete some.", details={"memories_max": 3})

    assert error_status(error, OWN) == 402
    assert msgspec.json.decode(error_body(error, OWN)) == {
        "error": {
            "message": "Full.", "type": "payment_required", "code": "payment_required",
            "details": {"memories_max": 3, "hint": "Delete some."},
        }
    }  # fmt: skip


@pytest.mark.parametrize("path", [OWN, CHAT, "/v1/messages", "/v1/responses", "/v1beta/models/m:generateContent"])
def test_text_that_cannot_be_encoded_is_no_failure(path: str) -> None:
    """Errors quote what the client sent, and JSON may hold half a surrogate pair."""
    body = error_body(InvalidRequest("No model `\ud800`."), path)

    assert "No model `\ufffd`." in body.decode()
