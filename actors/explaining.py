"""Why a memory stands where it stands: its row of features, by name.

Owns what is said of memories that were not compared themselves. Pure; called only where somebody asked, and must never
change a ranking. `actors.ranking.explanation` puts the weights beside it.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from actors.features import FEATURES
from actors.ranking_inputs import RankQuery, VaultArrays


class Compared(Protocol):
    """What is needed of `actors.ranking.Candidates`."""

    @property
    def memories(self) -> NDArray[np.int64]:
        """Their numbers."""
        ...

    @property
    def features(self) -> NDArray[np.float32]:
        """A row each."""
        ...

    @property
    def base(self) -> NDArray[np.float32]:
        """Per memory of the vault."""
        ...


def explained(
    order: NDArray[np.int32],
    found: Compared,
    scores: NDArray[np.float32],
    query: RankQuery,
    arrays: VaultArrays,
) -> tuple[dict[str, float], ...]:
    """The features of each memory of a ranking: those of the best candidate that says the same, and the base score
    alone of what was not compared.

    Args:
        scores: per candidate.
    """
    by_text: dict[int, dict[str, float]] = {}
    for place in np.argsort(scores, kind="stable").tolist():
        memory = found.memories[place]
        row = dict(zip(FEATURES, found.features[place].tolist(), strict=True))
        if query.preferred_session is not None:
            row["preferred_session"] = float(arrays.session[memory] == query.preferred_session)
        by_text[int(arrays.text_number[memory])] = row
    return tuple(by_text.get(int(arrays.text_number[memory]), {"base": float(found.base[memory])}) for memory in order)
