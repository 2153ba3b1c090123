"""What one setting alone cannot tell: URLs, zones, and settings that must agree with each other.

Pure checks of a finished `Settings`; each failure is one line that names the key, and never a value that may
be secret.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from models.errors import InvalidRequest, SettingError
from models.provider_settings import BUILT_IN_PROVIDERS, RESERVED_PREFIX, ProviderSettings
from models.settings import ProvidersSettings, Settings
from models.times import parse_time_zone

_PROVIDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


def check_settings(settings: Settings) -> None:
    """Settings that are each in range also fit together.

    Raises:
        SettingError: they do not; the message names the key.
    """
    _check_time_zone(settings.recall.time_zone)
    _check_providers(settings.providers)
    _check_fallbacks(settings)


def _check_time_zone(name: str) -> None:
    try:
        parse_time_zone(name)
    except InvalidRequest as error:
        raise SettingError("recall.time_zone must be an IANA time zone such as Europe/Vienna.") from error


def _check_providers(providers: ProvidersSettings) -> None:
    if providers.default and providers.default not in providers.by_name:
        raise SettingError(f"providers.default must be empty or one of {', '.join(providers.by_name)}.")
    owners: dict[str, str] = {}
    for name, provider in providers.by_name.items():
        if not _PROVIDER_NAME.match(name):
            raise SettingError(f"providers: the name {name!r} may hold letters, digits, dots, dashes and underscores.")
        _check_base_url(name, provider)
        _check_formats(name, provider)
        for prefix in provider.prefixes:
            if not _PREFIX.match(prefix):
                raise SettingError(f"providers.{name}.prefixes are written without a slash or a space.")
            if prefix == RESERVED_PREFIX:
                raise SettingError(f"providers.{name}.prefixes: {RESERVED_PREFIX} is MemoryRouter's own.")
            owner = owners.setdefault(prefix, name)
            if owner != name:
                raise SettingError(f"providers.{name}.prefixes: {prefix} already belongs to providers.{owner}.")


def _check_formats(name: str, provider: ProviderSettings) -> None:
    if provider.serves and provider.format != "openai":
        raise SettingError(f'providers.{name}.serves is for providers of the format "openai".')


def _check_fallbacks(settings: Settings) -> None:
    """A fallback is a model that somebody serves: mistakes should not wait for the day it is needed."""
    prefixes = {
        prefix.lower()
        for name, provider in settings.providers.by_name.items()
        for prefix in provider.prefixes or (name,)
    }
    for model, others in settings.fallbacks.items():
        key = f'fallbacks."{model}"'
        if len({model, *others}) <= len(others):
            raise SettingError(f"{key} must name other models, and each of them once.")
        for other in (model, *others):
            prefix, slash, _ = other.partition("/")
            if slash and prefix.lower() not in prefixes:
                raise SettingError(f"{key}: no provider has the prefix {prefix}.")


def _check_base_url(name: str, provider: ProviderSettings) -> None:
    key = f"providers.{name}.base_url"
    if not provider.base_url:
        raise SettingError(f"{key} is missing; built in are only {', '.join(BUILT_IN_PROVIDERS)}.")
    url = _split(provider.base_url)
    if url is None or url.scheme not in {"http", "https"} or not url.hostname:
        raise SettingError(f"{key} must be a URL such as https://llm.example.org/v1.")
    if url.username is not None or not {"?", "#"}.isdisjoint(provider.base_url):
        raise SettingError(
            f"{key} must be free of user names, keys, `?` and `#`; a key goes to providers.{name}.api_key."
        )


def _split(text: str) -> SplitResult | None:
    if any(character.isspace() or not character.isprintable() for character in text):
        return None
    try:
        url = urlsplit(text)
        _ = url.port  # parsed, and so checked, only when asked for
    except ValueError:
        return None
    return url
