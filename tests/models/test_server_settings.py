"""What the network may see: addresses, hosts, origins, and the warning when messages would cross it in clear."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import SettingError
from models.server_settings import is_loopback
from models.settings import ServerSettings, Settings
from models.settings_checks import exposure_warnings
from models.settings_loading import load_settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST"])
def test_a_loopback_address_is_reached_from_its_own_machine_only(host: str) -> None:
    assert is_loopback(host)
    assert exposure_warnings(Settings(server=ServerSettings(host=host))) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "api.example.org", "localhost.example.org"])
def test_any_other_address_without_tls_is_worth_a_warning(host: str) -> None:
    """It names the setting; with a certificate there is none."""
    (sentence,) = exposure_warnings(Settings(server=ServerSettings(host=host)))
    assert host in sentence
    assert "server.tls_certificate_file" in sentence
    with_tls = ServerSettings(host=host, tls_certificate_file="c.pem", tls_key_file="k.pem")
    assert exposure_warnings(Settings(server=with_tls)) == []


def test_the_default_is_loopback() -> None:
    """And no page, no name and no certificate is taken for granted."""
    settings = Settings()
    assert is_loopback(settings.server.host)
    assert (settings.cors.origins, settings.server.allowed_hosts) == ((), ())
    assert settings.metrics.access == "auto"


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "app.example.org", "https://app.example.org/", "https://*.example.org", "HTTPS://app.example.org",
     "https://user@app.example.org", "ftp://app.example.org", "https://app.example.org:port", "https://a b"],
)  # fmt: skip
def test_origins_are_written_out(tmp_path: Path, origin: str) -> None:
    """As browsers send them; `*` would open a server to every page there is."""
    with pytest.raises(SettingError, match=r"^cors\.origins are written out"):
        load_settings(None, {"MEMORYROUTER_CORS__ORIGINS": origin}, directory=tmp_path)


def test_origins_and_hosts_are_lists(tmp_path: Path) -> None:
    environment = {
        "MEMORYROUTER_CORS__ORIGINS": "https://app.example.org,http://localhost:5173,http://[::1]:80",
        "MEMORYROUTER_SERVER__ALLOWED_HOSTS": "api.example.org,127.0.0.1,[::1]",
    }
    settings = load_settings(None, environment, directory=tmp_path)
    assert settings.cors.origins == ("https://app.example.org", "http://localhost:5173", "http://[::1]:80")
    assert settings.server.allowed_hosts == ("api.example.org", "127.0.0.1", "[::1]")


@pytest.mark.parametrize("host", ["https://api.example.org", "api.example.org:8080", "api.example.org/", "*", "::1"])
def test_an_allowed_host_is_a_bare_name(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingError, match=r"^server\.allowed_hosts are names or addresses"):
        load_settings(None, {"MEMORYROUTER_SERVER__ALLOWED_HOSTS": host}, directory=tmp_path)


def test_several_workers_are_for_files_and_several_nodes_for_a_database() -> None:
    several = {"MEMORYROUTER_SERVER__WORKERS": "2"}
    assert load_settings(None, several).server.workers == 2
    assert load_settings(None, {}).server.workers == 1
    with pytest.raises(SettingError, match=r"server\.workers is for files"):
        load_settings(None, {**several, "MEMORYROUTER_STORE__KIND": "postgres"})
    with pytest.raises(SettingError, match=r"server\.workers must be an integer from 1 to 64"):
        load_settings(None, {"MEMORYROUTER_SERVER__WORKERS": "65"})


def test_a_worker_has_a_shard_of_its_own() -> None:
    """Said before a data directory is made, which fixes their number."""
    several = {"MEMORYROUTER_SERVER__WORKERS": "5"}
    with pytest.raises(SettingError, match=r"server\.workers is 5, and store\.shards 4"):
        load_settings(None, several)
    assert load_settings(None, {**several, "MEMORYROUTER_STORE__SHARDS": "5"}).server.workers == 5
