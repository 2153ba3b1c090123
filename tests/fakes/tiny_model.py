"""A directory with a real ONNX graph and a real tokenizer, small enough to be made in a test.

The graph looks its tokens up in a table of random vectors, so texts that share words are similar and nothing else is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

_TEXT = (
    "user assistant : . ? , ' my dog cat is called rex tom what who the a i like tea coffee live in vienna query "
    "passage note number apple pear plum short text of and"
)
WORDS = _TEXT.split()


def write_tiny_model(directory: Path, *, dims: int = 16, seed: int = 0, inputs: tuple[str, ...] = ()) -> Path:
    """Write `model.onnx` and `tokenizer.json`.

    Args:
        seed: another one gives another graph.
        inputs: further inputs that the graph wants.
    """
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = {
        word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *dict.fromkeys(WORDS)])
    }
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(directory / "tokenizer.json"))
    table = np.random.default_rng(seed).normal(size=(len(vocabulary), dims)).astype(np.float32)
    given = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask", *inputs)
    ]
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])],
        "tiny",
        given,
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "sequence", dims])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(directory / "model.onnx"))
    return directory
