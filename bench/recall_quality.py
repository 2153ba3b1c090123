"""Does the right memory come back? Recall of a running server, measured over HTTP.

Reads files of the form `[{"vault", "turns": [{"id", "session", "role", "content", "timestamp"}], "questions":
[{"question", "gold": [id], "category"}]}]`, timestamps in epoch milliseconds, epoch seconds or ISO 8601. For
each vault it mints a key, uploads the turns, waits until all are embedded, asks `search` each question, and
ranks the turns by their own ids. A turn counts once, at its best place.

Gold is the set of turns that answer a question. any@k: at least one of them in the first k. all@k: every one.
frac@k: the share found. MRR: 1 / the place of the first, 0 beyond the limit. With `--null`, `prepare` is
asked too: each question in its own vault, where a null context is an error, and in another vault, where it is
right.

    python bench/recall_quality.py locomo.json beam.json --account-key mk_... --null
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec

from bench._options import run_benchmark
from bench._percentiles import summary
from bench._results import Table

LINES_MAX = 10_000  # of one upload
EMBEDDING_WAIT_S = 1_800.0
POLL_S = 0.5
SECONDS_BELOW = 100_000_000_000  # a number below this is seconds: as milliseconds it would lie before March 1973


class Turn(msgspec.Struct, frozen=True):
    """One message of a data set."""

    id: str | int
    session: str | int
    role: str
    content: str
    timestamp: int | float | str | None = None


class Question(msgspec.Struct, frozen=True):
    """One question, and the ids of the turns that answer it."""

    question: str
    gold: list[str | int]
    category: str | int = ""


class VaultData(msgspec.Struct, frozen=True):
    """What one person said, and what is asked about it."""

    vault: str
    turns: list[Turn]
    questions: list[Question]


class Answer(msgspec.Struct, frozen=True):
    """How one question went.

    Attributes:
        places: the place of each gold turn in the ranking, from 1; None where it did not come back.
        latency_ms: of the search, as the client saw it.
        own_null: whether `prepare` found nothing in the right vault; None if not asked.
        other_null: the same in a wrong vault.
    """

    category: str
    places: list[int | None]
    latency_ms: float
    own_null: bool | None = None
    other_null: bool | None = None


class OpenVault(msgspec.Struct, frozen=True):
    """A vault of the data and the key that opens it."""

    data: VaultData
    key: str


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    """A table for each file."""
    account_key = chosen.account_key or os.environ.get("MEMORYROUTER_ACCOUNT_KEY")
    if not account_key:
        print("Give --account-key or set MEMORYROUTER_ACCOUNT_KEY.", file=sys.stderr)
        raise SystemExit(2)
    with httpx.Client(base_url=chosen.url, timeout=120.0) as client:
        for path in chosen.data:
            data = msgspec.json.decode(path.read_bytes(), type=list[VaultData])
            vaults = [fill_vault(client, account_key, vault) for vault in data]
            answers = list(ask_all(client, vaults, limit=chosen.limit, null=chosen.null))
            yield Table(path.name, rows_of(answers))
            if chosen.delete:
                for vault in vaults:
                    call(client, "DELETE", "/v1/memory", vault.key)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="+", type=Path, metavar="DATA.json")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--account-key", help="else MEMORYROUTER_ACCOUNT_KEY")
    parser.add_argument("--limit", type=int, default=60, help="memories that a search returns (60)")
    parser.add_argument("--null", action="store_true", help="also measure how often prepare finds nothing")
    parser.add_argument("--delete", action="store_true", help="empty the vaults afterwards")


def fill_vault(client: httpx.Client, account_key: str, vault: VaultData) -> OpenVault:
    """Mint a key, upload the turns, and wait until they are all embedded."""
    key = str(call(client, "POST", "/v1/keys", account_key, json={"name": f"recall:{vault.vault}"})["key"])
    for start in range(0, len(vault.turns), LINES_MAX):
        lines = [json.dumps(upload_line(turn)) for turn in vault.turns[start : start + LINES_MAX]]
        stats = call(client, "POST", "/v1/memory/upload", key, content="\n".join(lines))["stats"]
        if stats["failed"]:
            raise SystemExit(f"{vault.vault}: {stats['failed']} lines failed")
    deadline = time.monotonic() + EMBEDDING_WAIT_S
    while (pending := call(client, "GET", "/v1/memory/stats", key)["pending"]) > 0:
        if time.monotonic() > deadline:
            raise SystemExit(f"{vault.vault}: {pending} memories are still without vector")
        time.sleep(POLL_S)
    return OpenVault(data=vault, key=key)


def upload_line(turn: Turn) -> dict[str, Any]:
    """A turn as a line of an upload."""
    line: dict[str, Any] = {
        "id": str(turn.id),
        "session_id": str(turn.session),
        "role": turn.role,
        "content": turn.content,
    }
    if turn.timestamp is not None:
        line["timestamp"] = epoch_ms(turn.timestamp)
    return line


def epoch_ms(timestamp: int | float | str) -> int:
    """Epoch milliseconds from milliseconds, seconds or ISO 8601 (UTC where no zone is given)."""
    if isinstance(timestamp, str):
        moment = datetime.fromisoformat(timestamp)
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    return round(timestamp * 1000 if abs(timestamp) < SECONDS_BELOW else timestamp)


def ask_all(client: httpx.Client, vaults: Sequence[OpenVault], *, limit: int, null: bool) -> Iterator[Answer]:
    """Ask every question that has an answer; for `null`, each also in the next vault of the file."""
    for number, vault in enumerate(vaults):
        other = vaults[(number + 1) % len(vaults)] if len(vaults) > 1 else None
        for question in vault.data.questions:
            if not question.gold:
                continue
            started = time.perf_counter()
            body = {"query": question.question, "limit": limit}
            memories = call(client, "POST", "/v1/memory/search", vault.key, json=body)["memories"]
            latency_ms = (time.perf_counter() - started) * 1000
            yield Answer(
                category=str(question.category),
                places=places(question.gold, [memory.get("external_id") for memory in memories]),
                latency_ms=latency_ms,
                own_null=is_null(client, vault.key, question.question) if null else None,
                other_null=is_null(client, other.key, question.question) if null and other else None,
            )


def places(gold: Sequence[str | int], found: Sequence[str | None]) -> list[int | None]:
    """The place of each gold turn among the turns found, from 1; a turn counts at its best place."""
    ranking = list(dict.fromkeys(identity for identity in found if identity is not None))
    place = {identity: number for number, identity in enumerate(ranking, 1)}
    return [place.get(str(identity)) for identity in gold]


def is_null(client: httpx.Client, key: str, question: str) -> bool:
    """Whether `prepare` has nothing to say about a question."""
    body = {"messages": [{"role": "user", "content": question}]}
    return call(client, "POST", "/v1/memory/prepare", key, json=body)["context"] is None


def call(client: httpx.Client, method: str, path: str, key: str, **request: Any) -> dict[str, Any]:
    """One request; anything but success ends the bench, since a figure with gaps would mislead."""
    response = client.request(method, path, headers={"Authorization": f"Bearer {key}"}, **request)
    if not response.is_success:
        raise SystemExit(f"{method} {path}: {response.status_code} {response.text[:200]}")
    result: dict[str, Any] = response.json()
    return result


def rows_of(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """The figures of a set and of each of its categories, and how long a search took."""
    categories: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        categories[answer.category].append(answer)
    rows = {"all": figures(answers), **{name: figures(categories[name]) for name in sorted(categories)}}
    return {**rows, "search": summary([answer.latency_ms / 1000 for answer in answers])}


def figures(answers: Sequence[Answer]) -> dict[str, float]:
    """n, and the metrics in percent."""
    result: dict[str, float] = {"n": len(answers)}
    for k in (1, 5, 10):
        result[f"any@{k}"] = percent([hits(answer, k) > 0 for answer in answers])
    result["all@10"] = percent([hits(answer, 10) == len(answer.places) for answer in answers])
    result["frac@10"] = percent([hits(answer, 10) / len(answer.places) for answer in answers])
    result["MRR"] = percent([reciprocal(answer) for answer in answers])
    own = [answer.own_null for answer in answers if answer.own_null is not None]
    other = [answer.other_null for answer in answers if answer.other_null is not None]
    if own:
        result["null in own"] = percent(own)
    if other:
        result["null in other"] = percent(other)
    return result


def hits(answer: Answer, k: int) -> int:
    """How many gold turns are among the first k."""
    return sum(place is not None and place <= k for place in answer.places)


def reciprocal(answer: Answer) -> float:
    """1 / the place of the first gold turn, 0 if none came back."""
    return max((1 / place for place in answer.places if place is not None), default=0.0)


def percent(values: Sequence[float]) -> float:
    """The mean in percent, one decimal; 0 of nothing."""
    return round(100 * sum(values) / len(values), 1) if values else 0.0


if __name__ == "__main__":
    sys.exit(run_benchmark(measure, __doc__, options))
