"""How near does the server come to what the machine could do: the bare model, the bare scan, the disk, the memory?

Each limit is measured by the least code that does the same, in turns with the server's own rate, over the same texts:

* Remembering: texts a second of the model alone (tokenised, sorted by length, in batches; one thread, and one instance
  of one thread for each core) against uploads and ingests until the last vector is stored.
* Recalling: one question tokenised, embedded and compared to 10 000 vectors by numpy, against `prepare` over HTTP; and
  questions a second of the model in batches, against `prepare` from 16 connections.
* Durability: appends a second of 4 kB, each synced, against acknowledgements a second of the store.
* Scanning: bytes a second that numpy copies and reads, against those of the index's exact scan.

`share_of_limit` is what the server reaches, in percent; acknowledgements reach more than 100, as many share a sync. The
server and the model both use one thread for a run unless they are told otherwise.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import trio

from actors.index import ExactIndex
from bench._harness import Server, fill_vault, posting, question, run_clients, running_server, sentence
from bench._options import run_benchmark
from bench._results import Table
from bench._targets import wait_embedded, wait_loaded
from bench._vaults import open_model, write_vaults
from bench.acknowledgements import store_run
from models.embedding import TextEncoder, open_embedding_model
from router.embedding_models import MODELS_FOLDER

KEPT = {"MEMORYROUTER_VAULTS__IDLE_TIMEOUT_S": "3600"}
TOP = 30
CLIENTS = 16
SYNCED_BYTES = 4_096
ACKNOWLEDGING = (1, 16, 256)
COPIED_BYTES = 256 << 20
SCANNED_ROWS = 100_000
OTHER_TEXTS = 1_000_000
"""What rounds are apart in the numbers of their texts, so that none is stored twice."""

Rows = dict[str, dict[str, float]]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--texts", type=int, default=2_000, help="of a round of remembering")
    parser.add_argument("--memories", type=int, default=10_000, help="of the vault that is asked")
    parser.add_argument("--questions", type=int, default=200, help="of a round of recalling")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="of syncing, and of each number of clients beside it"
    )
    parser.add_argument("--rounds", type=int, default=3)


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    with tempfile.TemporaryDirectory(prefix="memoryrouter-bench-") as temporary:
        encoder = open_model(Path(temporary))
        yield Table("remembering", remembering(Path(temporary), chosen.texts, chosen.rounds))
        yield Table("recalling", recalling(encoder, chosen.memories, chosen.questions, chosen.rounds))
        yield Table("durability", durability(chosen.seconds))
        yield Table("scanning", scanning(encoder.dims))


def with_shares(rows: Rows, limits: Sequence[str], figure: str) -> Rows:
    """Rows with what they reach of the best of some of them, in percent."""
    most = max(rows[limit][figure] for limit in limits)
    return {name: {**row, "share_of_limit": round(100 * row[figure] / most, 1)} for name, row in rows.items()}


def medians(rounds: Sequence[dict[str, float]], figure: str) -> Rows:
    """A row of each name."""
    return {name: {figure: round(statistics.median(one[name] for one in rounds), 1)} for name in rounds[0]}


# Remembering.


def remembering(directory: Path, texts: int, rounds: int) -> Rows:
    """Texts a second: of the model, and of the server until all are embedded."""
    cores = os.cpu_count() or 1
    instances = [open_embedding_model(directory / MODELS_FOLDER, threads=1) for _ in range(cores)]
    measured = []
    with running_server() as server:
        fill_vault(server, 50, first=9 * OTHER_TEXTS)
        for number in range(rounds):
            first = number * OTHER_TEXTS
            contents = [sentence(first + place) for place in range(texts)]
            measured.append(
                {
                    "model, 1 thread": texts / seconds_of(partial(instances[0].encode, contents)),
                    f"model, {cores} instances": texts / seconds_of(partial(encode_apart, instances, contents)),
                    "upload": texts / fill_vault(server, texts, first=first),
                    "ingest, 16 connections": texts / ingest_s(server, texts, first + texts),
                }
            )
    tokens = sum(instances[0].count_tokens(text) for text in contents) / texts
    rows = with_shares(
        medians(measured, "texts_per_s"), ["model, 1 thread", f"model, {cores} instances"], "texts_per_s"
    )
    return {name: {**row, "tokens_per_s": round(row["texts_per_s"] * tokens)} for name, row in rows.items()}


def encode_apart(instances: Sequence[TextEncoder], texts: Sequence[str]) -> None:
    """A part of the texts for each instance, on a thread of its own."""
    with ThreadPoolExecutor(len(instances)) as threads:
        list(
            threads.map(lambda number: instances[number].encode(texts[number :: len(instances)]), range(len(instances)))
        )


def ingest_s(server: Server, texts: int, first: int) -> float:
    """Seconds until so many single messages are stored and embedded."""

    def body(number: int) -> dict[str, object]:
        return {"messages": [{"role": "user", "content": sentence(number)}]}

    began_s = time.perf_counter()
    ask = posting("/v1/memory/ingest", server.headers, body, expect=202)
    per_run = 900 * CLIENTS  # the server closes a connection after 1 000 requests
    for start in range(0, texts, per_run):
        run_clients(server.port, ask, clients=CLIENTS, requests=min(per_run, texts - start), first=first + start)
    wait_embedded(server.url, server.account_key)
    return time.perf_counter() - began_s


def seconds_of(work: Callable[[], object]) -> float:
    """How long it takes."""
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


# Recalling.


def recalling(encoder: TextEncoder, memories: int, questions: int, rounds: int) -> Rows:
    """Milliseconds of a question, and questions a second."""
    random_ = np.random.default_rng(1)
    matrix = random_.standard_normal((memories, encoder.dims), dtype=np.float32)
    times: list[dict[str, float]] = []
    rates: list[dict[str, float]] = []
    with asked_server(memories) as (server, key):
        ask = posting(
            "/v1/memory/prepare",
            {"Authorization": f"Bearer {key}"},
            lambda number: {"messages": [{"role": "user", "content": question(number)}]},
            expect=200,
        )
        run_clients(server.port, ask, clients=4, requests=40)  # warm up
        for number in range(1, rounds + 1):
            texts = [question(number * OTHER_TEXTS + place) for place in range(questions)]
            bare = [seconds_of(partial(bare_recall, encoder, matrix, text)) for text in texts]
            one = run_clients(server.port, ask, clients=1, requests=questions, first=number * OTHER_TEXTS)
            many = run_clients(server.port, ask, clients=CLIENTS, requests=4 * questions, first=number * OTHER_TEXTS)
            times.append({"bare": statistics.median(bare) * 1_000, "prepare, 1 connection": one["p50_ms"]})
            batches = [texts[start : start + CLIENTS] for start in range(0, questions, CLIENTS)]
            took_s = seconds_of(partial(encode_all, encoder, batches))
            rates.append(
                {
                    "model in batches of 16": questions / took_s,
                    "prepare, 16 connections": many["requests_per_s"],
                }
            )
    rows = medians(times, "p50_ms")
    for row in rows.values():
        row["times_of_limit"] = round(row["p50_ms"] / rows["bare"]["p50_ms"], 2)
    return rows | with_shares(medians(rates, "requests_per_s"), ["model in batches of 16"], "requests_per_s")


def bare_recall(encoder: TextEncoder, matrix: np.ndarray[tuple[int, int], np.dtype[np.float32]], text: str) -> None:
    """The least that finds the nearest memories."""
    scores = matrix @ encoder.encode([text])[0]
    np.argpartition(scores, -min(TOP, len(scores)))[-TOP:]


def encode_all(encoder: TextEncoder, batches: Sequence[Sequence[str]]) -> None:
    """One batch after the other."""
    for batch in batches:
        encoder.encode(batch)


@contextmanager
def asked_server(memories: int) -> Iterator[tuple[Server, str]]:
    """A server with one vault of so many memories, and its key."""
    with tempfile.TemporaryDirectory(prefix="memoryrouter-bench-") as temporary:
        data_dir = Path(temporary) / "data"
        os.environ["MEMORYROUTER_ACCOUNT_KEY"], keys = trio.run(write_vaults, data_dir, [memories])
        with running_server(data_dir, KEPT) as server:
            wait_loaded(server.url, keys[0])
            yield server, keys[0]


# The disk and the memory.


def durability(seconds: float) -> Rows:
    """Synced writes a second of one thread, and acknowledgements a second of the store."""
    with tempfile.TemporaryDirectory(prefix="memoryrouter-bench-") as temporary:
        rates = {"4 kB, synced each": syncs_per_s(Path(temporary) / "file", seconds)}
        for clients in ACKNOWLEDGING:
            row = trio.run(store_run, Path(temporary) / f"data-{clients}", clients, seconds)
            rates[f"store, {clients} clients"] = row["acks_per_s"]
    rows = {name: {"acks_per_s": float(round(rate))} for name, rate in rates.items()}
    return with_shares(rows, ["4 kB, synced each"], "acks_per_s")


def syncs_per_s(path: Path, seconds: float) -> float:
    """How often a second a file can be appended to durably."""
    count, data = 0, os.urandom(SYNCED_BYTES)
    with path.open("wb", buffering=0) as file:
        began_s = time.perf_counter()
        while time.perf_counter() - began_s < seconds:
            file.write(data)
            os.fdatasync(file.fileno())
            count += 1
        return count / (time.perf_counter() - began_s)


def scanning(dims: int) -> Rows:
    """Gigabytes a second, the best of some: of copying (read and written), of reading, and of the exact scan."""
    source = np.ones(COPIED_BYTES // 4, np.float32)
    target = np.empty_like(source)
    random_ = np.random.default_rng(2)
    rows = random_.standard_normal((SCANNED_ROWS, dims), dtype=np.float32)
    query = np.ascontiguousarray(rows[0])
    index = ExactIndex(dims)
    index.grow(SCANNED_ROWS)
    index.put(np.arange(SCANNED_ROWS), rows)
    rates = {
        "copy": 2 * COPIED_BYTES / fastest_s(lambda: np.copyto(target, source)),
        "product with one matrix": rows.nbytes / fastest_s(lambda: rows @ query),
        "exact scan of the index": rows.nbytes / fastest_s(lambda: index.scores(query)),
    }
    found = {name: {"gb_per_s": round(rate / 1e9, 2)} for name, rate in rates.items()}
    return with_shares(found, ["copy"], "gb_per_s")


def fastest_s(work: Callable[[], object]) -> float:
    """The best of seven: what is slower than that is other people's."""
    return min(seconds_of(work) for _ in range(7))


if __name__ == "__main__":
    quick = {"texts": 64, "memories": 200, "questions": 20, "seconds": 0.3, "rounds": 1}
    sys.exit(run_benchmark(measure, __doc__, options, quick=quick))
