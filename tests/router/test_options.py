"""Memory options: every spelling of every switch, and which one wins."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest

from models.errors import InvalidRequest
from models.ids import Access
from models.memory_settings import SessionSettings
from models.messages import Scope
from models.settings import ProxySettings, Settings
from router.options import MemoryOptions, resolve_options

READ, WRITE, OFF = Access(write=False), Access(read=False), Access(read=False, write=False)
BOUNDS = {"on": Access(), "read": READ, "write": WRITE, "off": OFF}


def resolve(
    *,
    headers: dict[str, str] | None = None,
    query: dict[str, str] | None = None,
    body: dict[str, Any] | None = None,
    bound: Access | None = None,
    settings: Settings | None = None,
) -> MemoryOptions:
    return resolve_options(
        headers=headers or {},
        query=query or {},
        body=body or {},
        bound=bound or Access(),
        settings=settings or Settings(),
    )


def test_nothing_said_means_everything_on() -> None:
    """Read, store both sides, the default density, no session, at the tail."""
    options = resolve()

    assert options.access == Access()
    assert options.stores_role("user")
    assert options.stores_role("assistant")
    assert options.chunks_max == Settings().recall.chunks_default
    assert options.session_id is None
    assert options.scope == Scope()
    assert options.injection == "tail"


def test_the_strictest_of_suffix_header_query_and_body_wins() -> None:
    """In all 256 combinations: reading needs all four to allow it, and so does storing."""
    for modes in product(BOUNDS, repeat=4):
        suffix, header, query, body = modes
        options = resolve(
            bound=BOUNDS[suffix],
            headers={"x-memory-mode": header},
            query={"mode": query},
            body={"memory_mode": body},
        )
        assert options.access.read is all(BOUNDS[mode].read for mode in modes), modes
        assert options.access.write is all(BOUNDS[mode].write for mode in modes), modes


@pytest.mark.parametrize(
    ("value", "access"),
    [
        ("on", Access()), ("ON", Access()), ("all", Access()), ("auto", Access()), ("default", Access()),
        ("true", Access()), (True, Access()), (None, Access()), ("", Access()),
        ("read", READ), ("selective", READ), (" read ", READ),
        ("write", WRITE),
        ("off", OFF), ("none", OFF), ("false", OFF), ("False", OFF), (False, OFF),
    ],
)  # fmt: skip
def test_every_historical_mode_is_understood(value: Any, access: Access) -> None:
    """As `memory` and `memory_mode` in the body, and as text in header and query."""
    assert resolve(body={"memory": value}).access == access
    assert resolve(body={"memory_mode": value}).access == access
    if isinstance(value, str):
        assert resolve(headers={"x-memory-mode": value}).access == access
        assert resolve(query={"memory": value}).access == access
        assert resolve(query={"mode": value}).access == access


@pytest.mark.parametrize(
    ("where", "name", "stores_user", "stores_assistant"),
    [
        ("headers", "x-memory-store", False, True),
        ("headers", "x-store-input", False, True),
        ("headers", "x-memory-store-response", True, False),
        ("headers", "x-store-response", True, False),
        ("query", "store", False, True),
        ("query", "store_response", True, False),
        ("body", "store_input", False, True),
        ("body", "memory_store_response", True, False),
        ("body", "store_response", True, False),
        ("body", "memory_store", False, False),
    ],
)
def test_each_side_can_be_kept_out(where: str, name: str, stores_user: bool, stores_assistant: bool) -> None:
    """By all the names that clients have used."""
    for value in ("false", "FALSE", "0", "off", "no"):
        options = resolve(**{where: {name: value}})  # type: ignore[arg-type]  # one of three keyword names
        assert options.stores_role("user") is stores_user
        assert options.stores_role("assistant") is stores_assistant
        assert options.stores is (stores_user or stores_assistant)
    for value in ("true", "1", "on", "yes", ""):
        assert resolve(**{where: {name: value}}) == resolve()  # type: ignore[arg-type]


def test_no_side_is_stored_where_writing_is_off() -> None:
    """Whatever the switches say."""
    options = resolve(bound=READ, headers={"x-memory-store": "true"})

    assert not options.stores
    assert not options.stores_role("user")


def test_a_session_id_comes_from_the_body_then_the_header() -> None:
    """Integers keep their decimal form; empty means none."""
    header = {"x-session-id": "from-header"}

    assert resolve(headers=header).session_id == "from-header"
    assert resolve(headers=header, body={"session_id": "from-body"}).session_id == "from-body"
    assert resolve(headers=header, body={"session_id": ""}).session_id == "from-header"
    assert resolve(headers=header, body={"session_id": None}).session_id == "from-header"
    assert resolve(body={"session_id": 42}).session_id == "42"
    assert resolve(body={"session_id": 0}).session_id == "0"
    assert resolve(body={"session_id": 10**25}).session_id == str(10**25)


@pytest.mark.parametrize("value", [True, 1.5, [], {}, "x" * 513])
def test_a_session_id_of_another_type_is_refused(value: Any) -> None:
    """Naming the field."""
    with pytest.raises(InvalidRequest) as caught:
        resolve(body={"session_id": value})
    assert caught.value.field == "session_id"


def test_the_scope_follows_the_session() -> None:
    """`X-Session-Scope: vault` widens it; `strict` isolation hides sessions from requests without one."""
    strict = msgspec.structs.replace(Settings(), sessions=SessionSettings(isolation="strict"))

    assert resolve(body={"session_id": "s"}).scope == Scope(session_id="s")
    assert resolve(body={"session_id": "s"}, headers={"x-session-scope": "Vault"}).scope == Scope(
        session_id="s", whole_vault=True
    )
    assert resolve(headers={"x-session-scope": "vault"}).scope == Scope()
    assert resolve(settings=strict).scope == Scope(sessionless_only=True)
    assert resolve(settings=strict, body={"session_id": "s"}).scope == Scope(session_id="s")


@pytest.mark.parametrize(("density", "chunks"), [("low", 10), ("default", 30), ("high", 60), ("xhigh", 120)])
def test_density_caps_the_chunks(density: str, chunks: int) -> None:
    """In the body or as a header; the body goes first."""
    assert resolve(body={"density": density}).chunks_max == chunks
    assert resolve(headers={"x-memory-density": density}).chunks_max == chunks
    assert resolve(body={"density": density}, headers={"x-memory-density": "low"}).chunks_max == chunks


def test_an_explicit_limit_overrides_the_density() -> None:
    """Body over query over header."""
    header = {"x-memory-context-limit": "3"}
    assert resolve(body={"context_limit": 7, "density": "xhigh"}).chunks_max == 7
    assert resolve(body={"memory_limit": 6}).chunks_max == 6
    assert resolve(body={"context_limit": 0}).chunks_max == 0
    assert resolve(headers=header).chunks_max == 3
    assert resolve(headers={"x-context-limit": "4"}).chunks_max == 4
    assert resolve(headers=header, query={"limit": "5"}).chunks_max == 5
    assert resolve(headers=header, query={"limit": "5"}, body={"context_limit": 8.0}).chunks_max == 8
    assert resolve(headers={"x-memory-context-limit": ""}, body={"context_limit": None}).chunks_max == 30


def test_a_request_may_bound_the_tokens_of_its_context() -> None:
    """By a header alone; 0 and nothing mean no wish."""
    assert resolve(headers={"x-memory-max-tokens": "1500"}).context_tokens_max == 1_500
    for headers in ({}, {"x-memory-max-tokens": ""}, {"x-memory-max-tokens": "0"}):
        assert resolve(headers=headers).context_tokens_max == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"headers": {"x-memory-max-tokens": "-1"}}, "X-Memory-Max-Tokens"),
        ({"headers": {"x-memory-max-tokens": "few"}}, "X-Memory-Max-Tokens"),
        ({"body": {"density": "huge"}}, "density"),
        ({"body": {"density": 3}}, "density"),
        ({"body": {"density": ""}}, "density"),
        ({"headers": {"x-memory-density": "HIGH"}}, "density"),
        ({"body": {"context_limit": -1}}, "context_limit"),
        ({"body": {"context_limit": 1001}}, "context_limit"),
        ({"body": {"context_limit": 1.5}}, "context_limit"),
        ({"body": {"context_limit": True}}, "context_limit"),
        ({"body": {"context_limit": [5]}}, "context_limit"),
        ({"body": {"memory_limit": "many"}}, "memory_limit"),
        ({"query": {"limit": "-5"}}, "limit"),
        ({"query": {"limit": "--5"}}, "limit"),
        ({"headers": {"x-context-limit": "\u0663"}}, "X-Context-Limit"),
        ({"headers": {"x-memory-context-limit": "9" * 19}}, "X-Memory-Context-Limit"),
        ({"body": {"memory": 1}}, "memory"),
        ({"body": {"memory_mode": "sometimes"}}, "memory_mode"),
        ({"headers": {"x-memory-mode": "sometimes"}}, "X-Memory-Mode"),
        ({"query": {"mode": "sometimes"}}, "mode"),
        ({"body": {"memory_store": "maybe"}}, "memory_store"),
        ({"body": {"store_input": []}}, "store_input"),
        ({"headers": {"x-memory-store": "maybe"}}, "X-Memory-Store"),
        ({"headers": {"x-session-scope": "world"}}, "X-Session-Scope"),
        ({"headers": {"x-memory-injection": "middle"}}, "X-Memory-Injection"),
        ({"headers": {"x-timezone": "Mars/Olympus"}}, "X-Timezone"),
        ({"headers": {"x-timezone": "../../etc/passwd"}}, "X-Timezone"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    """Guessing would read or store what nobody asked for."""
    with pytest.raises(InvalidRequest) as caught:
        resolve(**options)
    assert caught.value.field == named


def test_the_place_of_the_block_can_be_chosen() -> None:
    """By the request, else by the settings."""
    system = msgspec.structs.replace(Settings(), proxy=ProxySettings(injection="system"))

    assert resolve(headers={"x-memory-injection": "System"}).injection == "system"
    assert resolve(settings=system).injection == "system"
    assert resolve(settings=system, headers={"x-memory-injection": "tail"}).injection == "tail"


def test_times_are_shown_in_the_zone_of_the_caller() -> None:
    """UTC unless the request or the settings say otherwise."""
    assert str(resolve().time_zone) == "UTC"
    assert str(resolve(headers={"x-timezone": "Europe/Vienna"}).time_zone) == "Europe/Vienna"


def test_an_embedding_model_that_a_server_with_one_does_not_know_changes_nothing() -> None:
    """Clients of the hosted product name models of its; whatever is no name is refused all the same."""
    assert resolve(body={"embeddings": "bge-m3"}).embedder is None
    assert resolve(headers={"x-embedding-model": "bge-m3"}).embedder is None
    with pytest.raises(InvalidRequest):
        resolve(body={"embeddings": 7})
