"""What every test shares: hypothesis profiles. `make test-long` runs with the profile `long`."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.postgres import postgres_server, postgres_url, prepared_database, prepared_url

__all__ = ["postgres_server", "postgres_url", "prepared_database", "prepared_url"]

# No deadline: the machines that run these tests share their cores, so the time of one example says nothing.
settings.register_profile("default", deadline=None)
settings.register_profile("long", deadline=None, max_examples=5_000)
settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of `tests/simulation`; pytest reads options only from here."""
    parser.addoption("--seeds", type=int, help="How many seeds the simulation runs.")
    parser.addoption("--first-seed", type=int, default=0, help="The first of them.")
