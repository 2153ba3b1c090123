"""What does the proxy add to a chat, against calling the provider directly?

The provider is a mock that answers at once (`bench/_mock_provider.py`); direct calls and proxied ones alternate in one
run. `added` is the difference of medians. Streams: 50 chunks, 5 ms apart, time to the first body byte.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench._harness import ROOT, fill_vault, free_port, posting, question, report, run_clients, running_server


@contextmanager
def running_provider() -> Iterator[int]:
    port = free_port()
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memories", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--streams", type=int, default=30)
    arguments = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    with running_provider() as mock_port:
        environ = {"MEMORYROUTER_PROVIDERS__OPENAI__BASE_URL": f"http://127.0.0.1:{mock_port}/v1"}
        with running_server(environ=environ) as server:
            fill_vault(server, arguments.memories)
            for stream in (False, True):
                requests = arguments.streams if stream else arguments.requests

                def body(number: int, stream: bool = stream) -> dict[str, object]:
                    message = {"role": "user", "content": f"{question(number)} ({number})"}
                    return {"model": "openai/mock", "stream": stream, "messages": [message]}

                paths = {
                    "direct": (mock_port, {}),
                    "memory off": (server.port, {"X-Memory-Mode": "off", **server.headers}),
                    "memory on": (server.port, server.headers),
                }
                kind = "stream, first byte" if stream else "whole"
                for name, (port, headers) in paths.items():
                    ask = posting("/v1/chat/completions", headers, body, expect=200, first=stream)
                    run_clients(port, ask, clients=1, requests=10, first=900_000)  # warm up
                    row = run_clients(port, ask, clients=1, requests=requests)
                    if name != "direct":
                        row["added_p50_ms"] = round(row["p50_ms"] - rows[f"{kind}, direct"]["p50_ms"], 2)
                    rows[f"{kind}, {name}"] = row
    report(f"chat, {arguments.memories} memories, one client", rows)


if __name__ == "__main__":
    main()
