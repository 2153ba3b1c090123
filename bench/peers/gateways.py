"""What do gateways add to a chat: this one and its rivals, all in one run, on the same cores, before the same provider?

    python -m bench.peers gateways [--only NAME]... [--work-dir DIR] [--seconds S] [--repeat N] [--json FILE]

All gateways run at the same time and are asked in turn, so that a slow spell of the machine meets all of them; one that
is not asked does nothing. What is sent, and what is measured, is that of `bench.proxy`, whose options count here, too:
rivals are only further targets of it. Start: from the start of the process until the first good answer. Generator,
provider and gateway share the machine, so requests/s are those of the whole; CPU seconds are the gateway's own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
import msgspec

from bench import proxy
from bench._harness import free_port, running_provider
from bench._load import Load, run_load
from bench._machine import rss_bytes
from bench._results import Figure, Table
from bench._targets import CHAT_PATH, SETTLE_TIMEOUT_S, Target, chat_requests, our_targets
from bench.peers.environments import open_work_dir
from bench.peers.processes import printed_url, running, wait_ready
from bench.peers.recipes import GATEWAYS, Launch, Place

OURS = "memoryrouter"
QUICK = {"seconds": 0.4, "connections": [1], "memories": 50, "rate": 0.0}


class Started(msgspec.Struct):
    """A gateway that answers, and what is said of its process."""

    target: Target
    facts: dict[str, Figure]


def add_options(parser: argparse.ArgumentParser) -> None:
    names = [OURS, *GATEWAYS]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"of {', '.join(names)}; all")
    parser.add_argument("--work-dir", type=Path, help="where rivals are installed and stay; a temporary one by default")
    proxy.options(parser)
    parser.set_defaults(rate=0.0)


def measure(options: argparse.Namespace) -> Iterator[Table]:
    """Start all, ask them in turn, give a table for each kind of reply, and one of the processes."""
    wanted = options.only or [OURS, *GATEWAYS]
    with ExitStack() as stack:
        work_dir = stack.enter_context(open_work_dir(options.work_dir))
        runs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memoryrouter-peers-run-")))
        port = stack.enter_context(running_provider(options.provider_port))
        started: list[Started] = []
        if OURS in wanted:
            server, ours = stack.enter_context(our_targets(port, options.modes, memories=options.memories, name=OURS))
            started += [Started(patient(target), {}) for target in ours]
            started[0].facts["start_s"] = round(server.started_s, 2)
        for name in GATEWAYS:
            if name in wanted:
                started.append(start(stack, name, f"http://127.0.0.1:{port}/v1", work_dir, runs))
        direct = Target(name="direct", url=f"http://127.0.0.1:{port}/v1", baseline=True)
        _note_rss(started, "rss_idle_mb")
        yield from proxy.measured(options, [direct, *(one.target for one in started), *options.target])
        _note_rss(started, "rss_after_mb")
        yield Table("processes", {one.target.name: one.facts for one in started})


def start(stack: ExitStack, name: str, provider_url: str, work_dir: Path, runs: Path) -> Started:
    """Install a gateway unless it is there, start it, and wait until it answers.

    Raises:
        NotInstalled: it could not be installed.
        NotStarted: it does not answer.
    """
    version, recipe = GATEWAYS[name]
    print(f"{time.strftime('%H:%M:%S')} starting {name} {version}", file=sys.stderr, flush=True)
    run_dir = runs / name
    run_dir.mkdir()
    place = Place(work_dir=work_dir, run_dir=run_dir, port=free_port(), provider_url=provider_url)
    launch = recipe(place)
    began_s = time.perf_counter()
    process = stack.enter_context(running(launch.command, run_dir, launch.environ))

    def ready() -> bool:
        origin = printed_url(run_dir) if launch.prints_url else f"http://127.0.0.1:{place.port}"
        return origin is not None and answers(target_of(name, launch, origin, process.pid))

    wait_ready(process, run_dir, ready)
    origin = printed_url(run_dir) if launch.prints_url else None
    target = target_of(name, launch, origin or f"http://127.0.0.1:{place.port}", process.pid)
    return Started(target, {"version": version, "start_s": round(time.perf_counter() - began_s, 2)})


def target_of(name: str, launch: Launch, origin: str, pid: int) -> Target:
    """A gateway as `bench.proxy` knows targets."""
    return Target(
        name=name,
        url=origin + launch.path,
        headers=tuple(launch.headers.items()),
        model=launch.model,
        pid=pid,
    )


def patient(target: Target) -> Target:
    """The same target, whose settling is tried again while the server says that it is busy with just that."""
    settle = target.settle
    if settle is None:
        return target

    def settled() -> None:
        deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
        while True:
            try:
                settle()
                return
            except httpx.HTTPStatusError as error:
                if error.response.status_code != 503 or time.monotonic() > deadline_s:
                    raise
            time.sleep(0.2)

    return msgspec.structs.replace(target, settle=settled)


def answers(target: Target) -> bool:
    """Whether it gives a good answer now."""
    request = chat_requests(target, "mock", stream=False)
    load = Load(target.url + CHAT_PATH, request, seconds=5, warm_up_s=0, requests_max=1, timeout_s=5)
    return bool(run_load(load).latencies_s)


def _note_rss(started: Sequence[Started], figure: str) -> None:
    for one in started:
        if one.target.pid is not None:
            one.facts[figure] = round(rss_bytes(one.target.pid) / 1e6, 1)
