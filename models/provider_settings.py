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

AnthropicMode = Literal["native", "compat"]
"""Translate Chat Completions to Messages ourselves, or leave it to the vendor's compatibility endpoint."""

FurtherFormat = Literal["responses", "messages"]
"""Wire formats that some OpenAI-style servers take beside Chat Completions: OpenAI Responses, Anthropic Messages."""

RESERVED_PREFIX = "local"
"""`local/recall` is answered from the vault itself, so no provider may take this name or prefix."""

ModelName = Annotated[str, Meta(min_length=1, max_length=256)]

Fallbacks = dict[ModelName, Annotated[tuple[ModelName, ...], Meta(min_length=1, max_length=8)]]
"""By the name of a model as clients send it: models to try, in order, when its provider fails. They are not followed
further: the fallbacks of a fallback do not count."""


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
    serves: Annotated[
        tuple[FurtherFormat, ...],
        Meta(
            max_length=2,
            description="Further formats that an OpenAI-style provider takes below its base URL: "
            "`responses` (OpenAI Responses), `messages` (Anthropic Messages).",
        ),
    ] = ()
    anthropic_mode: Annotated[
        AnthropicMode,
        Meta(
            description="Chat Completions for an Anthropic-style provider: `native` translates to Messages, `compat` "
            "calls the vendor's own Chat Completions endpoint."
        ),
    ] = "native"
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
        Meta(
            description="Provider key for requests that bring none, of accounts that have stored none. Prefer "
            "`api_key_env` or the environment."
        ),
    ] = Secret()
    api_key_env: Annotated[
        str, Meta(max_length=256, description="Name of an environment variable that holds the provider key.")
    ] = ""
    keep_prefix: Annotated[bool, Meta(description="Whether the model name goes upstream with its prefix still on.")] = (
        False
    )
    keep_prefixes: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...],
        Meta(
            max_length=16,
            description="Those of the prefixes that stay on a model's name unless a second slash follows: "
            "`meta-llama/llama-4` is sent as it is, `openrouter/openai/gpt-5` as `openai/gpt-5`.",
        ),
    ] = ()
    fields_dropped: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...],
        Meta(max_length=32, description="Top-level fields of Chat Completions that the provider refuses; left out."),
    ] = ()
    fields_renamed: Annotated[
        tuple[Annotated[str, Meta(pattern=r"\A[A-Za-z_]+=[A-Za-z_]+\Z", max_length=130)], ...],
        Meta(
            max_length=32,
            description="Top-level fields of Chat Completions that the provider calls otherwise, as `ours=theirs`.",
        ),
    ] = ()
    ask_for_usage: Annotated[
        bool,
        Meta(description="Whether streamed chats ask for token counts; clients that did not never see that event."),
    ] = False
    retries_max: Annotated[
        int,
        Meta(
            ge=0,
            le=10,
            description="Further attempts when no connection comes about or the provider is busy (429, 502, 503, 504, "
            "529), before anything reached the client.",
        ),
    ] = 1
    retry_wait_max_s: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="Longest pause before a further attempt, in seconds; a provider that asks for more is not "
            "tried again.",
        ),
    ] = 2.0
    breaker_failures: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="Failed calls in a row (unreachable, timed out, 502, 503, 504, 529) after which calls are "
            "refused at once. 0: never.",
        ),
    ] = 5
    breaker_open_s: Annotated[
        float,
        Meta(
            gt=0,
            le=3_600,
            description="Seconds for which they are refused; then one call tries whether the provider is back.",
        ),
    ] = 10.0
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


def _openai_style(base_url: str, *prefixes: str, serves: tuple[FurtherFormat, ...] = ()) -> ProviderSettings:
    return ProviderSettings(prefixes=prefixes, base_url=base_url, serves=serves)


BUILT_IN_PROVIDERS: dict[str, ProviderSettings] = {
    # Base URLs follow each vendor's own documentation for its SDK (design section 9); formats and tweaks are those of
    # reference/gateways.md 3a.
    "openai": _openai_style("https://api.openai.com/v1", "openai", serves=("responses",)),
    "anthropic": ProviderSettings(prefixes=("anthropic",), format="anthropic", base_url="https://api.anthropic.com"),
    "google": ProviderSettings(
        prefixes=("google",), format="google", base_url="https://generativelanguage.googleapis.com"
    ),
    "xai": _openai_style("https://api.x.ai/v1", "xai", "x-ai", serves=("responses",)),
    "openrouter": ProviderSettings(
        prefixes=("openrouter", "meta-llama", "meta"),
        # openrouter/auto and meta-llama/llama-4-scout are OpenRouter's own names.
        keep_prefixes=("openrouter", "meta-llama", "meta"),
        base_url="https://openrouter.ai/api/v1",
        serves=("responses", "messages"),
    ),
    "mistral": ProviderSettings(
        prefixes=("mistral",),
        base_url="https://api.mistral.ai/v1",
        # Its schema is strict: 422 for each of these.
        fields_dropped=("stream_options", "store"),
        fields_renamed=("max_completion_tokens=max_tokens", "seed=random_seed"),
    ),
    "deepseek": _openai_style("https://api.deepseek.com/v1", "deepseek"),
    "cerebras": _openai_style("https://api.cerebras.ai/v1", "cerebras"),
    "groq": _openai_style("https://api.groq.com/openai/v1", "groq", serves=("responses",)),
    "together": _openai_style("https://api.together.xyz/v1", "together"),
    "ollama": _openai_style("http://localhost:11434/v1", "ollama", serves=("responses", "messages")),
    "vllm": _openai_style("http://localhost:8000/v1", "vllm", serves=("responses", "messages")),
}
