"""What every benchmark shares: a server of its own, a provider that answers at once, texts, and clients by count.

The server runs as a process of its own on a fresh data directory, with everything at its default. Clients are bytes on
sockets: an HTTP library would add more than what is measured. Load by time and rate is in `bench._load`. Machines are
shared and noisy: compare what was measured in one run, and quote medians and ratios.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from bench._machine import ROOT, rss_bytes
from bench._percentiles import summary

START_TIMEOUT_S = 60.0
EMBED_TIMEOUT_S = 900.0
RETRY_PAUSE_S = 0.1


class Server:
    """A running server, its account key, and what the system says of its process."""

    def __init__(self, process: subprocess.Popen[str], port: int, account_key: str, started_s: float) -> None:
        self.process = process
        self.port = port
        self.account_key = account_key
        self.started_s = started_s
        self.url = f"http://127.0.0.1:{port}"
        self.headers = {"Authorization": f"Bearer {account_key}"}

    @property
    def rss_bytes(self) -> int:
        """Resident memory."""
        return rss_bytes(self.process.pid)

    @property
    def cpu_s(self) -> float:
        """Processor seconds used so far, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running_server(
    data_dir: Path | None = None, environ: Mapping[str, str] | None = None, *, root: Path = ROOT
) -> Iterator[Server]:
    """Start a server on a free port, stop it with SIGTERM at the end.

    Args:
        root: the checkout, or the folder of the installed packages, whose server it is.
        data_dir: a directory to use; a fresh temporary one unless given. Its account key must be in the environment
            variable MEMORYROUTER_ACCOUNT_KEY when the directory is not fresh.
    """
    with tempfile.TemporaryDirectory(prefix="memoryrouter-bench-") as temporary:
        directory = data_dir or Path(temporary) / "data"
        port = free_port()
        began_s = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "router", "serve", "--data-dir", str(directory), "--port", str(port)],
            cwd=root,
            env={**os.environ, "MEMORYROUTER_LOG__LEVEL": "error", **(environ or {})},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            _wait_answered(process, port)
            started_s = time.perf_counter() - began_s
            yield Server(process, port, _account_key(process), started_s)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def _account_key(process: subprocess.Popen[str]) -> str:
    """The key that a first start has printed before it answered; later starts print nothing."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    line = process.stdout.readline()
    return line.removeprefix("account key: ").strip() or os.environ.get("MEMORYROUTER_ACCOUNT_KEY", "")


def _wait_answered(process: subprocess.Popen[str], port: int) -> None:
    deadline_s = time.perf_counter() + START_TIMEOUT_S
    while time.perf_counter() < deadline_s:
        if process.poll() is not None:
            raise RuntimeError(f"The server ended with code {process.returncode}.")
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=1).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.005)
    raise RuntimeError("The server did not answer in time.")


@contextmanager
def running_provider(port: int = 0) -> Iterator[int]:
    """The port of a mock provider in a process of its own; a free one unless it is given."""
    port = port or free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench._mock_provider", str(port)], cwd=ROOT)
    try:
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.01)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Texts.

_PEOPLE = [
    "Anna", "Ben", "Carla", "David", "Elena", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kira", "Liam", "Mona", "Nils",
    "Olga", "Pablo",
]  # fmt: skip
_PLACES = ["Lisbon", "Oslo", "Kyoto", "Denver", "Naples", "Cork", "Lima", "Graz", "Porto", "Bergen", "Turin", "Quito"]
_THINGS = [
    "pottery class", "sourdough starter", "violin recital", "marathon training", "roof repair", "beekeeping course",
    "cat adoption", "chess club", "job interview", "garden pond", "photo exhibition", "wedding speech", "tax return",
    "sailing licence", "book draft",
]  # fmt: skip
_FEELINGS = ["excited", "nervous", "relieved", "curious", "tired", "proud", "unsure", "delighted"]


def sentence(number: int) -> str:
    """The text of one memory: about forty tokens, different for each number, always the same for one."""
    pick = random.Random(number)  # a generator of test data
    return (
        f"{pick.choice(_PEOPLE)} told me that the {pick.choice(_THINGS)} in {pick.choice(_PLACES)} on day "
        f"{number % 365} went better than expected, and {pick.choice(_PEOPLE)} felt {pick.choice(_FEELINGS)} about the "
        f"{pick.choice(_THINGS)} that costs {pick.randrange(20, 900)} euros and starts at {pick.randrange(7, 21)}:15."
    )


def question(number: int) -> str:
    """A question that some memory answers."""
    pick = random.Random(-number)  # a generator of test data
    return f"How did the {pick.choice(_THINGS)} in {pick.choice(_PLACES)} go for {pick.choice(_PEOPLE)}?"


def fill_vault(server: Server, memories: int, *, embedded: bool = True, first: int = 0) -> float:
    """Upload this many memories and wait until they are embedded. Returns the seconds until then.

    Args:
        first: the number of the first; those of other numbers are others.
    """
    began_s = time.perf_counter()
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=300) as client:
        for start in range(first, first + memories, 5_000):
            numbers = range(start, min(start + 5_000, first + memories))
            lines = "\n".join(json.dumps({"content": sentence(n), "timestamp": 1_760_000_000_000 + n}) for n in numbers)
            client.post("/v1/memory/upload", content=lines.encode()).raise_for_status()
        while embedded and client.get("/v1/memory/stats").json()["pending"]:
            if time.perf_counter() - began_s > EMBED_TIMEOUT_S:
                raise RuntimeError("Embedding took too long.")
            time.sleep(0.2)
    return time.perf_counter() - began_s


# Clients.


class Connection:
    """One keep-alive connection that knows just enough HTTP/1.1."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = b""

    async def post(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, float]:
        """Send a request and read its response to the end; the status, and the seconds until the first body byte."""
        head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        began_s = time.perf_counter()
        await self._stream.send_all(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await self._fill_until(b"\r\n\r\n")
        raw, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        lines = raw.lower().split(b"\r\n")
        if not self._buffer and b"content-length: 0" not in lines:
            await self._fill()
        first_s = time.perf_counter() - began_s
        length = next((line for line in lines if line.startswith(b"content-length:")), None)
        if length is not None:
            await self._skip(int(length.split(b":")[1]))
        else:
            await self._skip_chunks()
        return int(lines[0].split()[1]), first_s

    async def _skip(self, count: int) -> None:
        while len(self._buffer) < count:
            await self._fill()
        self._buffer = self._buffer[count:]

    async def _skip_chunks(self) -> None:
        while True:
            await self._fill_until(b"\r\n")
            size, self._buffer = self._buffer.split(b"\r\n", 1)
            await self._skip(int(size, 16) + 2)
            if int(size, 16) == 0:
                return

    async def _fill_until(self, mark: bytes) -> None:
        while mark not in self._buffer:
            await self._fill()

    async def _fill(self) -> None:
        data = await self._stream.receive_some(1 << 20)
        if not data:
            raise RuntimeError("The server closed the connection.")
        self._buffer += data


Ask = Callable[[Connection, int], Awaitable[float]]
"""Sends the n-th request of a run on a connection and returns the latency to record, in seconds."""


async def _client(port: int, ask: Ask, numbers: Sequence[int], latencies_s: list[float]) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        connection = Connection(stream)
        latencies_s.extend([await ask(connection, number) for number in numbers])


def run_clients(port: int, ask: Ask, *, clients: int, requests: int, first: int = 0) -> dict[str, float]:
    """Send `requests` in all from `clients` connections, closed loop; latencies in milliseconds and requests/s."""
    latencies_s: list[float] = []

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(clients):
                numbers = range(first + number, first + requests, clients)
                nursery.start_soon(_client, port, ask, numbers, latencies_s)

    began_s = time.perf_counter()
    trio.run(run)
    return {**summary(latencies_s), "requests_per_s": round(requests / (time.perf_counter() - began_s), 1)}


def posting(
    path: str, headers: Mapping[str, str], body: Callable[[int], Any], *, expect: int, first: bool = False
) -> Ask:
    """An `Ask` that posts JSON and checks the status.

    Args:
        first: record the time to the first body byte instead of the whole.
    """

    async def ask(connection: Connection, number: int) -> float:
        data = json.dumps(body(number)).encode()
        began_s = time.perf_counter()
        status, first_s = await connection.post(path, headers, data)
        while status == 503 and time.perf_counter() - began_s < EMBED_TIMEOUT_S:  # come back later: the wait counts
            await trio.sleep(RETRY_PAUSE_S)
            status, first_s = await connection.post(path, headers, data)
        if status != expect:
            raise RuntimeError(f"{path} answered {status}.")
        return first_s if first else time.perf_counter() - began_s

    return ask
