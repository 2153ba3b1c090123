"""What the text functions say of one message: its chunks, their words, its length. Pure, so it may run in a thread.

Owns how a message becomes chunks with words. Must never know which vault it is for.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.chunking import chunk_spans
from models.embedding import TextModel
from models.memory import LOCAL_RECALL_MODEL, Exchange, Memory, Message, Role
from models.screening import flags_of
from models.text import is_small_talk
from models.words import terms


class Analysis(msgspec.Struct, frozen=True):
    """What the text functions say of one message: pure, so it may be computed in a thread.

    Attributes:
        chunk_terms: the words of each chunk, in the order of `spans`.
        flags: see `models.screening`.
    """

    spans: tuple[tuple[int, int], ...]
    chunk_terms: tuple[tuple[str, ...], ...]
    tokens: int
    small_talk: bool
    flags: int = 0


def analyse(message: Message, encoder: TextModel, chunk_tokens_max: int) -> Analysis:
    """Chunk, count and stem a message; one that brings vectors of the present model keeps the chunks they are of."""
    content = message.content
    tokens = _Tokens(encoder)
    brought = usable_vectors(message, encoder) is not None
    spans = message.embedded.spans if brought and message.embedded else chunk_spans(content, tokens, chunk_tokens_max)
    return Analysis(
        spans=spans,
        chunk_terms=tuple(tuple(terms(content[start:end])) for start, end in spans),
        tokens=encoder.count_tokens(content) if tokens.count is None else tokens.count,
        small_talk=is_small_talk(content),
        flags=flags_of(content),
    )


class _Tokens:
    """A text's tokens, counted where they are looked at anyway: to read 2 kB once more takes a millisecond."""

    def __init__(self, model: TextModel) -> None:
        self._model = model
        self.count: int | None = None

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """As the model's; of one text."""
        offsets = self._model.token_offsets(text)
        self.count = len(offsets)
        return offsets


def usable_vectors(message: Message, encoder: TextModel) -> NDArray[np.float16] | None:
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
    return Analysis(((0, len(content)),), (tuple(terms(content)),), tokens=0, small_talk=False, flags=flags_of(content))


def memory_of(message: Message, exchange: Exchange, analysis: Analysis, *, seq: int) -> Memory:
    """What a message of this exchange is remembered as."""
    return Memory(
        seq=seq,
        role=message.role,
        content=message.content,
        timestamp_ms=exchange.accepted_ms if message.timestamp_ms is None else message.timestamp_ms,
        timestamp_given=message.timestamp_ms is not None,
        stored_ms=exchange.accepted_ms,
        source=exchange.source,
        tokens=analysis.tokens,
        spans=() if is_echo(message.role, exchange.model) else analysis.spans,
        session_id=message.session_id,
        model=exchange.model,
        external_id=message.external_id,
        metadata=message.metadata,
        request_id=exchange.request_id,
        small_talk=analysis.small_talk,
        key_number=exchange.key_number,
        flags=analysis.flags,
    )


def is_echo(role: Role, model: str | None) -> bool:
    """Whether a memory quotes others, so that recalling it would only repeat them."""
    return model == LOCAL_RECALL_MODEL and role == "assistant"
