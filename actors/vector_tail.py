"""The part of a vault's vectors that is scanned: all of them in a small vault, the newest in a large one.

Owns the rows. Must never know of segments.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors.holdings import Holding

Floats = NDArray[np.float32]
Rows = NDArray[np.float16] | NDArray[np.float32]

_BLOCK_ROWS = 2_048  # as in `actors.index`: no slice of work waits for a larger copy
_GROWTH_ROWS_MIN = 8
_BATCH_ROWS = 256

_HALF_ROWS_MAX = 512
"""Rows up to which a block holds float16, all that vectors have when they come from the store or the model: a vault of
100 memories takes 77 kB instead of 197."""

# A float16's sign, and its exponent and mantissa where a float32 has them. The value is then 2 ** 112 times too small:
# the biases differ by that much. A cast of numpy would take five times as long.
_HALF_SHIFT = 13
_HALF_MASK = np.int32(-0x70002000)
_HALF_SCALE = np.float32(2.0**112)


class Moments(msgspec.Struct, frozen=True):
    """How similar a set of vectors is to a question: how many they are, the mean, and the mean of the squares."""

    count: int
    mean: float
    square: float


def moments_of(count: int, scores: Floats) -> Moments:
    """Moments of `count` vectors, of which these scores are all or a sample."""
    if not len(scores):
        return Moments(count=0, mean=0.0, square=0.0)
    return Moments(count=count, mean=float(scores.mean()), square=float(np.square(scores).mean()))


class _Block:
    """Vectors of chunks in a row; what stands where `has` is false means nothing."""

    __slots__ = ("has", "known", "rows")

    def __init__(self, rows: int, dims: int) -> None:
        shape = (rows, dims)
        half = rows <= _HALF_ROWS_MAX
        self.rows: Rows = np.zeros(shape, np.float16) if half else np.zeros(shape, np.float32)
        self.has = np.zeros(rows, np.bool_)
        self.known = 0  # vectors

    def set(self, places: NDArray[np.integer], rows: Floats | float, has: NDArray[np.bool_] | bool) -> None:
        self.rows[places] = rows
        self.has[places] = has
        self.known = int(np.count_nonzero(self.has))

    def scores(self, query: Floats, out: Floats) -> None:
        """The product of each vector with a query; NaN without vector."""
        if self.rows.dtype == np.float16:
            wide = np.left_shift(self.rows.view(np.int16), _HALF_SHIFT, dtype=np.int32)
            np.bitwise_and(wide, _HALF_MASK, out=wide)
            np.matmul(wide.view(np.float32), query * _HALF_SCALE, out=out)
        else:
            np.matmul(self.rows, query, out=out)
        if self.known < len(self.has):
            out[~self.has] = np.nan


class Tail:
    """Vectors in blocks by chunk number. A block without vectors takes no memory.

    Large blocks are float32, because what is smaller costs more than it saves: 10 000 rows of 384 take 1.1 ms; as
    float16 6.7 ms, most of it to widen them; as int8, widened in pieces that stay in the cache, 0.7 ms, to which the
    rescoring of 1 000 candidates adds as much again.
    """

    __slots__ = ("_blocks", "_dims", "_shared", "count", "vectors")

    def __init__(self, dims: int) -> None:
        self.count = 0  # chunks, with or without vector
        self.vectors = 0
        self._dims = dims
        self._blocks: dict[int, _Block] = {}
        self._shared: set[int] = set()  # numbers of blocks that a job reads

    def holdings(self) -> list[Holding]:
        """What takes time to be freed."""
        return [self._blocks]

    @property
    def nbytes(self) -> int:
        """The memory held, in bytes."""
        return sum(block.rows.nbytes + block.has.nbytes for block in self._blocks.values())

    def put(self, chunks: NDArray[np.integer], rows: Floats) -> None:
        """Set vectors, of the precision of float16; a row with a value that is not finite is none."""
        has = np.asarray(np.isfinite(rows).all(axis=1), np.bool_)
        if not has.all():
            rows = np.where(has[:, None], rows, np.float32(0))
        numbers = chunks // _BLOCK_ROWS
        if (numbers == numbers[0]).all():  # as nearly always: a memory's chunks stand side by side
            self._set(int(numbers[0]), chunks % _BLOCK_ROWS, rows, has)
            return
        for number in np.unique(numbers).tolist():
            inside = numbers == number
            self._set(number, chunks[inside] % _BLOCK_ROWS, rows[inside], has[inside])

    def discard(self, chunk: int) -> None:
        """Forget the vector of one chunk, if it has one."""
        number, place = divmod(chunk, _BLOCK_ROWS)
        block = self._blocks.get(number)
        if block is None or place >= len(block.has) or not block.has[place]:
            return
        if block.known == 1:
            self._drop(number)
            return
        block = self._writable(number, 0)
        block.has[place] = False
        block.known -= 1
        self.vectors -= 1

    def remove(self, chunks: NDArray[np.integer]) -> None:
        """Forget the vectors of chunks; those without are passed over."""
        numbers = chunks // _BLOCK_ROWS
        for number in np.unique(numbers).tolist():
            block = self._blocks.get(number)
            if block is None:
                continue
            places = np.unique(chunks[numbers == number] % _BLOCK_ROWS)
            places = places[places < len(block.has)]
            places = places[block.has[places]]
            if len(places) == block.known:  # without a copy for a job's sake
                self._drop(number)
            elif len(places):
                self._set(number, places, 0.0, False)

    def _set(
        self, number: int, places: NDArray[np.integer], rows: Floats | float, has: NDArray[np.bool_] | bool
    ) -> None:
        block = self._writable(number, int(places.max()) + 1)
        self.vectors -= block.known
        block.set(places, rows, has)
        self.vectors += block.known
        if not block.known:
            self._drop(number)

    def _drop(self, number: int) -> None:
        self.vectors -= self._blocks.pop(number).known
        self._shared.discard(number)

    def _writable(self, number: int, rows: int) -> _Block:
        """A block with at least this many rows that no job reads."""
        block = self._blocks.get(number)
        had = 0 if block is None else len(block.has)
        if block is not None and had >= rows and number not in self._shared:
            return block
        if had < rows:  # few rows grow by a quarter, many by as many again
            wanted = max(rows, had + (had if had > _HALF_ROWS_MAX else had // 4))
            room = -(-wanted // _GROWTH_ROWS_MIN) * _GROWTH_ROWS_MIN
            rows = min(room, _BLOCK_ROWS)
        fresh = _Block(max(had, rows), self._dims)
        if block is not None:
            fresh.rows[:had] = block.rows
            fresh.has[:had] = block.has
            fresh.known = block.known
        self._blocks[number] = fresh
        self._shared.discard(number)
        return fresh

    def chunks(self) -> NDArray[np.int64]:
        """The chunks with vectors, rising."""
        blocks = sorted(self._blocks.items())
        known = [number * _BLOCK_ROWS + np.flatnonzero(block.has) for number, block in blocks]
        return np.concatenate([*known, np.zeros(0, np.int64)])

    def scores(self, query: Floats) -> Floats:
        """Cosine similarity of each chunk to a normalised query, NaN without vector."""
        result = np.full(-(-self.count // _BLOCK_ROWS) * _BLOCK_ROWS, np.nan, np.float32)
        for number, block in self._blocks.items():
            start = number * _BLOCK_ROWS
            block.scores(query, result[start : start + len(block.rows)])
        return result[: self.count]

    def moments(self, scores: Floats) -> Moments:
        """How similar the tail is to a query, from its scores."""
        parts = [scores[n * _BLOCK_ROWS :][np.flatnonzero(block.has)] for n, block in self._blocks.items()]
        return moments_of(self.vectors, np.concatenate([*parts, np.zeros(0, np.float32)]))

    def share(self, chunks: NDArray[np.integer]) -> Iterator[Floats]:
        """The vectors of chunks (rising) as they are now, in batches, for a thread. Copies nothing here: until
        `unshare`, a block that the thread may yet read is copied before it changes."""
        numbers = chunks // _BLOCK_ROWS
        wanted = np.unique(numbers).tolist()
        held = [(self._blocks[number].rows, chunks[numbers == number] % _BLOCK_ROWS) for number in wanted]
        self._shared.update(wanted)
        return _batches(held)

    def unshare(self) -> None:
        """The thread is done."""
        self._shared.clear()


def _batches(held: list[tuple[Rows, NDArray[np.integer]]]) -> Iterator[Floats]:
    for rows, places in held:
        for at in range(0, len(places), _BATCH_ROWS):
            yield np.asarray(rows[places[at : at + _BATCH_ROWS]], np.float32)
