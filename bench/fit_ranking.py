"""Fits the weights of `actors.ranking`: how much each feature of a memory says that it answers a question.

    python -m bench.fit_ranking locomo.json beam.json --cache DIR [--write] [--l2 0.03] [--every N]

Reads files as `bench.recall_quality` does, embeds each vault once with the product's model (vectors stay in DIR), lets
real vaults build the candidates and their features, and fits a listwise softmax with a ridge penalty: all sets weigh
the same, whatever their number of questions. Everything reported is of conversations that the fit has not seen: five
folds, by conversation. Then it fits two calibrations on the scores of those folds: the probability that a vault holds
an answer at all (each question is also asked of two other vaults of its set), and that a memory is one.

With `--write` the tables go into `actors/ranking.py`, but those of the scores not where a fit loses on any set by
any@5, any@10 or MRR, by more than the standard error of the paired difference and 0.2 points: the one that has not seen
the questions against the score that chooses candidates, or the one that has seen all against the table that stands
there.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors import ranking
from actors.analysis import analyse
from actors.features import FEATURES
from actors.vault import Vault
from bench.recall_quality import VaultData, upload_line
from models.chunking import TOKENS_MAX
from models.embedding import EmbeddingModel, open_embedding_model
from models.memory import Exchange, InboxRow, Message
from models.messages import Scope, Search
from models.text import clean, embedding_text
from models.time_intervals import time_intervals

Floats = NDArray[np.float32]
Score = Callable[["Example"], Floats]

FOLDS = 5
LIMIT = 60
NEWTON_STEPS_MAX = 12
WRONG_VAULTS = 2
ANSWERED_NULL_MAX = 0.05
TOLERANCE = 0.002  # the rounding of the weights alone moves a question or two
METRICS = ("any@1", "any@5", "any@10", "all@10", "MRR")
GUARDED = ("any@5", "any@10", "MRR")


class Example(msgspec.Struct, frozen=True, eq=False):
    """A question with its candidates.

    Attributes:
        conversation: which fold it belongs to is decided by this.
        gold: per candidate, whether it answers.
        gold_count: how many memories do, candidates or not.
        wrong: the same question in other vaults.
    """

    set_name: str
    conversation: str
    category: str
    found: ranking.Candidates
    gold: NDArray[np.bool_]
    gold_count: int
    wrong: tuple[ranking.Candidates, ...]


def main() -> int:
    """Fit, report, and write if asked to; the exit code is 1 where the new weights lose."""
    options = parse_options()
    encoder = open_embedding_model(options.cache / "models", threads=1)
    examples = [example for path in options.data for example in load(path, encoder, options.cache, options.every)]
    held_out = cross_validated(examples, options.l2)
    present = np.array([ranking.WEIGHTS[name] for name in FEATURES], np.float32)
    alone = (np.array(FEATURES) == "base").astype(np.float32)
    new = fitted(examples, options.l2)
    rankings = {
        "base score alone": results(examples, lambda example: example.found.features @ alone),
        "present table": results(examples, lambda example: example.found.features @ present),
        "fitted on all": results(examples, lambda example: example.found.features @ new),
        "fitted, unseen": results(examples, lambda example: held_out[id(example)]),
    }
    report(examples, rankings)
    losses = lost(examples, rankings, "fitted, unseen", "base score alone")
    losses += lost(examples, rankings, "fitted on all", "present table")
    answerable, answer, cut = calibrated(examples, held_out)
    weights = dict(zip(FEATURES, new.tolist(), strict=True))
    print_tables(weights, answerable, answer, cut)
    if options.write:
        write_tables({"ANSWERABLE": answerable})  # of no weight of a feature
    if losses:
        print("\nThe weights are not written, they are worse:", *losses, sep="\n  ", file=sys.stderr)
        return 1
    if options.write:
        write_tables({"WEIGHTS": weights, "ANSWER": answer})
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path, metavar="DATA.json")
    parser.add_argument("--cache", type=Path, required=True, help="directory for vectors and the prepared model")
    parser.add_argument("--l2", type=float, default=0.03, help="ridge penalty on standardised features (0.03)")
    parser.add_argument("--every", type=int, default=1, help="use each n-th question only, to explore")
    parser.add_argument("--write", action="store_true", help="put the tables into actors/ranking.py")
    return parser.parse_args()


# Vaults and their questions.


def load(path: Path, encoder: EmbeddingModel, cache: Path, every: int) -> Iterator[Example]:
    """The questions of a file, each with its candidates in its own vault and in wrong ones."""
    data = msgspec.json.decode(path.read_bytes(), type=list[VaultData])
    vaults = [open_vault(vault, encoder, cache) for vault in data]
    for number, (vault_data, (own, places, end_ms)) in enumerate(zip(data, vaults, strict=True)):
        texts = [clean(question.question) for question in vault_data.questions]
        vectors = embedded(texts, encoder, cache)
        others = [vaults[(number + 1 + step) % len(vaults)] for step in range(min(WRONG_VAULTS, len(vaults) - 1))]
        for text, vector, question in list(zip(texts, vectors, vault_data.questions, strict=True))[::every]:
            right = asked(own, text, vector, end_ms)
            if right is None:
                continue
            gold = [places[str(turn)] for turn in question.gold if str(turn) in places]
            yield Example(
                set_name=path.stem,
                conversation=f"{path.stem}/{vault_data.vault}",
                category=str(question.category),
                found=right,
                gold=np.isin(right.memories, gold),
                gold_count=len(question.gold),
                wrong=tuple(
                    wrong for other, _, its_end in others if (wrong := asked(other, text, vector, its_end)) is not None
                ),
            )


def open_vault(data: VaultData, encoder: EmbeddingModel, cache: Path) -> tuple[Vault, dict[str, int], int]:
    """A vault with these turns, embedded; the place of each turn by its id; the time of the last one."""
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
    return vault, {str(memory.external_id): place for place, memory in enumerate(memories)}, end_ms


def embedded(texts: Sequence[str], encoder: EmbeddingModel, cache: Path) -> Floats:
    """The vectors of texts, from the cache where they are in it."""
    digest = hashlib.blake2b("\0".join([encoder.id, *texts]).encode("utf-8", "surrogatepass"), digest_size=16)
    path = cache / f"{digest.hexdigest()}.npy"
    if not path.exists():
        np.save(path, encoder.encode(texts))
    vectors: Floats = np.load(path)
    return vectors


def asked(vault: Vault, text: str, vector: Floats, end_ms: int) -> ranking.Candidates | None:
    """The candidates of a question asked just after the last turn."""
    search = Search(
        text=text,
        vector=vector.astype("<f4").tobytes(),
        scope=Scope(),
        limit=LIMIT,
        now_ms=end_ms,
        intervals=time_intervals(text, now_ms=end_ms, tz=UTC),
    )
    query, arrays = vault.question(search, limit=LIMIT, small_talk=True)
    return ranking.candidates(msgspec.structs.replace(query, dense=vault.nearness(vector)), arrays)


def fitted(examples: Sequence[Example], l2: float) -> Floats:
    """The weights under which the gold candidates get the greatest share of the scores, by Newton's method."""
    rows = [(example.found.features, example.gold / example.gold.sum()) for example in examples if example.gold.any()]
    counts = Counter(example.set_name for example in examples if example.gold.any())
    shares = [1 / counts[example.set_name] / len(counts) for example in examples if example.gold.any()]
    deviation = np.sqrt(sum(share * features.var(axis=0) for (features, _), share in zip(rows, shares, strict=True)))
    deviation = np.maximum(deviation, 1e-3)
    scaled = [(features / deviation, target, share) for (features, target), share in zip(rows, shares, strict=True)]
    return np.asarray(newton(scaled, l2) / deviation, np.float32)


