"""Is the rewritten embedding graph faster than the published file, and does it still mean the same?

    python -m bench.embedder [--threads N] [--rounds N] [--texts FILE]

Both files run side by side in alternating rounds, on the same texts (made up here, or one a line from FILE),
and one table comes out: milliseconds for a query of about 12 tokens alone, tokens/s in batches of 8 and 32
texts of about 40 tokens (real tokens; batches sorted by length, padded to the longest), cosine with the
published file, cosine of a text alone with the same text in a batch, and, each in a fresh process, seconds to
load and RSS. Needs only what the server needs.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bench._options import run_benchmark
from bench._results import Table
from models.model_files import installed_model_files, prepared_model

QUERY = "what did anna say about her new job at the harbour"
COMPARED_TEXTS = 200

Batch = tuple[NDArray[np.int64], NDArray[np.int64]]


class Variant:
    """One graph file, its session, and what was measured."""

    def __init__(self, name: str, path: Path, threads: int) -> None:
        self.name = name
        self.path = path
        self.session = open_session(path, threads)
        self.published = any(item.name == "token_type_ids" for item in self.session.get_inputs())
        self.query_ms: list[float] = []
        self.tokens_per_s: dict[int, list[float]] = {8: [], 32: []}

    def embed(self, batch: Batch) -> NDArray[np.float32]:
        """(n, 384) unit vectors; the published file leaves pooling and the norm to us."""
        ids, mask = batch
        inputs = {"input_ids": ids, "attention_mask": mask}
        if not self.published:
            vectors: NDArray[np.float32] = self.session.run(None, inputs)[0]
            return vectors
        hidden = self.session.run(None, inputs | {"token_type_ids": np.zeros_like(ids)})[0]
        total = (hidden * mask[:, :, None]).sum(axis=1)
        unit: NDArray[np.float32] = total / np.linalg.norm(total, axis=1, keepdims=True)
        return unit


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def made_up_texts(count: int, seed: int = 7) -> list[str]:
    """Plain sentences of about 40 tokens."""
    pick = random.Random(seed)
    people = ["Anna", "Tom", "my sister", "the neighbour", "our teacher", "Maria", "the old captain"]
    did = ["bought", "painted", "repaired", "forgot", "talked about", "photographed", "dreamt of", "sold"]
    things = ["a blue bicycle", "the garden shed", "two concert tickets", "an old radio", "the sailing boat"]
    places = ["in Lisbon", "near the harbour", "at the summer school", "behind the station", "by the lake"]
    times = ["last Tuesday", "in early May", "the day before the wedding", "after the long winter", "at noon"]
    parts = (people, did, things, places, times)
    sentence = "{} {} {} {} {}"
    return [
        ", and ".join(sentence.format(*(pick.choice(part) for part in parts)) for _ in range(3)) + "."
        for _ in range(count)
    ]


def padded(rows: Sequence[Sequence[int]]) -> Batch:
    longest = max(map(len, rows))
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


def in_batches(rows: Sequence[Sequence[int]], size: int) -> list[Batch]:
    ordered = sorted(rows, key=len)
    return [padded(ordered[start : start + size]) for start in range(0, len(ordered), size)]


def measure(variants: Sequence[Variant], query: Batch, rows: Sequence[Sequence[int]], rounds: int) -> None:
    """Alternate between the variants, so that a slow spell of the machine meets all of them."""
    for _ in range(rounds):
        for variant in variants:
            variant.query_ms.append(statistics.median(_seconds(variant, [query]) for _ in range(30)) * 1e3)
            for size, measured in variant.tokens_per_s.items():
                batches = in_batches(rows[:96], size)
                tokens = sum(int(mask.sum()) for _, mask in batches)
                measured.append(tokens / _seconds(variant, batches))


def _seconds(variant: Variant, batches: Sequence[Batch]) -> float:
    start = time.perf_counter()
    for batch in batches:
        variant.embed(batch)
    return time.perf_counter() - start


def cosines(variant: Variant, reference: Variant, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Of each text, in batches of 32, with the reference's vector of the text alone."""
    ordered = sorted(rows, key=len)
    ours = np.concatenate([variant.embed(batch) for batch in in_batches(ordered, 32)])
    theirs = np.concatenate([reference.embed(padded([row])) for row in ordered])
    result: NDArray[np.float32] = (ours * theirs).sum(axis=1)
    return result


def report_load(path: Path) -> None:
    """In a fresh process: print the seconds to load a graph, and the RSS in MB after a first query."""
    start = time.perf_counter()
    session = open_session(path, 1)
    seconds = time.perf_counter() - start
    ids = np.full((1, 12), 2000, dtype=np.int64)
    session.run(None, {item.name: np.ones_like(ids) for item in session.get_inputs()} | {"input_ids": ids})
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    print(f"{seconds:.2f} {pages * 4096 / 1e6:.0f}")


def loaded(path: Path) -> tuple[str, str]:
    command = [sys.executable, "-m", "bench.embedder", "--load", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    seconds, megabytes = done.stdout.split()
    return seconds, megabytes


def rows_of(variants: Sequence[Variant], rows: Sequence[Sequence[int]]) -> dict[str, dict[str, float]]:
    """A row for each graph."""
    result = {}
    for variant in variants:
        same = cosines(variant, variants[0], rows)
        alone = cosines(variant, variant, rows)
        seconds, megabytes = loaded(variant.path)
        result[variant.name] = {
            "query_ms": round(statistics.median(variant.query_ms), 2),
            "tokens_b8_per_s": round(statistics.median(variant.tokens_per_s[8])),
            "tokens_b32_per_s": round(statistics.median(variant.tokens_per_s[32])),
            "cosine_min": round(float(same.min()), 4),
            "cosine_mean": round(float(same.mean()), 4),
            "cosine_alone_to_batch_min": round(float(alone.min()), 5),
            "load_s": float(seconds),
            "rss_mb": float(megabytes),
        }
    return result


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=Path, help="one text a line")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)


def measure_all(chosen: argparse.Namespace) -> Iterator[Table]:
    if chosen.load is not None:
        report_load(chosen.load)
        return
    files = installed_model_files()
    tokenizer = Tokenizer.from_file(str(files.tokenizer_path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    if chosen.texts is None:
        texts = made_up_texts(COMPARED_TEXTS)
    else:
        texts = [line for line in chosen.texts.read_text().splitlines() if line.strip()][:COMPARED_TEXTS]
    rows = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    query = padded([tokenizer.encode(QUERY).ids])
    with tempfile.TemporaryDirectory() as cache_dir:
        rewritten = prepared_model(Path(cache_dir), files)
        variants = [
            Variant("published", files.model_path, chosen.threads),
            Variant("rewritten", rewritten.path, chosen.threads),
        ]
        measure(variants, query, rows, chosen.rounds)
        lengths = [len(row) for row in rows]
        title = (
            f"{rewritten.id}, onnxruntime {onnxruntime.__version__}, {chosen.threads} thread(s), "
            f"{len(rows)} texts of {statistics.mean(lengths):.0f} tokens, query {query[0].size} tokens"
        )
        yield Table(title, rows_of(variants, rows))


if __name__ == "__main__":
    sys.exit(run_benchmark(measure_all, __doc__, options, quick={"rounds": 1}))
