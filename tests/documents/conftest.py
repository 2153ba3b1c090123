"""What the tests of documents share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents.commands import open_commands


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for the PATH of pages, in which `memoryrouter` is quick."""
    with open_commands(tmp_path_factory.mktemp("commands")) as folder:
        yield folder
