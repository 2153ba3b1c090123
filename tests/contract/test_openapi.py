"""`/openapi.json`: every route and no other, and every answer of the server as it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from werkzeug.exceptions import HTTPException

from models.settings import Settings
from models.version import VERSION
from router.app import create_app
from router.components import Components
from router.dashboard.gate import is_below
from router.openapi.document import openapi_json
from router.openapi.errors import ErrorFormat
from router.openapi.operation import Operation
from router.openapi.operations import OPERATIONS
from router.openapi.options import BODY_OPTIONS
from router.providers.request_parts import OPTION_FIELDS
from router.readiness import Readiness
from router.routes.chat import GENERATE, STREAM
from router.server_metrics import Metrics
from tests.contract.described import BODY_BYTES_MAX, MODELS, open_described
from tests.running import Client, user

DOCUMENT: dict[str, Any] = msgspec.json.decode(openapi_json())
KEYED = [operation for operation in OPERATIONS if not operation.is_open]
FORM_FIELD = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
TAKING = [operation for operation in KEYED if operation.takes]


def named(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


def path_of(operation: Operation) -> str:
    """The path with the documented examples in the place of its parameters."""
    parameters = [DOCUMENT["components"]["parameters"][name] for name in operation.parameters]
    examples = {parameter["name"]: parameter["example"] for parameter in parameters if parameter["in"] == "path"}
    return operation.path.format(**examples)


def resolved(value: Any) -> Any:
    """What a reference within the document stands for."""
    while isinstance(value, dict) and "$ref" in value:
        target: Any = DOCUMENT
        for part in value["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        value = target
    return value


def validator(schema: Any) -> Any:
    """Checks values against a schema of the document."""
    return jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def assert_described(operation: Operation, answer: Any) -> None:
    """The answer's status, type, body and headers are those of the document."""
    responses = DOCUMENT["paths"][operation.path][operation.method]["responses"]
    assert str(answer.status_code) in responses, answer.text
    described = resolved(responses[str(answer.status_code)])
    media_type = answer.headers["content-type"].partition(";")[0]
    schema = next(
        content["schema"]
        for given, content in described["content"].items()
        if re.fullmatch(given.replace("*", ".*"), media_type)
    )
    if media_type == "application/json":
        validator(schema).validate(answer.json())
    for name, header in described["headers"].items():
        assert name in answer.headers or not resolved(header).get("required"), name


# --- the document ---


def the_app() -> Any:
    """The application, without anything behind it."""
    nothing: Any = None
    parts = Components(
        settings=Settings(), store=nothing, embedder=nothing, supervisor=nothing, upstream=nothing, recaller=nothing,
        rememberer=nothing, metrics=Metrics(), readiness=Readiness(),
    )  # fmt: skip
    return create_app(parts)


def test_every_route_is_in_the_document_and_no_other() -> None:
    """Each operation leads to a route, and each method of each route has an operation that leads there.

    What serves the dashboard's own page is none of the API: docs/dashboard.md has it.
    """
    url_map = the_app().url_map
    routes = {
        (rule.rule, method)
        for rule in url_map.iter_rules()
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS") and not is_below(rule.rule, "/dashboard")
    }
    led_to = set()
    for operation in OPERATIONS:
        try:
            rule, _ = url_map.bind("localhost").match(path_of(operation), operation.method.upper(), return_rule=True)
        except HTTPException as error:
            pytest.fail(f"{named(operation)} leads nowhere: {error}")
        led_to.add((rule.rule, operation.method.upper()))

    assert led_to == routes
    gemini = {f"/{version}/models/{{model}}:{call}" for version in ("v1", "v1beta") for call in (GENERATE, STREAM)}
    assert gemini <= {operation.path for operation in OPERATIONS}  # one route serves both calls


def test_operations_are_unique_and_their_references_lead_somewhere() -> None:
    """Names and places; every `$ref` of the document."""
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)
    assert len({named(operation) for operation in OPERATIONS}) == len(OPERATIONS)

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            resolved(value)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(inner)

    walk(DOCUMENT)


def test_the_document_lists_all_body_fields_of_ours() -> None:
    """As many as are taken out of requests before they are sent on."""
    assert set(BODY_OPTIONS["properties"]) == OPTION_FIELDS


@pytest.mark.parametrize("operation", TAKING, ids=named)
def test_examples_of_requests_have_the_shape_that_is_asked_for(operation: Operation) -> None:
    """Those of JSON."""
    if "application/json" in operation.takes and operation.example is not None:
        validator(operation.takes["application/json"]).validate(operation.example)


