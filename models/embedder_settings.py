"""Settings of embedding models: where each one's vectors come from, and which names a request may ask for.

Owns what an embedder is and the one that is built in. Must never render a key (`Secret` does not).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from models.provider_settings import Secret

BUILT_IN_EMBEDDER = "all-MiniLM-L6-v2"
"""The name of the model that comes with MemoryRouter; schema step 4 of the shards holds it, so it never changes."""

EmbedderKind = Literal["built-in", "onnx", "openai"]
Pooling = Literal["mean", "cls", "last"]
"""How the vectors of a text's tokens become one: their mean, that of the first, that of the last."""


class EmbedderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One embedding model. Its table names it, and the name is what requests and vaults know it by."""

    kind: Annotated[
        EmbedderKind,
        Meta(description="`onnx`: a directory with a model; `openai`: an endpoint; `built-in`: only the one that is."),
    ] = "built-in"
    path: Annotated[
        str, Meta(max_length=4_096, description="`onnx`: the directory that holds `model.onnx` and `tokenizer.json`.")
    ] = ""
    pooling: Annotated[
        Pooling,
        Meta(description="`onnx`: how token vectors become one, as the model's card says; unused if the graph pools."),
    ] = "mean"
    normalise: Annotated[
        bool,
        Meta(description="`onnx`: whether vectors are brought to length 1; false only if the graph does that itself."),
    ] = True
    tokens_max: Annotated[
        int,
        Meta(ge=16, le=1_048_576, description="Tokens of a text that the model reads, marks and prefix included."),
    ] = 256
    threads: Annotated[int, Meta(ge=1, le=256, description="`onnx`: threads that one run uses.")] = 1
    query_prefix: Annotated[
        str, Meta(max_length=2_048, description="Put before questions, such as `query: `; part of the model's id.")
    ] = ""
    document_prefix: Annotated[
        str, Meta(max_length=2_048, description="Put before memories, such as `passage: `; part of the model's id.")
    ] = ""
    base_url: Annotated[
        str, Meta(max_length=2_048, description="`openai`: base URL, `/v1` included; `/embeddings` is added.")
    ] = ""
    model: Annotated[str, Meta(max_length=256, description="`openai`: the model's name, as the endpoint knows it.")] = (
        ""
    )
    api_key: Annotated[
        Secret, Meta(description="`openai`: the endpoint's key. Prefer `api_key_env` or the environment.")
    ] = Secret()
    api_key_env: Annotated[
        str, Meta(max_length=256, description="`openai`: name of an environment variable that holds the key.")
    ] = ""
    dims: Annotated[
        int,
        Meta(ge=0, le=16_384, description="`openai`: length of vectors to ask for. 0: as it comes, found by a call."),
    ] = 0
    batch_texts_max: Annotated[int, Meta(ge=1, le=2_048, description="`openai`: texts in one call.")] = 64
    calls_max: Annotated[
        int,
        Meta(ge=1, le=256, description="`openai`: calls at once, for questions and for memories each."),
    ] = 2
    timeout_s: Annotated[float, Meta(gt=0, le=600, description="`openai`: seconds that one call may take.")] = 30.0


BUILT_IN_EMBEDDERS: dict[str, EmbedderSettings] = {BUILT_IN_EMBEDDER: EmbedderSettings()}


class EmbeddersSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All embedding models by name, the built-in one first. In a file, each is a table `[embedders.NAME]`."""

    by_name: dict[str, EmbedderSettings] = msgspec.field(default_factory=BUILT_IN_EMBEDDERS.copy)

    def find(self, name: str) -> str | None:
        """The configured spelling of a name, in whatever case it is written, or None."""
        if name in self.by_name:
            return name
        return next((known for known in self.by_name if known.lower() == name.lower()), None)
