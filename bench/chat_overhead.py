"""What does the proxy add to a chat, against calling the provider directly?

The provider is a mock that answers at once (`bench/_mock_provider.py`); direct calls and proxied ones alternate in one
run. `added` is the difference of percentiles.

* Whole replies, and streams up to their first body byte, of one client.
* Every chunk of a stream (50 chunks, 5 ms apart): from the moment when the provider sends it until the client has it;
  for Chat Completions, and for one that is translated from Messages.
* How long after a client has left the provider sees it: within a stream, before its first byte, and without one.
* How many of so many streams, cut into random chunks, arrive byte for byte.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bench._harness import Server, fill_vault, posting, question, run_clients, running_provider, running_server
from bench._options import run_benchmark
from bench._percentiles import summary
from bench._provider_replies import random_stream
from bench._results import Table

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
OFF = {"X-Memory-Mode": "off"}
STAMP = re.compile(rb"at=(\d+);")
Where = tuple[int, str, Mapping[str, str], str]
"""Port, path, headers and model of a request."""


def body_of(number: int, model: str, *, stream: bool) -> dict[str, Any]:
    message = {"role": "user", "content": f"{question(number)} ({number})"}
    return {"model": model, "stream": stream, "max_tokens": 100, "messages": [message]}


@contextmanager
def asked(where: Where, number: int, *, stream: bool = True) -> Iterator[socket.socket]:
    """A connection of its own on which this has been asked."""
    port, path, headers, model = where
    data = json.dumps(body_of(number, model, stream=stream)).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(data)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head.encode() + b"\r\n" + data)
        yield connection


def chunk_delays_s(where: Where, number: int) -> list[float]:
    """For each chunk of one stream, how long it was under way."""
    delays_s: list[float] = []
    received, read = b"", 0
    with asked(where, number) as connection:
        while not received.endswith(b"0\r\n\r\n"):
            data = connection.recv(1 << 16)
            now_ns = time.monotonic_ns()
            if not data:
                raise RuntimeError("The stream was cut.")
            received += data
            for stamp in STAMP.finditer(received, read):
                delays_s.append((now_ns - int(stamp[1])) / 1e9)
                read = stamp.end()
    return delays_s


def measure_chunks(provider: int, server: Server, streams: int) -> dict[str, dict[str, float]]:
    """One stream at a time, the kinds in turn, so that whatever slows the machine slows all of them.

    Memory is on for the last kind only: what it stores is embedded while the next stream runs.
    """
    off = {**OFF, **server.headers}
    kinds: dict[str, tuple[Where, str]] = {
        "messages, direct": ((provider, MESSAGES, {}, "mock"), ""),
        "messages": ((server.port, MESSAGES, off, "anthropic/mock"), "messages, direct"),
        "translated": ((server.port, CHAT, off, "anthropic/mock"), "messages, direct"),
        "chat, direct": ((provider, CHAT, {}, "mock"), ""),
        "chat": ((server.port, CHAT, off, "openai/mock"), "chat, direct"),
        "chat, memory on": ((server.port, CHAT, server.headers, "openai/mock"), "chat, direct"),
    }
    delays_s: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(streams + 2):
        for kind, (where, _) in kinds.items():
            delays = chunk_delays_s(where, number)
            if number >= 2:  # the first ones warm up
                delays_s[kind] += delays
    rows = {kind: {**summary(delays), "chunks": len(delays)} for kind, delays in delays_s.items()}
    for kind, (_, direct) in kinds.items():
        if direct:
            for name in ("p50_ms", "p99_ms"):
                rows[kind][f"added_{name}"] = round(rows[kind][name] - rows[direct][name], 2)
    return rows


def measure_cancelling(provider: int, server: Server, times: int) -> dict[str, dict[str, float]]:
    """From the close of the client's socket until the provider has noticed, directly and through the proxy."""
    rows: dict[str, dict[str, float]] = {}
    cases = {"in a stream": ("endless", True), "before the first byte": ("hang", True), "whole": ("hang", False)}
    for case, (model, stream) in cases.items():
        through: dict[str, Where] = {
            "direct": (provider, CHAT, {}, model),
            "proxy": (server.port, CHAT, server.headers, f"openai/{model}"),
        }
        for name, where in through.items():
            took_s = []
            for number in range(times):
                with asked(where, number, stream=stream) as connection:
                    if model == "endless":
                        connection.recv(1 << 16)
                    time.sleep(0.1)  # by now the provider has been asked
                    left_ns = time.monotonic_ns()
                took_s.append((provider_noticed_ns(provider) - left_ns) / 1e9)
            rows[f"{case}, {name}"] = summary(took_s)
    return rows


