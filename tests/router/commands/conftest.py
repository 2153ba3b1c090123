"""Where every test of a command runs."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _small_store(outside_of_the_project: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a directory of its own, where a new data directory is quickly made."""
    monkeypatch.setenv("MEMORYROUTER_STORE__SHARDS", "1")
    monkeypatch.setenv("MEMORYROUTER_STORE__BALLAST_BYTES", "65536")
