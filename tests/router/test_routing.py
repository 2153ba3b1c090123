"""A model's name decides who answers it; nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from models.errors import ModelNotFound
from models.provider_settings import BUILT_IN_PROVIDERS, ProviderSettings
from router.providers.routing import Call, RoutingTable

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
        ("openrouter/auto", "openrouter", "openrouter/auto"),
        ("meta-llama/llama-4-scout", "openrouter", "meta-llama/llama-4-scout"),
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


def calls(model: str, **settings: Any) -> dict[str, tuple[str, str] | None]:
    """Where a model's provider takes each format, and how its key; None where it does not take it."""
    route = table().resolve(model)
    route = msgspec.structs.replace(route, settings=msgspec.structs.replace(route.settings, **settings))
    makers: dict[str, Callable[[], Call]] = {
        "chat": route.chat_call,
        "responses": route.responses_call,
        "messages": route.messages_call,
        "gemini": lambda: route.gemini_call(version="v1beta", method="streamGenerateContent", sse=True),
    }
    found: dict[str, tuple[str, str] | None] = {}
    for name, make in makers.items():
        try:
            call = make()
        except ModelNotFound:
            found[name] = None
        else:
            found[name] = (route.settings.base_url + call.path, call.credential)
    return found


def test_each_provider_is_asked_where_its_own_sdk_asks_it() -> None:
    """In the formats that it takes, with its key where it looks for it."""
    google, anthropic = "https://generativelanguage.googleapis.com", "https://api.anthropic.com"
    assert calls("gpt-5.1") == {
        "chat": ("https://api.openai.com/v1/chat/completions", "bearer"),
        "responses": ("https://api.openai.com/v1/responses", "bearer"),
        "messages": None,
        "gemini": None,
    }
    assert calls("google/gemini-3") == {
        "chat": (f"{google}/v1beta/openai/chat/completions", "bearer"),
        "responses": None,
        "messages": None,
        "gemini": (f"{google}/v1beta/models/gemini-3:streamGenerateContent?alt=sse", "x-goog-api-key"),
    }
    assert calls("claude-5") == {
        "chat": (f"{anthropic}/v1/messages", "x-api-key"),
        "responses": None,
        "messages": (f"{anthropic}/v1/messages", "x-api-key"),
        "gemini": None,
    }
    assert calls("vllm/m")["messages"] == ("http://localhost:8000/v1/messages", "bearer")


def test_only_native_anthropic_is_translated() -> None:
    """The vendor's own compatibility endpoint takes Chat Completions as they are."""
    assert table().resolve("claude-5").chat_call().edit == "translation"
    assert table().resolve("gpt-5.1").chat_call().edit == "tweaks"
    assert calls("claude-5", anthropic_mode="compat")["chat"] == (
        "https://api.anthropic.com/v1/chat/completions",
        "bearer",
    )


def test_a_model_cannot_leave_its_place_in_the_path() -> None:
    """What has a meaning in URLs is quoted."""
    route = table().resolve("google/../x?y#z")
    assert route.gemini_call(version="v1", method="generateContent", sse=False).path == (
        "/v1/models/..%2Fx%3Fy%23z:generateContent"
    )


def test_a_long_name_is_cut_in_the_error() -> None:
    """Errors repeat what was asked for, within reason."""
    with pytest.raises(ModelNotFound) as caught:
        table().resolve("x" * 100_000)

    assert len(caught.value.message) < 300
