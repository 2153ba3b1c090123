"""Secrets that come as files of the service manager stand for environment variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.credentials import BYTES_MAX, FOLDER_VARIABLE, with_credentials
from models.errors import SettingError
from models.settings_loading import load_settings, missing_provider_keys


def folder_with(folder: Path, **files: str) -> dict[str, str]:
    """An environment whose credentials are these files."""
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {FOLDER_VARIABLE: str(folder)}


def test_files_with_names_of_variables_are_variables(tmp_path: Path) -> None:
    environ = folder_with(tmp_path, OPENAI_API_KEY="sk-1\n", MEMORYROUTER_SERVER__PORT="9000")
    (tmp_path / "server.key").write_bytes(b"\xff\x00")
    (tmp_path / "FOLDER").mkdir()
    assert with_credentials(environ) == environ | {"OPENAI_API_KEY": "sk-1", "MEMORYROUTER_SERVER__PORT": "9000"}


def test_without_the_folder_nothing_changes() -> None:
    assert with_credentials({"OPENAI_API_KEY": "sk-1"}) == {"OPENAI_API_KEY": "sk-1"}


def test_a_variable_that_is_set_comes_first(tmp_path: Path) -> None:
    environ = folder_with(tmp_path, OPENAI_API_KEY="sk-1") | {"OPENAI_API_KEY": "sk-2"}
    assert with_credentials(environ)["OPENAI_API_KEY"] == "sk-2"


def test_settings_take_their_keys_from_there(tmp_path: Path) -> None:
    environ = folder_with(tmp_path, OPENAI_API_KEY="sk-1", MEMORYROUTER_PROVIDERS__GROQ__API_KEY="gsk-1")
    environ["MEMORYROUTER_PROVIDERS__OPENAI__API_KEY_ENV"] = "OPENAI_API_KEY"
    settings = load_settings(None, environ, directory=tmp_path / "none")
    providers = settings.providers.by_name
    assert (providers["openai"].api_key.reveal(), providers["groq"].api_key.reveal()) == ("sk-1", "gsk-1")
    assert missing_provider_keys(settings, environ) == []


def test_a_credential_that_is_no_text_is_named_and_not_shown(tmp_path: Path) -> None:
    environ = folder_with(tmp_path)
    for content in (b"\xffsecret", b"secret\0secret", b"secret" * BYTES_MAX):
        (tmp_path / "OPENAI_API_KEY").write_bytes(content)
        with pytest.raises(SettingError, match="OPENAI_API_KEY") as raised:
            with_credentials(environ)
        assert "secret" not in str(raised.value)


def test_a_folder_that_cannot_be_read_is_a_mistake_in_the_settings(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"CREDENTIALS_DIRECTORY: .*missing cannot be read: No such file"):
        with_credentials({FOLDER_VARIABLE: str(tmp_path / "missing")})
