"""A model's name decides who answers it; nothing is guessed."""

from __future__ import annotations

import pytest

from models.errors import ModelNotFound
from models.provider_settings import BUILT_IN_PROVIDERS, ProviderSettings
from router.providers.routing import RoutingTable

_OWN = ProviderSettings(prefixes=("own", "Mine/"), base_url="http://own.test/v1", keep_prefix=True)
_BARE = ProviderSettings(base_url="http://bare.test/v1")


def table(default: str = "") -> RoutingTable:
    return RoutingTable({**BUILT_IN_PROVIDERS, "own": _OWN, "bare": _BARE}, default=default)


@pytest.mark.parametrize(
    ("model", "provider", "sent"),
    [
        ("openai/gpt-5.1", "openai", "gpt-5.1"),
        ("OpenAI/gpt-5.1", "openai", "gpt-5.1"),
        ("x-ai/grok-4", "xai", "grok-4"),
        ("xai/grok-4", "xai", "grok-4"),
        ("openrouter/meta-llama/llama-4", "openrouter", "meta-llama/llama-4"),
        ("vllm/Qwen/Qwen3-8B", "vllm", "Qwen/Qwen3-8B"),
        ("anthropic/claude-opus-5", "anthropic", "claude-opus-5"),
        ("google/gemini-3.8-flash", "google", "gemini-3.8-flash"),
        ("own/m", "own", "own/m"),
        ("mine/m", "own", "mine/m"),
        ("bare/m", "bare", "m"),
        ("claude-opus-5", "anthropic", "claude-opus-5"),
        ("gpt-5.1", "openai", "gpt-5.1"),
        ("chatgpt-4o-latest", "openai", "chatgpt-4o-latest"),
        ("o1", "openai", "o1"),
        ("o3-mini", "openai", "o3-mini"),
        ("o4-mini", "openai", "o4-mini"),
        ("Gemini-3.8-flash", "google", "Gemini-3.8-flash"),
        ("grok-4", "xai", "grok-4"),
        ("deepseek-chat", "deepseek", "deepseek-chat"),
        ("mixtral-8x7b", "mistral", "mixtral-8x7b"),
        ("codestral-latest", "mistral", "codestral-latest"),
    ],
)
def test_known_names_find_their_provider(model: str, provider: str, sent: str) -> None:
    """Prefixes are taken off, unless they belong to the name; names without one go by their beginning."""
    route = table().resolve(model)

    assert (route.provider, route.model) == (provider, sent)


@pytest.mark.parametrize("model", ["nobody/gpt-5.1", "openai/", "/gpt", "local/recall", "my-gpt", "o10", "o1x", "foo"])
@pytest.mark.parametrize("default", ["", "missing"])
def test_other_names_are_not_found(model: str, default: str) -> None:
    """A name that merely contains a known one is not that one."""
    with pytest.raises(ModelNotFound):
        table(default).resolve(model)


def test_the_default_takes_plain_names_only() -> None:
    """An unknown prefix stays an error: a typing mistake must not send a conversation elsewhere."""
    assert table("bare").resolve("my-gpt").provider == "bare"
    with pytest.raises(ModelNotFound):
        table("bare").resolve("opnai/gpt-5.1")


def test_each_format_has_its_path_for_chat_completions() -> None:
    """Below the base URL that the vendor's own SDK takes."""
    urls = [
        route.settings.base_url + route.chat_path for route in map(table().resolve, ["gpt-5.1", "gemini-3", "claude-5"])
    ]

    assert urls == [
        "https://api.openai.com/v1/chat/completions",
        "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions",
        "https://api.anthropic.com/v1/chat/completions",
    ]


def test_a_long_name_is_cut_in_the_error() -> None:
    """Errors repeat what was asked for, within reason."""
    with pytest.raises(ModelNotFound) as caught:
        table().resolve("x" * 100_000)

    assert len(caught.value.message) < 300
