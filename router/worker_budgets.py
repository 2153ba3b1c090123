"""What a machine has is divided among its workers: threads of models, memory for vaults and bodies.

Pure. What is counted where a vault lives (limits of keys, quotas) is exact without; what bounds a single connection,
vault or file stays as it is. `server.connections_max` and `providers.NAME.connections_max` hold for each process.
"""

from __future__ import annotations

from msgspec.structs import replace

from models.embedder_settings import EmbedderSettings, EmbeddersSettings
from models.settings import EmbeddingSettings, Settings
from models.sizes import MIB

READER_THREADS_MIN = 2
"""With one, looking up a key would wait for the loading of a vault."""


def divided(settings: Settings, workers: int, *, bulk_batches: int) -> Settings:
    """The settings of one of so many workers; the very same for one.

    Args:
        bulk_batches: batches of memories that one process for all would embed at once.
    """
    if workers == 1:
        return settings
    embedding = _embedding(settings.embedding, workers, bulk_batches)
    return replace(
        settings,
        embedding=embedding,
        embedders=EmbeddersSettings(
            by_name={
                name: _embedder(one, workers, all_batches=bulk_batches, batches=embedding.bulk_batches_max)
                for name, one in settings.embedders.by_name.items()
            }
        ),
        vaults=replace(
            settings.vaults,
            memory_max_bytes=max(16 * MIB, settings.vaults.memory_max_bytes // workers),
            hydrations_max=_part(settings.vaults.hydrations_max, workers),
        ),
        limits=replace(
            settings.limits,
            buffered_bodies_max_bytes=max(MIB, settings.limits.buffered_bodies_max_bytes // workers),
            tracked_max=_part(settings.limits.tracked_max, workers),
        ),
        store=replace(
            settings.store,
            reader_threads=max(
                min(READER_THREADS_MIN, settings.store.reader_threads), settings.store.reader_threads // workers
            ),
            data_key_cache_max=_part(settings.store.data_key_cache_max, workers),
        ),
    )


def _part(whole: int, workers: int) -> int:
    return max(1, whole // workers)


def _embedding(settings: EmbeddingSettings, workers: int, bulk_batches: int) -> EmbeddingSettings:
    """So many threads as are a worker's part of all that may compute at once, in as few runs as may be."""
    threads = _part(settings.threads * bulk_batches, workers)
    of_a_run = min(settings.threads, threads)
    return replace(settings, threads=of_a_run, bulk_batches_max=threads // of_a_run)


def _embedder(one: EmbedderSettings, workers: int, *, all_batches: int, batches: int) -> EmbedderSettings:
    """A configured model: threads of one that runs here, calls of one that does not."""
    if one.kind == "onnx":
        return replace(one, threads=max(1, min(one.threads, one.threads * all_batches // (workers * batches))))
    if one.kind == "openai":
        return replace(one, calls_max=_part(one.calls_max, workers))
    return one
