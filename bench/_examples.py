"""Questions with their candidates, as the benches of ranking need them: real vaults, filled in process.

Owns reading the data, the cache of vectors, the folds, and how fitted tables are written. Measures nothing.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors import ranking
from actors.analysis import analyse
from actors.ranking_inputs import RankQuery, VaultArrays
from actors.vault import Vault
from bench._variants import AS_IT_IS, VARIANTS
from bench.recall_quality import Question, VaultData, upload_line
from models.chunking import TOKENS_MAX
from models.embedding import EmbeddingModel
from models.memory import Exchange, InboxRow, Message
from models.messages import Scope, Search
from models.text import clean, embedding_text
from models.time_intervals import time_intervals

Floats = NDArray[np.float32]

FOLDS = 5
LIMIT = 60


class Example(msgspec.Struct, frozen=True, eq=False):
    """A question with its candidates.

    Attributes:
        variant: of the vault, as `bench._variants`.
        conversation: which fold it belongs to is decided by this.
        gold: per candidate, whether it answers.
        gold_count: how many memories do, candidates or not.
    """

    set_name: str
    variant: str
    conversation: str
    category: str
    found: ranking.Candidates
    gold: NDArray[np.bool_]
    gold_count: int


def load(
    path: Path, encoder: EmbeddingModel, cache: Path, every: int = 1, variant: str = AS_IT_IS
) -> Iterator[Example]:
    """The questions of a file, each with its candidates in its vault."""
    for data in VARIANTS[variant](read(path)):
        opened = open_vault(data, encoder, cache)
        for question, (query, arrays) in list(questions_of(data, opened, encoder, cache))[::every]:
            found = ranking.candidates(query, arrays)
            if found is not None:
                yield example_of(path.stem, data.vault, question, found, opened, variant)


def read(path: Path) -> list[VaultData]:
    """The vaults of a file."""
    return msgspec.json.decode(path.read_bytes(), type=list[VaultData])


def questions_of(
    data: VaultData, opened: Opened, encoder: EmbeddingModel, cache: Path
) -> Iterator[tuple[Question, tuple[RankQuery, VaultArrays]]]:
    """The questions about a vault as they meet it."""
    texts = [clean(question.question) for question in data.questions]
    for text, vector, question in zip(texts, embedded(texts, encoder, cache), data.questions, strict=True):
        yield question, question_of(opened, text, vector)


def example_of(
    set_name: str, vault_name: str, question: Question, found: ranking.Candidates, opened: Opened, variant: str
) -> Example:
    """A question with its candidates and which of them answer."""
    gold = [opened.places[str(turn)] for turn in question.gold if str(turn) in opened.places]
    return Example(
        set_name=set_name,
        variant=variant,
        conversation=f"{set_name}/{vault_name}",
        category=str(question.category),
        found=found,
        gold=np.isin(found.memories, gold),
        gold_count=len(question.gold),
    )


class Opened(msgspec.Struct, frozen=True):
    """A vault filled with turns.

    Attributes:
        places: the place of each turn by its id.
        end_ms: the time of the last turn.
    """

    vault: Vault
    places: dict[str, int]
    end_ms: int


def open_vault(data: VaultData, encoder: EmbeddingModel, cache: Path) -> Opened:
    """A vault with these turns, embedded."""
    vault = Vault(dims=encoder.dims, repeat_window_ms=600_000, relevance_min=0.0, model_id=encoder.id)
    vault.begin(created_ms=0, next_seq=1)
    messages = []
    for turn in data.turns:
        line = upload_line(turn)
        messages.append(
            Message(
                role=line["role"],
                content=clean(line["content"]),
                timestamp_ms=line.get("timestamp"),
                session_id=line["session_id"],
                external_id=line["id"],
            )
        )
    end_ms = max((message.timestamp_ms or 0 for message in messages), default=0)
    row = InboxRow(row_id=1, exchange=Exchange(messages=tuple(messages), source="upload", accepted_ms=end_ms))
    memories = [vault.add(row, message, analyse(message, encoder, TOKENS_MAX)) for message in vault.begin_row(row)]
    vault.end_row(row)
    texts = [embedding_text(memory.role, text) for memory in memories for text in memory.chunk_texts()]
    vectors = embedded(texts, encoder, cache).astype(np.float16)
    ends = np.cumsum([len(memory.spans) for memory in memories])
    for memory, rows in zip(memories, np.split(vectors, ends[:-1]), strict=True):
        vault.attach(memory.seq, rows)
    places = {str(memory.external_id): place for place, memory in enumerate(memories)}
    return Opened(vault=vault, places=places, end_ms=end_ms)


def embedded(texts: Sequence[str], encoder: EmbeddingModel, cache: Path) -> Floats:
    """The vectors of texts; each text is embedded once, and its vector stays in the cache."""
    keys = [_digest(encoder.id, text) for text in texts]
    with closing(sqlite3.connect(cache / "vectors.sqlite3")) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
        known = {key: _vector_of(connection, key) for key in keys}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if known[key] is None}
        new = zip(missing, encoder.encode(list(missing.values())), strict=True) if missing else ()
        for key, vector in new:
            known[key] = vector.astype("<f4").tobytes()
            connection.execute("INSERT OR REPLACE INTO vectors VALUES (?, ?)", (key, known[key]))
    joined = b"".join(vector for key in keys if (vector := known[key]) is not None)
    return np.frombuffer(joined, "<f4").reshape(len(texts), encoder.dims)


def _digest(model_id: str, text: str) -> bytes:
    return hashlib.blake2b(f"{model_id}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _vector_of(connection: sqlite3.Connection, key: bytes) -> bytes | None:
    row = connection.execute("SELECT vector FROM vectors WHERE text = ?", (key,)).fetchone()
    return None if row is None else bytes(row[0])


def question_of(opened: Opened, text: str, vector: Floats) -> tuple[RankQuery, VaultArrays]:
    """A question asked just after the last turn, with the nearness of every chunk."""
    search = Search(
        text=text,
        vector=vector.astype("<f4").tobytes(),
        scope=Scope(),
        limit=LIMIT,
        now_ms=opened.end_ms,
        intervals=time_intervals(text, now_ms=opened.end_ms, tz=UTC),
    )
    query, arrays = opened.vault.question(search, limit=LIMIT, small_talk=True)
    return msgspec.structs.replace(query, dense=opened.vault.nearness(vector)), arrays


def folds(conversations: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The fold of each conversation, given with its set; each set is spread over all folds."""
    of_set: dict[str, list[str]] = defaultdict(list)
    for set_name, conversation in dict.fromkeys(conversations):
        of_set[set_name].append(conversation)
    return {name: place % FOLDS for names in of_set.values() for place, name in enumerate(names)}


