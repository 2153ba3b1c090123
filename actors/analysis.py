"""What the text functions say of one message: its chunks, their words, its length. Pure, so it may run in a thread.

Owns how a message becomes chunks with words. Must never know which vault it is for.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.chunking import chunk_spans
from models.embedding import TextEncoder
from models.memory import Message
from models.text import is_small_talk
from models.words import terms


class Analysis(msgspec.Struct, frozen=True):
    """What the text functions say of one message: pure, so it may be computed in a thread.

    Attributes:
        chunk_terms: the words of each chunk, in the order of `spans`.
    """

    spans: tuple[tuple[int, int], ...]
    chunk_terms: tuple[tuple[str, ...], ...]
    tokens: int
    small_talk: bool


def analyse(message: Message, encoder: TextEncoder, chunk_tokens_max: int) -> Analysis:
    """Chunk, count and stem a message; one that brings vectors of the present model keeps the chunks they are of."""
    content = message.content
    brought = usable_vectors(message, encoder) is not None
    spans = message.embedded.spans if brought and message.embedded else chunk_spans(content, encoder, chunk_tokens_max)
    return Analysis(
        spans=spans,
        chunk_terms=tuple(tuple(terms(content[start:end])) for start, end in spans),
        tokens=encoder.count_tokens(content),
        small_talk=is_small_talk(content),
    )


def usable_vectors(message: Message, encoder: TextEncoder) -> NDArray[np.float16] | None:
    """The vectors that an import brought, if they are of this model and fit the message's chunks."""
    embedded = message.embedded
    if embedded is None or embedded.model_id != encoder.id:
        return None
    ends = [end for _, end in embedded.spans]
    starts = [start for start, _ in embedded.spans]
    ordered = all(before <= start < end for before, start, end in zip([0, *ends], starts, ends, strict=False))
    rows = np.frombuffer(embedded.rows, dtype="<f2") if len(embedded.rows) % 2 == 0 else np.zeros(0, "<f2")
    if not ends or not ordered or ends[-1] > len(message.content) or len(rows) != len(ends) * encoder.dims:
        return None
    return rows.reshape(len(ends), encoder.dims) if np.isfinite(rows).all() else None


def unanalysed(content: str) -> Analysis:
    """What is known of a message that the tokeniser cannot read: one chunk, found by all of its words."""
    return Analysis(((0, len(content)),), (tuple(terms(content)),), tokens=0, small_talk=False)
