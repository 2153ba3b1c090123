"""Models from a directory: pooling, marks, limits, ids, and which of them are in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.embedder_settings import EmbedderSettings, Pooling
from models.embedding_directory import DirectoryModel, LoadedSessions, directory_model_id, open_directory_model
from models.model_files import ModelFileError
from tests.fakes.tiny_model import write_tiny_model

DOG, CAT = "My dog is called Rex.", "My cat is called Tom."


def opened(directory: Path, **settings: Any) -> DirectoryModel:
    """The model of a directory; keyword arguments are `EmbedderSettings`."""
    one = EmbedderSettings(kind="onnx", path=str(directory), **settings)
    return open_directory_model("tiny", one, LoadedSessions(1))


def test_texts_become_unit_vectors_that_do_not_depend_on_their_neighbours(tmp_path: Path) -> None:
    model = opened(write_tiny_model(tmp_path))
    together = model.encode([DOG, "what", CAT * 9, ""])
    alone = np.concatenate([model.encode([text]) for text in (DOG, "what", CAT * 9, "")])
    assert together.shape == (4, model.dims) == (4, 16)
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert np.allclose(together, alone, atol=1e-6)
    assert together[0] @ model.encode(["the dog Rex"])[0] > together[2] @ model.encode(["the dog Rex"])[0]


def test_no_text_at_all_is_no_vector(tmp_path: Path) -> None:
    assert opened(write_tiny_model(tmp_path)).encode([]).shape == (0, 16)


@pytest.mark.parametrize(("pooling", "same"), [("cls", "first"), ("last", "last"), ("mean", "")])
def test_pooling_takes_the_first_token_the_last_or_the_mean(tmp_path: Path, pooling: Pooling, same: str) -> None:
    """Every text begins with one mark and ends with another, so all are alike where only a mark counts."""
    model = opened(write_tiny_model(tmp_path), pooling=pooling)
    dog, cat = model.encode([DOG, "tea"])
    assert np.allclose(dog, cat) == bool(same)


def test_a_text_is_read_up_to_the_limit_with_its_end_mark(tmp_path: Path) -> None:
    model = opened(write_tiny_model(tmp_path), tokens_max=16)
    fourteen = "dog " * 14
    assert np.array_equal(model.encode([fourteen]), model.encode([fourteen + "cat " * 30]))
    assert not np.array_equal(model.encode([fourteen]), model.encode(["dog " * 13 + "cat"]))
    assert np.allclose(
        opened(tmp_path, tokens_max=16, pooling="last").encode([fourteen * 3]),
        opened(tmp_path, pooling="last").encode(["tea"]),
    )


def test_tokens_are_counted_and_placed_without_marks(tmp_path: Path) -> None:
    model = opened(write_tiny_model(tmp_path))
    assert model.count_tokens("My dog.\ud800") == 3
    assert model.token_offsets("My dog.") == [(0, 2), (3, 6), (6, 7)]
    assert model.token_offsets(" ") == []


def test_inputs_that_are_usual_are_filled_in_and_others_refused(tmp_path: Path) -> None:
    usual = write_tiny_model(tmp_path / "usual", inputs=("token_type_ids", "position_ids"))
    assert opened(usual).dims == 16
    with pytest.raises(ModelFileError, match="past_key"):
        opened(write_tiny_model(tmp_path / "odd", inputs=("past_key",)))


def test_a_graph_that_does_not_normalise_must_be_normalised(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"of length .*, not 1") as raised:
        opened(write_tiny_model(tmp_path), normalise=False)
    assert "embedders.tiny.normalise" in raised.value.hint


@pytest.mark.parametrize("file", ["model.onnx", "tokenizer.json"])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, file: str) -> None:
    write_tiny_model(tmp_path)
    (tmp_path / file).write_bytes(b"{}")
    with pytest.raises(ModelFileError, match=file):
        opened(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ModelFileError, match=f"has no file {file}"):
        opened(tmp_path)


def test_the_id_is_the_name_with_what_decides_about_a_vector(tmp_path: Path) -> None:
    first = EmbedderSettings(kind="onnx", path=str(write_tiny_model(tmp_path / "1")))
    copy = EmbedderSettings(kind="onnx", path=str(write_tiny_model(tmp_path / "copy")), threads=2)
    others = [
        EmbedderSettings(kind="onnx", path=str(write_tiny_model(tmp_path / "2", seed=1))),
        EmbedderSettings(kind="onnx", path=first.path, pooling="cls"),
        EmbedderSettings(kind="onnx", path=first.path, document_prefix="passage: "),
        EmbedderSettings(kind="onnx", path=first.path, tokens_max=99),
    ]
    ids = {directory_model_id("tiny", one) for one in (first, copy)}
    assert len(ids) == 1
    assert len(ids | {directory_model_id("tiny", one) for one in others}) == 5
    assert directory_model_id("tiny", first).startswith("tiny-")
    (tmp_path / "copy" / "model.onnx_data").write_bytes(b"weights beside the graph")
    assert directory_model_id("tiny", copy) not in ids


def test_at_most_so_many_graphs_are_in_memory_and_one_that_left_comes_back(tmp_path: Path) -> None:
    sessions = LoadedSessions(2)
    models = {
        name: open_directory_model(
            name, EmbedderSettings(kind="onnx", path=str(write_tiny_model(tmp_path / name, seed=seed))), sessions
        )
        for seed, name in enumerate("abc")
    }
    assert sessions.names == ("b", "c")
    before = models["b"].encode([DOG])
    models["a"].encode([DOG])
    assert sessions.names == ("b", "a")
    assert np.array_equal(models["b"].encode([DOG]), before)
