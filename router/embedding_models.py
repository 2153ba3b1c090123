"""From the settings to running embedders: the built-in model, directories, endpoints.

Owns which of them are opened at once (the default one, so that a mistake shows at the start) and which when they are
first needed. Must never embed anything itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from actors.embedder import Embedder
from actors.embedders import Embedders, open_embedders
from actors.embedding_source import EmbedderUnavailable, EmbeddingSource, LocalSource
from models.embedder_settings import BUILT_IN_EMBEDDER, EmbedderSettings
from models.embedding import ForeignModel, TextEncoder, open_embedding_model
from models.embedding_directory import LoadedSessions, check_directory, open_directory_model
from models.memory_settings import EmbeddingSettings
from models.model_files import ModelFileError
from models.settings import Settings

MODELS_FOLDER = "models"
"""Where in the data directory the built-in model's prepared graph is kept."""

BULK_BATCHES_MAX = 4
"""Unless it is configured otherwise: each takes some 11 MB while it runs, and one process has one interpreter lock."""


@asynccontextmanager
async def open_configured_embedders(
    settings: Settings, data_dir: Path, *, encoder: TextEncoder | None = None
) -> AsyncIterator[Embedders]:
    """Run all configured embedders for the length of the block.

    Args:
        encoder: in place of the built-in model, for tests.

    Raises:
        ModelFileError: the built-in model or the default one cannot be opened, or a directory lacks a file.
    """
    load = partial(open_embedding_model, data_dir / MODELS_FOLDER, threads=settings.embedding.threads)
    built_in: TextEncoder = await trio.to_thread.run_sync(load) if encoder is None else encoder
    sessions = LoadedSessions(settings.embedding.loaded_max)
    async with AsyncExitStack() as stack:
        embedders = []
        for name, one in settings.embedders.by_name.items():
            source: EmbeddingSource
            if one.kind == "openai" and name != BUILT_IN_EMBEDDER:
                source = await stack.enter_async_context(_open_endpoint(name, one, built_in))
            else:
                source = _local_source(name, one, built_in, settings, sessions)
            if name == settings.embedding.default and one.kind == "onnx":
                await _open_now(name, source)
            embedders.append(
                Embedder(
                    source,
                    name=name,
                    query_prefix=one.query_prefix,
                    document_prefix=one.document_prefix,
                    interactive_max=settings.embedding.queue_interactive_max,
                    bulk_max=settings.embedding.queue_bulk_max,
                )
            )
        yield await stack.enter_async_context(open_embedders(embedders, default=settings.embedding.default))


@asynccontextmanager
async def _open_endpoint(name: str, one: EmbedderSettings, built_in: TextEncoder) -> AsyncIterator[EmbeddingSource]:
    from router.embedding_endpoint import EndpointSource  # it needs httpx: 70 ms and 6 MB that most servers save

    source = EndpointSource(name, one, built_in)
    try:
        yield source
    finally:
        await source.aclose()


def _local_source(
    name: str, one: EmbedderSettings, built_in: TextEncoder, settings: Settings, sessions: LoadedSessions
) -> EmbeddingSource:
    local = partial(
        LocalSource,
        batch_texts_max=settings.embedding.batch_texts_max,
        bulk_running_max=bulk_running_max(settings.embedding),
        offload=trio.to_thread.run_sync,
    )
    if name == BUILT_IN_EMBEDDER:
        return local(built_in, encoder=built_in)
    check_directory(name, one)
    unopened = ForeignModel(tokens_max=one.tokens_max, tokenizer=built_in)
    return local(unopened, partial(open_directory_model, name, one, sessions))


def bulk_running_max(settings: EmbeddingSettings) -> int:
    """Batches of memories that run at once: as configured, else as many as there are cores for, up to a few."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return settings.bulk_batches_max or max(1, min(BULK_BATCHES_MAX, cores // settings.threads))


async def _open_now(name: str, source: EmbeddingSource) -> None:
    try:
        await source.open()
    except EmbedderUnavailable as error:
        raise ModelFileError(f"embedding.default is {name}: {error}") from None
