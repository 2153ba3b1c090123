"""What does a proxied chat cost: time added, requests a second, processor and memory, beside calling the provider?

    python -m bench.proxy [--target NAME=URL[;HEADER=VALUE]...] [--checkout NAME=DIR] [--json FILE]

All in one run, in turns, on one machine: the provider itself (a mock that answers at once), a server of ours with
memory off and on (a vault of 10 000 memories), and whatever is named. Whole replies, streams of 50 chunks 5 ms apart,
and streams in one write; closed loop from 1, 16 and 64 connections, then open loop at a fixed rate. `added` is the
difference to the provider's own percentile in the same round. Processor time is that of the server alone, from /proc,
and with memory on it includes the embedding of what was stored, which is waited for. `share_recalled` is the percentage
of chats that were given memories: on a machine that is too slow for the budget of recall, chats go on without them, and
the other figures of such a row are not those of memory. What is in front of the mock must
be told where it is: with `--provider-port` it listens there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import msgspec

from bench._harness import running_provider
from bench._load import Load, Outcome, run_load
from bench._machine import ROOT, cpu_between_s, cpu_times, rss_bytes
from bench._options import run_benchmark
from bench._provider_replies import STREAM_CHUNKS
from bench._results import Curves, Table
from bench._targets import Target, chat_requests, checkout_of, our_targets, target_of

STREAM_EVENTS = STREAM_CHUNKS + 2
"""What a stream of the mock has: its chunks, the finishing one, and [DONE]."""


class Shape(msgspec.Struct, frozen=True):
    """A kind of chat.

    Attributes:
        model: the mock's that answers so.
    """

    title: str
    model: str
    streams: bool


SHAPES = {
    "whole": Shape(title="whole replies", model="mock", streams=False),
    "paced": Shape(title="streams of 50 chunks, 5 ms apart", model="mock", streams=True),
    "burst": Shape(title="streams of 50 chunks in one write", model="burst", streams=True),
}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--memories", type=int, default=10_000, help="in the vault")
    parser.add_argument("--modes", nargs="+", choices=["off", "read", "write", "on"], default=["off", "on"])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each point, after a warm-up of a quarter of it")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second of open loop; 0: none")
    parser.add_argument("--rate-connections", type=int, default=64, help="the most that open loop uses")
    parser.add_argument(
        "--target",
        type=target_of,
        action="append",
        default=[],
        metavar="NAME=URL[;HEADER=VALUE]",
        help="another OpenAI-compatible server; model=PREFIX{model} and pid=PID are no headers; again for more",
    )
    parser.add_argument(
        "--checkout",
        type=checkout_of,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a server of another checkout of this project, in the same run; again for more",
    )
    parser.add_argument("--provider-port", type=int, default=0, help="of the mock; 0: a free one")
    parser.add_argument("--no-ours", action="store_true", help="leave the server of this copy out")


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    with ExitStack() as stack:
        port = stack.enter_context(running_provider(chosen.provider_port))
        targets = [Target(name="direct", url=f"http://127.0.0.1:{port}/v1", baseline=True)]
        servers = {}
        copies = [*([] if chosen.no_ours else [("", ROOT)]), *chosen.checkout]
        for name, root in copies:
            opened = our_targets(port, chosen.modes, memories=chosen.memories, name=name, root=root)
            server, ours = stack.enter_context(opened)
            servers[name or "ours"] = {"start_s": round(server.started_s, 2), "idle_mb": round(server.rss_bytes / 1e6)}
            targets += ours
        yield from measured(chosen, [*targets, *chosen.target])
        for target in targets:
            name = target.name.partition(": ")[0] if ": " in target.name else "ours"
            if target.pid is not None:
                servers[name]["after_mb"] = round(rss_bytes(target.pid) / 1e6)
        yield Table("servers", servers)


def measured(chosen: argparse.Namespace, targets: Sequence[Target]) -> Iterator[Table]:
    """A table for each shape and round: the targets in turns, so that whatever slows the machine slows all."""
    first = 0
    for _ in range(chosen.repeat):
        for name in chosen.shapes:
            shape = SHAPES[name]
            table = Table(f"{shape.title}, closed loop", {}, baseline=names_of_baseline(targets, chosen.connections))
            for connections in chosen.connections:
                load = Load(url="", request=bytes, connections=connections, seconds=chosen.seconds, first=first)
                first += add_points(table, targets, shape, load)
            yield table
        if chosen.rate:
            title = f"whole replies, open loop, {chosen.rate:g}/s"
            connections = chosen.rate_connections
            table = Table(title, {}, baseline=names_of_baseline(targets, [connections]))
            load = Load(url="", request=bytes, connections=connections, rate_per_s=chosen.rate, first=first)
            first += add_points(
                table, targets, SHAPES["whole"], msgspec.structs.replace(load, seconds=2 * chosen.seconds)
            )
            yield table


def names_of_baseline(targets: Sequence[Target], connections: Sequence[int]) -> tuple[str, ...]:
    """The rows that are compared to."""
    return tuple(row_name(target, count) for target in targets if target.baseline for count in connections)


def row_name(target: Target, connections: int) -> str:
    """Of a target's row."""
    return f"{target.name}, {connections} connection{'s' if connections > 1 else ''}"


