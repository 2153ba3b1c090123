"""Code, config.toml and docs/settings.md list the same settings, with the same defaults; tables stay whole."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from models.provider_settings import BUILT_IN_PROVIDERS, ProviderSettings
from models.settings import Settings, describe_settings
from models.settings_loading import load_settings

PROJECT = Path(__file__).parents[1]
CONFIG = PROJECT / "config.toml"
LIST = PROJECT / "docs" / "settings.md"

# A row of its table: | `server.port` | `8080` | meaning |
ROW = re.compile(
    r"^\| *`(?P<name>[a-zA-Z_.]+\.[a-z_]+)` *\| *`?(?P<default>[^|`]*)`? *\| *(?P<meaning>[^|]+?) *\|$", re.M
)

DESCRIBED = {setting.name: setting for setting in describe_settings()}


def config() -> dict[str, Any]:
    """config.toml as it stands."""
    return tomllib.loads(CONFIG.read_text())


def names_in_config() -> set[str]:
    """Every key of config.toml; those of a provider's table as `providers.NAME.key`."""
    names = set()
    for section, table in config().items():
        for key, value in table.items():
            if isinstance(value, dict):
                names |= {f"{section}.NAME.{inner}" for inner in value}
            else:
                names.add(f"{section}.{key}")
    return names


def test_config_toml_lists_every_setting_and_no_other() -> None:
    assert names_in_config() == set(DESCRIBED)


def test_config_toml_means_the_defaults() -> None:
    assert load_settings(CONFIG, {}) == Settings()


def test_config_toml_has_a_table_for_every_built_in_provider_and_every_key_of_one() -> None:
    providers = {name: table for name, table in config()["providers"].items() if isinstance(table, dict)}

    assert list(providers) == list(BUILT_IN_PROVIDERS)
    assert set(providers["openai"]) == {field.name for field in msgspec.structs.fields(ProviderSettings)}
    assert all({"prefixes", "base_url"} <= set(table) for table in providers.values())


def test_every_key_of_config_toml_has_a_comment_of_one_to_five_lines() -> None:
    lines = CONFIG.read_text().splitlines()
    for number, line in enumerate(lines):
        section = next((line for line in reversed(lines[:number]) if line.startswith("[")), "")
        is_further_provider = section.startswith("[providers.") and section != "[providers.openai]"
        if " = " in line and not line.startswith("#") and not is_further_provider:
            above = lines[:number][::-1]
            comment = next((length for length, text in enumerate(above) if not text.startswith("# ")), 0)
            assert 1 <= comment <= 5, line


def test_the_document_lists_every_setting_with_its_default_and_no_other() -> None:
    listed = {row["name"]: row["default"].strip() for row in ROW.finditer(LIST.read_text())}

    assert listed == {name: format_default(setting.default) for name, setting in DESCRIBED.items()}


def format_default(value: object) -> str:
    """A default as config.toml writes it; empty texts, lists and keys are an empty cell."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value:g}" if value < 1000 else str(int(value))
        case _:
            return str(value or "")


def test_a_table_is_not_cut_in_two() -> None:
    """A blank line within one turns the rest of it into text."""
    for document in [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")]:
        lines = document.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines[:-1]):
            begins = line.startswith("|") and not lines[number - 1].startswith("|")
            assert not begins or lines[number + 1].startswith("|--"), f"{document.name}:{number + 1}"
