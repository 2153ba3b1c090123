"""Any other embedding model that runs here: a directory with `model.onnx` and `tokenizer.json`.

Owns how such a graph is fed, how its output becomes one unit vector a text, and the id that names these vectors. The
graphs of at most a few models are in memory at once (`LoadedSessions`); a tokenizer stays. Synchronous, for worker
threads; concurrent calls are safe. Must never reach for the network.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from models.embedder_settings import EmbedderSettings, Pooling
from models.embedding import batches_of, mended, open_session, open_tokenizer
from models.model_files import ModelFileError, file_sha256

GRAPH_FILE: Final = "model.onnx"
TOKENIZER_FILE: Final = "tokenizer.json"
WEIGHT_FILES: Final = ("model.onnx_data", "model.onnx.data")
"""Where exporters put weights that do not fit into the graph's own file; they count as a part of it."""

CHARACTERS_PER_TOKEN_MAX: Final = 32
"""A text is cut here, times the tokens that the model reads, before it is tokenised: so the cost is bounded."""

LENGTH_TOLERANCE: Final = 0.01
POOLED_OUTPUTS: Final = ("sentence_embedding", "embedding")
"""Names that exporters give to the vector of the whole text."""

Floats = NDArray[np.float32]


class LoadedSessions:
    """The graphs that are in memory: at most so many, the least recently used leaves.

    One that leaves while a thread runs it goes when that run ends.
    """

    def __init__(self, loaded_max: int) -> None:
        self._loaded_max = loaded_max
        self._sessions: OrderedDict[str, onnxruntime.InferenceSession] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = threading.Lock()

    def get(self, name: str, load: Callable[[], onnxruntime.InferenceSession]) -> onnxruntime.InferenceSession:
        """The session of this model, loading it if need be.

        Raises:
            ModelFileError: it cannot be loaded.
        """
        session = self._find(name)
        if session is not None:
            return session
        with self._loading:  # one after the other: two at once would need room for both beside those that are here
            session = self._find(name)
            if session is None:
                with self._lock:
                    while len(self._sessions) >= self._loaded_max:
                        self._sessions.popitem(last=False)
                session = load()
                with self._lock:
                    self._sessions[name] = session
        return session

    def _find(self, name: str) -> onnxruntime.InferenceSession | None:
        with self._lock:
            session = self._sessions.get(name)
            if session is not None:
                self._sessions.move_to_end(name)
            return session

    @property
    def names(self) -> tuple[str, ...]:
        """The models in memory, the least recently used first."""
        with self._lock:
            return tuple(self._sessions)


class DirectoryModel:
    """An embedding model from a directory. `open_directory_model` makes one, and finds out its `dims`."""

    def __init__(
        self,
        model_id: str,
        name: str,
        settings: EmbedderSettings,
        tokenizer: Tokenizer,
        sessions: LoadedSessions,
    ) -> None:
        self.id = model_id
        self.dims = 0
        self.tokens_max = settings.tokens_max
        self._name = name
        self._pooling = settings.pooling
        self._normalise = settings.normalise
        self._graph = Path(settings.path) / GRAPH_FILE
        self._threads = settings.threads
        self._tokenizer = tokenizer
        self._sessions = sessions
        self._special_tokens: int = tokenizer.num_special_tokens_to_add(False)

    def probe(self) -> None:
        """Run the model once and learn how long its vectors are.

        Raises:
            ModelFileError: it cannot run, or makes something else than vectors.
        """
        try:
            vectors = self._run(self._session(), [self._encoding("A short text.")])
        except ModelFileError:
            raise
        except Exception as error:  # the edge of onnxruntime: a graph may fail in as many ways as it has nodes
            raise ModelFileError(f"{self._graph} cannot be run: {type(error).__name__}.") from error
        length = float(np.linalg.norm(vectors[0]))
        if not np.isfinite(length) or abs(length - 1) > LENGTH_TOLERANCE:
            raise ModelFileError(
                f"{self._graph} makes vectors of length {length:.3g}, not 1.",
                hint=f"Set embedders.{self._name}.normalise to true.",
            )
        self.dims = int(vectors.shape[1])

    def encode(self, texts: Sequence[str]) -> Floats:
        """Embed texts: (n, dims) float32, rows of length 1, in the order given.

        Raises:
            ValueError: a vector came out as nothing or not finite.
            ModelFileError: the graph has left memory and cannot be loaded again.
        """
        vectors = np.empty((len(texts), self.dims), dtype=np.float32)
        encodings = [self._encoding(text) for text in texts]
        session = self._session()
        for batch in batches_of([len(encoding.ids) for encoding in encodings]):
            vectors[batch] = self._run(session, [encodings[position] for position in batch])
        if not np.isfinite(vectors).all():
            raise ValueError("The model made a vector that is not finite.")
        return vectors

    def count_tokens(self, text: str) -> int:
        """Number of tokens of the whole text, no special tokens."""
        return len(self._tokenizer.encode_batch_fast([mended(text)], add_special_tokens=False)[0])

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """(start, end) character offsets of each token of the whole text, in order, no special tokens.

        Tokenizers differ in what they call the place of a token, so the starts are made to rise here.
        """
        encoding = self._tokenizer.encode_batch([mended(text)], add_special_tokens=False)[0]
        if not encoding.offsets:
            return []
        offsets = np.maximum.accumulate(np.array(encoding.offsets, dtype=np.int64), axis=0)
        return [(int(start), int(end)) for start, end in offsets]

    def _session(self) -> onnxruntime.InferenceSession:
        return self._sessions.get(self._name, lambda: open_session(self._graph, self._threads))

    def _encoding(self, text: str) -> Encoding:
        """A text's tokens as the model wants them: cut, then with its marks."""
        cut = mended(text[: self.tokens_max * CHARACTERS_PER_TOKEN_MAX])
        encoding = self._tokenizer.encode_batch([cut], add_special_tokens=False)[0]
        encoding.truncate(self.tokens_max - self._special_tokens)
        return self._tokenizer.post_process(encoding)

    def _run(self, session: onnxruntime.InferenceSession, encodings: Sequence[Encoding]) -> Floats:
        longest = max(1, *(len(encoding.ids) for encoding in encodings))
        ids = np.zeros((len(encodings), longest), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = encoding.ids
            mask[row, : len(encoding.ids)] = 1
        mask[:, 0] = 1  # a text without a token, and a tokenizer without marks, still make a vector
        output, values = self._output(session, ids, mask)
        vectors = values if values.ndim == 2 else _pooled(values, mask, self._pooling)
        if vectors.ndim != 2 or len(vectors) != len(encodings):
            raise ModelFileError(f"{self._graph}: its output {output} is no vector a text.")
        return _unit(vectors) if self._normalise else vectors.astype(np.float32)

    def _output(
        self, session: onnxruntime.InferenceSession, ids: NDArray[np.int64], mask: NDArray[np.int64]
    ) -> tuple[str, NDArray[Any]]:
        """Run the graph; the name and the values of the output that counts."""
        known = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids),
            "position_ids": np.broadcast_to(np.arange(ids.shape[1], dtype=np.int64), ids.shape),
        }
        wanted = [given.name for given in session.get_inputs()]
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise ModelFileError(f"{self._graph} wants inputs that nobody knows here: {', '.join(unknown)}.")
        ranks = {output.name: len(output.shape) for output in session.get_outputs()}
        output = _output_name(ranks)
        (values,) = session.run([output], {name: np.ascontiguousarray(known[name]) for name in wanted})
        return output, np.asarray(values)


