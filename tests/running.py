"""Whole servers for tests: real Hypercorn on loopback, real SQLite store, real actors.

`open_server` runs one inside the test's own Trio loop, by default with the fake encoder; `open_process` runs the
program as an operator does, for what needs a process of its own: kill, SIGTERM, restart, exit codes.
"""

from __future__ import annotations

import os
import select
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h11
import httpx
import msgspec
import trio

from models.embedding import TextEncoder
from models.provider_settings import ProviderSettings
from models.server_settings import ServerSettings
from models.settings import ProvidersSettings, Settings, StoreSettings
from router import service
from router.listening import BoundAddress
from tests.fakes.embedding import HashEmbedding
from tests.patience import PATIENCE_S, PATIENT_ENVIRONMENT, PATIENT_PROXY, PATIENT_VAULTS

ROOT = Path(__file__).resolve().parent.parent


def settings_for(
    provider: ProviderSettings | None = None, *, base: Settings | None = None, **sections: Any
) -> Settings:
    """Settings of a test server: a free port, one shard, patience, and this provider under the prefix `openai`.

    Args:
        sections: whole sections that replace those of `base`, such as `proxy=ProxySettings(...)`.
    """
    base = base or Settings()
    values = {
        "server": ServerSettings(host="127.0.0.1", port=0),
        "store": StoreSettings(shards=1),
        "vaults": PATIENT_VAULTS,
        "proxy": PATIENT_PROXY,
        "providers": ProvidersSettings(by_name={} if provider is None else {"openai": provider}),
        **sections,
    }
    return msgspec.structs.replace(base, **values)


