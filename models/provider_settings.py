"""Settings of one provider, the providers that are built in, and the wrapper that hides their keys.

Owns which base URL, wire format and prefixes a provider has. Must never render a key: not in a repr, an error
or a dump.
"""

from __future__ import annotations

import hmac
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

WireFormat = Literal["openai", "anthropic", "google"]
"""Whose request and reply shapes a provider speaks."""

RESERVED_PREFIX = "local"
"""`local/recall` is answered from the vault itself, so no provider may take this name or prefix."""


class Secret:
    """A text that prints as asterisks. Only `reveal()` gives it, so each use can be found."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that sends it to its own provider."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(****)" if self._text else "Secret()"

    def __str__(self) -> str:
        return "****" if self._text else ""

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not serialised")


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One provider: where it is, what it speaks, whose key opens it, how long to wait. Its table names it."""

    prefixes: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...],
        Meta(
            max_length=16,
            description="Model prefixes that route here, without the slash. Empty: the provider's name.",
        ),
    ] = ()
    format: Annotated[WireFormat, Meta(description="Wire format that the provider speaks.")] = "openai"
    base_url: Annotated[
        str,
        Meta(
            max_length=2048,
            description="Base URL as the vendor's own SDK takes it: with `/v1` for OpenAI-style servers, "
            "the bare origin for Anthropic and Google.",
        ),
    ] = ""
    api_key: Annotated[
        Secret,
        Meta(description="Provider key for requests that bring none. Prefer `api_key_env` or the environment."),
    ] = Secret()
    api_key_env: Annotated[
        str, Meta(max_length=256, description="Name of an environment variable that holds the provider key.")
    ] = ""
    keep_prefix: Annotated[bool, Meta(description="Whether the model name goes upstream with its prefix still on.")] = (
        False
    )
    connect_timeout_s: Annotated[
        float, Meta(gt=0, le=600, description="Seconds to wait for a connection to the provider.")
    ] = 5.0
    first_byte_timeout_s: Annotated[
        float, Meta(gt=0, le=86_400, description="Seconds to wait for the first byte of a reply.")
    ] = 600.0
    idle_timeout_s: Annotated[
        float, Meta(gt=0, le=86_400, description="Seconds that a reply may pause between two chunks.")
    ] = 600.0
    write_timeout_s: Annotated[
        float, Meta(gt=0, le=3_600, description="Seconds to wait while a request is written to the provider.")
    ] = 30.0
    connections_max: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Connections to this provider at once; further requests wait for one.",
        ),
    ] = 100


def _openai_style(name: str, base_url: str, *more_prefixes: str) -> ProviderSettings:
    return ProviderSettings(prefixes=(name, *more_prefixes), base_url=base_url)


BUILT_IN_PROVIDERS: dict[str, ProviderSettings] = {
    # Base URLs follow each vendor's own documentation for its SDK (design section 9).
    "openai": _openai_style("openai", "https://api.openai.com/v1"),
    "anthropic": ProviderSettings(prefixes=("anthropic",), format="anthropic", base_url="https://api.anthropic.com"),
    "google": ProviderSettings(
        prefixes=("google",), format="google", base_url="https://generativelanguage.googleapis.com"
    ),
    "xai": _openai_style("xai", "https://api.x.ai/v1", "x-ai"),
    "openrouter": _openai_style("openrouter", "https://openrouter.ai/api/v1"),
    "mistral": _openai_style("mistral", "https://api.mistral.ai/v1"),
    "deepseek": _openai_style("deepseek", "https://api.deepseek.com/v1"),
    "cerebras": _openai_style("cerebras", "https://api.cerebras.ai/v1"),
    "groq": _openai_style("groq", "https://api.groq.com/openai/v1"),
    "together": _openai_style("together", "https://api.together.xyz/v1"),
    "ollama": _openai_style("ollama", "http://localhost:11434/v1"),
    "vllm": _openai_style("vllm", "http://localhost:8000/v1"),
}