def add_points(table: Table, targets: Sequence[Target], shape: Shape, load: Load) -> int:
    """Put a row of each target into a table; how many requests were sent in all."""
    rows = dict(table.rows)
    curves: Curves = dict(table.curves)
    sent = 0
    direct: dict[str, float] = {}
    for target in targets:
        outcome, row = point(target, shape, msgspec.structs.replace(load, first=load.first + sent))
        sent += outcome.attempts
        if target.baseline:
            direct = row
        elif direct:
            row = added(row, direct)
        rows[row_name(target, load.connections)] = row
        curves[row_name(target, load.connections)] = outcome.curve()
    table.rows, table.curves = rows, curves
    return sent


def point(target: Target, shape: Shape, load: Load) -> tuple[Outcome, dict[str, float]]:
    """Send one load to one target, and wait until it has nothing left to do."""
    whole = msgspec.structs.replace(
        load,
        url=target.url,
        request=chat_requests(target, shape.model, stream=shape.streams),
        warm_up_s=load.seconds / 4,
        streams=shape.streams,
        mark=target.mark,
    )
    before = cpu_times(target.pid) if target.pid is not None else {}
    outcome = run_load(whole)
    if target.settle is not None:
        target.settle()
    row = outcome.row(streams=shape.streams)
    if target.mark and outcome.latencies_s:
        row["share_recalled"] = round(100 * outcome.marked / len(outcome.latencies_s), 1)
    if target.pid is not None and outcome.attempts:
        used_s = cpu_between_s(before, cpu_times(target.pid))
        row["cpu_s_per_1000_requests"] = round(used_s / outcome.attempts * 1_000, 3)
        if shape.streams:
            row["cpu_ms_per_chunk"] = round(used_s / outcome.attempts / STREAM_EVENTS * 1_000, 4)
        row["rss_mb"] = round(rss_bytes(target.pid) / 1e6)
    return outcome, row


def added(row: dict[str, float], direct: dict[str, float]) -> dict[str, float]:
    """A row with what is added to the percentiles of direct calls, behind the throughput."""
    names = ("p50_ms", "p99_ms", "first_byte_p50_ms", "first_byte_p99_ms", "chunk_delay_p50_ms", "chunk_delay_p99_ms")
    more = {f"added_{name}": round(row[name] - direct[name], 3) for name in names if name in row and name in direct}
    return {"requests_per_s": row["requests_per_s"], **more, **row}


if __name__ == "__main__":
    quick = {"memories": 50, "connections": [1, 4], "seconds": 0.4, "rate": 20.0, "shapes": ["whole", "burst"]}
    sys.exit(run_benchmark(measure, __doc__, options, quick=quick, repeats_itself=True))
