"""Reads settings: command line over environment over file over defaults, every mistake one clear line.

Owns the names of environment variables and the texts of configuration errors. An error names the key and what
it takes, never the value: that might be a secret put in the wrong place.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from models.credentials import with_credentials
from models.embedder_settings import BUILT_IN_EMBEDDERS, EmbedderSettings, EmbeddersSettings
from models.errors import SettingError
from models.provider_settings import BUILT_IN_PROVIDERS, Fallbacks, ProviderSettings, Secret
from models.settings import ProvidersSettings, Settings
from models.settings_checks import check_settings

ENVIRONMENT_PREFIX = "MEMORYROUTER_"
DEFAULT_CONFIG_NAME = "config.toml"
FILE_BYTES_MAX = 1024 * 1024
FALLBACKS = "fallbacks"


class _Named(msgspec.Struct, frozen=True):
    """A section that consists of tables by name."""

    type: Any
    built_in: Iterable[str]
    noun: str


_NAMED = {
    "providers": _Named(ProviderSettings, tuple(BUILT_IN_PROVIDERS), "provider"),
    "embedders": _Named(EmbedderSettings, tuple(BUILT_IN_EMBEDDERS), "embedder"),
}
_SECTIONS: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(Settings)}
_TRUE = frozenset({"true", "1"})
_FALSE = frozenset({"false", "0"})

Table = dict[str, Any]


def load_settings(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    overrides: Mapping[str, object] | None = None,
    directory: Path | None = None,
) -> Settings:
    """The settings that hold: overrides, else environment, else file, else defaults, key by key.

    Args:
        path: the configuration file. None means `config.toml` in `directory` if there, else the defaults.
        environ: environment variables, with the folder of credentials; settings are `MEMORYROUTER_<SECTION>__<KEY>`.
        overrides: values from the command line by `section.key`; None values are left out.
        directory: where to look for `config.toml`; the current directory unless given.

    Raises:
        SettingError: a key is unknown, a value has the wrong type or range, or the file cannot be read.
    """
    environ = with_credentials(environ)
    file = _find_file(path, directory or Path())
    tables = _read_file(file) if file else {}
    _merge_environment(tables, environ)
    for name, value in (overrides or {}).items():
        if value is not None:
            section, key = name.split(".")
            _table(tables, section)[key] = value
    settings = _build_settings(tables, environ)
    check_settings(settings)
    return settings


def missing_provider_keys(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """A sentence for each provider whose `api_key_env` names a variable that is not set: worth a warning."""
    environ = with_credentials(environ)
    return [
        f"providers.{name}.api_key_env names {provider.api_key_env}, which is not set."
        for name, provider in settings.providers.by_name.items()
        if provider.api_key_env and not environ.get(provider.api_key_env)
    ]


# --- file and environment become one tree of plain values ---


def _find_file(path: Path | None, directory: Path) -> Path | None:
    if path is not None:
        return path
    beside = directory / DEFAULT_CONFIG_NAME
    return beside if beside.exists() else None


def _read_file(path: Path) -> Table:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise SettingError(f"{path}: the configuration cannot be read: {error.strerror or error}.") from error
    if len(data) > FILE_BYTES_MAX:
        raise SettingError(f"{path}: a configuration may have at most {FILE_BYTES_MAX} bytes.")
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise SettingError(f"{path}: the configuration is not UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{path}: not valid TOML: {error}.") from error


def _merge_environment(tables: Table, environ: Mapping[str, str]) -> None:
    """Put the environment's settings over the file's. Sorted, so that the first error is always the same."""
    for name in sorted(environ):
        parts = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        if not name.startswith(ENVIRONMENT_PREFIX) or len(parts) == 1:
            continue  # the clients' own variables (MEMORYROUTER_API_KEY, ...) have no double underscore
        try:
            _merge_variable(tables, parts, environ[name])
        except SettingError as error:
            raise SettingError(f"environment variable {name}: {error}") from error


def _merge_variable(tables: Table, parts: list[str], text: str) -> None:
    section, key = parts[0], parts[-1]
    section_type = _section_type(section)
    if section == FALLBACKS:
        raise SettingError("fallbacks are set in the file only: names of models do not fit into a variable's name.")
    if len(parts) == 2:
        table, label = _table(tables, section), section
    elif len(parts) == 3 and section in _NAMED:
        table, label = _named_table(tables, section, parts[1])
        section_type = _NAMED[section].type
    else:
        raise SettingError("a setting is <SECTION>__<KEY>, PROVIDERS__<NAME>__<KEY> or EMBEDDERS__<NAME>__<KEY>.")
    kind = _field_type(section_type, label, key)
    value = _parse_text(text, kind, f"{label}.{key}")
    _convert(value, kind, f"{label}.{key}")  # checked here as well: the error should name the variable
    table[key] = value


def _table(tables: Table, section: str) -> Table:
    table = tables.setdefault(section, {})
    if not isinstance(table, dict):
        raise SettingError(f"{section} must be a table: [{section}].")
    return table


def _named_table(tables: Table, section: str, name: str) -> tuple[Table, str]:
    """The table of a provider or an embedder and its label, by the name's spelling in the environment."""
    named, kind = _table(tables, section), _NAMED[section]
    known = [*named, *(built_in for built_in in kind.built_in if built_in not in named)]
    matches = [real for real in known if _environment_spelling(real) == name]
    if len(matches) > 1:
        raise SettingError(f"means more than one {kind.noun}: {', '.join(matches)}.")
    real = matches[0] if matches else name
    table = named.setdefault(real, {})
    if not isinstance(table, dict):
        raise SettingError(f"{section}.{real} is no {kind.noun}.")
    return table, f"{section}.{real}"


