"""Which texts go into a context, and which of them stand together: the last step before rendering.

Owns the rules of the density cap, of the token budget, of what a text needs beside it to be understood, and of repeats.
Pure: it counts with the function that it is given. Must never change the order of merit: a text is left out only for
repeating a better one, for want of room, or for belonging to a hit that is out itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from models.memory import Memory
from models.messages import Hit
from models.text import normalised
from models.traits import ends_asking
from models.words import terms

TERSE_TERMS_MAX = 5
"""An answer of so few words ("Yes, the second one.") says nothing without its question."""

TERSE_CHARACTERS_MAX = 120
"""Longer texts are not looked at: counting words takes time."""

TOGETHER_WITHIN_MS = 3_600_000
"""Turns that follow each other within this share an entry: its header tells the time of the first."""

COMPANION_CHARACTERS_MAX = 300
"""Longer neighbours stay out: they say themselves what they are about, and cost more than what they bring."""


class Piece(msgspec.Struct, frozen=True):
    """A text of a context.

    Attributes:
        is_hit: it was found; otherwise it stands there for the sake of one that was.
    """

    memory: Memory
    text: str
    is_hit: bool = True


Entry = tuple[Piece, ...]
"""Turns that followed each other, oldest first."""

Cost = Callable[[Piece, bool], int]
"""Tokens of a piece: with the header of an entry, or, for True, as a further turn of one."""


def pack(
    hits: Iterable[Hit], *, hits_max: int, tokens_max: int | None, cost: Cost, left_out: str | None = None
) -> list[Entry]:
    """The entries of a context, oldest first.

    Args:
        hits: best first.
        hits_max: how many of them at most; what makes them understood does not count.
        tokens_max: for all entries together, without what frames them; None for no bound. A hit that does not fit is
            passed over for the next that does.
        left_out: what no hit may say, as `normalised`.
    """
    packed = _Pack(hits_max=hits_max, tokens_max=tokens_max, cost=cost)
    taken = [hit for hit in hits if packed.add(hit, left_out=left_out)]
    for hit in taken:
        packed.add_companions(hit)
    return packed.entries()


class _Pack:
    """A context in the making."""

    def __init__(self, *, hits_max: int, tokens_max: int | None, cost: Cost) -> None:
        self._hits_left = hits_max
        self._tokens_left = tokens_max
        self._cost = cost
        self._pieces: dict[int, Piece] = {}  # by seq
        self._following: dict[int, int] = {}  # seq of a turn -> seq of the next, where they may share an entry
        self._preceding: dict[int, int] = {}
        self._texts: set[str] = set()

    def add(self, hit: Hit, *, left_out: str | None) -> bool:
        """Take a hit in, if it says something new and there is room."""
        words = normalised(hit.matched)
        if not self._hits_left or words in self._texts or words == left_out:
            return False
        self._link(hit)
        if not self._take(Piece(memory=hit.memory, text=hit.matched)):
            return False
        self._hits_left -= 1
        self._texts.add(words)
        return True

    def add_companions(self, hit: Hit) -> None:
        """Take in what makes a hit understood, as far as there is room."""
        for piece in companions_of(hit):
            if piece.memory.seq not in self._pieces and normalised(piece.text) not in self._texts:
                self._take(piece)

    def _link(self, hit: Hit) -> None:
        for first, second in ((hit.before, hit.memory), (hit.memory, hit.after)):
            if first is not None and second is not None and are_together(first, second):
                self._following[first.seq] = second.seq
                self._preceding[second.seq] = first.seq

    def _take(self, piece: Piece) -> bool:
        seq = piece.memory.seq
        if self._tokens_left is not None:
            beside = self._following.get(seq) in self._pieces or self._preceding.get(seq) in self._pieces
            tokens = self._cost(piece, beside)
            if tokens > self._tokens_left:
                return False
            self._tokens_left -= tokens
        self._pieces[seq] = piece
        return True

    def entries(self) -> list[Entry]:
        """What was taken in; turns that followed each other as one entry."""
        entries = []
        for first in self._pieces:
            if self._preceding.get(first) not in self._pieces:
                entry, seq = [], first
                while seq in self._pieces:
                    entry.append(self._pieces[seq])
                    seq = self._following.get(seq, -1)
                entries.append(tuple(entry))
        return sorted(entries, key=lambda entry: entry[0].memory.timestamp_ms)


def are_together(first: Memory, second: Memory) -> bool:
    """Whether the second, said next in its session, may share an entry with the first."""
    return second.timestamp_ms - first.timestamp_ms <= TOGETHER_WITHIN_MS


def companions_of(hit: Hit) -> Iterator[Piece]:
    """What makes a hit understood: the brief answer to a question, the brief question to a terse answer."""
    if hit.after is not None and ends_asking(hit.matched):
        yield from _companion(hit.memory, hit.after, chunk=0, beside=hit.after)
    if hit.before is not None and is_terse(hit.matched) and ends_asking(hit.before.content):
        yield from _companion(hit.before, hit.memory, chunk=-1, beside=hit.before)


def is_terse(text: str) -> bool:
    """Whether a text says little by itself."""
    return len(text) <= TERSE_CHARACTERS_MAX and len(terms(text)) <= TERSE_TERMS_MAX


def _companion(first: Memory, second: Memory, *, chunk: int, beside: Memory) -> Iterator[Piece]:
    start, end = beside.spans[chunk]
    if are_together(first, second) and end - start <= COMPANION_CHARACTERS_MAX:
        yield Piece(memory=beside, text=beside.content[start:end], is_hit=False)