def logistic(rows: NDArray[np.float64], target: NDArray[np.float64], shares: NDArray[np.float64]) -> list[float]:
    """Weights of a logistic regression, with hardly any penalty.

    Args:
        shares: what each row counts.
    """
    weights = np.zeros(rows.shape[1])
    for _ in range(30):
        probability = 1 / (1 + np.exp(-(rows @ weights)))
        gradient = rows.T @ (shares * (probability - target)) + 1e-5 * weights
        spread = (shares * probability * (1 - probability))[:, None]
        weights -= np.linalg.solve((rows * spread).T @ rows + 1e-5 * np.eye(len(weights)), gradient)
    return [float(weight) for weight in weights]


def table_text(name: str, table: dict[str, float]) -> str:
    """A table as it stands in a module."""
    lines = "".join(f'    "{key}": {value:.3f},\n' for key, value in table.items())
    return f"{name} = {{\n{lines}}}"


def write_table(module: ModuleType, name: str, table: dict[str, float]) -> None:
    """Put a table in the place of the one that stands in a module."""
    path = Path(str(module.__file__))
    source, count = re.subn(rf"^{name} = \{{[^}}]*\}}", table_text(name, table), path.read_text(), flags=re.MULTILINE)
    if count != 1:
        raise SystemExit(f"{path} has no table {name}.")
    path.write_text(source)
