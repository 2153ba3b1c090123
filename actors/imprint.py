"""An imprint: what reading all memories of a large vault again would give, kept so that it need not be done.

Owns the content of these files: postings and the digests of texts, made by the text functions of this very version. An
imprint is a cache and is never believed: each of its memories is compared with the log's, and from the first one that
differs on, memories are read anew. So it may be of any age, of another version, or of a life that was lost in a crash.
Must never touch the disk (the store keeps and seals it; words are content), nor a vault that is in use: everything here
is made of values, and may run in a thread.
"""

from __future__ import annotations

import hashlib
import struct
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import Stemmer
import xxhash
from numpy.typing import NDArray

from actors import catalogue, lexicon
from actors.catalogue import Catalogue, CatalogueCopy
from actors.identity import KnownMessages
from actors.lexicon import Lexicon, LexiconCopy, Postings
from models import text, words
from models.memory import Memory

FORMAT = 1
DIGEST_BYTES = 16

SLICE_MEMORIES = 4_096
"""Memories after which work in a thread looks whether it is still wanted: about 10 ms."""

_HEAD = struct.Struct("<I")  # bytes of the manifest that follows
_KINDS = ("<i8", "<u8", "<i4", "<u4", "<i8", "<u4")  # of the columns: seqs, marks, chunks; lengths, counts, packed
_encode = msgspec.msgpack.Encoder().encode


def _nothing() -> None:
    """What is done between two slices of work that nobody gives up."""


def _rules() -> bytes:
    """Stands for all that decides which words and digests a text has: another version of it makes another imprint."""
    digest = hashlib.blake2b(digest_size=16)
    for module in (words, text, lexicon, catalogue):
        assert module.__file__ is not None
        digest.update(Path(module.__file__).with_suffix(".py").read_bytes())  # packed, it has the name of its bytecode
    digest.update(f"{FORMAT} {unicodedata.unidata_version} {Stemmer.version()} {sys.version_info[:2]}".encode())
    return digest.digest()


