"""What is each part of the ranking worth? Each is left out, and the weights of the rest are kept, or fitted again.

    python -m bench.ablations locomo.json beam.json --cache DIR

Reads files as `bench.recall_quality` does. First what ranking is told is left out: the words, the meaning, what stands
beside a memory, its session, what its text shows, the times of the question. Then groups of features. `kept` are the
product's weights, which have seen these questions; `fitted` are fitted again without the part, on the other
conversations (five folds). Each is any@5, any@10, all@10 and MRR in percent.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from actors import ranking
from actors.features import FEATURES
from actors.ranking_inputs import RankQuery, VaultArrays
from bench._examples import Example, Floats, example_of, open_vault, questions_of, read
from bench._options import data_options
from bench._variants import AS_IT_IS
from bench.fit_ranking import METRICS, cross_validated, results
from models.embedding import EmbeddingModel, open_embedding_model

Change = Callable[[RankQuery, VaultArrays], tuple[RankQuery, VaultArrays]]

FIT_L2 = 0.03
NOTHING = "nothing"
SHOWN = [METRICS.index(name) for name in ("any@5", "any@10", "all@10", "MRR")]

GROUPS: dict[str, tuple[str, ...]] = {
    "all but the base score": tuple(name for name in FEATURES if name != "base"),
    "each leg again: lexical, dense": ("lexical", "dense"),
    "place": ("place",),
    "neighbours: before, answers, coverage": ("before", "answers", "coverage"),
    "answers": ("answers",),
    "coverage": ("coverage",),
    "speaker": ("speaker",),
    "what is asked for: time, number": ("time", "number"),
    "prefers": ("prefers",),
    "exact": ("exact",),
    "shape: asks, long": ("asks", "long"),
    "told": ("told",),
}


def without_words(query: RankQuery, arrays: VaultArrays) -> tuple[RankQuery, VaultArrays]:
    nothing = np.zeros_like(query.lexical.scores)
    lexical = msgspec.structs.replace(query.lexical, scores=nothing, coverage=nothing, held=None)
    return msgspec.structs.replace(query, lexical=lexical), arrays


def without_meaning(query: RankQuery, arrays: VaultArrays) -> tuple[RankQuery, VaultArrays]:
    return msgspec.structs.replace(query, dense=None), arrays


def without_neighbours(query: RankQuery, arrays: VaultArrays) -> tuple[RankQuery, VaultArrays]:
    nobody = np.full_like(arrays.previous, -1)
    return query, msgspec.structs.replace(arrays, previous=nobody, next=nobody)


def without_sessions(query: RankQuery, arrays: VaultArrays) -> tuple[RankQuery, VaultArrays]:
    return query, msgspec.structs.replace(arrays, session=np.zeros_like(arrays.session))


def without_texts(query: RankQuery, arrays: VaultArrays) -> tuple[RankQuery, VaultArrays]:
    return msgspec.structs.replace(query, describe=None), arrays


def without_times(query: RankQuery, arrays: VaultArrays) -> tuple[RankQuery, VaultArrays]:
    return msgspec.structs.replace(query, intervals=()), arrays


INPUTS: dict[str, Change] = {
    NOTHING: lambda query, arrays: (query, arrays),
    "words": without_words,
    "meaning": without_meaning,
    "neighbours": without_neighbours,
    "sessions": without_sessions,
    "what texts show": without_texts,
    "times of the question": without_times,
}


def main() -> int:
    """A line for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data_options(parser, every="")
    options = parser.parse_args()
    encoder = open_embedding_model(options.cache / "models", threads=1)
    by_input: dict[str, list[Example]] = {name: [] for name in INPUTS}
    for path in options.data:
        for name, example in asked(path, encoder, options.cache):
            by_input[name].append(example)
    print(
        f"{'left out':42}" + "".join(f"{path.stem[:11]:>14} kept{'':10}{'fitted':>20}{'':8}" for path in options.data)
    )
    for name, examples in by_input.items():
        print_line(name, examples)
    for name, group in GROUPS.items():
        kept = np.array([feature not in group for feature in FEATURES], np.float32)
        print_line(name, [with_features(example, kept) for example in by_input[NOTHING]])
    return 0


def asked(path: Path, encoder: EmbeddingModel, cache: Path) -> list[tuple[str, Example]]:
    """Each question of a file, under each change of what ranking is told."""
    found = []
    for data in read(path):
        opened = open_vault(data, encoder, cache)
        for question, told in questions_of(data, opened, encoder, cache):
            for name, change in INPUTS.items():
                candidates = ranking.candidates(*change(*told))
                if candidates is not None:
                    found.append((name, example_of(path.stem, data.vault, question, candidates, opened, AS_IT_IS)))
    return found


def with_features(example: Example, kept: Floats) -> Example:
    """An example whose other features are 0."""
    found = msgspec.structs.replace(example.found, features=example.found.features * kept)
    return msgspec.structs.replace(example, found=found)


def print_line(name: str, examples: Sequence[Example]) -> None:
    """Per set, the figures with the product's weights, and with weights fitted again."""
    table = np.array([ranking.WEIGHTS[feature] for feature in FEATURES], np.float32)
    held_out = cross_validated(examples, FIT_L2)
    both = (
        results(examples, lambda example: example.found.features @ table),
        results(examples, lambda example: held_out[id(example)]),
    )
    line = f"{name:42}"
    for set_name in dict.fromkeys(example.set_name for example in examples):
        inside = np.array([example.set_name == set_name for example in examples])
        for values in both:
            line += "".join(f"{100 * value:6.1f}" for value in values[inside].mean(axis=0)[SHOWN]) + "  "
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
