"""Requests for every route and every error, made from the table of operations, and a provider that repeats its key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import h11
import httpx
import msgspec
import trio

from models.embedding import TextEncoder
from models.settings import StoreSettings
from router.dashboard.gate import COOKIE
from router.openapi.operation import Operation
from router.openapi.operations import OPERATIONS
from tests.contract.canaries import (
    CONFIGURED_KEY,
    MALFORMED_KEY,
    PARAMETER,
    REPLIED,
    SAID,
    SENT_KEY,
    UNKNOWN_KEY,
    Replies,
    with_mark,
    with_other_types,
)
from tests.contract.described import BODY_BYTES_MAX, Provider, open_beside
from tests.contract.test_openapi import DOCUMENT, named, path_of
from tests.fakes.provider import Recorded, Script, chat_chunk, stream_script
from tests.patience import wait_until
from tests.router.dashboard.browsing import sign_in, try_sign_in
from tests.running import Client, user

JSON = [("content-type", "application/json")]
PROXIED = [operation for operation in OPERATIONS if operation.is_proxied]


class QuotingProvider(Provider):
    """A provider that repeats what it was sent, its key first, in the way that `behaviour` says.

    Attributes:
        behaviour: what it does with requests; "as described" is the ordinary one.
    """

    behaviour = "as described"

    def script_for(self, recorded: Recorded) -> Script:
        """One answer of this behaviour."""
        key = recorded.headers.get("authorization", "").removeprefix("Bearer ")
        key = key or recorded.headers.get("x-api-key", "") or recorded.headers.get("x-goog-api-key", "")
        quote = f"{key} may not ask: {SAID} {REPLIED}"
        error = msgspec.json.encode({"error": {"message": quote, "type": "x", "code": key}})
        quoting = [*JSON, ("x-debug", f"key={key}"), ("location", f"https://elsewhere.example/?key={key}")]
        match self.behaviour:
            case "refuses" | "is busy" | "breaks" | "redirects":
                status = {"refuses": 401, "is busy": 429, "breaks": 500, "redirects": 307}[self.behaviour]
                return Script(status=status, headers=quoting, body=error)
            case "answers with its error":
                return Script(headers=quoting, body=error)
            case "says something unreadable":
                return Script(headers=quoting, body=b'{"choices": [' + quote.encode())
            case "packs what cannot be unpacked":
                return Script(headers=[*quoting, ("content-encoding", "gzip")], body=quote.encode())
            case "streams its error" | "breaks off":
                cut = len(error) // 2
                parts = [chat_chunk(quote), b"event: error\ndata: " + error[:cut], error[cut:] + b"\n\n"]
                whole = self.behaviour == "streams its error"
                return stream_script(parts if whole else parts[:2], ending="clean" if whole else "cut")
            case "stays silent":
                return Script(hang=True)
            case _:
                return super().script_for(recorded)


BEHAVIOURS = [
    "refuses", "is busy", "breaks", "redirects", "answers with its error", "says something unreadable",
    "packs what cannot be unpacked", "streams its error", "breaks off",
]  # fmt: skip


def open_marked(
    tmp_path: Path, encoder: TextEncoder | None = None
) -> AbstractAsyncContextManager[tuple[Client, QuotingProvider]]:
    """A server with such a provider, whose configured key is marked, and with less ballast to search through."""
    store = StoreSettings(shards=1, ballast_bytes=1 << 16)
    return open_beside(tmp_path, QuotingProvider, api_key=CONFIGURED_KEY, encoder=encoder, store=store)


# --- driving ---


class Driver:
    """Sends requests and looks at what comes back.

    Attributes:
        sessions: cookies and tokens of the dashboard that were given out.
    """

    def __init__(self, server: Client, replies: Replies, user_key: str) -> None:
        self.server = server
        self.replies = replies
        self.user_key = user_key
        self.sessions: list[str] = []

    async def ask(
        self,
        operation: Operation,
        content: bytes | None = None,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
    ) -> None:
        """One request; unless told otherwise with the user's key and that of a provider."""
        key = self.user_key if key is None else key
        sent = {
            "x-provider-key": SENT_KEY,
            "content-type": next(iter(operation.takes), "application/json"),
            **({"x-memory-key": key} if key else {}),
            **(headers or {}),
        }
        query = query or operation.example_query
        try:
            answer = await self.server.http.request(
                operation.method, path_of(operation), content=content, headers=sent, params=query
            )
        except httpx.RemoteProtocolError:  # a reply that the provider broke off, and that has no way to say so
            return
        self.replies.look_at(answer, name=named(operation))


