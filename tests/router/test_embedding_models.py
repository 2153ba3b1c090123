"""How many batches of memories run at once."""

from __future__ import annotations

import os

import pytest

from models.memory_settings import EmbeddingSettings
from router.embedding_models import BULK_BATCHES_MAX, bulk_running_max


@pytest.mark.parametrize(
    ("cores", "threads", "expected"), [(1, 1, 1), (2, 1, 2), (2, 2, 1), (8, 1, BULK_BATCHES_MAX), (8, 4, 2), (2, 8, 1)]
)
def test_as_many_as_there_are_cores_for_unless_it_is_configured(
    cores: int, threads: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert bulk_running_max(EmbeddingSettings(threads=threads)) == expected
    assert bulk_running_max(EmbeddingSettings(threads=threads, bulk_batches_max=7)) == 7
