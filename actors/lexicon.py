"""The lexical leg of recall: which chunks hold the words of a question, and how much each word says.

Owns the postings of one vault, in memory. Must never see text (`models.words` makes the terms) nor wait for
anything. It is a cache: it is rebuilt from the memories when a vault is loaded, or from what `actors.imprint` kept.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors.holdings import Holding
from models.traits import TALKING

CHUNKS_MAX = 1 << 24
"""A posting is one 32-bit word: 24 bits of chunk number, 8 bits of term frequency."""

QUERY_TERMS_MAX = 256
"""Distinct terms of one question that count, the first ones: bounds the time of a recall."""

HELD_TERMS_MAX = 64
"""Of these, terms of which it is told which chunk holds which: the bits of a word."""

PURGE_TERMS_MAX = 1_000
"""Terms of one step of a purge: about 4 ms."""

PURGE_POSTINGS_MAX = 200_000
"""Postings of one step of a purge, by the last of which it ends: a few words hold most postings of a large vault."""

PURGE_SHARE_MIN = 1 / 64
"""Of the chunks that have to be removed before a purge of more than one step is worth it: for a million chunks it takes
a second, whether they are forty or half of them."""

# Term-frequency saturation and length normalisation. Against the usual 1.2 and 0.75 they give LoCoMo MRR 56.2
# instead of 54.2, BEAM 60.2 with both; Anserini chose the same pair for short passages.
K1 = 0.9
B = 0.4

_FREQUENCY_BITS = 8
_FREQUENCY_MAX = (1 << _FREQUENCY_BITS) - 1
_POSTING_BYTES = 4
_TERM_BYTES = 140  # a dict entry, the term's string and its only posting, measured with tracemalloc
_ARRAY_BYTES = 90  # what an array takes more than an only posting, with slack
_CHUNK_BYTES = 5  # its length and its mark


class LexicalMatch(msgspec.Struct, frozen=True, eq=False):
    """How the chunks of a vault match a question.

    Attributes:
        scores: float32 per chunk: BM25.
        coverage: float32 per chunk, 0..1: the share of the question's terms that the chunk holds, weighted by
            how rare they are in this vault; terms that the vault does not know count as missing, those in
            `models.traits.TALKING` not at all.
        held: uint64 per chunk: which of the first `HELD_TERMS_MAX` terms it holds, the first one in the lowest bit.
            None where nobody has looked: then nothing is held.
        terms: these terms.
        weights: float32 per term of `terms`: how rare it is.
    """

    scores: NDArray[np.float32]
    coverage: NDArray[np.float32]
    held: NDArray[np.uint64] | None = None
    terms: tuple[str, ...] = ()
    weights: NDArray[np.float32] = np.zeros(0, np.float32)

    def among(self, chunks: NDArray[np.integer]) -> LexicalMatch:
        """The same of only some chunks."""
        return msgspec.structs.replace(
            self,
            scores=self.scores[chunks],
            coverage=self.coverage[chunks],
            held=None if self.held is None else self.held[chunks],
        )


class Postings(msgspec.Struct, frozen=True, eq=False):
    """The postings of chunks 0 to `len(lengths)` - 1, term after term in one array: what a lexicon is kept as.

    Attributes:
        terms: each once, in the order of its first chunk.
        counts: int64 per term: how many postings it has, at least one.
        packed: uint32: chunk number and frequency, the chunks of a term rising.
        lengths: uint32 per chunk: its terms, repetitions counted.
    """

    terms: list[str]
    counts: NDArray[np.int64]
    packed: NDArray[np.uint32]
    lengths: NDArray[np.uint32]

    def renumbered(self, numbers: NDArray[np.int32]) -> Postings:
        """The same with other chunk numbers.

        Args:
            numbers: per chunk its new number, or -1 to leave it out. The new ones rise from 0 without gaps.
        """
        chunks = numbers[self.packed >> _FREQUENCY_BITS]
        living = chunks >= 0
        packed = chunks[living].astype(np.uint32) << _FREQUENCY_BITS | self.packed[living] & _FREQUENCY_MAX
        starts = np.cumsum(self.counts) - self.counts
        counts = np.add.reduceat(living, starts, dtype=np.int64) if len(starts) else self.counts
        terms = [self.terms[place] for place in np.flatnonzero(counts).tolist()]
        return Postings(terms=terms, counts=counts[counts > 0], packed=packed, lengths=self.lengths[numbers >= 0])


Held: TypeAlias = "int | array[int]"
"""The postings of one term. Most terms of a vault have but one, and an array takes three times the room of an int."""


class LexiconCopy(msgspec.Struct, frozen=True, eq=False):
    """A lexicon as of one moment, for a thread to read while the lexicon goes on changing. The lists are the lexicon's
    own: they are only appended to, or replaced, so all that belongs to the moment stays to be seen."""

    held: list[tuple[str, Held]]
    lengths: NDArray[np.float32]
    alive: NDArray[np.bool_]

    def postings(self) -> Postings:
        """The postings of the living chunks, renumbered without gaps. May run in a thread."""
        parts = [_bytes_of(postings) for _, postings in self.held]  # each in one step of the interpreter
        packed = np.frombuffer(b"".join(parts), np.uint32)
        numbers = np.append(np.where(self.alive, np.cumsum(self.alive) - 1, -1), -1).astype(np.int32)
        added_since = np.uint32(len(self.alive) << _FREQUENCY_BITS)
        whole = Postings(
            terms=[term for term, _ in self.held],
            counts=np.array([len(part) for part in parts], np.int64) // _POSTING_BYTES,
            packed=np.minimum(packed, added_since),
            lengths=np.append(self.lengths, 0).astype(np.uint32),
        )
        return whole.renumbered(numbers)


class Lexicon:
    """Incremental BM25 over chunks numbered from 0 in the order of adding.

    BM25 after Robertson and Zaragoza, "The Probabilistic Relevance Framework" (2009), with the inverse
    document frequency of Lucene, ln(1 + (N - n + 0.5) / (n + 0.5)), which is never negative.

    A removed chunk keeps its number and scores 0. Its postings go when they are next met, or by `purge`;
    results are exact at any time.
    """

    __slots__ = (
        "_alive",
        "_alive_count",
        "_arrays_count",
        "_count",
        "_lengths",
        "_postings",
        "_postings_count",
        "_removed",
        "_terms_total",
        "_unpurged",
    )

    def __init__(self) -> None:
        self._postings: dict[str, Held] = {}
        self._postings_count = 0
        self._arrays_count = 0  # terms with more than one posting
        self._lengths: NDArray[np.float32] = np.zeros(64, np.float32)
        self._alive: NDArray[np.bool_] = np.zeros(64, np.bool_)
        self._count = 0
        self._alive_count = 0
        self._terms_total = 0
        self._removed = 0  # since the last purge
        self._unpurged: list[str] = []

    def __len__(self) -> int:
        """The number of chunks ever added, removed ones included: the next chunk's number."""
        return self._count

    @classmethod
    def of(cls, postings: Postings) -> Lexicon:
        """A lexicon with these chunks, as if they had been added one after the other. May run in a thread."""
        lexicon = cls()
        lexicon._count = lexicon._alive_count = len(postings.lengths)
        capacity = max(lexicon._count, len(lexicon._lengths))
        lexicon._lengths = np.zeros(capacity, np.float32)
        lexicon._lengths[: lexicon._count] = postings.lengths
        lexicon._alive = np.arange(capacity) < lexicon._count
        lexicon._terms_total = int(postings.lengths.sum())
        lexicon._postings_count = len(postings.packed)
        lexicon._arrays_count = int((postings.counts > 1).sum())
        data = postings.packed.tobytes()
        ends = np.cumsum(postings.counts)
        starts = ends - postings.counts
        firsts = postings.packed[starts].tolist()
        bounds = zip((starts * _POSTING_BYTES).tolist(), (ends * _POSTING_BYTES).tolist(), strict=True)
        lexicon._postings = {
            term: first if end - start == _POSTING_BYTES else array("I", data[start:end])
            for term, first, (start, end) in zip(postings.terms, firsts, bounds, strict=True)
        }
        return lexicon

    def copy(self) -> LexiconCopy:
        """All of it, for a thread to make `Postings` of. Takes about 0.1 us a term."""
        return LexiconCopy(
            held=list(self._postings.items()),
            lengths=self._lengths[: self._count].copy(),
            alive=self._alive[: self._count].copy(),
        )

    def holdings(self) -> list[Holding]:
        """What takes time to be freed."""
        return [self._postings]

    @property
    def nbytes(self) -> int:
        """An estimate of the memory held, in bytes."""
        chunks = len(self._lengths) * _CHUNK_BYTES
        terms = len(self._postings) * _TERM_BYTES + self._arrays_count * _ARRAY_BYTES
        return terms + self._postings_count * 5 + chunks

    def add(self, terms: Sequence[str]) -> int:
        """Add a chunk by its terms and return its number.

        Raises:
            OverflowError: the vault holds `CHUNKS_MAX` chunks.
        """
        chunk = self._count
        if chunk >= CHUNKS_MAX:
            raise OverflowError(f"A lexicon holds at most {CHUNKS_MAX} chunks.")
        if chunk == len(self._lengths):
            self._lengths = np.concatenate([self._lengths, np.zeros_like(self._lengths)])
            self._alive = np.concatenate([self._alive, np.zeros_like(self._alive)])
        frequencies = Counter(terms)
        for term, frequency in frequencies.items():
            posting = chunk << _FREQUENCY_BITS | min(frequency, _FREQUENCY_MAX)
            held = self._postings.get(term)
            if isinstance(held, array):
                held.append(posting)
            elif held is None:
                self._postings[term] = posting
            else:
                self._postings[term] = array("I", (held, posting))
                self._arrays_count += 1
        self._postings_count += len(frequencies)
        self._lengths[chunk] = len(terms)
        self._alive[chunk] = True
        self._count += 1
        self._alive_count += 1
        self._terms_total += len(terms)
        return chunk

    def remove(self, chunk: int) -> None:
        """Forget a chunk. Removing it again changes nothing.

        Raises:
            IndexError: no such chunk was ever added.
        """
        if not 0 <= chunk < self._count:
            raise IndexError(chunk)
        if not self._alive[chunk]:
            return
        self._alive[chunk] = False
        self._alive_count -= 1
        self._removed += 1
        self._terms_total -= int(self._lengths[chunk])
        self._lengths[chunk] = 0
        self._unpurged = []  # the next purge looks at every term again

    def purge(self, terms_max: int = PURGE_TERMS_MAX) -> bool:
        """Drop postings of removed chunks and terms that only they held, a bounded number of terms at a time.

        Returns:
            Whether all terms have been looked at, or none need be; the caller repeats until then, with other work in
            between.
        """
        if not self._removed:
            return True
        if self._postings_count > PURGE_POSTINGS_MAX and self._removed < PURGE_SHARE_MIN * self._count:
            return True
        if not self._unpurged:
            self._unpurged = list(self._postings)
        postings = 0
        for _ in range(min(terms_max, len(self._unpurged))):
            term = self._unpurged.pop()
            held = self._postings.get(term, 0)
            postings += 1 if isinstance(held, int) else len(held)
            self._living_postings(term)
            if postings >= PURGE_POSTINGS_MAX:
                break
        if self._unpurged:
            return False
        self._removed = 0
        return True

    def document_frequency(self, term: str) -> int:
        """In how many chunks a term occurs."""
        return len(self._living_postings(term))

    def chunks_with(self, term: str) -> NDArray[np.uint32]:
        """The living chunks that hold a term, rising."""
        return np.asarray(self._living_postings(term) >> _FREQUENCY_BITS, np.uint32)

    def scores(self, query_terms: Iterable[str]) -> NDArray[np.float32]:
        """BM25 of each chunk, float32 of shape (len(self),)."""
        return self.match(query_terms).scores

    def match(self, query_terms: Iterable[str]) -> LexicalMatch:
        """Score each chunk against a question; a repeated term counts once."""
        scores = np.zeros(self._count, np.float32)
        coverage = np.zeros(self._count, np.float32)
        held = np.zeros(self._count, np.uint64)
        weights = []
        norms = self._norms()
        wanted = list(dict.fromkeys(query_terms))[:QUERY_TERMS_MAX]
        for number, term in enumerate(wanted):
            postings = self._living_postings(term)
            frequency_of_documents = len(postings)
            weight = float(
                np.log1p((self._alive_count - frequency_of_documents + 0.5) / (frequency_of_documents + 0.5))
            )
            weights.append(weight)
            if not frequency_of_documents:
                continue
            chunks = (postings >> _FREQUENCY_BITS).astype(np.intp)  # as numpy wants it, once and not at each use
            frequencies = (postings & _FREQUENCY_MAX).astype(np.float32)
            scores[chunks] += weight * (K1 + 1) * frequencies / (frequencies + norms[chunks])
            if term not in TALKING:
                coverage[chunks] += weight
            if number < HELD_TERMS_MAX:
                held[chunks] |= np.uint64(1 << number)
        total = sum(weight for term, weight in zip(wanted, weights, strict=True) if term not in TALKING)
        if total > 0:
            coverage /= total
        return LexicalMatch(
            scores=scores,
            coverage=coverage,
            held=held,
            terms=tuple(wanted[:HELD_TERMS_MAX]),
            weights=np.array(weights[:HELD_TERMS_MAX], np.float32),
        )

    def _norms(self) -> NDArray[np.float32]:
        """The length-dependent part of BM25's denominator, per chunk."""
        average = self._terms_total / self._alive_count if self._terms_total else 1.0
        return np.asarray(K1 * (1 - B + B / average * self._lengths[: self._count]), np.float32)

    def _living_postings(self, term: str) -> NDArray[np.uint32]:
        """The postings of a term without removed chunks, as a copy; what is dead is dropped for good."""
        held = self._postings.get(term)
        if held is None:
            return np.zeros(0, np.uint32)
        # A copy: a view of an array would forbid it to grow.
        postings = np.array((held,) if isinstance(held, int) else held, np.uint32)
        if self._alive_count == self._count:
            return postings
        alive = self._alive[postings >> _FREQUENCY_BITS]
        if alive.all():
            return postings
        living: NDArray[np.uint32] = postings[alive]
        self._postings_count -= len(postings) - len(living)
        self._hold(term, living)
        return living

    def _hold(self, term: str, living: NDArray[np.uint32]) -> None:
        """These postings are fewer than the term has had."""
        if len(living) > 1:
            self._postings[term] = array("I", living.tobytes())
            return
        self._arrays_count -= not isinstance(self._postings[term], int)
        if len(living):
            self._postings[term] = int(living[0])
        else:
            del self._postings[term]


def _bytes_of(postings: Held) -> bytes:
    return postings.to_bytes(_POSTING_BYTES, sys.byteorder) if isinstance(postings, int) else postings.tobytes()
