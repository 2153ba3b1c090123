"""What the texts of a vault show, as ranking asks for it.

The bridge between the catalogue, which has the texts, and ranking, which must not see them. Owns nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from actors.catalogue import Catalogue
from actors.lexicon import LexicalMatch
from actors.ranking_inputs import Describe, Described
from models.words import terms


def describing(catalogue: Catalogue, match: LexicalMatch) -> Describe:
    """What ranking may ask about memories while it answers one question.

    Args:
        match: of the question; its terms may name who speaks.
    """
    bits = {term: 1 << place for place, term in enumerate(match.terms)}

    def describe(memories: NDArray[np.integer]) -> Described:
        traits, numbers = catalogue.shown(memories)
        names = catalogue.speakers()
        met, where = np.unique(numbers, return_inverse=True)
        named = [sum(bits.get(term, 0) for term in set(terms(names[number]))) for number in met.tolist()]
        return Described(traits=traits, speaker_terms=np.array(named, np.uint64)[where])

    return describe
