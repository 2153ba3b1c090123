"""What the texts of a vault show, as ranking asks for it.

The bridge between the catalogue, which has the texts, and ranking, which must not see them. Owns nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from actors.catalogue import Catalogue
from actors.lexicon import LexicalMatch
from actors.ranking_inputs import Describe, Described
from models.words import terms

EXACT_CHARACTERS_MAX = 8_000
"""Of a text that are searched for what a question wants word for word: it bounds the time, 2 ms for the longest."""


def describing(catalogue: Catalogue, match: LexicalMatch, exact: Sequence[str] = ()) -> Describe:
    """What ranking may ask about memories while it answers one question.

    Args:
        match: of the question; its terms may name who speaks.
        exact: what the question wants word for word, as `models.traits.exact_of`.
    """
    bits = {term: 1 << place for place, term in enumerate(match.terms)}

    def speaker_terms(numbers: NDArray[np.int32]) -> NDArray[np.uint64]:
        if not numbers.any():
            return np.zeros(len(numbers), np.uint64)
        names = catalogue.speakers()
        met, where = np.unique(numbers, return_inverse=True)
        named = [sum(bits.get(term, 0) for term in set(terms(names[number]))) for number in met.tolist()]
        return np.array(named, np.uint64)[where]

    def describe(memories: NDArray[np.integer]) -> Described:
        traits, numbers = catalogue.shown(memories)
        held = np.zeros(len(memories), np.float32)
        if exact:
            texts = (catalogue.at(int(memory)).content[:EXACT_CHARACTERS_MAX].casefold() for memory in memories)
            held[:] = [sum(phrase in text for phrase in exact) / len(exact) for text in texts]
        return Described(traits=traits, speaker_terms=speaker_terms(numbers), exact=held)

    return describe