def _environment_spelling(name: str) -> str:
    """Dashes and dots cannot stand in the name of a variable and become underscores."""
    return name.lower().replace("-", "_").replace(".", "_")


# --- the tree becomes settings ---


def _build_settings(tables: Table, environ: Mapping[str, str]) -> Settings:
    sections: dict[str, Any] = {}
    for name, table in tables.items():
        section_type = _section_type(name)
        if not isinstance(table, dict):
            raise SettingError(f"{name} must be a table: [{name}].")
        if name == "providers":
            sections[name] = _build_providers(table, environ)
        elif name == "embedders":
            sections[name] = _build_embedders(table, environ)
        elif name == FALLBACKS:
            sections[name] = _build_fallbacks(table)
        else:
            sections[name] = section_type(**_convert_table(section_type, name, table))
    return Settings(**sections)


def _build_providers(table: Table, environ: Mapping[str, str]) -> ProvidersSettings:
    by_name = dict(BUILT_IN_PROVIDERS)
    plain = {key: value for key, value in table.items() if key == "default" or not isinstance(value, dict)}
    for name, values in table.items():
        if name in plain:
            continue
        known = by_name.get(name, ProviderSettings())
        given = _convert_table(ProviderSettings, f"providers.{name}", values)
        provider = msgspec.structs.replace(known, **given)
        by_name[name] = msgspec.structs.replace(
            provider, prefixes=provider.prefixes or (name,), base_url=provider.base_url.rstrip("/")
        )
    for name, provider in by_name.items():
        if provider.api_key_env and not provider.api_key:
            key = Secret(environ.get(provider.api_key_env, "").strip())
            by_name[name] = msgspec.structs.replace(provider, api_key=key)
    return ProvidersSettings(**_convert_table(ProvidersSettings, "providers", plain), by_name=by_name)


def _build_embedders(table: Table, environ: Mapping[str, str]) -> EmbeddersSettings:
    by_name = dict(BUILT_IN_EMBEDDERS)
    for name, values in table.items():
        if not isinstance(values, dict):
            raise SettingError(f"embedders.{name} must be a table: [embedders.{name}].")
        given = _convert_table(EmbedderSettings, f"embedders.{name}", values)
        embedder = msgspec.structs.replace(by_name.get(name, EmbedderSettings()), **given)
        key = embedder.api_key or Secret(environ.get(embedder.api_key_env, "").strip() if embedder.api_key_env else "")
        by_name[name] = msgspec.structs.replace(embedder, api_key=key, base_url=embedder.base_url.rstrip("/"))
    return EmbeddersSettings(by_name=by_name)


