"""Fits the weights of `actors.ranking`: how much each feature of a memory says that it answers a question.

    python -m bench.fit_ranking locomo.json beam.json --cache DIR [--write] [--l2 0.03] [--every N]

Reads files as `bench.recall_quality` does, embeds each text once with the product's model (vectors stay in DIR), lets
real vaults build the candidates and their features, and fits a listwise softmax with a ridge penalty: all sets weigh
the same, whatever their number of questions, and in a set the vaults as they are as much as all of their variants
together (`bench._variants`: without names, without sessions, and so on). What is reported as unseen is of a fit that
has not seen the conversation: five folds. Then it fits on the scores of those folds the probability that a memory is an
answer.

With `--write` the tables go into the product, unless a fit loses on any set, as it is or varied, by any@5, any@10 or
MRR, by more than two standard errors of the paired difference and half a point: the one that has not seen the questions
against the score that chooses candidates, or the one that has seen all against the table that stands there.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from actors import ranking, relevance
from actors.features import FEATURES
from bench._examples import FOLDS, LIMIT, Example, Floats, folds, load, logistic, table_text, write_table
from bench._options import data_options
from bench._variants import AS_IT_IS, FITTED
from models.embedding import open_embedding_model

Score = Callable[[Example], Floats]

NEWTON_STEPS_MAX = 12
TOLERANCE = 0.005
"""Of the guard, beside two standard errors: a third of what is noise on LoCoMo, and less than one question of BEAM."""

BELIEVED = {"exact": 4.0}
"""Weights that the fit departs from only as far as data says so; 0 for all others. In both development sets there are
some fifteen questions with a quoted phrase or an identifier; who writes one wants what holds it."""

METRICS = ("any@1", "any@5", "any@10", "all@10", "MRR")
GUARDED = ("any@5", "any@10", "MRR")


def main() -> int:
    """Fit, report, and write if asked to; the exit code is 1 where the new weights lose."""
    options = parse_options()
    encoder = open_embedding_model(options.cache / "models", threads=1)
    examples = [
        example
        for variant in (AS_IT_IS, *FITTED)
        for path in options.data
        for example in load(path, encoder, options.cache, options.every, variant)
    ]
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
    weights = dict(zip(FEATURES, new.tolist(), strict=True))
    answer = fitted_answer([example for example in examples if example.variant == AS_IT_IS], held_out)
    print(f"\n{table_text('WEIGHTS', weights)}\n\n{table_text('ANSWER', answer)}")
    if losses:
        print("\nThe weights are not written, they are worse:", *losses, sep="\n  ", file=sys.stderr)
        return 1
    if options.write:
        write_table(ranking, "WEIGHTS", weights)
        write_table(relevance, "ANSWER", answer)
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data_options(parser, every="use each n-th question only, to explore")
    parser.add_argument("--l2", type=float, default=0.03, help="ridge penalty on standardised features (0.03)")
    parser.add_argument("--write", action="store_true", help="put the tables into actors/ranking.py")
    return parser.parse_args()


def fitted(examples: Sequence[Example], l2: float) -> Floats:
    """The weights under which the gold candidates get the greatest share of the scores, by Newton's method."""
    answered = [example for example in examples if example.gold.any()]
    rows = [(example.found.features, example.gold / example.gold.sum()) for example in answered]
    counts = Counter((example.set_name, example.variant) for example in answered)
    variants = len({example.variant for example in answered} - {AS_IT_IS})
    weighed = [(1 if e.variant != AS_IT_IS else max(1, variants)) / counts[e.set_name, e.variant] for e in answered]
    shares = [share / sum(weighed) for share in weighed]
    deviation = np.sqrt(sum(share * features.var(axis=0) for (features, _), share in zip(rows, shares, strict=True)))
    deviation = np.maximum(deviation, 1e-3)
    scaled = [(features / deviation, target, share) for (features, target), share in zip(rows, shares, strict=True)]
    believed = np.array([BELIEVED.get(name, 0.0) for name in FEATURES]) * deviation
    return np.asarray(newton(scaled, believed, l2) / deviation, np.float32)