RULES = _rules()


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands before the columns of an imprint: how long they are, and the terms of its postings."""

    rules: bytes
    memories: int
    chunks: int
    postings: int
    terms: list[str]


class Imprint(msgspec.Struct, frozen=True, eq=False):
    """What was derived from some memories, in the order of their seqs.

    Attributes:
        seqs: int64 per memory, rising.
        marks: uint64 per memory: `marks_of` it.
        chunks: int32 per memory: how many it has.
        text_digests: `DIGEST_BYTES` per memory, one after the other.
    """

    seqs: NDArray[np.int64]
    marks: NDArray[np.uint64]
    chunks: NDArray[np.int32]
    text_digests: bytes
    postings: Postings


class Restored(msgspec.Struct, frozen=True, eq=False):
    """The parts of a vault as an imprint gives them.

    Attributes:
        count: how many memories they hold: the first ones of those that the log has.
        characters: of their contents, together.
        outdated: whether the imprint holds something that the log no longer does.
    """

    catalogue: Catalogue
    lexicon: Lexicon
    known: KnownMessages
    count: int
    characters: int
    outdated: bool


def marks_of(memories: Sequence[Memory], *, between: Callable[[], None] = _nothing) -> NDArray[np.uint64]:
    """64 bits over all that a memory is, for each.

    Args:
        between: called again and again; an error of it ends this.
    """
    mark = xxhash.xxh3_64_intdigest
    marks = np.empty(len(memories), np.uint64)
    for start in range(0, len(memories), SLICE_MEMORIES):
        part = memories[start : start + SLICE_MEMORIES]
        marks[start : start + len(part)] = [mark(_encode(memory)) for memory in part]
        between()
    return marks


def _numbers(values: Iterable[int], count: int, kind: type[Any]) -> NDArray[Any]:
    """An array of so many numbers. Unlike `np.array` of a list it lets other threads have the interpreter meanwhile."""
    return np.fromiter(values, kind, count)


# Making one.


class ImprintSource(msgspec.Struct, frozen=True, eq=False):
    """A vault as of one moment, for a thread to make an imprint of."""

    catalogue: CatalogueCopy
    lexicon: LexiconCopy

    def imprint(self, between: Callable[[], None] = _nothing) -> Imprint:
        """The imprint of all living memories.

        Args:
            between: called again and again; an error of it ends this.
        """
        memories, digests = self.catalogue.living()
        return Imprint(
            seqs=_numbers((memory.seq for memory in memories), len(memories), np.int64),
            marks=marks_of(memories, between=between),
            chunks=_numbers((len(memory.spans) for memory in memories), len(memories), np.int32),
            text_digests=b"".join(digests),
            postings=self.lexicon.postings(),
        )

    def encoded(self, between: Callable[[], None] = _nothing) -> list[memoryview]:
        """The imprint as `decoded` reads it, in parts to be written one after the other."""
        return encoded(self.imprint(between))


def encoded(imprint: Imprint) -> list[memoryview]:
    """The parts of a file."""
    postings = imprint.postings
    manifest = _encode(
        Manifest(
            rules=RULES,
            memories=len(imprint.seqs),
            chunks=len(postings.lengths),
            postings=len(postings.packed),
            terms=postings.terms,
        )
    )
    columns: list[NDArray[Any]] = [
        imprint.seqs, imprint.marks, imprint.chunks, postings.lengths, postings.counts, postings.packed,
    ]  # fmt: skip
    return [
        memoryview(_HEAD.pack(len(manifest)) + manifest + imprint.text_digests),
        *(column.astype(kind, copy=False).view(np.uint8).data for column, kind in zip(columns, _KINDS, strict=True)),
    ]


def decoded(data: bytes | bytearray) -> Imprint | None:
    """The imprint in these bytes; None if it was made by another version. They are whole: the store has seen to it."""
    try:
        (size,) = _HEAD.unpack_from(data)
        manifest = msgspec.msgpack.decode(memoryview(data)[_HEAD.size : _HEAD.size + size], type=Manifest)
    except (struct.error, msgspec.MsgspecError):
        return None
    memories, chunks_all = manifest.memories, manifest.chunks
    sizes = (memories, memories, memories, chunks_all, len(manifest.terms), manifest.postings)
    start = digests_end = _HEAD.size + size + DIGEST_BYTES * memories
    whole_bytes = start + sum(np.dtype(kind).itemsize * count for kind, count in zip(_KINDS, sizes, strict=True))
    if manifest.rules != RULES or len(data) != whole_bytes:
        return None
    columns: list[NDArray[Any]] = []
    for kind, count in zip(_KINDS, sizes, strict=True):
        columns.append(np.frombuffer(data, kind, count, start))
        start += columns[-1].nbytes
    seqs, marks, chunks, lengths, counts, packed = columns
    return Imprint(
        seqs=seqs,
        marks=marks,
        chunks=chunks,
        text_digests=bytes(memoryview(data)[_HEAD.size + size : digests_end]),
        postings=Postings(terms=manifest.terms, counts=counts, packed=packed, lengths=lengths),
    )


# Using one.


def restored(
    data: bytes | bytearray, memories: Sequence[Memory], *, next_seq: int, repeat_window_ms: int
) -> Restored | None:
    """The parts of a vault for as many of the log's memories as an imprint knows, from the first on; None for none.

    Args:
        data: an encoded imprint.
        memories: all that the log has, by seq.
        next_seq: the seq from which on memories are not in the log yet, but may be in an imprint.
    """
    imprint = decoded(data)
    if imprint is None or not len(imprint.seqs) or not memories:
        return None
    places = _places(imprint, memories)
    count = len(places)
    if not count:
        return None
    kept = np.zeros(len(imprint.seqs), np.bool_)
    kept[places] = True
    postings = imprint.postings
    if not kept.all():
        living = np.repeat(kept, imprint.chunks)
        postings = postings.renumbered(np.where(living, np.cumsum(living) - 1, -1).astype(np.int32))
    known = KnownMessages(repeat_window_ms=repeat_window_ms)
    first = memories if count == len(memories) else memories[:count]
    for memory in first:
        known.add(memory)
    return Restored(
        catalogue=Catalogue.of(first, _digests(imprint.text_digests, places)),
        lexicon=Lexicon.of(postings),
        known=known,
        count=count,
        characters=sum(len(memory.content) for memory in first),
        outdated=bool((imprint.seqs[~kept] < next_seq).any()),
    )


def _digests(digests: bytes, places: NDArray[np.int64]) -> Iterator[bytes]:
    for start in range(0, len(places), SLICE_MEMORIES):
        for place in places[start : start + SLICE_MEMORIES].tolist():
            yield digests[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES]


def _places(imprint: Imprint, memories: Sequence[Memory]) -> NDArray[np.int64]:
    """Where in the imprint the memories are, up to the first that it does not know as it is now."""
    seqs = _numbers((memory.seq for memory in memories), len(memories), np.int64)
    places = np.minimum(np.searchsorted(imprint.seqs, seqs), len(imprint.seqs) - 1)
    same = imprint.seqs[places] == seqs
    count = len(seqs) if same.all() else int(np.argmin(same))
    same = imprint.marks[places[:count]] == marks_of(memories[:count])
    return places[: count if same.all() else int(np.argmin(same))]