def newton(rows: Sequence[tuple[Floats, Floats, float]], l2: float) -> NDArray[np.float64]:
    """The minimum of the loss; a step that does not lower it is halved."""
    weights = np.zeros(len(FEATURES))
    loss = softmax_loss(rows, weights, l2)
    for _ in range(NEWTON_STEPS_MAX):
        gradient, curvature = l2 * weights, l2 * np.eye(len(weights))
        for features, target, share in rows:
            probability = softmax(features @ weights)
            mean = probability @ features
            gradient = gradient + share * (mean - target @ features)
            curvature += share * ((features * probability[:, None]).T @ features - np.outer(mean, mean))
        step = np.linalg.solve(curvature, gradient)
        while (lower := softmax_loss(rows, weights - step, l2)) > loss and np.abs(step).max() > 1e-4:
            step /= 2
        if loss - lower < 1e-6:
            break
        weights, loss = weights - step, lower
    return weights


def softmax_loss(rows: Sequence[tuple[Floats, Floats, float]], weights: NDArray[np.float64], l2: float) -> float:
    """The mean negative log share of the gold, and the penalty."""
    shares = (share * float(target @ -np.log(softmax(features @ weights) + 1e-30)) for features, target, share in rows)
    return sum(shares) + l2 * float(weights @ weights) / 2


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of e to the values."""
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum(), np.float64)


def cross_validated(examples: Sequence[Example], l2: float) -> dict[int, Floats]:
    """The scores of each example's candidates (by `id`), of a fit that has not seen its conversation."""
    scores = {}
    fold_of = folds(examples)
    for fold in range(FOLDS):
        weights = fitted([example for example in examples if fold_of[example.conversation] != fold], l2)
        unseen = (example for example in examples if fold_of[example.conversation] == fold)
        scores.update({id(example): example.found.features @ weights for example in unseen})
    return scores


