"""Settings of limits: off unless set, one line each, and a wrong network is one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import SettingError
from models.limit_settings import LimitSettings
from models.settings import Settings
from models.settings_loading import load_settings

CALLERS = (
    "requests_per_minute",
    "requests_burst",
    "requests_concurrent_max",
    "memories_max",
    "failed_auth_per_minute",
    "failed_auth_burst",
)


def test_nothing_limits_callers_unless_it_is_set() -> None:
    limits = Settings().limits
    assert {getattr(limits, name) for name in CALLERS} == {0}
    assert limits.trusted_proxies == ()


@pytest.mark.parametrize("name", CALLERS)
def test_each_limit_is_one_line(tmp_path: Path, name: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[limits]\n{name} = 7\n")
    assert getattr(load_settings(file, {}).limits, name) == 7
    assert getattr(load_settings(None, {f"MEMORYROUTER_LIMITS__{name.upper()}": "8"}, directory=tmp_path).limits, name)


def test_proxies_are_networks_or_addresses() -> None:
    environ = {"MEMORYROUTER_LIMITS__TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1,2001:db8::/32"}
    assert load_settings(None, environ).limits.trusted_proxies == ("10.0.0.0/8", "192.0.2.1", "2001:db8::/32")


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0.0/33", "proxy.example.org", "*"])
def test_a_wrong_network_stops_the_start_with_one_line(network: str) -> None:
    """An address with host bits is one of them: whoever wrote it may have meant that host only."""
    with pytest.raises(SettingError, match=r"limits\.trusted_proxies takes networks such as") as caught:
        load_settings(None, {"MEMORYROUTER_LIMITS__TRUSTED_PROXIES": network})
    assert "\n" not in str(caught.value)


def test_defaults_are_their_own() -> None:
    assert Settings().limits == LimitSettings()
