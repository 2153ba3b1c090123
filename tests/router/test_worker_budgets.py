"""What a machine has is divided among its workers, and what belongs to one vault, key or connection is not."""

from __future__ import annotations

import msgspec
import pytest

from models.embedder_settings import BUILT_IN_EMBEDDER, EmbedderSettings, EmbeddersSettings
from models.memory_settings import EmbeddingSettings
from models.settings import Settings
from models.sizes import GIB, MIB
from router.worker_budgets import divided

DIVIDED = {
    "embedding.bulk_batches_max", "embedding.threads", "embedders.by_name", "vaults.memory_max_bytes",
    "vaults.hydrations_max", "limits.buffered_bodies_max_bytes", "limits.tracked_max", "store.reader_threads",
    "store.data_key_cache_max",
}  # fmt: skip


def changed(before: Settings, after: Settings) -> set[str]:
    """The settings that differ."""
    return {
        f"{section.name}.{field.name}"
        for section in msgspec.structs.fields(Settings)
        if isinstance(old := getattr(before, section.name), msgspec.Struct)
        for field in msgspec.structs.fields(old)
        if getattr(old, field.name) != getattr(getattr(after, section.name), field.name)
    }


def test_one_process_has_all_of_it() -> None:
    settings = Settings()
    assert divided(settings, 1, bulk_batches=4) is settings


def test_memory_and_threads_are_divided_and_nothing_else() -> None:
    embedders = EmbeddersSettings(
        by_name={
            BUILT_IN_EMBEDDER: EmbedderSettings(),
            "own": EmbedderSettings(kind="onnx", path="/models/own", threads=4),
            "far": EmbedderSettings(kind="openai", model="m", calls_max=8),
        }
    )
    settings = Settings(embedders=embedders, embedding=EmbeddingSettings(threads=2))
    part = divided(settings, 4, bulk_batches=2)
    assert changed(settings, part) == DIVIDED
    assert part.vaults.memory_max_bytes == GIB // 2
    assert part.vaults.hydrations_max == 1
    assert part.limits.buffered_bodies_max_bytes == 128 * MIB
    assert part.embedders.by_name[BUILT_IN_EMBEDDER] == EmbedderSettings()
    assert part.embedders.by_name["own"].threads == 2
    assert part.embedders.by_name["far"].calls_max == 2
    assert part.server == settings.server


@pytest.mark.parametrize(
    ("threads", "batches", "workers", "expected"),
    [
        (1, 4, 2, (1, 2)),  # four cores
        (1, 2, 2, (1, 1)),
        (1, 1, 2, (1, 1)),  # fewer cores than workers
        (4, 2, 2, (4, 1)),
        (4, 1, 2, (2, 1)),
        (3, 1, 2, (1, 1)),
        (2, 4, 64, (1, 1)),
    ],
)
def test_threads_that_embed_are_as_many_in_all_as_for_one_process(
    threads: int, batches: int, workers: int, expected: tuple[int, int]
) -> None:
    settings = Settings(embedding=EmbeddingSettings(threads=threads))
    part = divided(settings, workers, bulk_batches=batches).embedding
    assert (part.threads, part.bulk_batches_max) == expected
    assert part.threads * part.bulk_batches_max * workers <= max(threads * batches, workers)


def test_no_part_is_too_small_to_work_with() -> None:
    part = divided(Settings(), 64, bulk_batches=1)
    assert part.vaults.memory_max_bytes >= 16 * MIB
    assert part.store.reader_threads == 2
    assert divided(part, 64, bulk_batches=1).limits.buffered_bodies_max_bytes >= MIB
    assert part.limits.tracked_max > 0
