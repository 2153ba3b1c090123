"""What the texts of a vault's memories show of themselves: traits (`models.traits`) and who speaks.

Owns what was found out so far. Most memories are never asked about, so each is looked at when it first is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.memory import Memory
from models.traits import speaker_of, traits_of

SPEAKERS_MAX = 4_096
"""Names before a colon that are told apart; a vault with more has tables or logs in it, not speakers."""

_LOOKED_AT = 128  # beside the traits, and below the number of the speaker
_TRAIT_BITS = 8


class Showings:
    """One code a memory, by position; 0 until it is looked at."""

    __slots__ = ("_codes", "_speakers")

    def __init__(self) -> None:
        self._codes: NDArray[np.int32] = np.zeros(16, np.int32)
        self._speakers: dict[str, int] = {"": 0}

    def grow(self, positions: int) -> None:
        """There are so many memories now."""
        if positions > len(self._codes):
            more = np.zeros(max(positions, 2 * len(self._codes)) - len(self._codes), np.int32)
            self._codes = np.concatenate([self._codes, more])

    def of(
        self, positions: NDArray[np.integer], memories: Sequence[Memory | None]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """What the memories at these positions show, and the number of each one's speaker, 0 for none."""
        codes = self._codes
        for position in np.unique(positions[codes[positions] == 0]).tolist():
            memory = memories[position]
            if memory is not None:
                speaker = speaker_of(memory.content)
                if len(self._speakers) < SPEAKERS_MAX:
                    self._speakers.setdefault(speaker, len(self._speakers))
                number = self._speakers.get(speaker, 0)
                codes[position] = number << _TRAIT_BITS | _LOOKED_AT | traits_of(memory.content)
        found = codes[positions]
        return (found & (_LOOKED_AT - 1)).astype(np.uint8), found >> _TRAIT_BITS

    def speakers(self) -> list[str]:
        """The names of the speakers met so far, by number; "" stands for none."""
        return list(self._speakers)
