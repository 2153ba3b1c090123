"""What do traces cost a request: where they are off, where it is not sampled, and where it is?

First the tracing alone, in this process: the steps of a chat (key, embedding, recall in two parts, provider, commit)
around nothing. Then whole requests: `prepare` on three servers in turns, whose spans go to a receiver that throws them
away; latencies of one client, and processor time of the server's process, delivery included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import trio

from bench._harness import fill_vault, posting, question, run_clients, running_server
from bench._options import run_benchmark
from bench._results import Table
from models.tracing_settings import TracingSettings
from router.spans import begin_call, describe_request, record_part, step
from router.tracing import open_tracing

SCOPE = {"type": "http", "method": "POST", "scheme": "http", "http_version": "1.1", "headers": []}
RATIOS = {"off": None, "not sampled": 0.0, "sampled": 1.0}


@contextmanager
def receiver() -> Iterator[str]:
    """The URL of a receiver that throws everything away."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """Take a delivery."""
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


async def chat(scope: Any, receive: Any, send: Any) -> None:
    """A chat's steps, around nothing."""
    with step("auth"):
        pass
    with step("embed"):
        pass
    with step("recall") as recalling:
        if recalling is not None:
            record_part(recalling, "mailbox", after_s=0, took_s=0)
            record_part(recalling, "rank", after_s=0, took_s=0)
    call = begin_call("openai")
    if call is not None:
        call.headers()
        call.answered(200, 1)
        call.end()
    with step("commit"):
        pass
    describe_request({"http.route": "/v1/chat/completions"})
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def nothing(message: Any) -> None:
    """Send nowhere."""


async def measure_alone(url: str, *, requests: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Microseconds of a request's tracing, and of them in its own task before its answer has gone out."""
    took: dict[str, list[float]] = {name: [] for name in RATIOS}
    for _ in range(rounds):
        for name, ratio in RATIOS.items():
            settings = TracingSettings() if ratio is None else TracingSettings(endpoint=url, sample_ratio=ratio)
            async with open_tracing(settings) as tracing:
                app = tracing.wrap(chat)
                began_s = time.perf_counter()
                for _ in range(requests):
                    await app(SCOPE, None, nothing)
                took[name].append((time.perf_counter() - began_s) / requests * 1e6)
    return {name: {"us_per_request": round(statistics.median(values), 2)} for name, values in took.items()}


def measure_whole(url: str, *, requests: int, rounds: int) -> dict[str, dict[str, Any]]:
    """`prepare` on a server each, in turns."""
    latencies: dict[str, list[float]] = {name: [] for name in RATIOS}
    cpu_s = dict.fromkeys(RATIOS, 0.0)
    with ExitStack() as stack:
        servers = {}
        for name, ratio in RATIOS.items():
            traced = {"MEMORYROUTER_TRACING__ENDPOINT": url, "MEMORYROUTER_TRACING__SAMPLE_RATIO": str(ratio)}
            servers[name] = stack.enter_context(running_server(environ={} if ratio is None else traced))
            fill_vault(servers[name], 200)
        for turn in range(rounds + 1):
            for name, server in servers.items():
                ask = posting(
                    "/v1/memory/prepare",
                    server.headers,
                    lambda number: {"messages": [{"role": "user", "content": question(number)}]},
                    expect=200,
                )
                before_s = server.cpu_s
                measured = run_clients(server.port, ask, clients=1, requests=requests, first=turn * requests)
                if turn:  # the first turn only warms up
                    latencies[name].append(measured["p50_ms"])
                    cpu_s[name] += server.cpu_s - before_s
    return {
        name: {
            "p50_ms": round(statistics.median(latencies[name]), 3),
            "cpu_ms_per_request": round(cpu_s[name] / (requests * rounds) * 1000, 3),
        }
        for name in RATIOS
    }


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    os.environ["MEMORYROUTER_LOG__LEVEL"] = "error"
    with receiver() as url:
        alone = trio.run(lambda: measure_alone(url, requests=chosen.requests, rounds=chosen.rounds))
        yield Table("Tracing alone", alone)
        whole = measure_whole(url, requests=max(50, chosen.requests // 10), rounds=chosen.rounds)
        yield Table("Whole requests of prepare", whole)


if __name__ == "__main__":
    sys.exit(run_benchmark(measure, __doc__, options, quick={"requests": 100, "rounds": 1}))
