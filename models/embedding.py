"""The embedding model: texts in, unit vectors out.

Owns the tokenizer, the onnxruntime session and the micro-batches. Synchronous: it is called from worker
threads, and concurrent calls are safe. Must never import `onnx` and never start threads beyond the session's
own.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_errors
from tokenizers import Encoding, Tokenizer

from models.model_files import (
    TOKENIZER_SHA256,
    ModelFileError,
    ModelFiles,
    installed_model_files,
    prepared_model,
    verify_file,
)

TOKENS_MAX: Final = 256
"""Tokens of a text that the model reads, its two special tokens included: the length it was trained with."""

BATCH_TOKENS_MAX: Final = 256
"""Tokens of one run, padding included. More makes it slower (the activations leave the cache: 512 take 6 to 10 %
longer for a text) and costs memory: measured with one thread, 512 peak at 22 MB, 2048 at 71 MB."""

RUN_COST_TOKENS: Final = 32
"""What a run costs beside its tokens, in tokens: padding beyond that costs more than a run of its own. Measured over
texts of mixed lengths, 16 to 32 tokens are the best, and 1.3 to 1.6 times as fast as to pad without limit."""

CHARACTERS_MAX: Final = 8192
"""A text is cut here before it is tokenised, so that the cost is bounded; 256 tokens of prose are 1 200."""

_FIRST_TOKEN: Final = 101  # [CLS]
_LAST_TOKEN: Final = 102  # [SEP]

_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class TextModel(Protocol):
    """What is known of an embedding model without running it: whose vectors they are, and how it counts."""

    @property
    def id(self) -> str:
        """Identifies the vectors: never compare those of different ids."""
        ...

    @property
    def dims(self) -> int:
        """Length of a vector."""
        ...

    @property
    def tokens_max(self) -> int:
        """Tokens of a text that are read, special tokens included; the rest does not change the vector."""
        ...

    def count_tokens(self, text: str) -> int:
        """Number of tokens of the whole text, no special tokens."""
        ...

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """(start, end) character offsets of each token of the whole text, in order, no special tokens.

        Starts and ends never decrease. Several tokens may share a character (a Hangul syllable has up to
        three).
        """
        ...


class TextEncoder(TextModel, Protocol):
    """An embedding model that runs in this process."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: (n, dims) float32, rows of length 1, in the order given."""
        ...


