"""A database with the tables of a cluster."""

from __future__ import annotations

import pytest

from tests.actors.cluster.house import prepare


@pytest.fixture
def cluster_url(postgres_url: str) -> str:
    """Where it is."""
    prepare(postgres_url)
    return postgres_url