def bodies_of(operation: Operation) -> list[bytes | None]:
    """The operation's example, marked, streamed and answered here where it can be; no body where it takes none."""
    return [*_bodies_of(operation)] or [None]


def _bodies_of(operation: Operation) -> Iterator[bytes]:
    if isinstance(operation.example, str):
        lines = [with_mark(msgspec.json.decode(line)) for line in operation.example.splitlines()]
        yield b"\n".join(map(msgspec.json.encode, lines))
    elif operation.example is not None:
        marked = with_mark(operation.example)
        yield msgspec.json.encode(marked)
        if operation.is_proxied:
            yield msgspec.json.encode({**marked, "stream": True})
            yield msgspec.json.encode({**marked, "model": "local/recall"})


def bad_bodies_of(operation: Operation) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Bodies that are refused, each with headers of its own."""
    example = msgspec.json.encode(with_mark(operation.example or {"messages": [user(SAID)]}))
    value = msgspec.json.decode(example)
    for other in (SAID, {SAID: SAID}, [SAID], 1e300, None):
        yield msgspec.json.encode(with_other_types(value, other)), {}
    yield example[: len(example) * 2 // 3] + SAID.encode(), {}
    yield b"[" + example + b"]", {}
    yield b"\xff" + SAID.encode(), {}
    yield b'{"%s": ' % SAID.encode() * 300 + b"1" + b"}" * 300, {}
    yield example + SAID.encode() * (BODY_BYTES_MAX // len(SAID)), {}
    yield SAID.encode(), {"content-encoding": "gzip"}
    yield SAID.encode(), {"content-encoding": SAID}
    yield SAID.encode(), {"content-type": "multipart/form-data; boundary=b"}
    yield (
        b'--b\r\nContent-Disposition: form-data; name="' + SAID.encode(),
        {"content-type": "multipart/form-data; boundary=b"},
    )


async def drive_keys(driver: Driver, operation: Operation) -> None:
    """Every operation with keys that do not open it, in every place."""
    body = bodies_of(operation)[0]
    for key in ("", UNKNOWN_KEY, MALFORMED_KEY, *(f"{driver.user_key}:{suffix}" for suffix in ("read", "off", "x"))):
        await driver.ask(operation, body, key=key)
    for place in ("authorization", "x-api-key", "x-goog-api-key", "api-key"):
        await driver.ask(operation, body, key="", headers={place: UNKNOWN_KEY})
    await driver.ask(operation, body, key="", query={"key": UNKNOWN_KEY, "q": PARAMETER})
    await driver.ask(operation, body, key="", headers={"x-provider-key": UNKNOWN_KEY})


async def drive_bodies(driver: Driver, operation: Operation) -> None:
    """Good ones and bad ones, with the user's and with the account's key."""
    for body in bodies_of(operation):
        for key in (driver.user_key, driver.server.key):
            await driver.ask(operation, body, key=key)
    if operation.takes:
        for bad, headers in bad_bodies_of(operation):
            await driver.ask(operation, bad, headers=headers)


async def drive_parameters(driver: Driver, operation: Operation) -> None:
    """The mark in the place of every parameter."""
    body = bodies_of(operation)[0]
    for name in operation.parameters:
        parameter = DOCUMENT["components"]["parameters"][name]
        match parameter["in"]:
            case "header":
                await driver.ask(operation, body, headers={parameter["name"]: PARAMETER})
            case "query":
                await driver.ask(operation, body, query={**operation.example_query, parameter["name"]: PARAMETER})


async def drive_providers(driver: Driver, provider: QuotingProvider) -> None:
    """Every behaviour of a provider on every operation that asks one, with the key of a request and the configured."""
    for behaviour in BEHAVIOURS:
        provider.behaviour = behaviour
        for operation in PROXIED:
            for body in bodies_of(operation)[:2]:
                for headers in ({}, {"x-provider-key": ""}):
                    await driver.ask(operation, body, headers=headers)
    for operation in PROXIED:
        provider.behaviour = "as described"
        asked, body = len(provider.requests), bodies_of(operation)[0] or b"{}"
        await driver.ask(operation, body)
        is_asked = len(provider.requests) > asked  # some examples are answered here
        provider.behaviour = "stays silent"
        async with left_alone(driver, operation, body):
            if is_asked:
                await wait_until(lambda before=asked + 1: len(provider.requests) > before)  # type: ignore[misc]
    provider.behaviour = "as described"


@asynccontextmanager
async def left_alone(driver: Driver, operation: Operation, body: bytes) -> AsyncIterator[None]:
    """A request whose client leaves without having read a byte."""
    host, _, port = driver.server.url.removeprefix("http://").partition(":")
    headers = [
        ("host", host), ("x-memory-key", driver.user_key), ("x-provider-key", SENT_KEY),
        ("content-type", "application/json"), ("content-length", str(len(body))),
    ]  # fmt: skip
    request = h11.Request(method=operation.method.upper(), target=path_of(operation), headers=headers)
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all((h11.Connection(h11.CLIENT).send(request) or b"") + body)
        yield


def in_order(operations: Iterable[Operation]) -> list[Operation]:
    """Those that change keys after the others, and deletions at the end."""
    return sorted(operations, key=lambda one: (one.method == "delete", one.path.startswith("/v1/keys")))


async def drive_dashboard(driver: Driver) -> None:
    """Signing in with marked keys, every operation through a session, and marks in all that a browser sends."""
    for key in (UNKNOWN_KEY, MALFORMED_KEY, f"{driver.user_key}:read", driver.user_key, SENT_KEY):
        refused = await try_sign_in(driver.server, {"key": key}, headers={"cookie": f"{COOKIE}={PARAMETER}"})
        driver.replies.look_at(refused, name="signing in")
        assert refused.status_code in {401, 403}
    browser = await sign_in(driver.server)
    driver.sessions += [browser.token, browser.csrf]
    odd = [{"x-dashboard-vault": PARAMETER}, {"x-csrf-token": PARAMETER}, {"cookie": f"{COOKIE}={PARAMETER}"}]
    odd += [{"authorization": f"Bearer {UNKNOWN_KEY}"}, {"origin": f"http://{PARAMETER}"}]
    for operation in OPERATIONS:
        if operation.path.startswith("/v1/") and operation.method != "delete":
            path, body = path_of(operation).removeprefix("/"), bodies_of(operation)[0]
            answer = await browser.ask(operation.method, path, body, headers={"x-provider-key": SENT_KEY})
            driver.replies.look_at(answer, name=named(operation))
    for path in ("v1/keys", "overview", "settings", f"requests/{PARAMETER}", PARAMETER):
        for headers in ({}, *odd):
            answer = await browser.ask("GET", path, headers=headers, query={"key": UNKNOWN_KEY, "series": PARAMETER})
            driver.replies.look_at(answer, name=f"dashboard {path}")


async def drive_everything(driver: Driver, provider: QuotingProvider) -> None:
    """Deletions last, so that what they delete has been on the disk."""
    ordered = in_order(OPERATIONS)
    for operation in ordered:
        await drive_keys(driver, operation)
        await drive_parameters(driver, operation)
    await drive_providers(driver, provider)
    for operation in ordered:
        await drive_bodies(driver, operation)
    await drive_dashboard(driver)
    for path in (f"/{PARAMETER}", f"/v1/memory/{PARAMETER}", f"/v1/models/{PARAMETER}%00", f"/v1//{PARAMETER}%0a"):
        answer = await driver.server.get(path)
        assert answer.status_code == 404
