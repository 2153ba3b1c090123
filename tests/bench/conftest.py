"""A mock provider for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench._harness import running_provider


@pytest.fixture(scope="module")
def provider() -> Iterator[int]:
    """The port of a mock provider."""
    with running_provider() as port:
        yield port