class ForeignModel(msgspec.Struct, frozen=True):
    """A model without a tokenizer here, so that another one's counts for it; "" and 0 while it is not known yet."""

    tokens_max: int
    tokenizer: TextModel
    id: str = ""
    dims: int = 0

    def count_tokens(self, text: str) -> int:
        """Number of tokens, as the other model counts."""
        return self.tokenizer.count_tokens(text)

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of each token, as the other model sees them."""
        return self.tokenizer.token_offsets(text)


class EmbeddingModel:
    """all-MiniLM-L6-v2 with int8 weights: mean over the tokens, length 1.

    A text's vector does not depend on the other texts of the call, but for rounding in the last digits of a
    float.
    """

    __slots__ = ("_session", "_tokenizer", "dims", "id", "tokens_max")

    def __init__(self, model_id: str, session: onnxruntime.InferenceSession, tokenizer: Tokenizer) -> None:
        self.id = model_id
        self.dims: int = session.get_outputs()[0].shape[1]
        self.tokens_max = TOKENS_MAX
        self._session = session
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: (n, dims) float32, rows of length 1, in the order given.

        Texts of similar length share a run, which is padded to its longest. An empty text has a valid vector
        too.
        """
        vectors = np.empty((len(texts), self.dims), dtype=np.float32)
        rows = [self._input_ids(encoding) for encoding in self._tokenise([t[:CHARACTERS_MAX] for t in texts])]
        for batch in batches_of([len(row) for row in rows]):
            vectors[batch] = self._run([rows[position] for position in batch])
        return vectors

    def count_tokens(self, text: str) -> int:
        """Number of tokens of the whole text, no special tokens."""
        return len(self._tokenise([text])[0])

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """(start, end) character offsets of each token of the whole text, in order, no special tokens."""
        # The batch call, unlike the one for a single text, lets other threads run meanwhile: a million
        # characters take half a second.
        encodings = self._tokenizer.encode_batch([mended(text)], add_special_tokens=False)
        offsets: list[tuple[int, int]] = encodings[0].offsets
        return offsets

    def _tokenise(self, texts: Sequence[str]) -> list[Encoding]:
        readable = [mended(text) for text in texts]
        return self._tokenizer.encode_batch_fast(readable, add_special_tokens=False)

    @staticmethod
    def _input_ids(encoding: Encoding) -> list[int]:
        return [_FIRST_TOKEN, *encoding.ids[: TOKENS_MAX - 2], _LAST_TOKEN]

    def _run(self, rows: list[list[int]]) -> NDArray[np.float32]:
        longest = max(map(len, rows))
        ids = np.zeros((len(rows), longest), dtype=np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        outputs: list[NDArray[np.float32]] = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
        return outputs[0]


def mended(text: str) -> str:
    """The tokenizer refuses lone surrogates; the replacement keeps every offset."""
    return _LONE_SURROGATE.sub("\ufffd", text)


def batches_of(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Positions of rows to run together: similar lengths, at most BATCH_TOKENS_MAX tokens when padded.

    A row that would have the shorter ones padded by more than RUN_COST_TOKENS begins a run of its own.
    """
    batch: list[int] = []
    longest = 0
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[position]
        full = (len(batch) + 1) * length > BATCH_TOKENS_MAX
        if batch and (full or len(batch) * (length - longest) > RUN_COST_TOKENS):
            yield batch
            batch = []
        batch.append(position)
        longest = length
    if batch:
        yield batch


def open_embedding_model(cache_dir: Path, *, threads: int, files: ModelFiles | None = None) -> EmbeddingModel:
    """Load the default model; the first time, its graph is prepared in `cache_dir` (about a second more).

    Args:
        cache_dir: directory for the prepared graph (23 MB); made if missing.
        threads: threads that one run may use.
        files: where the published files are; by default where they were installed.

    Raises:
        ModelFileError: a file is missing or damaged, or `cache_dir` cannot be written.
    """
    files = files or installed_model_files()
    verify_file(files.tokenizer_path, TOKENIZER_SHA256)
    tokenizer = open_tokenizer(files.tokenizer_path)
    prepared = prepared_model(cache_dir, files)
    return EmbeddingModel(prepared.id, open_session(prepared.path, threads), tokenizer)


def open_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that neither pads nor cuts."""
    # Tokenising is cheap beside embedding; a pool of threads for it would only compete with the session's.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()  # the file pads every text to 128 tokens
    tokenizer.no_truncation()  # and cuts there: offsets need the whole text, `encode` cuts its ids itself
    return tokenizer


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session that runs a graph on the CPU.

    Raises:
        ModelFileError: onnxruntime cannot run it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Batches differ in shape, so that a plan of buffers per shape only costs memory; the arena keeps what it
    # has and stays smaller than what malloc makes of the same requests (measured: 22 against 43 MB at 512
    # tokens).
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = True
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (
        onnxruntime_errors.Fail,
        onnxruntime_errors.InvalidGraph,
        onnxruntime_errors.InvalidProtobuf,
        onnxruntime_errors.NoSuchFile,
        onnxruntime_errors.NotImplemented,
        onnxruntime_errors.RuntimeException,
    ) as error:
        raise ModelFileError(
            f"onnxruntime {onnxruntime.__version__} cannot run {path.name}.",
            hint="Install a version of onnxruntime that MemoryRouter asks for.",
        ) from error
    _return_freed_memory()
    return session


def _return_freed_memory() -> None:
    """Give what loading has used and freed back to the system, where the C library can (glibc): 7 MB, in 2 ms.

    Left alone it stays resident, since a few small blocks that live on lie above it.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
