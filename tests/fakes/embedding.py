"""A text encoder without a model: words are hashed to places of the vector.

Texts that share words are similar, nothing else is. Proven against the real model by the shared suite in
`tests/models/test_embedding.py`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+|[^\w\s]")


class HashEmbedding:
    """A deterministic `TextEncoder`: the bag of a text's hashed words. A word or a sign is one token."""

    def __init__(self, *, dims: int = 64, tokens_max: int = 256) -> None:
        self.dims = dims
        self.tokens_max = tokens_max
        self.id = f"hash-{dims}"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: (n, dims) float32, rows of length 1, in the order given."""
        vectors = np.zeros((len(texts), self.dims), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in _WORD.findall(text.lower())[: self.tokens_max]:
                place, sign = self._place(word)
                row[place] += sign
            if not row.any():  # no words, or words that cancel each other
                row[0] = 1.0
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _place(self, word: str) -> tuple[int, float]:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        number = int.from_bytes(digest, "little")
        return (number >> 1) % self.dims, 1.0 if number & 1 else -1.0

    def count_tokens(self, text: str) -> int:
        """Number of words and signs."""
        return len(self.token_offsets(text))

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """The (start, end) character offsets of each word or sign, in order."""
        return [match.span() for match in _WORD.finditer(text)]
