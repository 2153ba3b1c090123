"""What one setting alone cannot tell: URLs, zones, and settings that must agree with each other.

Pure checks of a finished `Settings`; each failure is one line that names the key, and never a value that may
be secret.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from models.embedder_settings import BUILT_IN_EMBEDDER, EmbedderSettings
from models.errors import InvalidRequest, SettingError
from models.provider_settings import BUILT_IN_PROVIDERS, RESERVED_PREFIX, ProviderSettings
from models.server_settings import is_loopback
from models.settings import ProvidersSettings, Settings
from models.times import parse_time_zone
from models.tracing_settings import TracingSettings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_HOST = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])\Z")
_ORIGIN = re.compile(r"https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?\Z")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


def check_settings(settings: Settings) -> None:
    """Settings that are each in range also fit together.

    Raises:
        SettingError: they do not; the message names the key.
    """
    _check_network(settings)
    _check_time_zone(settings.recall.time_zone)
    _check_networks(settings.limits.trusted_proxies)
    _check_providers(settings.providers)
    _check_embedders(settings)
    _check_fallbacks(settings)
    _check_tracing(settings.tracing)


def _check_network(settings: Settings) -> None:
    server = settings.server
    if server.workers > 1 and settings.store.kind == "postgres":
        raise SettingError(
            'server.workers is for files: with store.kind = "postgres", start several nodes on one database.',
            hint="See docs/scale-out.md.",
        )
    if server.workers > settings.store.shards:  # also before a data directory is made: then their number is fixed
        raise SettingError(
            f"server.workers is {server.workers}, and store.shards {settings.store.shards}.",
            hint="A worker needs a shard of its own; their number is fixed when the data directory is made.",
        )
    if bool(server.tls_certificate_file) != bool(server.tls_key_file):
        raise SettingError("server.tls_certificate_file and server.tls_key_file must be set together.")
    for host in server.allowed_hosts:
        if not _HOST.match(host):
            raise SettingError("server.allowed_hosts are names or addresses, without scheme, port and path.")
    for origin in settings.cors.origins:
        if not _ORIGIN.match(origin):
            raise SettingError(
                "cors.origins are written out in lower case, such as https://app.example.org, without a path or `*`."
            )


def exposure_warnings(settings: Settings) -> list[str]:
    """A sentence for each way in which the network can see more than it should: worth a loud warning at the start."""
    server = settings.server
    if is_loopback(server.host) or server.tls_certificate_file:
        return []
    return [
        f"server.host is {server.host}: other machines can connect, and keys and messages cross the network in clear. "
        "Set server.tls_certificate_file, or listen on 127.0.0.1 behind a proxy that speaks TLS."
    ]


def _check_time_zone(name: str) -> None:
    try:
        parse_time_zone(name)
    except InvalidRequest as error:
        raise SettingError("recall.time_zone must be an IANA time zone such as Europe/Vienna.") from error


def _check_tracing(tracing: TracingSettings) -> None:
    if tracing.endpoint:
        url = urlsplit(tracing.endpoint)
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query:
            raise SettingError("tracing.endpoint must be an http or https URL, without a user and a query.")


def _check_networks(networks: tuple[str, ...]) -> None:
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise SettingError(
                "limits.trusted_proxies takes networks such as 10.0.0.0/8 or addresses such as 10.0.0.7."
            ) from error


def _check_providers(providers: ProvidersSettings) -> None:
    if providers.default and providers.default not in providers.by_name:
        raise SettingError(f"providers.default must be empty or one of {', '.join(providers.by_name)}.")
    owners: dict[str, str] = {}
    for name, provider in providers.by_name.items():
        if not _NAME.match(name):
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


def _check_embedders(settings: Settings) -> None:
    by_name = settings.embedders.by_name
    if settings.embedding.default not in by_name:
        raise SettingError(f"embedding.default must be one of {', '.join(by_name)}.")
    for name, embedder in by_name.items():
        if not _NAME.match(name):
            raise SettingError(f"embedders: the name {name!r} may hold letters, digits, dots, dashes and underscores.")
        if [known.lower() for known in by_name].count(name.lower()) > 1:
            raise SettingError(f"embedders.{name}: another embedder has this name but for its case.")
        if (embedder.kind == "built-in") != (name == BUILT_IN_EMBEDDER):
            raise SettingError(f'embedders.{name}.kind: "built-in" is {BUILT_IN_EMBEDDER}, and that alone.')
        _check_embedder(name, embedder)


def _check_embedder(name: str, embedder: EmbedderSettings) -> None:
    if embedder.kind == "built-in" and embedder != EmbedderSettings():
        raise SettingError(f"embedders.{name} cannot be changed; its threads are embedding.threads.")
    if embedder.kind == "onnx" and not embedder.path:
        raise SettingError(f"embedders.{name}.path is missing: the directory of model.onnx and tokenizer.json.")
    if embedder.kind == "openai":
        if not embedder.model:
            raise SettingError(f"embedders.{name}.model is missing: the model's name at the endpoint.")
        if not embedder.base_url:
            raise SettingError(f"embedders.{name}.base_url is missing.")
        _check_url(f"embedders.{name}", embedder.base_url)


def _check_base_url(name: str, provider: ProviderSettings) -> None:
    if not provider.base_url:
        raise SettingError(f"providers.{name}.base_url is missing; built in are only {', '.join(BUILT_IN_PROVIDERS)}.")
    _check_url(f"providers.{name}", provider.base_url)


def _check_url(table: str, base_url: str) -> None:
    key = f"{table}.base_url"
    url = _split(base_url)
    if url is None or url.scheme not in {"http", "https"} or not url.hostname:
        raise SettingError(f"{key} must be a URL such as https://llm.example.org/v1.")
    if url.username is not None or not {"?", "#"}.isdisjoint(base_url):
        raise SettingError(f"{key} must be free of user names, keys, `?` and `#`; a key goes to {table}.api_key.")


def _split(text: str) -> SplitResult | None:
    if any(character.isspace() or not character.isprintable() for character in text):
        return None
    try:
        url = urlsplit(text)
        _ = url.port  # parsed, and so checked, only when asked for
    except ValueError:
        return None
    return url
