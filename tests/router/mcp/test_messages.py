"""MCP's messages: what a POST may say in which version, and how it is answered."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.mcp.messages import (
    BATCH_MESSAGES_MAX,
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LEGACY_VERSIONS,
    META_CAPABILITIES,
    META_VERSION,
    MODERN_VERSION,
    REQUEST_ID_CHARACTERS_MAX,
    SUPPORTED_VERSIONS,
    UNSUPPORTED_VERSION,
    Call,
    Headers,
    McpError,
    decode_header,
    initialized,
    is_origin_allowed,
    read_post,
    result_body,
)
from tests.router.mcp_client import message, modern

BATCHING = {"mcp-protocol-version": ["2025-03-26"]}


def read(value: Any, headers: dict[str, str] | None = None) -> Call:
    """The one call of a POST."""
    (call,) = read_post(value, {name: [text] for name, text in (headers or {}).items()}).calls
    assert isinstance(call, Call)
    return call


def error_of(value: Any, headers: Headers | None = None) -> McpError:
    """Why a POST is refused."""
    with pytest.raises(McpError) as caught:
        read_post(value, headers or {})
    return caught.value


# --- messages ---


@pytest.mark.parametrize("request_id", [0, -1, 2**53, "", "a", "ü" * 10])
def test_ids_are_texts_and_whole_numbers(request_id: Any) -> None:
    assert read(message("ping", request_id=request_id)).request_id == request_id


@pytest.mark.parametrize("request_id", [None, True, 1.5, [], {}, 2**64, "x" * (REQUEST_ID_CHARACTERS_MAX + 1)])
def test_other_ids_are_refused_and_not_repeated(request_id: Any) -> None:
    error = error_of({**message("ping"), "id": request_id})
    assert (error.code, error.status, error.body()["id"]) == (INVALID_REQUEST, 400, None)


def test_a_message_without_an_id_is_a_notification() -> None:
    assert read(message("notifications/initialized", request_id=None)).is_notification
    assert not read(message("ping", request_id=0)).is_notification


def test_responses_are_passed_over() -> None:
    """Nothing is ever asked of a client."""
    for value in ({"jsonrpc": "2.0", "id": 1, "result": {}}, {"jsonrpc": "2.0", "error": {}}):
        assert read_post(value, {}).calls == ()


@pytest.mark.parametrize(
    "value",
    [None, 1, "ping", True, {}, {"jsonrpc": "1.0", "method": "ping", "id": 1}, {"method": "ping", "id": 1},
     {"jsonrpc": "2.0", "id": 1}, {"jsonrpc": "2.0", "method": 7, "id": 1}],
)  # fmt: skip
def test_what_is_no_message_is_refused(value: Any) -> None:
    error = error_of(value)
    assert (error.code, error.status) == (INVALID_REQUEST, 400)


def test_params_are_an_object_or_left_out() -> None:
    assert read({**message("ping"), "params": None}).params == {}
    assert error_of({**message("ping"), "params": [1]}).code == INVALID_PARAMS


# --- batches ---


def test_a_batch_is_of_the_version_that_has_them() -> None:
    """That is also the version of a request that names none."""
    batch = [message("ping"), message("notifications/cancelled", request_id=None), message("tools/list", request_id=2)]
    for headers in ({}, BATCHING):
        post = read_post(batch, headers)
        assert post.is_batch
        assert [call.request_id for call in post.calls if isinstance(call, Call)] == [1, None, 2]
    for version in ("2025-06-18", "2025-11-25", MODERN_VERSION):
        assert error_of(batch, {"mcp-protocol-version": [version]}).code == INVALID_REQUEST


def test_a_wrong_message_of_a_batch_fails_alone() -> None:
    post = read_post([message("ping"), 7, message("initialize", {"protocolVersion": "2025-03-26"}, request_id=3)], {})
    first, second, third = post.calls
    assert isinstance(first, Call)
    assert isinstance(second, McpError)
    assert isinstance(third, McpError)
    assert (second.request_id, third.request_id) == (None, 3)


@pytest.mark.parametrize("count", [0, BATCH_MESSAGES_MAX + 1])
def test_a_batch_has_a_size(count: int) -> None:
    assert error_of([message("ping")] * count).code == INVALID_REQUEST


# --- versions ---


@pytest.mark.parametrize("version", LEGACY_VERSIONS)
def test_the_clients_version_is_spoken(version: str) -> None:
    answer = initialized({"protocolVersion": version}, capabilities={}, instructions="")
    assert answer["protocolVersion"] == version
    assert not read(message("ping"), {"mcp-protocol-version": version}).is_modern


@pytest.mark.parametrize("version", ["2024-11-05", "2099-01-01", MODERN_VERSION, ""])
def test_to_others_the_newest_of_its_kind_is_offered(version: str) -> None:
    """Never the modern one, which knows no `initialize`; whatever the header says."""
    assert (
        initialized({"protocolVersion": version}, capabilities={}, instructions="")["protocolVersion"]
        == (LEGACY_VERSIONS[0])
    )
    assert not read(message("initialize"), {"mcp-protocol-version": version}).is_modern


@pytest.mark.parametrize(("header", "said"), [("1900-01-01", "1900-01-01"), ("<script>", ""), ("2025-06-18x", "")])
def test_an_unknown_version_is_refused_with_those_that_are_spoken(header: str, said: str) -> None:
    """What is no version at all is not repeated."""
    error = error_of(message("ping"), {"mcp-protocol-version": [header]})
    assert (error.code, error.status, error.request_id) == (UNSUPPORTED_VERSION, 400, 1)
    assert error.data == {"supported": list(SUPPORTED_VERSIONS), "requested": said}


def test_the_modern_revision_asks_for_headers_that_say_what_the_body_says() -> None:
    body, headers = modern("tools/call", {"name": "search", "arguments": {}})
    assert read(body, headers).is_modern
    for name in headers:
        for value in (None, "other", ""):
            changed = {key: [text] for key, text in headers.items() if key != name}
            changed |= {} if value is None else {name: [value]}
            error = error_of(body, changed)
            assert (error.code, error.status) == (HEADER_MISMATCH, 400), (name, value)
        assert error_of(body, {**{key: [text] for key, text in headers.items()}, name: [headers[name]] * 2}).code == (
            HEADER_MISMATCH
        )


@pytest.mark.parametrize(
    "meta", [None, 7, {}, {META_VERSION: MODERN_VERSION}, {META_VERSION: MODERN_VERSION, META_CAPABILITIES: 1},
             {META_CAPABILITIES: {}}, {META_VERSION: 7, META_CAPABILITIES: {}}],
)  # fmt: skip
def test_the_modern_revision_asks_for_version_and_capabilities_in_the_body(meta: Any) -> None:
    body, headers = modern("tools/list")
    body["params"] = {"_meta": meta}
    error = error_of(body, {name: [value] for name, value in headers.items()})
    assert (error.code, error.status, error.request_id) == (INVALID_PARAMS, 400, 1)


def test_an_unknown_modern_version_is_told_after_its_headers_agree() -> None:
    body, headers = modern("tools/list")
    body["params"]["_meta"][META_VERSION] = "2030-01-01"
    agreeing = {name: [value] for name, value in {**headers, "mcp-protocol-version": "2030-01-01"}.items()}
    assert error_of(body, agreeing).code == UNSUPPORTED_VERSION
    assert error_of(body, {name: [value] for name, value in headers.items()}).code == HEADER_MISMATCH


def test_modern_answers_say_what_they_are() -> None:
    """And legacy ones nothing that their versions do not know."""
    new, old = Call("tools/list", {}, 1, True), Call("tools/list", {}, 1, False)
    result = result_body(new, {"tools": []}, fresh_ms=5)["result"]
    assert (result["resultType"], result["ttlMs"], result["cacheScope"]) == ("complete", 5, "private")
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "memoryrouter"
    assert "ttlMs" not in result_body(new, {})["result"]
    assert result_body(old, {"tools": []}, fresh_ms=5)["result"] == {"tools": []}


# --- headers ---


@given(st.text(max_size=40))
def test_a_name_comes_through_a_header_encoded(name: str) -> None:
    encoded = base64.b64encode(name.encode()).decode()
    assert decode_header(f"=?base64?{encoded}?=") == name


@pytest.mark.parametrize("value", ["=?base64?%%?=", "=?base64?/w==?=", "=?base64?YQ?="])
def test_a_damaged_encoding_is_no_name(value: str) -> None:
    assert decode_header(value) is None


def test_plain_names_stay() -> None:
    assert decode_header("search_memories") == "search_memories"
    assert decode_header("=?utf-8?x?=") == "=?utf-8?x?="


ALLOWED = [
    None, "http://localhost", "http://localhost:6274", "https://127.0.0.1:8080", "http://[::1]:9",
    "https://chat.example", "https://memory.example:8443",
]  # fmt: skip
REFUSED = [
    "null", "", "http://evil.example", "https://chat.example.evil.example", "http://localhost.evil.example",
    "http://localhost@evil.example", "http://evil.example@localhost", "file://localhost", "http://[", "localhost",
    "http://127.0.0.1.evil.example", "https://chat.example:444", "ftp://127.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("origin", ALLOWED)
def test_programs_this_machine_and_named_pages_may_ask(origin: str | None) -> None:
    assert is_origin_allowed(origin, origins=["https://chat.example"], hosts=["memory.example"])


@pytest.mark.parametrize("origin", REFUSED)
def test_other_pages_may_not(origin: str) -> None:
    """Also one whose own name points to this machine."""
    assert not is_origin_allowed(origin, origins=["https://chat.example"], hosts=["memory.example"])


KEYS = st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error", "_meta", META_VERSION, "name"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.dictionaries(st.sampled_from(["mcp-protocol-version", "mcp-method", "mcp-name"]), st.just(["x"])))
def test_whatever_comes_is_read_or_refused(value: Any, headers: dict[str, list[str]]) -> None:
    if isinstance(value, dict):
        value.setdefault("jsonrpc", "2.0")
    with suppress(McpError):
        assert len(read_post(value, headers).calls) <= BATCH_MESSAGES_MAX