def _build_fallbacks(table: Table) -> Fallbacks:
    fallbacks: Fallbacks = {}
    for model, others in table.items():
        try:
            fallbacks.update(msgspec.convert({model: others}, Fallbacks))
        except msgspec.ValidationError as error:
            raise SettingError(f'{FALLBACKS}."{model}" must be a list of 1 to 8 names of models.') from error
    return fallbacks


def _convert_table(section_type: Any, name: str, table: Table) -> Table:
    values: Table = {}
    for key, value in table.items():
        values[key] = _convert(value, _field_type(section_type, name, key), f"{name}.{key}")
    return values


def _convert(value: object, kind: Any, key: str) -> Any:
    try:
        converted = msgspec.convert(value, kind, dec_hook=_decode_secret)
    except (msgspec.ValidationError, OverflowError) as error:
        raise SettingError(f"{key} must be {describe_type(kind)}.") from error
    if isinstance(converted, float) and not math.isfinite(converted):
        raise SettingError(f"{key} must be {describe_type(kind)}.")
    return converted


def _decode_secret(kind: type, value: object) -> Secret:
    if kind is not Secret or not isinstance(value, str):
        raise TypeError("a key is a text")
    return Secret(value.strip())


def _parse_text(text: str, kind: Any, key: str) -> object:
    """A value of the environment, read as its setting's type wants it; ranges are checked later."""
    information = _plain(inspect.type_info(kind))
    try:
        if isinstance(information, inspect.BoolType):
            return _parse_bool(text)
        if isinstance(information, inspect.IntType):
            return int(text)
        if isinstance(information, inspect.FloatType):
            return float(text)
    except ValueError as error:
        raise SettingError(f"{key} must be {describe_type(kind)}.") from error
    if isinstance(information, inspect.VarTupleType):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _parse_bool(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered not in _TRUE | _FALSE:
        raise ValueError("neither true nor false")
    return lowered in _TRUE


# --- names and words for error messages ---


def _section_type(section: str) -> Any:
    if section not in _SECTIONS:
        raise _unknown(section, "", _SECTIONS)
    return _SECTIONS[section]


def _field_type(section_type: Any, label: str, key: str) -> Any:
    fields = msgspec.structs.fields(section_type)
    types = {field.name: field.type for field in fields if field.name != "by_name"}
    if key not in types:
        raise _unknown(key, f"{label}.", types)
    return types[key]


def _unknown(name: str, prefix: str, valid: Iterable[str]) -> SettingError:
    nearest = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.0)[0]
    return SettingError(f"unknown setting {prefix}{name}; did you mean {prefix}{nearest}?")


def _plain(information: inspect.Type) -> inspect.Type:
    return information.type if isinstance(information, inspect.Metadata) else information


def describe_type(kind: Any) -> str:
    """What a setting takes, in words: `an integer from 1 to 64`."""
    return _describe(_plain(inspect.type_info(kind)))


def _describe(information: inspect.Type) -> str:
    match information:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            noun = "an integer" if isinstance(information, inspect.IntType) else "a number"
            return noun + _describe_range(information)
        case inspect.LiteralType():
            return "one of " + ", ".join(f'"{value}"' for value in information.values)
        case inspect.VarTupleType(item_type=inspect.LiteralType(values=values)):
            return "a list of " + " and ".join(f'"{value}"' for value in values)
        case inspect.VarTupleType():
            return f"a list of at most {information.max_length} texts"
        case inspect.StrType(max_length=int(longest), min_length=shortest):
            return (
                f"a text of {shortest} to {longest} characters"
                if shortest
                else f"a text of at most {longest} characters"
            )
        case _:
            return "a text"


def _describe_range(number: inspect.IntType | inspect.FloatType) -> str:
    if number.ge is not None and number.le is not None:
        return f" from {_figure(number.ge)} to {_figure(number.le)}"
    words = (("above", number.gt), ("of at least", number.ge), ("of at most", number.le))
    bounds = [f"{word} {_figure(bound)}" for word, bound in words if bound is not None]
    return " " + " and ".join(bounds) if bounds else ""


def _figure(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
