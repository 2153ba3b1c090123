"""How long does ranking alone take, by the processor's clock?

Vaults in process, of short sentences in sessions of fifty and random unit vectors; one core, no server, no embedding.
`recall` is all that a vault does for a question that is embedded; `words` is the part of it that scores the memories by
words, and `ranking` the rest: their meaning, the order, the hits. CPU time, so that waiting for a busy machine does not
count, though it slows down what shares its caches; the median of rounds, each of which is the median of its questions.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actors.analysis import analyse
from actors.segmented_index import THRESHOLD
from actors.vault import Vault
from bench._harness import question, sentence
from bench._options import run_benchmark
from bench._results import Table
from models.chunking import TOKENS_MAX
from models.embedding import EmbeddingModel, open_embedding_model
from models.memory import Exchange, InboxRow, Message
from models.messages import Recall, Scope

DIMS = 384
SESSION_MEMORIES = 50
FIRST_MS = 1_760_000_000_000
LIMIT = 30


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--memories", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--questions", type=int, default=100, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    with tempfile.TemporaryDirectory(prefix="memoryrouter-bench-") as temporary:
        encoder = open_embedding_model(Path(temporary), threads=1)
    rows = {}
    for memories in chosen.memories:
        vault = filled(memories, encoder)
        queries = [recall_of(number) for number in range(chosen.questions)]
        for query in queries[:10]:
            vault.recall(query)  # columns are grown, terms known
        rounds = [measured_ms(vault, queries) for _ in range(chosen.rounds)]
        words_ms, recall_ms = (statistics.median(figures) for figures in zip(*rounds, strict=True))
        rows[f"{memories} memories"] = {
            "words_ms": round(words_ms, 2),
            "ranking_ms": round(recall_ms - words_ms, 2),
            "recall_ms": round(recall_ms, 2),
            "load": round(os.getloadavg()[0], 1),
        }
    yield Table("ranking alone, CPU time", rows)


def filled(memories: int, encoder: EmbeddingModel) -> Vault:
    """A vault of so many embedded memories."""
    vault = Vault(dims=DIMS, repeat_window_ms=1, relevance_min=0.0)
    vault.begin(created_ms=0, next_seq=1)
    for start in range(0, memories, THRESHOLD // 2):
        numbers = range(start, min(start + THRESHOLD // 2, memories))
        messages = tuple(
            Message(
                role="assistant" if number % 2 else "user",
                content=f"{number}: {sentence(number)}",
                timestamp_ms=FIRST_MS + number * 60_000,
                session_id=f"s{number // SESSION_MEMORIES}",
            )
            for number in numbers
        )
        row = InboxRow(row_id=start + 1, exchange=Exchange(messages=messages, source="upload", accepted_ms=FIRST_MS))
        stored = [vault.add(row, message, analyse(message, encoder, TOKENS_MAX)) for message in vault.begin_row(row)]
        vault.end_row(row)
        vectors = unit_vectors(sum(len(memory.spans) for memory in stored), seed=start).astype(np.float16)
        ends = np.cumsum([len(memory.spans) for memory in stored])
        for memory, its in zip(stored, np.split(vectors, ends[:-1]), strict=True):
            vault.attach(memory.seq, its)
        while (job := vault.plan_build()) is not None:
            vault.install(job.run())
    return vault


def unit_vectors(count: int, *, seed: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, DIMS), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def recall_of(number: int) -> Recall:
    vector = unit_vectors(1, seed=-number % 2**32)[0].astype("<f4").tobytes()
    return Recall(text=question(number), vector=vector, scope=Scope(), chunks_max=LIMIT, now_ms=FIRST_MS)


def measured_ms(vault: Vault, queries: Sequence[Recall]) -> tuple[float, float]:
    """The median CPU milliseconds of the words, and of the whole recall."""
    words_s, recall_s = [], []
    for query in queries:
        began_s = time.thread_time()
        vault.question(query, limit=LIMIT, small_talk=False)
        words_s.append(time.thread_time() - began_s)
        began_s = time.thread_time()
        vault.recall(query)
        recall_s.append(time.thread_time() - began_s)
    return statistics.median(words_s) * 1000, statistics.median(recall_s) * 1000


if __name__ == "__main__":
    quick = {"memories": [1_000], "questions": 20, "rounds": 1}
    sys.exit(run_benchmark(measure, __doc__, options, quick=quick))
