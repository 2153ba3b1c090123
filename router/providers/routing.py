"""Which provider answers a model, and under what name the provider knows it.

Owns the two tables of design section 12: prefixes, and names without a prefix. Must never guess: an unknown prefix is
an error even where a default provider is set, so that a typing mistake does not send a conversation to a stranger.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from models.errors import ModelNotFound
from models.provider_settings import ProviderSettings

_NAMES = (
    (re.compile(r"claude"), "anthropic"),
    (re.compile(r"gpt|chatgpt|o[134](?![a-z0-9])"), "openai"),
    (re.compile(r"gemini"), "google"),
    (re.compile(r"grok"), "xai"),
    (re.compile(r"deepseek"), "deepseek"),
    (re.compile(r"mistral|mixtral|codestral"), "mistral"),
)
"""Beginnings of model names (contract section 5). The hosted product matches anywhere in the name, so there "foo1" is
OpenAI's; here only the start counts."""

_CHAT_PATHS = {
    "openai": "/chat/completions",
    # Both vendors serve Chat Completions beside their own format, below the origin that their own SDKs are given.
    "google": "/v1beta/openai/chat/completions",
    "anthropic": "/v1/chat/completions",
}


class Route(msgspec.Struct, frozen=True):
    """Where a model is served.

    Attributes:
        provider: the provider's name.
        settings: how to reach it.
        model: what the provider calls the model.
    """

    provider: str
    settings: ProviderSettings
    model: str

    @property
    def chat_path(self) -> str:
        """Where Chat Completions is, below the base URL."""
        return _CHAT_PATHS[self.settings.format]


class RoutingTable:
    """Resolves model names. Immutable; built once from the settings.

    Args:
        by_name: providers by name, as in `settings.providers.by_name`.
        default: provider of unknown names without a prefix, "" for none.
    """

    def __init__(self, by_name: Mapping[str, ProviderSettings], *, default: str = "") -> None:
        self._by_name = dict(by_name)
        self._default = default
        self._by_prefix: dict[str, str] = {}
        for name, settings in self._by_name.items():
            for prefix in settings.prefixes or (name,):
                self._by_prefix.setdefault(prefix.rstrip("/").lower(), name)

    def resolve(self, model: str) -> Route:
        """The route of a model as a client names it.

        Raises:
            ModelNotFound: no provider is configured for this name.
        """
        prefix, slash, rest = model.partition("/")
        if not slash:
            return self._resolve_plain(model)
        name = self._by_prefix.get(prefix.lower())
        if name is None or not rest:
            raise ModelNotFound(
                f"No provider is configured for the model {_quote(model)}.",
                hint=f"Known prefixes: {', '.join(sorted(self._by_prefix))}.",
            )
        settings = self._by_name[name]
        return Route(provider=name, settings=settings, model=model if settings.keep_prefix else rest)

    def _resolve_plain(self, model: str) -> Route:
        lowered = model.lower()
        for pattern, prefix in _NAMES:
            name = self._by_prefix.get(prefix)
            if name is not None and pattern.match(lowered):
                return Route(provider=name, settings=self._by_name[name], model=model)
        if self._default in self._by_name:
            return Route(provider=self._default, settings=self._by_name[self._default], model=model)
        raise ModelNotFound(
            f"The model {_quote(model)} names no provider.",
            hint="Put the provider before it, as in openai/gpt-5.1, or set providers.default.",
        )


def _quote(model: str) -> str:
    """A model name fit for an error text."""
    return f"`{model}`" if len(model) <= 100 else f"`{model[:100]}…`"