async def test_the_document_needs_no_key(tmp_path: Path) -> None:
    """And is that of this version."""
    async with open_described(tmp_path) as server:
        answer = await server.get("/openapi.json", key="")
    assert answer.json() == DOCUMENT
    assert answer.json()["info"]["version"] == VERSION


# --- the answers ---


async def ask(server: Client, operation: Operation, *, key: str | None = None, **sent: Any) -> Any:
    """One request of an operation; unless a body is given, that of its example."""
    content, headers = sent.get("content"), dict(sent.get("headers", {}))
    media_type = next(iter(operation.takes), "application/json")
    is_form = media_type == "multipart/form-data"
    headers.setdefault("content-type", "multipart/form-data; boundary=b" if is_form else media_type)
    headers.setdefault("authorization", f"Bearer {server.key if key is None else key}")
    if content is None and is_form:
        content = FORM_FIELD % b"model" + b"openai/m\r\n--b--\r\n"
    elif content is None and operation.example is not None:
        body = operation.example
        content = body.encode() if isinstance(body, str) else msgspec.json.encode(body)
    query = operation.example_query or None
    return await server.http.request(
        operation.method, path_of(operation), params=query, content=content, headers=headers
    )


async def test_every_example_is_answered_with_a_success_as_described(tmp_path: Path) -> None:
    """With the account key, on a vault that holds something."""
    async with open_described(tmp_path) as server:
        await server.ingest("My dog is called Rex.")
        for operation in sorted(OPERATIONS, key=lambda one: (one.method == "delete", one.path == "/v1/memory")):
            answer = await ask(server, operation)
            assert answer.status_code in operation.answers, (named(operation), answer.text)
            assert_described(operation, answer)


async def test_refusals_are_as_described_on_every_route(tmp_path: Path) -> None:
    """401, 403, 413 and 415, each exactly where the document has it."""
    async with open_described(tmp_path) as server:
        for operation in KEYED:
            refused = await ask(server, operation, key="mk_nobody")
            assert refused.status_code == 401, named(operation)
            assert_described(operation, refused)
            restricted = await ask(server, operation, key=f"{server.key}:off")
            assert (restricted.status_code == 403) == (403 in operation.errors), named(operation)
            assert_described(operation, restricted)
            encoded = await ask(server, operation, content=b"x", headers={"content-encoding": "br"})
            assert (encoded.status_code == 415) == (415 in operation.errors), named(operation)
            large = FORM_FIELD % b"file" + bytes(BODY_BYTES_MAX)
            refused = await ask(server, operation, content=large)
            assert (refused.status_code == 413) == (413 in operation.errors), named(operation)
            for answer in (encoded, refused):
                assert_described(operation, answer)


async def test_a_wrong_option_is_named_in_the_callers_format(tmp_path: Path) -> None:
    """In header, query and body, on every route that takes options."""

    def blamed(speaks: ErrorFormat, body: dict[str, Any]) -> Any:
        match speaks:
            case "own":
                return body["field"]
            case "openai":
                return body["error"]["param"]
            case "gemini":
                return body["error"]["details"][1]["fieldViolations"][0]["field"]
            case _:
                return body["error"]["message"].split()[0]

    async with open_described(tmp_path) as server:
        for operation in (operation for operation in KEYED if "MemoryMode" in operation.parameters):
            answer = await ask(server, operation, headers={"x-memory-mode": "perhaps"})
            assert_described(operation, answer)
            assert (answer.status_code, blamed(operation.speaks, answer.json())) == (400, "X-Memory-Mode")


@pytest.mark.parametrize("path", ["/v1//memory/stats", "/v1/memory//stats", "//v1/memory/stats"])
async def test_a_doubled_slash_is_no_redirect(tmp_path: Path, path: str) -> None:
    """Schemathesis' find: it was answered 308 in HTML, with an address made of the client's Host header."""
    async with open_described(tmp_path) as server:
        answer = await server.http.get(f"{server.url}{path}", headers={"authorization": f"Bearer {server.key}"})
    assert answer.status_code == 200


async def test_a_provider_key_that_no_header_can_hold_is_blamed_by_name(tmp_path: Path) -> None:
    """Schemathesis' find: the field was not named."""
    async with open_described(tmp_path) as server:
        headers = {b"authorization": f"Bearer {server.key}".encode(), b"x-provider-key": "k\u00eby".encode()}
        body = {"model": MODELS["ResponsesRequest"][0], "messages": [user("x")]}
        answer = await server.http.post("/v1/chat/completions", json=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "X-Provider-Key")