def newton(
    rows: Sequence[tuple[Floats, Floats, float]], believed: NDArray[np.float64], l2: float
) -> NDArray[np.float64]:
    """The minimum of the loss; a step that does not lower it is halved."""
    weights = believed
    loss = softmax_loss(rows, weights, believed, l2)
    for _ in range(NEWTON_STEPS_MAX):
        gradient, curvature = l2 * (weights - believed), l2 * np.eye(len(weights))
        for features, target, share in rows:
            probability = softmax(features @ weights)
            mean = probability @ features
            gradient = gradient + share * (mean - target @ features)
            curvature += share * ((features * probability[:, None]).T @ features - np.outer(mean, mean))
        step = np.linalg.solve(curvature, gradient)
        while (lower := softmax_loss(rows, weights - step, believed, l2)) > loss and np.abs(step).max() > 1e-4:
            step /= 2
        if loss - lower < 1e-6:
            break
        weights, loss = weights - step, lower
    return weights


def softmax_loss(
    rows: Sequence[tuple[Floats, Floats, float]], weights: NDArray[np.float64], believed: NDArray[np.float64], l2: float
) -> float:
    """The mean negative log share of the gold, and the penalty for what departs from the belief."""
    shares = (share * float(target @ -np.log(softmax(features @ weights) + 1e-30)) for features, target, share in rows)
    return sum(shares) + l2 * float((weights - believed) @ (weights - believed)) / 2


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of e to the values."""
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum(), np.float64)


def cross_validated(examples: Sequence[Example], l2: float) -> dict[int, Floats]:
    """The scores of each example's candidates (by `id`), of a fit that has not seen its conversation."""
    scores = {}
    fold_of = folds([(example.set_name, example.conversation) for example in examples])
    for fold in range(FOLDS):
        weights = fitted([example for example in examples if fold_of[example.conversation] != fold], l2)
        unseen = (example for example in examples if fold_of[example.conversation] == fold)
        scores.update({id(example): example.found.features @ weights for example in unseen})
    return scores


def fitted_answer(examples: Sequence[Example], held_out: dict[int, Floats]) -> dict[str, float]:
    """Candidates that answer against those that do not, by the log of their share."""
    logs = [relevance.log_shares(held_out[id(example)], held_out[id(example)]) for example in examples]
    sizes = Counter(example.set_name for example in examples)
    shares = [np.full(len(log), 1 / sizes[example.set_name]) for example, log in zip(examples, logs, strict=True)]
    column = np.concatenate(logs)
    target = np.concatenate([example.gold for example in examples]).astype(np.float64)
    weights = logistic(np.stack([np.ones_like(column), column], axis=1), target, np.concatenate(shares))
    return dict(zip(relevance.ANSWER, weights, strict=True))


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


def groups(examples: Sequence[Example]) -> dict[str, NDArray[np.bool_]]:
    """Which examples are of each set as it is, and of all of its variants together."""
    found: dict[str, NDArray[np.bool_]] = {}
    for name in dict.fromkeys(example.set_name for example in examples):
        its = np.array([example.set_name == name for example in examples])
        varied = np.array([example.variant != AS_IT_IS for example in examples])
        found |= {name: its & ~varied, f"{name}, variants": its & varied}
    return {name: inside for name, inside in found.items() if inside.any()}


def report(examples: Sequence[Example], rankings: dict[str, Floats]) -> None:
    """A table for each group, then for each category of a set the fitted weights beside the base score."""
    for name, inside in groups(examples).items():
        print(f"\n{name}, n = {inside.sum()}\n{'':28}" + "".join(f"{metric:>8}" for metric in METRICS))
        for label, values in rankings.items():
            print(f"{label:28}" + "".join(f"{100 * value:8.1f}" for value in values[inside].mean(axis=0)), flush=True)
        if name not in {example.set_name for example in examples}:
            continue
        for category in sorted({example.category for example in examples if example.set_name == name}):
            chosen = inside & np.array([example.category == category for example in examples])
            before, *_, after = (values[chosen].mean(axis=0) for values in rankings.values())
            figures = "".join(f"{100 * old:8.1f}>{100 * new:4.1f}" for old, new in zip(before, after, strict=True))
            print(f"  {category[:20]:20}{chosen.sum():6}" + figures, flush=True)


def lost(examples: Sequence[Example], rankings: dict[str, Floats], new: str, old: str) -> list[str]:
    """Where a ranking is worse than another, by more than chance."""
    found = []
    for name, inside in groups(examples).items():
        difference = (rankings[new] - rankings[old])[inside]
        mean, error = difference.mean(axis=0), difference.std(axis=0) / np.sqrt(len(difference))
        found += [
            f"{name}, {metric}: {100 * mean[column]:+.1f}, {new} against {old}"
            for column, metric in enumerate(METRICS)
            if metric in GUARDED and mean[column] < -max(2 * float(error[column]), TOLERANCE)
        ]
    return found


if __name__ == "__main__":
    sys.exit(main())
