"""Which seeds the simulation runs."""

from __future__ import annotations

import pytest

from tests.campaigns.moments import cycles


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a seed, so that a failure names its seed."""
    if "simulation_seed" in metafunc.fixturenames:
        first = metafunc.config.getoption("--first-seed")
        count = metafunc.config.getoption("--seeds") or cycles(30, 2_000)
        metafunc.parametrize("simulation_seed", range(first, first + count))
