"""Which provider answers a model, and under what name the provider knows it.

Owns the two tables of design section 12, prefixes and names without a prefix, and where each provider takes which wire
format. Must never guess: an unknown prefix is
an error even where a default provider is set, so that a typing mistake does not send a conversation to a stranger.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import quote

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

Credential = Literal["bearer", "x-api-key", "x-goog-api-key"]
"""The header by which a provider takes its key."""


class Call(msgspec.Struct, frozen=True):
    """How a provider is asked, in one wire format.

    Attributes:
        path: below the provider's base URL, with its slash.
        credential: where its key goes.
        edit: what a Chat Completions request needs to be taken there: nothing, the provider's tweaks, or to become
            native Messages (and its reply to come back from there).
    """

    path: str
    credential: Credential = "bearer"
    edit: Literal["none", "tweaks", "translation"] = "none"


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

    def chat_call(self) -> Call:
        """For Chat Completions, which every provider takes in some way."""
        match self.settings.format, self.settings.anthropic_mode:
            case "openai", _:
                return Call("/chat/completions", edit="tweaks")
            case "google", _:
                return Call("/v1beta/openai/chat/completions", edit="tweaks")
            case _, "compat":
                return Call("/v1/chat/completions", edit="tweaks")
            case _:
                return Call("/v1/messages", "x-api-key", edit="translation")

    def responses_call(self) -> Call:
        """For OpenAI Responses.

        Raises:
            ModelNotFound: this provider does not take them.
        """
        if "responses" not in self.settings.serves:
            raise self._refusal("Responses", "Use /v1/chat/completions, or set `serves` of this provider.")
        return Call("/responses")

    def messages_call(self, *, below: str = "") -> Call:
        """For Anthropic Messages.

        Args:
            below: what stands below Messages: "" or "/count_tokens".

        Raises:
            ModelNotFound: this provider does not take them.
        """
        if self.settings.format == "anthropic":
            return Call(f"/v1/messages{below}", "x-api-key")
        if "messages" not in self.settings.serves:
            raise self._refusal("Anthropic Messages", "Use /v1/chat/completions, or set `serves` of this provider.")
        return Call(f"/messages{below}")

    def gemini_call(self, *, version: str, method: str, sse: bool) -> Call:
        """For Gemini's own format.

        Args:
            version: of the API as the client asked for it: v1 or v1beta.
            method: generateContent or streamGenerateContent, or what else the vendor has below a model.
            sse: whether the client asked for server-sent events.

        Raises:
            ModelNotFound: this provider does not take it.
        """
        if self.settings.format != "google":
            raise self._refusal("Gemini's format", "Use /v1/chat/completions for it.")
        path = f"/{version}/models/{quote(self.model, safe='')}:{method}"
        return Call(f"{path}?alt=sse" if sse else path, "x-goog-api-key")

    def _refusal(self, name: str, hint: str) -> ModelNotFound:
        return ModelNotFound(f"The provider {self.provider} is not configured to take {name}.", hint=hint)


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
        kept = settings.keep_prefix or (prefix.lower() in settings.keep_prefixes and "/" not in rest)
        return Route(provider=name, settings=settings, model=model if kept else rest)

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