def _output_name(ranks: dict[str, int]) -> str:
    """Which output to read: the vector of the whole text by its usual names, else vectors of tokens, else any."""
    pooled = [name for name in POOLED_OUTPUTS if ranks.get(name) == 2]
    tokens = [name for name, rank in ranks.items() if rank == 3]
    return [*pooled, *tokens, *ranks][0]


def _pooled(values: NDArray[Any], mask: NDArray[np.int64], pooling: Pooling) -> Floats:
    """One vector a text from those of its tokens, (n, tokens, dims)."""
    tokens = values.astype(np.float32)
    match pooling:
        case "cls":
            return tokens[:, 0]
        case "last":
            return np.asarray(tokens[np.arange(len(tokens)), mask.sum(axis=1) - 1])
        case "mean":
            weights = mask[:, :, None].astype(np.float32)
            return np.asarray((tokens * weights).sum(axis=1) / weights.sum(axis=1))


def _unit(vectors: NDArray[Any]) -> Floats:
    vectors = vectors.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise ValueError("The model made a vector of nothing.")
    return np.asarray(vectors / lengths)


class _Recipe(msgspec.Struct, frozen=True, array_like=True):
    """What beside the graph decides about a vector."""

    tokenizer_sha256: str
    pooling: str
    normalise: bool
    tokens_max: int
    query_prefix: str
    document_prefix: str


def directory_model_id(name: str, settings: EmbedderSettings) -> str:
    """Name, hash of the graph with its weights, and hash of all else that decides about a vector.

    Raises:
        ModelFileError: a file cannot be read.
    """
    directory = Path(settings.path)
    parts = [GRAPH_FILE, *(weights for weights in WEIGHT_FILES if (directory / weights).is_file())]
    hashes = [file_sha256(directory / part) for part in parts]
    graph = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    recipe = _Recipe(
        tokenizer_sha256=file_sha256(directory / TOKENIZER_FILE),
        pooling=settings.pooling,
        normalise=settings.normalise,
        tokens_max=settings.tokens_max,
        query_prefix=settings.query_prefix,
        document_prefix=settings.document_prefix,
    )
    return f"{name}-{graph[:16]}-{hashlib.sha256(msgspec.json.encode(recipe)).hexdigest()[:8]}"


def check_directory(name: str, settings: EmbedderSettings) -> None:
    """Say at the start that a file is missing, although the model is loaded when it is first needed.

    Raises:
        ModelFileError: it is.
    """
    for file in (GRAPH_FILE, TOKENIZER_FILE):
        if not (Path(settings.path) / file).is_file():
            raise ModelFileError(f"embedders.{name}.path: {settings.path} has no file {file}.")


def open_directory_model(name: str, settings: EmbedderSettings, sessions: LoadedSessions) -> DirectoryModel:
    """Load a model from its directory and try it.

    Raises:
        ModelFileError: a file is missing or damaged, or the graph cannot be run.
    """
    check_directory(name, settings)
    path = Path(settings.path) / TOKENIZER_FILE
    try:
        tokenizer = open_tokenizer(path)
    except Exception as error:  # `tokenizers` raises bare Exceptions
        raise ModelFileError(f"{path} is no tokenizer.") from error
    model = DirectoryModel(directory_model_id(name, settings), name, settings, tokenizer, sessions)
    model.probe()
    return model
