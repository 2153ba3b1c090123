"""Web pages of named origins may call the server, and no others."""

from __future__ import annotations

import pytest

from models.server_settings import CorsSettings
from router.cors import Cors

PAGE, OTHER = "https://app.example.org", "https://evil.example"
CORS = Cors(CorsSettings(origins=(PAGE, "http://localhost:5173")))
ASKING = {"origin": PAGE, "access-control-request-method": "POST"}


def test_it_is_off_unless_origins_are_named() -> None:
    assert CORS.is_on
    assert not Cors(CorsSettings()).is_on


def test_a_named_origin_may_send_whatever_headers_its_sdk_has() -> None:
    """They come back as they were asked for."""
    wanted = "authorization, content-type,x-memory-key, x-stainless-lang"
    answer = CORS.preflight("OPTIONS", {**ASKING, "access-control-request-headers": wanted})

    assert answer is not None
    assert answer["Access-Control-Allow-Headers"] == wanted
    assert {"GET", "POST", "PATCH", "DELETE"} <= set(answer["Access-Control-Allow-Methods"].split(", "))
    assert CORS.answer(ASKING)["Access-Control-Allow-Origin"] == PAGE


@pytest.mark.parametrize(
    "origin", [OTHER, "", "null", "*", PAGE + "/", PAGE.upper(), PAGE + ".evil.example", f"{PAGE}:8443"]
)
def test_other_origins_get_nothing(origin: str) -> None:
    asking = {**ASKING, "origin": origin}
    assert CORS.preflight("OPTIONS", asking) is None
    assert CORS.answer(asking) == {}


def test_what_is_no_question_is_not_answered_as_one() -> None:
    """Another method, no method asked for, headers that are none."""
    assert CORS.preflight("POST", ASKING) is None
    assert CORS.preflight("OPTIONS", {"origin": PAGE}) is None
    for wanted in ("", "a\r\nb", "x" * 65, ",".join(["x"] * 65), "a;b"):
        answer = CORS.preflight("OPTIONS", {**ASKING, "access-control-request-headers": wanted})
        assert answer is not None
        assert "Access-Control-Allow-Headers" not in answer


def test_credentials_and_any_origin_are_never_allowed() -> None:
    """A browser sends no cookie and no stored login along; a page has to know the key."""
    headers = {**CORS.answer(ASKING), **(CORS.preflight("OPTIONS", ASKING) or {})}
    assert "Access-Control-Allow-Credentials" not in headers
    assert "*" not in headers.values()
