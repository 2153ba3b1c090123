"""Fits when a vault answers a question at all: the table `ANSWERABLE` of `actors.relevance`.

    python -m bench.fit_relevance locomo.json beam.json --cache DIR [--write] [--every N]

Reads files as `bench.recall_quality` does. Each question is asked of the vault that it belongs to and of others of its
set, where it should find nothing; of whole vaults, and of parts of 4 to 150 turns, since what matches by chance grows
with the vault. A logistic regression tells them apart by the evidence of the best memories and the size. All sets weigh
the same, and in a set the whole vaults as much as all parts together. What is reported is of conversations that the fit
has not seen: five folds, by conversation. `null` is how often nothing is found; a cut-off is a probability.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors import ranking, relevance
from bench._examples import FOLDS, embedded, folds, logistic, open_vault, question_of, read, table_text, write_table
from bench._options import data_options
from bench.recall_quality import VaultData
from models.embedding import EmbeddingModel, open_embedding_model
from models.text import clean

WHOLE = 0
PARTS = (4, 12, 50, 150)
"""Turns of a part."""

WRONG_VAULTS = 4
"""That each question is also asked of, if not said: the next ones of the file."""

ANSWERED_NULL_MAX = 0.05


class Asked(msgspec.Struct, frozen=True):
    """A question as it met a vault, or a part of one.

    Attributes:
        size: turns of the part, or `WHOLE`.
        conversation: that the question belongs to: of the fold, whichever vault it was asked of.
        step: how many vaults after its own in the file; 0 for its own.
        right: whether the vault, or the part, holds all of the answer.
    """

    set_name: str
    size: int
    conversation: str
    step: int
    right: bool
    evidence: float
    chunks: int


def main() -> int:
    """Fit, report, and write if asked to."""
    options = parse_options()
    encoder = open_embedding_model(options.cache / "models", threads=1)
    asked = [one for path in options.data for one in asked_of_file(path, encoder, options)]
    held_out = cross_validated(asked)
    report(asked, held_out)
    table = fitted(asked)
    print(f"\n{table_text('ANSWERABLE', table)}")
    if options.write:
        write_table(relevance, "ANSWERABLE", table)
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data_options(parser, every="use each n-th question only, to explore")
    parser.add_argument("--wrong", type=int, default=WRONG_VAULTS, help="vaults that each is also asked of (4)")
    parser.add_argument("--write", action="store_true", help="put the table into actors/relevance.py")
    return parser.parse_args()


# Asking.


def asked_of_file(path: Path, encoder: EmbeddingModel, options: argparse.Namespace) -> Iterator[Asked]:
    """The questions of a file, each asked of the right vault and of wrong ones."""
    vaults = read(path)
    for size in (WHOLE, *PARTS):
        opened = [[(part, open_vault(part, encoder, options.cache)) for part in parts(vault, size)] for vault in vaults]
        for number, vault in enumerate(vaults):
            others = range(1, min(options.wrong, len(vaults) - 1) + 1)
            for place, question in list(enumerate(vault.questions))[:: options.every]:
                right = next((part for part in opened[number] if holds(part[0], question.gold)), None)
                if right is None:
                    continue
                wrong = [opened[(number + step) % len(vaults)] for step in others]
                text = clean(question.question)
                vector = embedded([text], encoder, options.cache)[0]
                for step, part in enumerate((right, *(parts_[place % len(parts_)] for parts_ in wrong))):
                    found = ranking.candidates(*question_of(part[1], text, vector))
                    if found is not None:
                        yield Asked(
                            set_name=path.stem,
                            size=size,
                            conversation=f"{path.stem}/{vault.vault}",
                            step=step,
                            right=step == 0,
                            evidence=found.evidence,
                            chunks=found.chunks,
                        )


def parts(vault: VaultData, size: int) -> list[VaultData]:
    """A vault cut into parts of so many turns, or whole."""
    if size == WHOLE:
        return [vault]
    starts = range(0, len(vault.turns), size)
    return [msgspec.structs.replace(vault, turns=vault.turns[start : start + size]) for start in starts]


def holds(part: VaultData, gold: Sequence[str | int]) -> bool:
    """Whether all of an answer is in a part."""
    turns = {str(turn.id) for turn in part.turns}
    return bool(gold) and all(str(turn) in turns for turn in gold)


# Fitting.


def cross_validated(asked: Sequence[Asked]) -> NDArray[np.float64]:
    """The probability for each, of a fit that has not seen its conversation."""
    fold_of = folds([(one.set_name, one.conversation) for one in asked])
    fold = np.array([fold_of[one.conversation] for one in asked])
    probabilities = np.zeros(len(asked))
    for number in range(FOLDS):
        table = fitted([one for one, its in zip(asked, fold, strict=True) if its != number])
        unseen = [one for one, its in zip(asked, fold, strict=True) if its == number]
        odds = rows_of(unseen) @ np.array(list(table.values()))
        probabilities[fold == number] = 1 / (1 + np.exp(-odds))
    return probabilities


def fitted(asked: Sequence[Asked]) -> dict[str, float]:
    """The table."""
    counts = Counter((one.set_name, one.size, one.right) for one in asked)
    shares = [(len(PARTS) if one.size == WHOLE else 1) / counts[one.set_name, one.size, one.right] for one in asked]
    target = np.array([one.right for one in asked], np.float64)
    weights = logistic(rows_of(asked), target, np.array(shares) / sum(shares))
    return dict(zip(relevance.ANSWERABLE, weights, strict=True))


def rows_of(asked: Sequence[Asked]) -> NDArray[np.float64]:
    """What the table weighs."""
    sizes = np.log([min(one.chunks, relevance.LARGE_CHUNKS) for one in asked])
    return np.stack([np.ones(len(asked)), [one.evidence for one in asked], sizes], axis=1)


# Reporting.


def report(asked: Sequence[Asked], probabilities: NDArray[np.float64]) -> None:
    """Null in right and in wrong vaults: at the product's cut-off, and where a share of the right ones gets null."""
    cut = ranking.RELEVANCE_LEAST
    print(
        f"{'':16}{'turns':>6}{'n':>6}   null at {cut:.2f}: right, wrong   wrong null where 2 %, 5 % of right ones are"
    )
    for name, size in dict.fromkeys((one.set_name, one.size) for one in asked):
        inside = np.array([(one.set_name, one.size) == (name, size) for one in asked])
        right = np.array([one.right for one in asked])
        own, other = probabilities[inside & right], probabilities[inside & ~right]
        at = [100 * float(np.mean(other < np.quantile(own, share))) for share in (0.02, ANSWERED_NULL_MAX)]
        nulls = [100 * float(np.mean(values < cut)) for values in (own, other)]
        print(
            f"{name[:15]:16}{size or 'all':>6}{len(own):6}{nulls[0]:22.1f}, {nulls[1]:5.1f}{at[0]:24.1f}, {at[1]:5.1f}",
            flush=True,
        )
        if size == WHOLE:
            steps = np.array([one.step for one in asked])
            each = range(1, int(steps[inside].max()) + 1)
            apart = (100 * float(np.mean(probabilities[inside & (steps == step)] < cut)) for step in each)
            print("  of which in the next vaults: " + ", ".join(f"{null:.1f}" for null in apart), flush=True)


if __name__ == "__main__":
    sys.exit(main())
