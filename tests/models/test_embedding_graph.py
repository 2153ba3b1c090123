"""Facts about the rewritten graph: it is the published network, on integer products, the same each time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from models.embedding_graph import build_graph, content_digest, read_weights, rewrite
from models.model_files import GRAPH_DIGEST, installed_model_files


@pytest.fixture(scope="module")
def source() -> Path:
    return installed_model_files().model_path


@pytest.fixture(scope="module")
def model(source: Path) -> onnx.ModelProto:
    return build_graph(read_weights(source))


def test_rewriting_twice_gives_equal_bytes(source: Path, tmp_path: Path) -> None:
    digests = {rewrite(source, tmp_path / name) for name in ("first", "second")}
    assert digests == {GRAPH_DIGEST}
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_the_graph_is_the_one_whose_digest_names_the_stored_vectors(model: onnx.ModelProto) -> None:
    assert content_digest(model) == GRAPH_DIGEST


def test_the_graph_is_valid_and_its_output_is_a_vector(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.input] == ["input_ids", "attention_mask"]
    assert [value.name for value in model.graph.output] == ["embedding"]


def test_all_36_constant_products_are_integer_products_on_the_stored_weights(
    source: Path, model: onnx.ModelProto
) -> None:
    stored = {tensor.name: tensor for tensor in onnx.load(source).graph.initializer}
    multiplied = {
        stored[node.input[1] + "_q"].raw_data
        for node in onnx.load(source).graph.node
        if node.op_type == "MatMul" and node.input[1] + "_q" in stored
    }
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == 36
    assert {constants[node.input[1]].raw_data for node in products} == multiplied
    assert Counter(constants[node.input[1]].data_type for node in products) == {onnx.TensorProto.INT8: 36}
    # What is left as a float product is pooling; attention has its own operator.
    assert sum(node.op_type == "MatMul" for node in model.graph.node) == 1


def test_the_digest_ignores_what_a_serialiser_may_change(model: onnx.ModelProto) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    other.producer_name, other.producer_version, other.ir_version = "another tool", "9.9", 12
    tensor = other.graph.initializer[0]
    values = numpy_helper.to_array(tensor)
    tensor.ClearField("raw_data")
    tensor.CopyFrom(helper.make_tensor(tensor.name, tensor.data_type, values.shape, values.reshape(-1)))
    for node in other.graph.node:
        for attribute in sorted(node.attribute, key=lambda item: item.name, reverse=True):
            node.attribute.remove(attribute)
            node.attribute.append(attribute)
    assert other.SerializeToString() != model.SerializeToString()
    assert content_digest(other) == content_digest(model)


@pytest.mark.parametrize("change", ["weight", "wire", "attribute", "operator", "opset", "name"])
def test_the_digest_notices_a_change_of_content(model: onnx.ModelProto, change: str) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    graph = other.graph
    if change == "weight":
        weight = next(t for t in graph.initializer if t.name == "encoder.layer.3.output.dense.weight")
        weight.raw_data = bytes([weight.raw_data[0] ^ 1]) + weight.raw_data[1:]
    elif change == "wire":
        node = next(n for n in graph.node if n.op_type == "Add")
        node.input[0], node.input[1] = node.input[1], node.input[0]
    elif change == "attribute":
        node = next(n for n in graph.node if n.op_type == "MultiHeadAttention")
        node.attribute[0].i += 1
    elif change == "operator":
        next(n for n in graph.node if n.op_type == "Gelu").op_type = "QuickGelu"
    elif change == "opset":
        other.opset_import[0].version += 1
    else:
        graph.output[0].name = "vector"
    assert content_digest(other) != content_digest(model)


def test_a_file_that_is_built_otherwise_is_refused(tmp_path: Path) -> None:
    graph = helper.make_graph([], "empty", [], [])
    onnx.save(helper.make_model(graph), tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="36 expected"):
        read_weights(tmp_path / "other.onnx")


def test_vectors_point_where_those_of_the_published_file_point(source: Path, model: onnx.ModelProto) -> None:
    """Cosines over token sequences of many lengths; the published file keeps its activations as floats."""
    published = _session(source)
    rewritten = _session(model.SerializeToString())
    generator = np.random.default_rng(3)
    cosines = []
    for length in range(3, 60, 3):
        ids = generator.integers(1996, 20000, size=(2, length))
        ids[:, 0], ids[:, -1] = 101, 102
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        (hidden,) = published.run(None, inputs | {"token_type_ids": np.zeros_like(ids)})
        (vectors,) = rewritten.run(None, inputs)
        cosines.extend((_mean_direction(hidden) * vectors).sum(axis=1))
    assert np.mean(cosines) > 0.99
    assert np.min(cosines) > 0.97


def _session(model: Path | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
    )


def _mean_direction(hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    mean = hidden.mean(axis=1)
    direction: NDArray[np.float32] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return direction
