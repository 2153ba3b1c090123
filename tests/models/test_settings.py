"""Settings: ranges, descriptions, built-in providers, and keys that never show."""

from __future__ import annotations

import pickle

import msgspec
import pytest

from models.provider_settings import BUILT_IN_PROVIDERS, Secret
from models.settings import Settings, StoreSettings, describe_settings
from models.store_settings import StoreSettings as StoreLimits

KEY = "sk-proj-very-secret"


def test_a_secret_never_prints() -> None:
    secret = Secret(KEY)

    shown = f"{secret} {secret!r} {secret!s:>10} {[secret]}" + "%s" % secret  # noqa: UP031

    assert KEY not in shown
    assert secret.reveal() == KEY


def test_a_secret_is_true_when_there_is_a_key_and_equal_to_the_same_key() -> None:
    assert Secret(KEY)
    assert not Secret()
    assert Secret(KEY) == Secret(KEY)
    assert Secret(KEY) != Secret("other")
    assert Secret(KEY) != KEY


def test_a_secret_cannot_be_dumped() -> None:
    provider = msgspec.structs.replace(BUILT_IN_PROVIDERS["openai"], api_key=Secret(KEY))

    assert KEY not in repr(provider)
    assert KEY not in repr(msgspec.structs.asdict(provider))
    with pytest.raises(TypeError):
        msgspec.json.encode(provider)
    with pytest.raises(TypeError):
        pickle.dumps(provider)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().server.port = 1  # type: ignore[misc]  # the point of the test


def test_every_setting_says_what_it_means() -> None:
    described = {setting.name: setting.description for setting in describe_settings()}

    assert [name for name, description in described.items() if not description.endswith(".")] == []
    assert {"server.port", "providers.default", "providers.NAME.base_url"} <= set(described)


def test_the_store_settings_are_the_stores_own_and_the_key_file() -> None:
    own = {field.name: field.default for field in msgspec.structs.fields(StoreLimits)}
    settings = {field.name: field.default for field in msgspec.structs.fields(StoreSettings)}

    assert settings == {**own, "server_key_file": ""}
    assert isinstance(Settings().store, StoreLimits)


def test_every_provider_of_the_design_is_built_in_with_its_format() -> None:
    formats = {name: provider.format for name, provider in BUILT_IN_PROVIDERS.items()}

    assert {name for name, wire_format in formats.items() if wire_format != "openai"} == {"anthropic", "google"}
    assert set(formats) == {
        "openai", "anthropic", "google", "xai", "openrouter", "mistral", "deepseek", "cerebras", "groq", "together",
        "ollama", "vllm",
    }  # fmt: skip
    assert BUILT_IN_PROVIDERS["xai"].prefixes == ("xai", "x-ai")


def test_openai_style_base_urls_have_the_version_and_the_others_are_bare_origins() -> None:
    for provider in BUILT_IN_PROVIDERS.values():
        assert provider.base_url.endswith("/v1") == (provider.format == "openai")
        assert not provider.base_url.endswith("/")


def test_further_formats_and_tweaks_are_those_of_the_vendors() -> None:
    """reference/gateways.md 3a."""
    serves = {name: provider.serves for name, provider in BUILT_IN_PROVIDERS.items() if provider.serves}
    mistral = BUILT_IN_PROVIDERS["mistral"]

    assert serves == {
        "openai": ("responses",), "xai": ("responses",), "groq": ("responses",),
        "openrouter": ("responses", "messages"), "ollama": ("responses", "messages"), "vllm": ("responses", "messages"),
    }  # fmt: skip
    assert mistral.fields_dropped == ("stream_options", "store")
    assert mistral.fields_renamed == ("max_completion_tokens=max_tokens", "seed=random_seed")
    assert not any(p.fields_dropped or p.fields_renamed for p in BUILT_IN_PROVIDERS.values() if p is not mistral)


def test_openrouter_answers_for_the_names_it_keeps_too() -> None:
    openrouter = BUILT_IN_PROVIDERS["openrouter"]

    assert openrouter.prefixes == openrouter.keep_prefixes == ("openrouter", "meta-llama", "meta")
    assert not any(provider.keep_prefixes for provider in BUILT_IN_PROVIDERS.values() if provider is not openrouter)