def provider_noticed_ns(provider: int) -> int:
    """When the client left, as the provider saw it."""
    for _ in range(1_000):
        with socket.create_connection(("127.0.0.1", provider)) as connection:
            connection.sendall(b"GET /left HTTP/1.1\r\nHost: bench\r\n\r\n")
            times_ns: list[int] = json.loads(connection.recv(1 << 16).rpartition(b"\r\n\r\n")[2])
        if times_ns:
            return times_ns[0]
        time.sleep(0.01)
    raise RuntimeError("The provider was never left.")


def count_equal(server: Server, streams: int) -> dict[str, int]:
    """How many streams arrive as the provider sent them."""
    equal = 0
    for seed in range(streams):
        received = b""
        with asked(
            (server.port, CHAT, {**server.headers, "Connection": "close"}, f"openai/random-{seed}"), seed
        ) as ask:
            while data := ask.recv(1 << 16):
                received += data
        equal += unchunked(received.partition(b"\r\n\r\n")[2]) == b"".join(random_stream(seed))
    return {"streams": streams, "equal": equal}


def unchunked(data: bytes) -> bytes:
    """A body without its chunk sizes."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        body += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]
    return body


def measure_replies(provider: int, server: Server, requests: int, streams: int) -> dict[str, dict[str, float]]:
    """Whole replies, and streams up to their first byte."""
    rows: dict[str, dict[str, float]] = {}
    for stream in (False, True):

        def body(number: int, stream: bool = stream) -> dict[str, object]:
            return body_of(number, "openai/mock", stream=stream)

        paths = {
            "direct": (provider, {}),
            "memory off": (server.port, {**OFF, **server.headers}),
            "memory on": (server.port, server.headers),
        }
        kind = "stream, first byte" if stream else "whole"
        for name, (port, headers) in paths.items():
            ask = posting(CHAT, headers, body, expect=200, first=stream)
            run_clients(port, ask, clients=1, requests=10, first=900_000)  # warm up
            row = run_clients(port, ask, clients=1, requests=streams if stream else requests)
            if name != "direct":
                row["added_p50_ms"] = round(row["p50_ms"] - rows[f"{kind}, direct"]["p50_ms"], 2)
            rows[f"{kind}, {name}"] = row
    return rows


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--memories", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--streams", type=int, default=30)
    parser.add_argument("--random-streams", type=int, default=500)


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    with running_provider() as provider:
        environ = {
            "MEMORYROUTER_PROVIDERS__OPENAI__BASE_URL": f"http://127.0.0.1:{provider}/v1",
            "MEMORYROUTER_PROVIDERS__ANTHROPIC__BASE_URL": f"http://127.0.0.1:{provider}",
        }
        with running_server(environ=environ) as server:
            if chosen.memories:
                fill_vault(server, chosen.memories)
            title = f"chat, {chosen.memories} memories, one client"
            if chosen.requests:
                yield Table(title, measure_replies(provider, server, chosen.requests, chosen.streams))
            yield Table("every chunk of a stream", measure_chunks(provider, server, chosen.streams))
            yield Table("client gone", measure_cancelling(provider, server, min(20, chosen.streams)))
            yield Table("streams in random chunks", {"proxy": count_equal(server, chosen.random_streams)})


if __name__ == "__main__":
    quick = {"memories": 100, "requests": 20, "streams": 3, "random_streams": 10}
    sys.exit(run_benchmark(measure, __doc__, options, quick=quick))
