"""Settings of remembering and recalling: the embedding model, the index, what is stored, how much is recalled."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from models.embedder_settings import BUILT_IN_EMBEDDER


class EmbeddingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Embedding: which model vaults use, and threads, batches and queues."""

    default: Annotated[
        str,
        Meta(min_length=1, max_length=64, description="Embedder of vaults for which no request named another one."),
    ] = BUILT_IN_EMBEDDER
    loaded_max: Annotated[
        int,
        Meta(ge=1, le=64, description="Models of the kind `onnx` in memory at once; above, the least used one leaves."),
    ] = 2
    threads: Annotated[int, Meta(ge=1, le=256, description="Threads that one run of the built-in model uses.")] = 1
    batch_texts_max: Annotated[
        int, Meta(ge=1, le=1_024, description="Texts that one run of the model takes at most.")
    ] = 16
    bulk_batches_max: Annotated[
        int,
        Meta(
            ge=0,
            le=64,
            description="Batches of stored texts that run at once, each in a thread; one fewer while questions come. "
            "0: one for each core, at most 4.",
        ),
    ] = 0
    queue_interactive_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Queries that may wait for the model; above: 503.")
    ] = 1_024
    queue_bulk_max: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="Stored texts that may wait for the model; above, vaults wait."),
    ] = 256


class IndexSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The vector index of a vault."""

    hnsw_threshold: Annotated[
        int,
        Meta(ge=0, le=10_000_000, description="Vectors up to which a vault is searched exactly; above, by HNSW."),
    ] = 16_384


class MemorySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How large what is remembered may be."""

    content_max_chars: Annotated[
        int, Meta(ge=1, le=100_000_000, description="Characters that one message may have; above: 413.")
    ] = 1_000_000
    messages_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Messages that one ingest may carry; above: 413.")
    ] = 10_000
    upload_lines_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Lines that one upload may carry; above: 413.")
    ] = 10_000
    chunk_tokens_max: Annotated[
        int,
        Meta(ge=16, le=254, description="Tokens of one chunk; the default model reads 256, two of them marks."),
    ] = 200
    retention_days: Annotated[
        int,
        Meta(ge=0, le=36_500, description="Days until memories are deleted, unless account or vault say; 0: never."),
    ] = 0


class IngestSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as the same statement told twice."""

    repeat_window_s: Annotated[
        int,
        Meta(ge=0, le=31_536_000, description="Seconds within which an equal final exchange is a repeat."),
    ] = 600


class RecallSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much is recalled and how its times are written."""

    chunks_low: Annotated[int, Meta(ge=1, le=1_000, description="Chunks in a context at density `low`.")] = 10
    chunks_default: Annotated[
        int, Meta(ge=1, le=1_000, description="Chunks in a context when no density is named.")
    ] = 30
    chunks_high: Annotated[int, Meta(ge=1, le=1_000, description="Chunks in a context at density `high`.")] = 60
    chunks_xhigh: Annotated[int, Meta(ge=1, le=1_000, description="Chunks in a context at density `xhigh`.")] = 120
    relevance_min: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Probability that the vault holds an answer below which the context is null; 0 lets all in.",
        ),
    ] = 0.25
    context_tokens_max: Annotated[
        int, Meta(ge=0, le=10_000_000, description="Tokens that a context may have; 0 sets no token budget.")
    ] = 0
    time_zone: Annotated[
        str,
        Meta(min_length=1, max_length=64, description="IANA zone of rendered times without `X-Timezone`."),
    ] = "UTC"


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a session id separates."""

    isolation: Annotated[
        Literal["tag", "strict"],
        Meta(description="`tag`: a request without a session id sees all sessions; `strict`: it sees none."),
    ] = "tag"
