"""Does the index of a large vault find what an exact search finds, how fast, and what does it hold up?

Embeds texts with the real model (about 300 a second on one core; kept in a file for the next run), builds the index as
the vault's actor does, and asks questions: recall@10 of the dense leg, how much of the first ten the whole ranking
keeps, the time of a query, bytes, save and load, and the longest time that each of these keeps other threads waiting.

    python -m bench.index_recall [DATA.json ...] [--vectors 100000]

Data files are those of `bench.recall_quality`: their turns are cut into sentences and pairs of sentences, their
questions are asked. Without files the texts are made up.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors.index import DenseMatch, ExactIndex
from actors.lexicon import Lexicon
from actors.ranking import rank
from actors.ranking_inputs import RankQuery, VaultArrays
from actors.segmented_index import SegmentedIndex
from actors.segments import Labels
from actors.shortlist import CANDIDATES, rank_vault
from actors.store.seal import DataKey
from actors.store.snapshots import load_segments, save_segment
from bench._harness import question, sentence
from bench._options import run_benchmark
from bench._results import Table
from models.embedding import open_embedding_model
from models.words import terms

SESSION_TEXTS = 50
TICK_S = 0.0005
SENTENCE_END = re.compile(r"(?<=[.!?\n])\s+")
Floats = NDArray[np.float32]
T = TypeVar("T")


def texts_and_questions(files: Sequence[Path], count: int, questions: int) -> tuple[list[str], list[str]]:
    """So many different texts, in the order in which they were said, and questions."""
    if not files:
        return [sentence(number) for number in range(count)], [question(number) for number in range(questions)]
    texts: dict[str, None] = {}
    asked: dict[str, None] = {}
    for vault in (vault for file in files for vault in json.loads(file.read_text())):
        for turn in vault["turns"]:
            parts = [part for part in SENTENCE_END.split(turn["content"]) if len(part) > 15]
            texts.update(dict.fromkeys(parts))
            texts.update(dict.fromkeys(map(" ".join, pairwise(parts))))
        asked.update(dict.fromkeys(item["question"] for item in vault["questions"]))
    if len(texts) < count:
        print(f"The files make {len(texts)} texts.")
    step = max(1, len(asked) // questions)
    return list(texts)[:count], sorted(asked)[::step][:questions]


def embedded(texts: Sequence[str], cache: Path) -> NDArray[np.float16]:
    """Their vectors as the store keeps them, from the cache if they are there."""
    model = open_embedding_model(cache, threads=1)
    digest = hashlib.sha256("\0".join([model.id, *texts]).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    path = cache / f"{digest}.npy"
    if not path.exists():
        parts = []
        for start in range(0, len(texts), 1_000):
            parts.append(model.encode(texts[start : start + 1_000]).astype(np.float16))
            print(f"\rembedded {start + len(parts[-1])} of {len(texts)}", end="", flush=True)
        print()
        np.save(path, np.concatenate(parts))
    vectors: NDArray[np.float16] = np.load(path)
    return vectors


class Stalls:
    """Runs work in a thread while this one ticks, and keeps the longest time that a tick came late."""

    def __init__(self) -> None:
        self.worst_ms = 0.0

    def beside(self, work: Callable[[], T]) -> T:
        """What the work returns."""
        results: list[T] = []
        thread = threading.Thread(target=lambda: results.append(work()))
        thread.start()
        before = time.perf_counter()
        while thread.is_alive():
            time.sleep(TICK_S)
            now = time.perf_counter()
            self.worst_ms = max(self.worst_ms, (now - before - TICK_S) * 1e3)
            before = now
        return results[0]


def plain_labels(chunks: NDArray[np.integer]) -> Labels:
    """Each chunk is a memory of its own."""
    return chunks.astype(np.uint64) + np.uint64(1) << np.uint64(20)


def filled(index: SegmentedIndex | ExactIndex, vectors: NDArray[np.float16]) -> None:
    index.grow(len(vectors))
    for start in range(0, len(vectors), 16):
        index.put(np.arange(start, min(start + 16, len(vectors))), vectors[start : start + 16])


def build_all(index: SegmentedIndex, stalls: Stalls) -> dict[str, float]:
    """Everything that is due, one job after the other."""
    turns_ms = [0.0]
    rows, began_s = 0, time.perf_counter()
    while True:
        planned_s = time.perf_counter()
        job = index.plan(plain_labels)
        turns_ms.append((time.perf_counter() - planned_s) * 1e3)
        if job is None:
            break
        segment = stalls.beside(job.run)
        assert segment is not None
        installed_s = time.perf_counter()
        index.install(segment)
        turns_ms.append((time.perf_counter() - installed_s) * 1e3)
        rows += job.rows
    return {"seconds": time.perf_counter() - began_s, "rows": rows, "turn_ms": max(turns_ms)}


def timed_ms(calls: Iterator[Callable[[], Any]]) -> list[float]:
    found = []
    for call in calls:
        began_s = time.perf_counter()
        call()
        found.append((time.perf_counter() - began_s) * 1e3)
    return found


def recall(matches: Sequence[DenseMatch], exact: Sequence[Floats], k: int) -> float:
    """The share of the k best that have a score; one that is as good as the k-th counts, since vectors repeat."""
    shares = []
    for match, scores in zip(matches, exact, strict=True):
        least = np.partition(scores, -k)[-k] - 1e-6
        shares.append(min(1.0, float((match.scores[~np.isnan(match.scores)] >= least).sum()) / k))
    return statistics.mean(shares)


def arrays_of(count: int) -> VaultArrays:
    """One memory a text, in sessions of equal length."""
    numbers = np.arange(count, dtype=np.int32)
    first, last = numbers % SESSION_TEXTS == 0, numbers % SESSION_TEXTS == SESSION_TEXTS - 1
    last[-1] = True
    return VaultArrays(
        chunk_memory=numbers,
        previous=np.where(first, -1, numbers - 1).astype(np.int32),
        next=np.where(last, -1, numbers + 1).astype(np.int32),
        session=numbers // SESSION_TEXTS,
        characters=np.full(count, 100, np.int32),
        text_number=numbers,
        timestamp_ms=numbers.astype(np.int64),
    )


def ranking_overlap(
    index: SegmentedIndex, asked: Sequence[RankQuery], queries: Floats, exact: Sequence[Floats], arrays: VaultArrays
) -> dict[str, float]:
    """How much of the first ten of the whole ranking is the same, and how often the first one."""
    shared, first = [], []
    for query, vector, scores in zip(asked, queries, exact, strict=True):
        ours = rank_vault(query, arrays, index, vector).memories.tolist()
        theirs = rank(msgspec.structs.replace(query, dense=DenseMatch(scores=scores)), arrays).memories.tolist()
        shared.append(len(set(ours) & set(theirs)) / len(theirs))
        first.append(ours[0] == theirs[0])
    return {"ranking_overlap@10": statistics.mean(shared), "same_first@1": statistics.mean(first)}


def snapshots(index: SegmentedIndex, model_id: str, dims: int) -> dict[str, float]:
    """Save and load all segments; each stall is that of one segment."""
    saving, loading = Stalls(), Stalls()
    key = DataKey(bytes(32), vault_number=1)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        saves = [partial(save_segment, path, key, 1, segment) for segment in index.segments]
        save_ms = timed_ms(partial(saving.beside, save) for save in saves)
        size = sum(file.stat().st_size for file in path.rglob("*.*"))
        load = partial(load_segments, path, key, 1, model_id=model_id, dims=dims)
        (load_ms,) = timed_ms(iter([partial(loading.beside, load)]))
    return {
        "save_ms_per_segment": max(save_ms, default=0),
        "save_stall_ms": saving.worst_ms,
        "load_ms": load_ms,
        "load_stall_ms": loading.worst_ms,
        "file_mb": size / 1e6,
    }


def measure(
    vectors: NDArray[np.float16], texts: Sequence[str], asked: Sequence[str], queries: Floats
) -> dict[str, Any]:
    dims = vectors.shape[1]
    index, reference, stalls = SegmentedIndex(dims, model_id="bench"), ExactIndex(dims), Stalls()
    filled(index, vectors)
    filled(reference, vectors)
    build = build_all(index, stalls)
    lexicon = Lexicon()
    for text in texts:
        lexicon.add(terms(text))
    everyone, arrays = np.ones(len(vectors), np.bool_), arrays_of(len(vectors))
    wanted = [RankQuery(lexical=lexicon.match(terms(text)), dense=None, eligible=everyone, limit=10) for text in asked]
    rankings = [
        partial(rank_vault, query, arrays, index, vector) for query, vector in zip(wanted, queries, strict=True)
    ]
    matches = [index.match(query, candidates=CANDIDATES) for query in queries]
    exact = [reference.scores(query) for query in queries]
    overlap = ranking_overlap(index, wanted, queries, exact, arrays)
    query_ms = timed_ms(partial(index.match, query, candidates=CANDIDATES) for query in queries)
    ranking_ms, exact_ms = timed_ms(iter(rankings)), timed_ms(partial(reference.scores, query) for query in queries)
    backgrounds = [
        abs(match.background[0] - scores.mean()) / scores.std()
        for match, scores in zip(matches, exact, strict=True)
        if match.background is not None
    ]
    return {
        "segments": len(index.segments),
        "recall@10": recall(matches, exact, 10),
        "recall@100": recall(matches, exact, 100),
        **overlap,
        "background_error_deviations": max(backgrounds, default=0.0),
        "match_p50_ms": statistics.median(query_ms),
        "ranking_p50_ms": statistics.median(ranking_ms),
        "ranking_p99_ms": float(np.quantile(ranking_ms, 0.99)),
        "exact_p50_ms": statistics.median(exact_ms),
        "build_s": build["seconds"],
        "build_rows": build["rows"],
        "build_stall_ms": stalls.worst_ms,
        "plan_or_install_ms": build["turn_ms"],
        "mb": index.nbytes / 1e6,
        "exact_mb": reference.nbytes / 1e6,
        **snapshots(index, "bench", dims),
    }


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="*", type=Path, metavar="DATA.json")
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "memoryrouter-index-recall")


def measure_all(chosen: argparse.Namespace) -> Iterator[Table]:
    chosen.cache.mkdir(parents=True, exist_ok=True)
    texts, asked = texts_and_questions(chosen.data, chosen.vectors, chosen.questions)
    vectors = embedded(texts, chosen.cache)
    queries = embedded(asked, chosen.cache).astype(np.float32)
    row = measure(vectors, texts, asked, queries)
    row = {name: value if isinstance(value, int) else round(float(value), 4) for name, value in row.items()}
    yield Table("Index against exact search", {f"{len(vectors)} vectors": row})


if __name__ == "__main__":
    quick = {"vectors": 2_000, "questions": 20}
    sys.exit(run_benchmark(measure_all, __doc__, options, quick=quick))
