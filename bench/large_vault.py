"""Does one vault of a million memories work: how long does it take to build, what does a question cost, what stalls?

The memories come as an import does, through the supervisor with vectors, so that no text has to be embedded: short
sentences, and unit vectors that wander from one of 2 000 topics to the next as conversations do. Then: questions by
words and meaning against the clock, their answers against an exact search, deletions, and leaving memory and coming
back. Beside all of that a task ticks, and notes how late its ticks come: what any other vault would have waited.

    python -m bench.large_vault --memories 1000000 [--directory DIR]

A million takes about half an hour, 8 GB of memory and 5 GB of disk; `--memories 100000` shows most of it in a few
minutes. With a directory the vault stays there: the next run finds it and only asks, deletes other sessions, and
reloads.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import trio
from numpy.typing import NDArray

from actors.embedder import open_embedder
from actors.index import DenseMatch
from actors.ranking import rank
from actors.ranking_inputs import RankQuery
from actors.shortlist import CANDIDATES, rank_vault
from actors.store.sqlite import SqliteStore, open_store
from actors.supervisor import Supervisor, open_supervisor
from actors.vault import Vault
from actors.vault_actor import VaultLimits
from bench._harness import question, sentence
from bench._options import run_benchmark
from bench._percentiles import summary
from bench._results import Table
from models.ids import VaultRef
from models.memory import Exchange, ImportedVectors, Message
from models.messages import Forget, Recall, Scope, Stats, VaultStats
from models.settings import VaultSettings
from models.store_settings import StoreSettings
from models.words import terms

DIMS = 384
TOPICS = 2_000
TOPIC_DIMS = 64
STAY = 0.9
"""How often the next memory stays with the topic of the one before."""

SESSION_MEMORIES = 50
PROJECTS = 10
"""Sessions that each hold every hundredth memory: the large ones, for deletions."""

IMPORT_MESSAGES = 1_024
EXCHANGE_MESSAGES = 64
BEGIN_MS = 1_500_000_000_000
STEP_MS = 60_000
TICK_S = 0.005
ANSWER_TIMEOUT_S = 900.0
BUILDS_TIMEOUT_S = 3 * 3600.0
ACCOUNT = b"a" * 32
WORD = re.compile(r"\w+|[^\w\s]")
Floats = NDArray[np.float32]


class _GivenVectors:
    """A `TextEncoder` for texts that bring their vectors along."""

    id = "bench-large-vault"
    dims = DIMS
    tokens_max = 256

    def encode(self, texts: Sequence[str]) -> Floats:
        raise AssertionError("nothing here needs a model")

    def count_tokens(self, text: str) -> int:
        return len(WORD.findall(text))

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in WORD.finditer(text)]


class _Topics:
    """Makes vectors: a topic and some noise, in a space of few dimensions within the many, as sentences are."""

    def __init__(self) -> None:
        random_ = np.random.default_rng(7)
        self._centres = random_.normal(size=(TOPICS, TOPIC_DIMS))
        self._space = random_.normal(size=(TOPIC_DIMS, DIMS)).astype(np.float32)

    def vectors(self, seed: int, count: int, *, stay: float) -> Floats:
        """Unit vectors, (count, dims)."""
        random_ = np.random.default_rng(seed)
        moves = np.cumsum(random_.random(count) >= stay)
        topics = random_.integers(0, TOPICS, moves[-1] + 1)[moves]
        rows = (self._centres[topics] + 0.6 * random_.normal(size=(count, TOPIC_DIMS))).astype(np.float32) @ self._space
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows, np.float32)


def _message(number: int, vector: NDArray[np.float16]) -> Message:
    content = sentence(number)
    return Message(
        role="user" if number % 2 else "assistant",
        content=content,
        timestamp_ms=BEGIN_MS + number * STEP_MS,
        session_id=session_of(number),
        embedded=ImportedVectors(model_id=_GivenVectors.id, spans=((0, len(content)),), rows=vector.tobytes()),
    )


def session_of(number: int) -> str:
    place = number % 100
    return f"project-{place}" if place < PROJECTS else f"day-{number // SESSION_MEMORIES}"


def rss_mb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000


def disk_mb(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) // 1_000_000


class _Ticker:
    """What the loop did between two ticks since `reset`: the longest time, and the longest time of its own work.

    The second leaves out the waiting for a core, which on a busy machine is most of the first.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.worst_ms = self.worst_cpu_ms = 0.0
        self.long = 0

    async def tick(self) -> None:
        before_s, before_cpu_s = time.perf_counter(), time.thread_time()
        while True:
            await trio.sleep(TICK_S)
            now_s, now_cpu_s = time.perf_counter(), time.thread_time()
            late_ms, work_ms = (now_s - before_s - TICK_S) * 1e3, (now_cpu_s - before_cpu_s) * 1e3
            self.worst_ms = max(self.worst_ms, late_ms)
            self.worst_cpu_ms = max(self.worst_cpu_ms, work_ms)
            self.long += work_ms > 100
            before_s, before_cpu_s = now_s, now_cpu_s