def folds(examples: Sequence[Example]) -> dict[str, int]:
    """The fold of each conversation; each set is spread over all of them."""
    conversations: dict[str, list[str]] = defaultdict(list)
    for example in examples:
        if example.conversation not in conversations[example.set_name]:
            conversations[example.set_name].append(example.conversation)
    return {name: place % FOLDS for names in conversations.values() for place, name in enumerate(names)}


def logistic(rows: NDArray[np.float64], target: NDArray[np.float64], shares: NDArray[np.float64]) -> list[float]:
    """Weights of a logistic regression, with hardly any penalty."""
    weights = np.zeros(rows.shape[1])
    for _ in range(30):
        probability = 1 / (1 + np.exp(-(rows @ weights)))
        gradient = rows.T @ (shares * (probability - target)) + 1e-5 * weights
        spread = (shares * probability * (1 - probability))[:, None]
        weights -= np.linalg.solve((rows * spread).T @ rows + 1e-5 * np.eye(len(weights)), gradient)
    return [float(weight) for weight in weights]


def calibrated(
    examples: Sequence[Example], held_out: dict[int, Floats]
) -> tuple[dict[str, float], dict[str, float], float]:
    """The tables `ANSWERABLE` and `ANSWER`, and the cut-off; prints how often nothing would be found."""
    fold_of = folds(examples)
    weights = {
        fold: fitted_answerable([example for example in examples if fold_of[example.conversation] != fold])
        for fold in range(FOLDS)
    }
    own: dict[str, list[float]] = defaultdict(list)
    other: dict[str, list[float]] = defaultdict(list)
    for example in examples:
        right, *wrong = answerable_rows(example)
        table = np.array(list(weights[fold_of[example.conversation]].values()))
        own[example.set_name].append(float(1 / (1 + np.exp(-(right @ table)))))
        other[example.set_name] += [float(1 / (1 + np.exp(-(row @ table)))) for row in wrong]
    cut = min(float(np.quantile(values, 0.9 * ANSWERED_NULL_MAX)) for values in own.values())
    cut = np.floor(cut * 100) / 100
    for name, values in own.items():
        kept, let_in = np.mean(np.array(values) >= cut), np.mean(np.array(other[name]) >= cut)
        print(
            f"\n{name}: at a cut-off of {cut:.2f}, null: {100 * (1 - kept):.1f} % of answerable questions, "
            f"{100 * (1 - let_in):.1f} % of those asked of a wrong vault (precision {100 * kept / (kept + let_in):.1f} "
            f"%, recall {100 * kept:.1f} % at even odds)"
        )
        for low in (0.02, 0.05, 0.1):
            value = np.quantile(values, low)
            print(
                f"  {100 * low:.0f} % null (cut-off {value:.2f}): {100 * np.mean(np.array(other[name]) < value):.1f} %"
            )
    return fitted_answerable(examples), fitted_answer(examples, held_out), float(cut)


def answerable_rows(example: Example) -> NDArray[np.float64]:
    """A constant and the best evidence: in the right vault, then in the wrong ones."""
    return np.array([(1.0, float(found.evidence.max())) for found in (example.found, *example.wrong)])


def fitted_answerable(examples: Sequence[Example]) -> dict[str, float]:
    """Right against wrong vaults; each set, and within it each kind, weighs the same."""
    sizes = Counter(example.set_name for example in examples)
    target, shares = [], []
    for example in examples:
        share = 1 / sizes[example.set_name] / len(sizes) / 2
        target += [1.0, *[0.0] * len(example.wrong)]
        shares += [share, *[share / max(1, len(example.wrong))] * len(example.wrong)]
    rows = np.concatenate([answerable_rows(example) for example in examples])
    return dict(zip(ranking.ANSWERABLE, logistic(rows, np.array(target), np.array(shares)), strict=True))


