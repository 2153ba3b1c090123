"""Does the ranking hold where vaults look otherwise? Beside two simple fusions, on variants of the same data.

    python -m bench.robustness locomo.json beam.json --cache DIR [--every N]

Reads files as `bench.recall_quality` does; the variants are those of `bench._variants`. `rank fusion` is the reciprocal
rank fusion of BM25 and cosine (1 / (60 + rank) each, G. Cormack, C. Clarke and S. Buettcher, 2009), `sum` is that of
their standard scores, both by the best chunk of a memory; `product` is the product's ranking, and `fitted for it` that
with weights fitted on this variant alone, of the other conversations. Each is any@5, any@10 and MRR in percent.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors import ranking
from actors.features import FEATURES
from actors.ranking_inputs import RankQuery, VaultArrays
from bench._examples import Example, Floats, example_of, open_vault, questions_of, read
from bench._options import data_options
from bench._variants import VARIANTS
from bench.fit_ranking import METRICS, cross_validated, results
from models.embedding import EmbeddingModel, open_embedding_model

SHOWN = [METRICS.index(name) for name in ("any@5", "any@10", "MRR")]
RANK_OFFSET = 60
FIT_L2 = 0.03


class Compared(msgspec.Struct, frozen=True, eq=False):
    """A question and what the simple fusions make of it.

    Attributes:
        fusions: per memory of the vault, by name.
        gold: per memory of the vault, whether it answers.
    """

    example: Example
    fusions: dict[str, Floats]
    gold: NDArray[np.bool_]


def main() -> int:
    """A line for each variant and set; the exit code is 1 where the rank fusion is better than the product."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data_options(parser)
    options = parser.parse_args()
    encoder = open_embedding_model(options.cache / "models", threads=1)
    lost = []
    print(f"{'':48}{'n':>5}   rank fusion          sum                  fitted for it        product")
    for variant in VARIANTS:
        for path in options.data:
            compared = asked(path, variant, encoder, options.cache, options.every)
            values = figures(compared)
            print(f"{variant:48}{path.stem[:6]:7}{len(compared):5}" + "".join(map(shown, values.values())), flush=True)
            difference = values["product"] - values["rank fusion"]
            error = difference.std(axis=0) / np.sqrt(len(difference))
            lost += [f"{variant}, {path.stem}"] * bool((difference.mean(axis=0) < -2 * error)[SHOWN].any())
    if lost:
        print("\nThe rank fusion is better:", *lost, sep="\n  ", file=sys.stderr)
    return int(bool(lost))


def asked(path: Path, variant: str, encoder: EmbeddingModel, cache: Path, every: int) -> list[Compared]:
    """The questions of a file under a variant."""
    found = []
    for data in VARIANTS[variant](read(path)):
        opened = open_vault(data, encoder, cache)
        for question, (query, arrays) in list(questions_of(data, opened, encoder, cache))[::every]:
            candidates = ranking.candidates(query, arrays)
            if candidates is None:
                continue
            example = example_of(path.stem, data.vault, question, candidates, opened, variant)
            gold = np.zeros(len(query.eligible), np.bool_)
            gold[[opened.places[str(turn)] for turn in question.gold if str(turn) in opened.places]] = True
            found.append(Compared(example=example, fusions=fusions(query, arrays), gold=gold))
    return found


def fusions(query: RankQuery, arrays: VaultArrays) -> dict[str, Floats]:
    """Per memory, its score by each simple fusion."""
    assert query.dense is not None
    legs = [query.lexical.scores, np.nan_to_num(query.dense.scores)]
    chunk_sum = sum((leg - leg.mean()) / max(float(leg.std()), 1e-6) for leg in legs)
    words, meaning = (best_of(leg, arrays, len(query.eligible)) for leg in legs)
    ranks = [np.argsort(np.argsort(-leg, kind="stable"), kind="stable") + 1 for leg in (words, meaning)]
    by_rank = np.where(words > 0, 1 / (RANK_OFFSET + ranks[0]), 0) + 1 / (RANK_OFFSET + ranks[1])
    by_rank[~np.isfinite(meaning)] = 0
    return {
        "rank fusion": by_rank.astype(np.float32),
        "sum": best_of(np.asarray(chunk_sum, np.float32), arrays, len(query.eligible)),
    }


def best_of(scores: Floats, arrays: VaultArrays, memories: int) -> Floats:
    """The score of each memory's best chunk."""
    best = np.full(memories, -np.inf, np.float32)
    np.maximum.at(best, arrays.chunk_memory, scores)
    return best


def figures(compared: Sequence[Compared]) -> dict[str, Floats]:
    """The metrics of each question by each ranking."""
    examples = [one.example for one in compared]
    table = np.array([ranking.WEIGHTS[name] for name in FEATURES], np.float32)
    held_out = cross_validated(examples, FIT_L2)
    values = {name: simple(compared, name) for name in compared[0].fusions}
    values["fitted for it"] = results(examples, lambda example: held_out[id(example)])
    values["product"] = results(examples, lambda example: example.found.features @ table)
    return values


def simple(compared: Sequence[Compared], name: str) -> Floats:
    """The metrics of each question by a simple fusion."""
    whole = {
        id(one.example): msgspec.structs.replace(one.example, gold=one.gold, conversation=str(place))
        for place, one in enumerate(compared)
    }
    scores = {str(place): one.fusions[name] for place, one in enumerate(compared)}
    return results(list(whole.values()), lambda example: scores[example.conversation])


def shown(values: Floats) -> str:
    """The metrics shown, in percent."""
    return "   " + "".join(f"{100 * value:6.1f}" for value in values.mean(axis=0)[SHOWN])


if __name__ == "__main__":
    sys.exit(main())