class _Run:
    """One run; rows of results by phase."""

    def __init__(self, directory: Path, memories: int, questions: int) -> None:
        self.directory = directory
        self.memories = memories
        self.questions = questions
        self.rows: dict[str, dict[str, Any]] = {}
        self.ticker = _Ticker()
        self.topics = _Topics()
        self.vault: VaultRef | None = None
        self.began_s = time.perf_counter()

    @property
    def vectors_path(self) -> Path:
        return self.directory / f"vectors-{self.memories}.f16"

    @asynccontextmanager
    async def phase(self, name: str) -> AsyncIterator[dict[str, Any]]:
        """Measures a phase and prints its row when it ends."""
        row = self.rows[name] = {}
        await trio.sleep(4 * TICK_S)  # a tick that came late before is not this phase's
        self.ticker.reset()
        began_s = time.perf_counter()
        yield row
        row["s"] = round(time.perf_counter() - began_s, 2)
        row["longest_stall_ms"] = round(self.ticker.worst_ms, 1)
        row["longest_work_ms"] = round(self.ticker.worst_cpu_ms, 1)
        row["works_over_100_ms"] = self.ticker.long
        row["rss_mb"] = rss_mb()
        print(name, json.dumps(row), flush=True)

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[Supervisor]:
        settings = StoreSettings(shards=1, ballast_bytes=0, scrub_interval_s=0)
        residence = VaultSettings(memory_max_bytes=64 << 30, idle_timeout_s=24 * 3600)
        async with (
            open_store(self.directory / "data", settings=settings) as store,
            open_embedder(_GivenVectors()) as embedder,
            open_supervisor(store, embedder, residence, VaultLimits(), drain_timeout_s=120) as supervisor,
            trio.open_nursery() as ticking,
        ):
            self.vault = await self.vault_in(store)
            ticking.start_soon(self.ticker.tick)
            yield supervisor
            ticking.cancel_scope.cancel()

    @staticmethod
    async def vault_in(store: SqliteStore) -> VaultRef:
        found = await store.find_key(ACCOUNT) or await store.create_account(key_hash=ACCOUNT, shown="", created_ms=1)
        return found.vault

    async def ask(self, supervisor: Supervisor, message: Any) -> Any:
        assert self.vault is not None
        return await supervisor.ask(self.vault, message, timeout_s=ANSWER_TIMEOUT_S)

    async def run(self) -> None:
        if not self.vectors_path.exists():
            async with self.supervised() as supervisor:
                await self.fill(supervisor)
                await self.built(supervisor)
                await self.read(supervisor)
        async with self.returning("come back") as supervisor:
            await self.read(supervisor)
            await self.delete(supervisor)
            await self.built(supervisor)
        began_s = time.perf_counter()
        async with self.returning("leave, and come back after deletions"):
            pass
        self.rows["all of leaving, coming back, and leaving"] = {"s": round(time.perf_counter() - began_s, 2)}

    @asynccontextmanager
    async def returning(self, name: str) -> AsyncIterator[Supervisor]:
        async with self.supervised() as supervisor:
            async with self.phase(name) as row:
                stats: VaultStats = await self.ask(supervisor, Stats())
                row.update(memories=stats.memories, **stats.index)
            yield supervisor

    # Filling.

    async def fill(self, supervisor: Supervisor) -> None:
        """Import all memories, and keep their vectors for the exact search."""
        draft = self.vectors_path.with_suffix(".new")
        async with self.phase("import") as row:
            with draft.open("wb") as kept:
                for start in range(0, self.memories, IMPORT_MESSAGES):
                    exchanges, vectors = await trio.to_thread.run_sync(self.exchanges, start)
                    kept.write(vectors)
                    await self.hand_over(supervisor, exchanges)
                    if start % (IMPORT_MESSAGES * 50) == 0:
                        await self.show(supervisor)
        row["memories_per_s"] = round(self.memories / row["s"])
        draft.rename(self.vectors_path)

    def exchanges(self, first: int) -> tuple[list[Exchange], bytes]:
        """What one hand-over brings, and the vectors of it."""
        count = min(IMPORT_MESSAGES, self.memories - first)
        rows = self.topics.vectors(first + 1, count, stay=STAY).astype("<f2")
        messages = [_message(number, vector) for number, vector in enumerate(rows, first)]
        parts = [tuple(messages[at : at + EXCHANGE_MESSAGES]) for at in range(0, count, EXCHANGE_MESSAGES)]
        return [Exchange(messages=part, source="import", accepted_ms=BEGIN_MS) for part in parts], rows.tobytes()

    async def hand_over(self, supervisor: Supervisor, exchanges: Sequence[Exchange]) -> None:
        assert self.vault is not None
        with await supervisor.pin(self.vault) as pin:
            await pin.submit(exchanges).wait_applied(timeout_s=ANSWER_TIMEOUT_S)

    async def show(self, supervisor: Supervisor) -> VaultStats:
        stats: VaultStats = await self.ask(supervisor, Stats())
        seconds = round(time.perf_counter() - self.began_s)
        print(f"{seconds:6} s, {stats.memories} memories, {stats.index}, RSS {rss_mb()} MB", flush=True)
        return stats

    async def built(self, supervisor: Supervisor) -> None:
        """Wait until nothing is left to build."""
        async with self.phase("builds") as row:
            deadline_s = time.perf_counter() + BUILDS_TIMEOUT_S
            while (stats := await self.show(supervisor)).index["building"]:
                if time.perf_counter() > deadline_s:
                    raise RuntimeError("The builds took too long.")
                await trio.sleep(5)
        row |= {"in_memory_mb": stats.bytes_in_memory // 1_000_000, **stats.index}
        row["disk_mb"] = disk_mb(self.directory / "data")
        print("builds", json.dumps(row), flush=True)

    # Reading.

    async def read(self, supervisor: Supervisor) -> None:
        queries = self.topics.vectors(2**40, self.questions, stay=0)
        whole, session = Scope(), Scope(session_id="project-9")
        await self.ask(supervisor, self.recall(0, queries[0], whole))
        for name, scope, by_meaning in (
            ("recall", whole, True),
            ("recall by words", whole, False),
            ("recall in a session", session, True),
        ):
            async with self.phase(name) as row:
                times_s, began_cpu_s = [], time.process_time()
                for number, query in enumerate(queries):
                    began_s = time.perf_counter()
                    await self.ask(supervisor, self.recall(number, query if by_meaning else query[:0], scope))
                    times_s.append(time.perf_counter() - began_s)
                row |= {
                    **summary(times_s),
                    "cpu_ms": round((time.process_time() - began_cpu_s) * 1e3 / len(queries), 1),
                }
        self.compare(supervisor, queries)

    def recall(self, number: int, query: Floats, scope: Scope) -> Recall:
        vector = query.astype("<f4").tobytes()
        return Recall(text=question(number), vector=vector, scope=scope, chunks_max=30, now_ms=BEGIN_MS)

    def compare(self, supervisor: Supervisor, queries: Floats) -> None:
        """The dense leg and the whole ranking against an exact search. Looks into the vault: it is at rest."""
        vault = inside(supervisor, self.vault)
        arrays, eligible = vault._catalogue.arrays(), vault._catalogue.eligible(Scope(), small_talk=False)
        exact = self.exact(queries)
        # The vault was filled in one go: the timestamp tells which vector belongs to a chunk.
        numbers = (arrays.timestamp_ms[arrays.chunk_memory] - BEGIN_MS) // STEP_MS
        alive = eligible[arrays.chunk_memory]
        found, shared, first = [], [], []
        for number, query in enumerate(queries):
            scores = np.where(alive, exact[number, numbers], np.float32(np.nan))
            match = vault._index.match(query, candidates=CANDIDATES)
            ours = numbers[best(match.scores, 10)]
            found.append(len(np.intersect1d(ours, numbers[best(scores, 10)])) / 10)
            asked = RankQuery(
                lexical=vault._lexicon.match(terms(question(number))), dense=None, eligible=eligible, limit=10
            )
            ranked = rank_vault(asked, arrays, vault._index, query).memories
            exactly = rank(msgspec.structs.replace(asked, dense=DenseMatch(scores=scores)), arrays).memories
            shared.append(len(np.intersect1d(ranked, exactly)) / 10)
            first.append(bool(ranked[0] == exactly[0]))
        self.rows["against exact"] = row = {
            "recall@10": round(statistics.mean(found), 4),
            "ranking_overlap@10": round(statistics.mean(shared), 4),
            "same_first@1": round(statistics.mean(first), 4),
        }
        print("against exact", json.dumps(row), flush=True)

    def exact(self, queries: Floats) -> Floats:
        """All cosines, (questions, memories)."""
        vectors = np.memmap(self.vectors_path, "<f2", "r", shape=(self.memories, DIMS))
        scores = np.empty((len(queries), self.memories), np.float32)
        for start in range(0, self.memories, 8_192):
            block = vectors[start : start + 8_192].astype(np.float32)
            np.matmul(queries, block.T, out=scores[:, start : start + len(block)])
        return scores

    # Deleting.

    async def delete(self, supervisor: Supervisor) -> None:
        """The largest session that is left, and a small one."""
        for prefix in ("project", "day"):
            numbers = range(PROJECTS) if prefix == "project" else range(PROJECTS, self.memories // SESSION_MEMORIES)
            async with self.phase(f"delete one {prefix}") as row:
                for number in numbers:
                    forgotten = await self.ask(supervisor, Forget(f"{prefix}-{number}"))
                    if forgotten.count:
                        row["memories"] = forgotten.count
                        break


def best(scores: Floats, count: int) -> NDArray[np.intp]:
    known = np.where(np.isnan(scores), -np.inf, scores)
    return np.argpartition(known, -count)[-count:]


def inside(supervisor: Supervisor, vault: VaultRef | None) -> Vault:
    assert vault is not None
    actor = supervisor._entries[vault.number].actor
    assert actor is not None
    return actor._vault


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--memories", type=int, default=20_000)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--directory", type=Path, help="where the vault stays for the next run")


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="memoryrouter-bench-") as temporary:
        directory = chosen.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        bench = _Run(directory, chosen.memories, chosen.questions)
        trio.run(bench.run)
    yield Table(f"A vault of {chosen.memories} memories", bench.rows)


if __name__ == "__main__":
    quick = {"memories": 2_000, "questions": 10}
    sys.exit(run_benchmark(measure, __doc__, options, quick=quick))