def fitted_answer(examples: Sequence[Example], held_out: dict[int, Floats]) -> dict[str, float]:
    """Candidates that answer against those that do not, by the log of their share."""
    logs = [ranking.log_shares(held_out[id(example)], held_out[id(example)]) for example in examples]
    sizes = Counter(example.set_name for example in examples)
    shares = [np.full(len(log), 1 / sizes[example.set_name]) for example, log in zip(examples, logs, strict=True)]
    column = np.concatenate(logs)
    target = np.concatenate([example.gold for example in examples]).astype(np.float64)
    weights = logistic(np.stack([np.ones_like(column), column], axis=1), target, np.concatenate(shares))
    return dict(zip(ranking.ANSWER, weights, strict=True))


# What is reported, and written.


def results(examples: Sequence[Example], score: Score) -> Floats:
    """The metrics of each example under a ranking, 0..1, of shape (len(examples), len(METRICS))."""
    rows = []
    for example in examples:
        places = np.flatnonzero(example.gold[np.argsort(-score(example), kind="stable")]) + 1
        first = int(places[0]) if len(places) else LIMIT + 1
        every = int((places <= 10).sum()) == example.gold_count
        rows.append((first <= 1, first <= 5, first <= 10, every, 1 / first if first <= LIMIT else 0.0))
    return np.array(rows, np.float32)


def report(examples: Sequence[Example], rankings: dict[str, Floats]) -> None:
    """A table for each set, then for each of its categories the fitted weights beside the base score."""
    for name in dict.fromkeys(example.set_name for example in examples):
        inside = np.array([example.set_name == name for example in examples])
        print(f"\n{name}, n = {inside.sum()}\n{'':28}" + "".join(f"{metric:>8}" for metric in METRICS))
        for label, values in rankings.items():
            print(f"{label:28}" + "".join(f"{100 * value:8.1f}" for value in values[inside].mean(axis=0)))
        for category in sorted({example.category for example in examples if example.set_name == name}):
            chosen = inside & np.array([example.category == category for example in examples])
            before, *_, after = (values[chosen].mean(axis=0) for values in rankings.values())
            figures = "".join(f"{100 * old:8.1f}>{100 * new:4.1f}" for old, new in zip(before, after, strict=True))
            print(f"  {category[:20]:20}{chosen.sum():6}" + figures, flush=True)


def lost(examples: Sequence[Example], rankings: dict[str, Floats], new: str, old: str) -> list[str]:
    """Where a ranking is worse than another, by more than chance."""
    found = []
    for name in dict.fromkeys(example.set_name for example in examples):
        difference = (rankings[new] - rankings[old])[[example.set_name == name for example in examples]]
        mean, error = difference.mean(axis=0), difference.std(axis=0) / np.sqrt(len(difference))
        found += [
            f"{name}, {metric}: {100 * mean[column]:+.1f}, {new} against {old}"
            for column, metric in enumerate(METRICS)
            if metric in GUARDED and mean[column] < -max(float(error[column]), TOLERANCE)
        ]
    return found


def print_tables(weights: dict[str, float], answerable: dict[str, float], answer: dict[str, float], cut: float) -> None:
    for name, table in (("WEIGHTS", weights), ("ANSWERABLE", answerable), ("ANSWER", answer)):
        print(f"\n{table_text(name, table)}")
    print(f"RELEVANCE_LEAST = {cut:.2f}")


def table_text(name: str, table: dict[str, float]) -> str:
    lines = "".join(f'    "{key}": {value:.3f},\n' for key, value in table.items())
    return f"{name} = {{\n{lines}}}"


def write_tables(tables: dict[str, dict[str, float]]) -> None:
    """Put tables in the place of those that stand in `actors/ranking.py`."""
    path = Path(ranking.__file__)
    source = path.read_text()
    for name, table in tables.items():
        source, count = re.subn(rf"^{name} = \{{[^}}]*\}}", table_text(name, table), source, flags=re.MULTILINE)
        if count != 1:
            raise SystemExit(f"{path} has no table {name}.")
    path.write_text(source)


if __name__ == "__main__":
    sys.exit(main())
