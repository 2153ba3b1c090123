"""What does it cost each request to find out whose key it is, and whether its key and its address may ask?

Runs what every route does first, on a request as the OpenAI SDK sends it, in this process and without a network: with
no limits set, and with all of them. The key is known, as it is from a client's second request on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio
from quart import g
from quart_trio import QuartTrio

from actors.store.sqlite import open_store
from bench._options import run_benchmark
from bench._percentiles import summary
from bench._results import Table
from models.limit_settings import LimitSettings
from models.settings import Settings
from router.admin import create_account
from router.components import Components
from router.readiness import Readiness
from router.requests import read_caller
from router.server_metrics import Metrics

HEADERS = {
    "Host": "localhost:8080", "Content-Type": "application/json", "Accept": "application/json",
    "User-Agent": "OpenAI/Python 3.54.0", "Accept-Encoding": "gzip, deflate", "Connection": "keep-alive",
    "X-Stainless-Lang": "python", "X-Stainless-Package-Version": "3.54.0", "X-Stainless-OS": "Linux",
    "X-Stainless-Arch": "x64", "X-Stainless-Runtime": "CPython", "X-Stainless-Runtime-Version": "3.11.7",
    "X-Stainless-Async": "false", "X-Stainless-Retry-Count": "0", "X-Stainless-Read-Timeout": "600",
    "X-Forwarded-For": "198.51.100.7, 10.0.0.9", "X-Session-ID": "session-1",
}  # fmt: skip
ALL = LimitSettings(
    requests_per_minute=1_000_000,
    requests_burst=1_000_000,
    requests_concurrent_max=1_000,
    memories_max=1_000_000,
    failed_auth_per_minute=60,
    trusted_proxies=("127.0.0.0/8", "10.0.0.0/8"),
)


async def measure(limits: LimitSettings, data_dir: Path, *, requests: int) -> dict[str, Any]:
    """The time of `read_caller` in milliseconds, over so many requests."""
    settings = msgspec.structs.replace(Settings(), limits=limits)
    nothing: Any = None  # no other part of the server takes part
    took_s: list[float] = []
    async with open_store(data_dir, settings=settings.store) as store:
        line = await create_account(store, created_ms=0)
        components = Components(
            settings=settings, store=store, embedder=nothing, supervisor=nothing, upstream=nothing,
            recaller=nothing, rememberer=nothing, metrics=Metrics(), readiness=Readiness(),
        )  # fmt: skip
        app = QuartTrio(__name__)
        headers = {**HEADERS, "Authorization": f"Bearer {line.removeprefix('account key: ')}"}
        for _ in range(requests):
            async with AsyncExitStack() as exits:
                base = {"client": ("127.0.0.1", 4711), "memoryrouter.exits": exits}
                async with app.test_request_context("/v1/memory/search", headers=headers, scope_base=base):
                    g.began_s = began_s = time.perf_counter()
                    await read_caller(components)
                    took_s.append(time.perf_counter() - began_s)
    return {name: value for name, value in summary(took_s).items() if name != "max_ms"} | {"requests": requests}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--requests", type=int, default=20_000)


def measure_all(chosen: argparse.Namespace) -> Iterator[Table]:
    rows = {}
    for name, limits in (("no limits", LimitSettings()), ("all limits", ALL)):
        with tempfile.TemporaryDirectory(prefix="memoryrouter-bench-") as directory:
            rows[name] = trio.run(partial(measure, limits, Path(directory) / "data", requests=chosen.requests))
    yield Table("authentication and limits of one request", rows)


if __name__ == "__main__":
    sys.exit(run_benchmark(measure_all, __doc__, options, quick={"requests": 500}))
