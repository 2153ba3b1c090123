"""What a vault needs to know of the settings. Owns these values only."""

from __future__ import annotations

import msgspec

from actors.imprint_keeper import MEMORIES_MIN
from actors.segmented_index import THRESHOLD

ANALYSED_INLINE_MAX = 1_000
"""Characters. A longer text is split and stemmed in a thread: 2 000 take 2 ms, most of it in the tokeniser, which lets
the loop go on, so that the end of the reply that is remembered goes out. Below, the hop costs more than it saves."""


class VaultLimits(msgspec.Struct, frozen=True):
    """What a vault needs to know of the settings.

    Attributes:
        analysed_inline_max: characters of a text up to which it is analysed in the turn itself, not in a thread.
    """

    repeat_window_s: float = 600
    chunk_tokens_max: int = 200
    relevance_min: float = 0.25
    screens: bool = False
    hnsw_threshold: int = THRESHOLD
    imprint_memories_min: int = MEMORIES_MIN
    analysed_inline_max: int = ANALYSED_INLINE_MAX
