"""The settings in force: every one of them, with its name in the environment, and no secret."""

from __future__ import annotations

import json

import msgspec

from models.embedder_settings import EmbedderSettings, EmbeddersSettings
from models.provider_settings import ProviderSettings, Secret
from models.server_settings import ServerSettings
from models.settings import ProvidersSettings, Settings, StoreSettings, describe_settings
from models.settings_loading import load_settings
from router.dashboard.settings_shown import FOR_EVERY_ACCOUNT, shown_settings

SECRETS = Settings(
    store=StoreSettings(server_key=Secret("top-secret-1")),
    server=ServerSettings(port=9999),
    providers=ProvidersSettings(
        by_name={
            "x-ai": ProviderSettings(base_url="https://me:top-secret-2@x.example/v1", api_key=Secret("top-secret-3"))
        }
    ),
    embedders=EmbeddersSettings(
        by_name={
            "My Model": EmbedderSettings(base_url="https://top-secret-4@e.example", api_key=Secret("top-secret-5"))
        }
    ),
    fallbacks={"openai/a": ("openai/b",)},
)


def test_every_setting_that_there_is_is_shown() -> None:
    names = {setting["name"] for setting in shown_settings(Settings(), is_operator=True)}
    plain = {setting.name for setting in describe_settings() if ".NAME." not in setting.name}
    assert plain <= names
    assert {"providers.openai.base_url", "embedders.all-MiniLM-L6-v2.kind", "fallbacks"} <= names
    assert all(
        setting["doc"] for setting in shown_settings(Settings(), is_operator=True) if setting["name"] != "fallbacks"
    )


def test_no_secret_is_among_them() -> None:
    """Only whether there is one; not in URLs either."""
    shown = json.loads(json.dumps(shown_settings(SECRETS, is_operator=True)))
    by_name = {setting["name"]: setting for setting in shown}
    assert "top-secret" not in json.dumps(shown)
    assert (by_name["store.server_key"]["value"], by_name["store.server_key"]["default"]) == ("set", "not set")
    assert by_name["providers.x-ai.base_url"]["value"] == "https://x.example/v1"
    assert by_name["fallbacks"]["value"] == {"openai/a": ["openai/b"]}
    changed = {setting["name"] for setting in shown if setting["changed"]}
    assert changed >= {"store.server_key", "server.port", "providers.x-ai.api_key", "fallbacks"}
    assert not [setting["name"] for setting in shown_settings(Settings(), is_operator=True) if setting["changed"]]


def test_the_name_in_the_environment_sets_it() -> None:
    """Each that is shown as changed can be set so, as the loader reads it."""
    providers = dict(Settings().providers.by_name)
    providers["xai"] = msgspec.structs.replace(providers["xai"], connect_timeout_s=7.0)
    changed = Settings(server=ServerSettings(port=9999), providers=ProvidersSettings(by_name=providers))
    environment = {
        setting["environment"]: str(setting["value"])
        for setting in shown_settings(changed, is_operator=True)
        if setting["changed"]
    }
    assert load_settings(None, environment) == changed


def test_other_accounts_see_how_memory_behaves_and_not_the_machine() -> None:
    shown = shown_settings(SECRETS, is_operator=False)
    assert {setting["name"].partition(".")[0] for setting in shown} == FOR_EVERY_ACCOUNT
    for hidden in ("x.example", "e.example", "9999"):
        assert hidden not in json.dumps(shown)