class Client:
    """One caller of a server: a Memory Key, and the requests that tests make most.

    Attributes:
        http: connections to the server, shared by its clients.
    """

    def __init__(self, http: httpx.AsyncClient, key: str) -> None:
        self.http = http
        self.key = key

    @property
    def url(self) -> str:
        """Where the server is."""
        return str(self.http.base_url).rstrip("/")

    async def post(
        self, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, key: str | None = None
    ) -> httpx.Response:
        """POST a body: bytes as they are, everything else as JSON.

        Args:
            key: a Memory Key instead of the client's own, or "" for none.
        """
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return await self.http.post(path, content=content, headers=self._headers(headers, key))

    async def get(
        self, path: str, *, headers: Mapping[str, str] | None = None, key: str | None = None
    ) -> httpx.Response:
        """GET a path."""
        return await self.http.get(path, headers=self._headers(headers, key))

    async def delete(
        self, path: str = "/v1/memory", *, headers: Mapping[str, str] | None = None, key: str | None = None
    ) -> httpx.Response:
        """DELETE a path, the vault unless said otherwise."""
        return await self.http.delete(path, headers=self._headers(headers, key))

    def _headers(self, headers: Mapping[str, str] | None, key: str | None) -> dict[str, str]:
        key = self.key if key is None else key
        return {**({"authorization": f"Bearer {key}"} if key else {}), **(headers or {})}

    async def ingest(self, *texts: str, **body: Any) -> None:
        """Store user messages, one exchange each, and insist on the 202."""
        for text in texts:
            answer = await self.post("/v1/memory/ingest", {"messages": [user(text)], **body})
            assert answer.status_code == 202, answer.text

    async def upload(self, lines: Sequence[Any], *, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Upload JSON lines, insist on the 200 and return the answer."""
        body = b"\n".join(msgspec.json.encode(line) for line in lines)
        answer = await self.post("/v1/memory/upload", body, headers=headers)
        assert answer.status_code == 200, answer.text
        return object_of(answer)

    async def search(
        self, query: str, *, limit: int = 10, headers: Mapping[str, str] | None = None, **body: Any
    ) -> list[dict[str, Any]]:
        """The items that a search finds."""
        answer = await self.post("/v1/memory/search", {"query": query, "limit": limit, **body}, headers=headers)
        assert answer.status_code == 200, answer.text
        memories: list[dict[str, Any]] = object_of(answer)["memories"]
        return memories

    async def contents(self, query: str, *, headers: Mapping[str, str] | None = None) -> set[str]:
        """The texts that a search finds."""
        return {item["content"] for item in await self.search(query, limit=1000, headers=headers)}

    async def prepare(self, question: str, *, headers: Mapping[str, str] | None = None, **body: Any) -> dict[str, Any]:
        """The context for one question."""
        answer = await self.post("/v1/memory/prepare", {"messages": [user(question)], **body}, headers=headers)
        assert answer.status_code == 200, answer.text
        return object_of(answer)

    async def stats(self, *, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The vault in numbers."""
        answer = await self.get("/v1/memory/stats", headers=headers)
        assert answer.status_code == 200, answer.text
        return object_of(answer)

    async def wait_embedded(self) -> None:
        """Return once everything stored has its vectors."""
        with trio.fail_after(PATIENCE_S):
            while (await self.stats())["pending"]:
                await trio.lowlevel.checkpoint()

    async def chat(
        self,
        *messages: dict[str, Any] | str,
        model: str = "openai/m",
        headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> httpx.Response:
        """One chat completion; a bare text is a user's message."""
        listed = [user(message) if isinstance(message, str) else message for message in messages]
        return await self.post("/v1/chat/completions", {"model": model, "messages": listed, **body}, headers=headers)

    async def other(self, name: str = "other", **body: Any) -> Client:
        """A client with a new user key of this one's account."""
        answer = await self.post("/v1/keys", {"name": name, **body})
        assert answer.status_code == 201, answer.text
        return Client(self.http, object_of(answer)["key"])


def user(text: str, **fields: Any) -> dict[str, Any]:
    """A user's message."""
    return {"role": "user", "content": text, **fields}


def assistant(text: str, **fields: Any) -> dict[str, Any]:
    """An assistant's message."""
    return {"role": "assistant", "content": text, **fields}


def object_of(answer: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer."""
    assert answer.headers["content-type"].startswith("application/json"), answer.headers
    value = answer.json()
    assert isinstance(value, dict)
    return value


@asynccontextmanager
async def open_server(
    data_dir: Path,
    settings: Settings | None = None,
    *,
    encoder: TextEncoder | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Client]:
    """A server in this loop, as the holder of its account key sees it.

    Leaving the block stops it at once; its data directory can be opened again.

    Args:
        data_dir: made on the first start; the account key of that start is kept beside it.
        encoder: the fake one unless given.
        tls: trusts the server's certificate, if the settings name one.
    """
    announced: list[str] = []
    key_file = data_dir.with_suffix(".account-key")
    async with trio.open_nursery() as serving:
        serve = partial(
            service.serve,
            settings or settings_for(),
            data_dir=data_dir,
            announce=announced.append,
            encoder=encoder or HashEmbedding(),
        )
        with trio.fail_after(PATIENCE_S):
            address: BoundAddress = await serving.start(serve)
        if announced:
            await trio.Path(key_file).write_text(announced[0])
        key = await trio.Path(key_file).read_text()
        try:
            async with open_http(address.url, tls=tls) as http:
                yield Client(http, key)
        finally:
            serving.cancel_scope.cancel(reason="the test is over")


class RawReply:
    """A reply as it comes off the socket. httpx cannot be left halfway without leaving generators behind.

    Attributes:
        status: of the response.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.wire = h11.Connection(h11.CLIENT)
        self.status = 0

    async def next_event(self) -> Any:
        """The next event of h11 that is not a wait for data."""
        while (event := self.wire.next_event()) is h11.NEED_DATA:
            self.wire.receive_data(await self.stream.receive_some())
        return event

    async def next_data(self) -> bytes:
        """The next piece of the body, b"" at its end."""
        event = await self.next_event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""


@asynccontextmanager
async def open_reply(client: Client, path: str, body: Any) -> AsyncIterator[RawReply]:
    """POST on a connection of its own, up to the reply's head. Leaving the block closes the connection."""
    data = msgspec.json.encode(body)
    host, _, port = client.url.removeprefix("http://").partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        reply = RawReply(stream)
        headers = [("host", host), ("authorization", f"Bearer {client.key}"), ("content-length", str(len(data)))]
        head = reply.wire.send(h11.Request(method="POST", target=path, headers=headers)) or b""
        await stream.send_all(head + (reply.wire.send(h11.Data(data=data)) or b""))
        reply.wire.send(h11.EndOfMessage())
        response = await reply.next_event()
        reply.status = response.status_code
        yield reply


def open_http(url: str, *, tls: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """Connections to a server, for the length of an `async with`; `tls` trusts its certificate.

    Without TLS no certificates of authorities are read, which takes 30 ms each time.
    """
    verify = tls or url.startswith("https:")
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False, verify=verify)


class ServerProcess:
    """The program in a process of its own.

    Attributes:
        stdout: the lines it has printed.
        log: its log lines, decoded.
    """

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.stdout: list[str] = []
        self.log: list[dict[str, Any]] = []
        self.url = ""
        self._serving = trio.Event()
        self._ended = {"stdout": trio.Event(), "stderr": trio.Event()}

    @property
    def account_key(self) -> str:
        """The key that the first start printed."""
        (line,) = [line for line in self.stdout if line.startswith("account key: ")]
        return line.removeprefix("account key: ")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def wait(self) -> int:
        """The exit code, once it has ended and all its output has been read."""
        with trio.fail_after(PATIENCE_S):
            code = await self.process.wait()
            for ended in self._ended.values():
                await ended.wait()
        return code

    async def wait_serving(self) -> None:
        """Return once it has said where it serves."""
        with trio.fail_after(PATIENCE_S):
            await self._serving.wait()
            while self._prints():  # the account key's line was written first, but its task may not have run yet
                await trio.lowlevel.checkpoint()
        assert self.url, self.log

    def _prints(self) -> bool:
        """Whether there is something on stdout that has not been read."""
        if self._ended["stdout"].is_set():
            return False
        assert isinstance(self.process.stdout, trio.lowlevel.FdStream)
        return bool(select.select([self.process.stdout.fileno()], [], [], 0)[0])

    async def read_stdout(self) -> None:
        """Collect what it prints."""
        assert self.process.stdout is not None
        async for line in _lines(self.process.stdout):
            self.stdout.append(line)
        self._ended["stdout"].set()

    async def read_stderr(self) -> None:
        """Collect what it logs; find out where it serves."""
        assert self.process.stderr is not None
        async for line in _lines(self.process.stderr):
            entry = msgspec.json.decode(line) if line.startswith("{") else {"event": line}
            self.log.append(entry)
            if entry["event"] == "serving":
                self.url = entry["url"]
                self._serving.set()
        self._serving.set()
        self._ended["stderr"].set()


async def _lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[str]:
    rest = b""
    async for data in stream:
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode()
    if rest:
        yield rest.decode()


def serve_command(data_dir: Path) -> list[str]:
    """`python -m router serve` with this data directory on a free port."""
    return [sys.executable, "-m", "router", "serve", "--data-dir", str(data_dir), "--port", "0"]


def serve_environment(own: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings, with those of a patient server with one shard, and its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MEMORYROUTER_")}
    return {**kept, **PATIENT_ENVIRONMENT, "MEMORYROUTER_STORE__SHARDS": "1", **(own or {})}


def open_process(
    data_dir: Path, *, environment: Mapping[str, str] | None = None
) -> AbstractAsyncContextManager[ServerProcess]:
    """The program from this checkout, serving; see `serve_command` and `serve_environment`."""
    return open_program(serve_command(data_dir), cwd=ROOT, environment=serve_environment(environment))


@asynccontextmanager
async def open_program(
    command: Sequence[str], *, cwd: Path, environment: Mapping[str, str]
) -> AsyncIterator[ServerProcess]:
    """A command that serves, with this environment and no other; killed at the end if it still runs."""
    process = await trio.lowlevel.open_process(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    server = ServerProcess(process)
    async with trio.open_nursery() as reading:
        reading.start_soon(server.read_stdout)
        reading.start_soon(server.read_stderr)
        try:
            await server.wait_serving()
            yield server
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True), trio.move_on_after(PATIENCE_S):
                await server.wait()
            reading.cancel_scope.cancel()
