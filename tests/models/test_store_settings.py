"""The store's limits check themselves, and the server key from the settings is decoded and never shown."""

from __future__ import annotations

import base64

import pytest

from models.errors import SettingError
from models.provider_settings import Secret
from models.settings_loading import load_settings
from models.store_settings import StoreSettings

KEY = bytes(range(200, 232))
KEY_TEXT = base64.b64encode(KEY).decode()


def test_no_key_means_a_file() -> None:
    assert StoreSettings().server_key_bytes() is None


@pytest.mark.parametrize("text", [KEY_TEXT, base64.urlsafe_b64encode(KEY).decode()])
def test_a_key_in_either_base64_is_decoded(text: str) -> None:
    assert StoreSettings(server_key=Secret(text)).server_key_bytes() == KEY


@pytest.mark.parametrize("text", ["short", KEY_TEXT[:-4], KEY_TEXT + "AAAA", "ü" * 44, KEY_TEXT.replace("=", "!")])
def test_a_key_that_is_none_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(SettingError, match=r"store\.server_key must be 32 bytes in base64") as refusal:
        StoreSettings(server_key=Secret(text)).server_key_bytes()
    assert text not in str(refusal.value)


def test_the_environment_may_hold_the_key() -> None:
    settings = load_settings(None, {"MEMORYROUTER_STORE__SERVER_KEY": KEY_TEXT}).store
    assert settings.server_key_bytes() == KEY
    assert KEY_TEXT not in repr(settings)
    assert KEY_TEXT not in str(settings)


def test_ballast_and_scrub_may_be_off_and_nothing_else_may() -> None:
    settings = StoreSettings(ballast_bytes=0, scrub_interval_s=0)
    assert (settings.ballast_bytes, settings.scrub_interval_s) == (0, 0)
    with pytest.raises(SettingError, match=r"store\.reader_threads must be at least 1"):
        StoreSettings(reader_threads=0)
    with pytest.raises(SettingError, match=r"store\.ballast_bytes must be at least 0"):
        StoreSettings(ballast_bytes=-1)


def test_limits_are_bounded_above() -> None:
    with pytest.raises(SettingError, match="shards"):
        StoreSettings(shards=65)
    with pytest.raises(SettingError, match="queue_rows_max"):
        StoreSettings(queue_rows_max=2**20 + 1)


def test_the_place_of_the_store_is_one_of_two() -> None:
    assert load_settings(None, {}).store.kind == "sqlite"
    settings = load_settings(
        None, {"MEMORYROUTER_STORE__KIND": "postgres", "MEMORYROUTER_STORE__URL": "postgresql://x"}
    )
    assert settings.store.kind == "postgres"
    with pytest.raises(SettingError, match=r"store\.kind"):
        load_settings(None, {"MEMORYROUTER_STORE__KIND": "mysql"})


def test_the_url_is_never_shown() -> None:
    settings = load_settings(None, {"MEMORYROUTER_STORE__URL": "postgresql://name:geheim@host/name"}).store
    assert settings.url.reveal().endswith("geheim@host/name")
    assert "geheim" not in repr(settings)


def test_partitions_and_writers_are_bounded() -> None:
    with pytest.raises(SettingError, match="parts"):
        StoreSettings(parts=65_537)
    with pytest.raises(SettingError, match="writer_threads"):
        StoreSettings(writer_threads=65)
