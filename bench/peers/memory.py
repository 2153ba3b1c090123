"""How fast are memories stored and found: here and by rivals, with the same model, the same texts, on the same cores?

    python -m bench.peers memory [--only NAME]... [--sizes 1000,10000] [--users 100x100] [--json FILE]

All stores are opened and filled one after the other, and then asked in turn, round by round, so that a slow spell of
the machine meets all of them. Every question is embedded and asks for the `--limit` nearest memories of one user. A
memory layer has many users, so that the rivals, which have one collection, filter by user even where there is one;
`all_*` is without that filter. `cpu_ms_per_ask` is the processor time of the store's processes, with 16 clients.
Rivals run in the process of their user; `chroma-server` over HTTP; ours over HTTP with a key, with ranking by words,
time and vectors (`search`), or rendered and budgeted, too (`prepare`).

The embedding model is ours for all: `models.embedding` with the rewritten graph runs in the process of each rival, as
its own interface for embeddings asks for it, with `--threads` for one run. So mem0 spares the hop to a server of
embeddings. What rivals add is embedded when the call returns, ours is on the disk then and embedded a moment later;
`fill` is until all is embedded, for all. Rivals embed the first `--embedded` texts themselves, which is their `fill`;
the vectors of the others are given to them, which is `given`: what storing alone takes. Ours embeds all.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from bench._harness import question, sentence
from bench._machine import PROC, rss_bytes
from bench._percentiles import summary
from bench._results import Figure, Table
from bench.peers.environments import open_work_dir
from bench.peers.stores import RIVALS, Ours, Prepared, Store, Texts, Times, open_ours, open_rival, shared_model
from models.embedding import open_embedding_model

OURS = "memoryrouter"
NAMES = (OURS, *RIVALS)
Row = dict[str, Figure]
CLIENTS = 16
BUDGET_S = 4.0
"""A round of a store ends about then: slow ones are asked less."""

ASKED_MIN = 12


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}; all")
    parser.add_argument("--work-dir", type=Path, help="where rivals are installed and stay; a temporary one by default")
    parser.add_argument("--sizes", type=_sizes, default=[1_000, 10_000], metavar="N,N,...", help="memories of one user")
    parser.add_argument(
        "--users", type=_users, default=(100, 100), metavar="UxM", help="U users of M memories; 0x0: none"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=100, help="of a round, at the most")
    parser.add_argument("--adds", type=int, default=100, help="single ones, into the full store")
    parser.add_argument("--limit", type=int, default=30, help="memories that a question asks for")
    parser.add_argument("--batch", type=int, default=100, help="texts of one call where rivals are filled")
    parser.add_argument("--embedded", type=int, default=1_000, help="texts of a case that rivals embed themselves")
    parser.add_argument("--threads", type=int, default=1, help="of one run of the embedding model, for all")


QUICK = {"sizes": [100], "users": (3, 10), "rounds": 1, "questions": 10, "adds": 5}


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",") if size]


def _users(text: str) -> tuple[int, int]:
    users, _, memories = text.partition("x")
    return int(users), int(memories)


def measure(options: argparse.Namespace) -> Iterator[Table]:
    """A table for each size, and one for many users."""
    wanted = options.only or list(NAMES)
    with (
        open_work_dir(options.work_dir) as work_dir,
        tempfile.TemporaryDirectory(prefix="memoryrouter-peers-run-") as run,
    ):
        model_dir = shared_model(work_dir / "model")
        cases = [("one user", 1, size) for size in options.sizes]
        cases += [("many users", *options.users)] if options.users[0] else []
        for repeat in range(options.repeat):
            for kind, users, memories in cases:
                names = [name for name in wanted if users > 1 or name != "chroma-by-user"]
                run_dir = Path(run) / f"{repeat}-{users}-{memories}"
                rows = measured(names, users, memories, work_dir, run_dir, model_dir, options)
                title = (
                    f"{kind}: {memories} memories" if users == 1 else f"{kind}: {users} with {memories} memories each"
                )
                yield Table(f"{title}, {options.limit} nearest", rows)


def measured(
    names: list[str],
    users: int,
    memories: int,
    work_dir: Path,
    run_dir: Path,
    model_dir: Path,
    options: argparse.Namespace,
) -> dict[str, Row]:
    """One case: all stores filled, then asked in turn."""
    texts = [
        (f"user-{user}", sentence(user * 1_000_000 + number)) for user in range(users) for number in range(memories)
    ]
    run_dir.mkdir(parents=True)
    vectors = run_dir / "vectors.npy"
    if len(texts) > options.embedded and names != [OURS]:
        _say(f"embedding {len(texts) - options.embedded} texts for all")
        model = open_embedding_model(model_dir, threads=os.cpu_count() or 1)
        np.save(vectors, model.encode([text for _, text in texts[options.embedded :]]))
    rows: dict[str, Row] = {}
    stores: dict[str, Store] = {}
    with ExitStack() as stack:
        for name in names:
            _say(f"filling {name} with {len(texts)}")
            store: Store
            if name == OURS:
                store = stack.enter_context(open_ours(options.threads))
            else:
                opened = open_rival(name, work_dir, run_dir / name, model_dir, options.threads, options.batch)
                store = stack.enter_context(opened)
            store.fill([("warm-up", sentence(-number)) for number in range(1, 17)])
            stores[name] = store
            rows[name] = filled(store, texts, vectors, options.embedded)
        for name, store in stores.items():
            _say(f"adding to {name}")
            singles = [(f"user-{number % users}", sentence(900_000_000 + number)) for number in range(options.adds)]
            rows[name] |= _two(summary(store.add(singles).latencies_s, "add_"), "add_")
        if OURS in stores:
            ours = stores[OURS]
            assert isinstance(ours, Ours)
            stores[f"{OURS}, prepare"] = Prepared(ours)
        for name, found in asked(stores, users, options).items():
            rows[name] = rows.get(name, {}) | found
        for name in names:
            rows[name]["rss_mb"] = round(sum(map(rss_bytes, stores[name].pids())) / 1e6)
    if OURS in rows:
        rows = {f"{OURS}, search" if name == OURS else name: row for name, row in rows.items()}
    return rows


def filled(store: Store, texts: Texts, vectors: Path, embedded: int) -> Row:
    """Fill a store; how fast."""
    if isinstance(store, Ours):
        return {"fill_texts_per_s": round(len(texts) / store.fill(texts), 1)}
    first, others = texts[:embedded], texts[embedded:]
    row: Row = {"fill_texts_per_s": round(len(first) / store.fill(first), 1)}
    if others:
        row["given_texts_per_s"] = round(len(others) / store.fill(others, vectors), 1)
    return row


def asked(stores: dict[str, Store], users: int, options: argparse.Namespace) -> dict[str, Row]:
    """Each store in each round: one client, one client without the filter, and many clients."""
    single: dict[str, list[Times]] = {name: [] for name in stores}
    unfiltered: dict[str, list[Times]] = {name: [] for name in stores}
    many: dict[str, list[Times]] = {name: [] for name in stores}
    used_s: dict[str, list[float]] = {name: [] for name in stores}
    for store in stores.values():
        store.ask(_questions(users, 12, 500_000), clients=1, limit=options.limit)
    for round_number in range(options.rounds):
        for name, store in stores.items():
            _say(f"round {round_number + 1}: {name}")
            first = 10_000 * (round_number + 1)
            probe = store.ask(_questions(users, ASKED_MIN, first), clients=1, limit=options.limit)
            count = max(ASKED_MIN, min(options.questions, int(BUDGET_S / statistics.median(probe.latencies_s))))
            questions = _questions(users, count, first + 1_000)
            single[name].append(store.ask(questions, clients=1, limit=options.limit))
            if not isinstance(store, Ours):
                questions = _questions(users, count, first + 2_000)
                unfiltered[name].append(store.ask(questions, clients=1, limit=options.limit, filtered=False))
            questions = _questions(users, max(2 * CLIENTS, count * 2), first + 3_000)
            before_s = _cpu_s(store)
            many[name].append(store.ask(questions, clients=CLIENTS, limit=options.limit))
            used_s[name].append((_cpu_s(store) - before_s) / len(questions))
    rows: dict[str, Row] = {}
    for name in stores:
        row: Row = {}
        row |= _two(summary(_latencies(single[name]), "ask_"), "ask_")
        row |= _two(summary(_latencies(unfiltered[name]), "all_"), "all_")
        row |= _two(summary(_latencies(many[name]), f"ask_{CLIENTS}_"), f"ask_{CLIENTS}_")
        rates = [len(times.latencies_s) / times.seconds for times in many[name]]
        row[f"asks_{CLIENTS}_per_s"] = round(statistics.median(rates), 1)
        row["cpu_ms_per_ask"] = round(statistics.median(used_s[name]) * 1_000, 2)
        found = [count for times in single[name] for count in times.found]
        rows[name] = {**row, "samples": len(_latencies(single[name])), **({"found": min(found)} if found else {})}
    return rows


def _questions(users: int, count: int, first: int) -> Texts:
    """Different ones each time, of users in turn that are not neighbours."""
    return [(f"user-{(number * 37) % users}", question(number)) for number in range(first, first + count)]


def _cpu_s(store: Store) -> float:
    """Processor seconds of its processes so far; unlike those by thread, with what ended threads have used."""
    used = [(PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split() for pid in store.pids()]
    return sum(int(fields[11]) + int(fields[12]) for fields in used) / os.sysconf("SC_CLK_TCK")


def _latencies(times: list[Times]) -> list[float]:
    return [latency_s for one in times for latency_s in one.latencies_s]


def _two(figures: dict[str, float], prefix: str) -> Row:
    """Median and 99th percentile."""
    return {name: figures[name] for name in (f"{prefix}p50_ms", f"{prefix}p99_ms") if name in figures}


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)
