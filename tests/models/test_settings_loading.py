"""Reading settings: precedence, environment names, and errors that name the key and never a value."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import SettingError
from models.provider_settings import Secret
from models.settings import Settings
from models.settings_loading import describe_type, load_settings, missing_provider_keys

SECRET = "sk-proj-very-secret"


def load(tmp_path: Path, toml: str = "", environ: dict[str, str] | None = None) -> Settings:
    """Settings of a file with this text and this environment."""
    path = tmp_path / "test.toml"
    path.write_text(toml)
    return load_settings(path, environ or {})


def error_of(tmp_path: Path, toml: str = "", environ: dict[str, str] | None = None) -> str:
    """The message that this configuration is refused with."""
    with pytest.raises(SettingError) as caught:
        load(tmp_path, toml, environ)
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    return message


def test_without_file_and_environment_the_defaults_hold(tmp_path: Path) -> None:
    assert load_settings(None, {}, directory=tmp_path) == Settings()


def test_a_config_toml_in_the_directory_is_found(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[server]\nport = 9001\n")

    assert load_settings(None, {}, directory=tmp_path).server.port == 9001


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"absent\.toml: the configuration cannot be read"):
        load_settings(tmp_path / "absent.toml", {})


def test_command_line_goes_before_environment_before_file(tmp_path: Path) -> None:
    path = tmp_path / "test.toml"
    path.write_text('[server]\nport = 9001\nhost = "file"\nbody_max_bytes = 2048\n')
    environ = {"MEMORYROUTER_SERVER__PORT": "9002", "MEMORYROUTER_SERVER__HOST": "environment"}

    settings = load_settings(path, environ, overrides={"server.port": 9003, "server.host": None})

    assert settings.server.port == 9003
    assert settings.server.host == "environment"
    assert settings.server.body_max_bytes == 2048


def test_a_wrong_command_line_value_names_the_key() -> None:
    with pytest.raises(SettingError, match=r"server\.port must be an integer from 0 to 65535"):
        load_settings(None, {}, overrides={"server.port": 70_000}, directory=Path("/proc"))


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("SERVER__PORT", "9000", "server.port", 9000),
        ("RECALL__RELEVANCE_MIN", "0.5", "recall.relevance_min", 0.5),
        ("KEYS__ANY_KEY_MINTS", "TRUE", "keys.any_key_mints", True),
        ("KEYS__ANY_KEY_MINTS", "0", "keys.any_key_mints", False),
        ("PROXY__INJECTION", "system", "proxy.injection", "system"),
        ("STORE__SERVER_KEY_FILE", "/keys/one", "store.server_key_file", "/keys/one"),
        ("PROVIDERS__DEFAULT", "openrouter", "providers.default", "openrouter"),
    ],
)
def test_environment_values_are_read_by_the_settings_type(name: str, text: str, path: str, value: object) -> None:
    settings = load_settings(None, {f"MEMORYROUTER_{name}": text}, directory=Path("/proc"))

    section, key = path.split(".")
    assert getattr(getattr(settings, section), key) == value


def test_variables_without_a_double_underscore_are_the_clients_own(tmp_path: Path) -> None:
    environ = {
        "MEMORYROUTER_API_KEY": "mk_x", "MEMORYROUTER_BASE_URL": "http://x", "MEMORYROUTER_VAULT": "core",
        "MEMORYROUTER_SERVER_PORT": "1", "SERVER__PORT": "2", "memoryrouter_server__port": "3",
    }  # fmt: skip

    assert load(tmp_path, "", environ) == Settings()


def test_a_provider_can_come_wholly_from_the_environment(tmp_path: Path) -> None:
    environ = {
        "MEMORYROUTER_PROVIDERS__MY_LLM__BASE_URL": "http://localhost:1234/v1/",
        "MEMORYROUTER_PROVIDERS__MY_LLM__PREFIXES": "mine, my-llm",
        "MEMORYROUTER_PROVIDERS__MY_LLM__API_KEY": SECRET,
    }

    provider = load(tmp_path, "", environ).providers.by_name["my_llm"]

    assert provider.base_url == "http://localhost:1234/v1"
    assert provider.prefixes == ("mine", "my-llm")
    assert provider.api_key.reveal() == SECRET


def test_dashes_and_dots_of_a_providers_name_become_underscores(tmp_path: Path) -> None:
    toml = '[providers."my-llm.eu"]\nbase_url = "http://one/v1"\n'
    environ = {"MEMORYROUTER_PROVIDERS__MY_LLM_EU__BASE_URL": "http://two/v1"}

    by_name = load(tmp_path, toml, environ).providers.by_name

    assert by_name["my-llm.eu"].base_url == "http://two/v1"
    assert "my_llm_eu" not in by_name


def test_a_variable_that_means_two_providers_is_refused(tmp_path: Path) -> None:
    toml = '[providers.a-b]\nbase_url = "http://one"\n[providers.a_b]\nbase_url = "http://two"\n'

    message = error_of(tmp_path, toml, {"MEMORYROUTER_PROVIDERS__A_B__BASE_URL": "http://three"})

    assert "more than one provider: a-b, a_b" in message


def test_a_table_changes_a_built_in_provider_key_by_key(tmp_path: Path) -> None:
    provider = load(tmp_path, "[providers.anthropic]\nconnections_max = 7\n").providers.by_name["anthropic"]

    assert provider.connections_max == 7
    assert provider.format == "anthropic"
    assert provider.base_url == "https://api.anthropic.com"


def test_four_lines_make_a_new_provider(tmp_path: Path) -> None:
    toml = '[providers.lmstudio]\nbase_url = "http://localhost:1234/v1"\napi_key_env = "LM_KEY"\nkeep_prefix = true\n'

    provider = load(tmp_path, toml, {"LM_KEY": SECRET}).providers.by_name["lmstudio"]

    assert provider.prefixes == ("lmstudio",)
    assert provider.format == "openai"
    assert provider.api_key == Secret(SECRET)
    assert provider.keep_prefix


def test_a_key_in_the_settings_goes_before_one_in_a_named_variable(tmp_path: Path) -> None:
    toml = '[providers.openai]\napi_key = "sk-file"\napi_key_env = "OTHER"\n'

    assert load(tmp_path, toml, {"OTHER": "sk-other"}).providers.by_name["openai"].api_key == Secret("sk-file")


def test_a_named_variable_that_is_not_set_is_no_error_but_can_be_told(tmp_path: Path) -> None:
    settings = load(tmp_path, '[providers.openai]\napi_key_env = "NOT_SET"\n')

    assert not settings.providers.by_name["openai"].api_key
    assert missing_provider_keys(settings, {}) == ["providers.openai.api_key_env names NOT_SET, which is not set."]
    assert missing_provider_keys(settings, {"NOT_SET": SECRET}) == []


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[server]\nprot = 1", "unknown setting server.prot; did you mean server.port?"),
        ("[sever]\nport = 1", "unknown setting sever; did you mean server?"),
        ("[providers.openai]\napi_ky = 1", "unknown setting providers.openai.api_ky; did you mean"),
        ("[providers]\ndefualt = 'x'", "unknown setting providers.defualt; did you mean providers.default?"),
        ("server = 1", "server must be a table: [server]."),
        ("[server]\nport = '8080'", "server.port must be an integer from 0 to 65535."),
        ("[server]\nport = true", "server.port must be an integer from 0 to 65535."),
        ("[server]\nport = -1", "server.port must be an integer from 0 to 65535."),
        ("[server]\nport = 99999999999999999999", "server.port must be an integer from 0 to 65535."),
        ("[server]\nhost = ''", "server.host must be a text of 1 to 255 characters."),
        ("[server]\nkeep_alive_timeout_s = inf", "server.keep_alive_timeout_s must be a number above 0 and of at most"),
        ("[recall]\nrelevance_min = nan", "recall.relevance_min must be a number from 0 to 1."),
        ("[keys]\nany_key_mints = 1", "keys.any_key_mints must be true or false."),
        ("[proxy]\ninjection = 'head'", 'proxy.injection must be one of "system", "tail".'),
        ("[providers.openai]\nprefixes = 'x'", "providers.openai.prefixes must be a list of at most 16 texts."),
        (
            "[providers.openai]\nserves = ['chat']",
            'providers.openai.serves must be a list of "messages" and "responses".',
        ),
        ("[providers.anthropic]\nserves = ['messages']", "providers.anthropic.serves is for providers of the format"),
        (
            "[providers.openai]\nfields_renamed = ['a']",
            "providers.openai.fields_renamed must be a list of at most 32 texts.",
        ),
        ("[fallbacks]\n'openai/a' = 'openai/b'", 'fallbacks."openai/a" must be a list of 1 to 8 names of models.'),
        ("[fallbacks]\n'openai/a' = []", 'fallbacks."openai/a" must be a list of 1 to 8 names of models.'),
        (
            "[fallbacks]\n'openai/a' = ['openai/a']",
            'fallbacks."openai/a" must name other models, and each of them once.',
        ),
        ("[fallbacks]\n'a' = ['b', 'b']", 'fallbacks."a" must name other models, and each of them once.'),
        ("[fallbacks]\n'a' = ['nobody/b']", 'fallbacks."a": no provider has the prefix nobody.'),
        ("[fallbacks]\n'nobody/a' = ['b']", 'fallbacks."nobody/a": no provider has the prefix nobody.'),
        ("[fallbacks]\n'a' = ['local/recall']", 'fallbacks."a": no provider has the prefix local.'),
        ("fallbacks = 1", "fallbacks must be a table: [fallbacks]."),
        (f"[providers.openai]\napi_key = ['{SECRET}']", "providers.openai.api_key must be a text."),
        ("[store]\nshards = 65", "store.shards must be an integer from 1 to 64."),
        ("[recall]\ntime_zone = 'Mars/Olympus'", "recall.time_zone must be an IANA time zone"),
        ("[recall]\ntime_zone = '../../etc/passwd'", "recall.time_zone must be an IANA time zone"),
        ("[providers]\ndefault = 'nobody'", "providers.default must be empty or one of openai,"),
        ("[providers.mine]\nformat = 'openai'", "providers.mine.base_url is missing"),
        ("[providers.mine]\nbase_url = 'ftp://x'", "providers.mine.base_url must be a URL"),
        ("[providers.mine]\nbase_url = 'http://x:70000'", "providers.mine.base_url must be a URL"),
        ("[providers.mine]\nbase_url = 'http://a b'", "providers.mine.base_url must be a URL"),
        (f"[providers.mine]\nbase_url = 'http://u:{SECRET}@x'", "providers.mine.base_url must be free of"),
        (f"[providers.mine]\nbase_url = 'http://x?key={SECRET}'", "providers.mine.base_url must be free of"),
        ("[providers.mine]\nbase_url = 'http://x'\nprefixes = ['a/b']", "written without a slash"),
        ("[providers.local]\nbase_url = 'http://x'", "local is MemoryRouter's own"),
        (
            "[providers.mine]\nbase_url = 'http://x'\nprefixes = ['openai']",
            "openai already belongs to providers.openai",
        ),
        ("[server\n", "not valid TOML"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_the_key(tmp_path: Path, toml: str, message: str) -> None:
    assert message in error_of(tmp_path, toml)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SERVER__PROT", "unknown setting server.prot; did you mean server.port?"),
        ("SERVER__PORT", "server.port must be an integer from 0 to 65535."),
        ("KEYS__ANY_KEY_MINTS", "keys.any_key_mints must be true or false."),
        ("RECALL__RELEVANCE_MIN", "recall.relevance_min must be a number from 0 to 1."),
        ("SEVER__PORT", "unknown setting sever; did you mean server?"),
        ("SERVER__PORT__X", "a setting is <SECTION>__<KEY>"),
        (
            "PROVIDERS__OPENAI__API_KY",
            "unknown setting providers.openai.api_ky; did you mean providers.openai.api_key?",
        ),
        ("FALLBACKS__GPT", "fallbacks are set in the file only"),
        ("PROVIDERS__OPENAI", "unknown setting providers.openai; did you mean"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable_and_the_key(tmp_path: Path, name: str, message: str) -> None:
    found = error_of(tmp_path, environ={f"MEMORYROUTER_{name}": SECRET})

    assert found.startswith(f"environment variable MEMORYROUTER_{name}: ")
    assert message in found


def test_a_file_that_is_not_utf8_or_far_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingError, match="not UTF-8"):
        load_settings(path, {})

    path.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(SettingError, match="at most 1048576 bytes"):
        load_settings(path, {})


def test_fallbacks_are_lists_of_models_by_model(tmp_path: Path) -> None:
    toml = "[fallbacks]\n'openai/gpt-5.1' = ['anthropic/claude', 'X-AI/grok']\nplain = ['openai/gpt-5.1']\n"

    fallbacks = load(tmp_path, toml).fallbacks

    assert fallbacks == {"openai/gpt-5.1": ("anthropic/claude", "X-AI/grok"), "plain": ("openai/gpt-5.1",)}
    assert load(tmp_path, "[fallbacks]\n").fallbacks == {}


def test_a_list_of_a_provider_can_be_set_by_the_environment(tmp_path: Path) -> None:
    environ = {"MEMORYROUTER_PROVIDERS__TOGETHER__SERVES": "responses, messages"}

    assert load(tmp_path, "", environ).providers.by_name["together"].serves == ("responses", "messages")


def test_every_type_of_a_setting_can_be_described() -> None:
    for section in msgspec.structs.fields(Settings):
        if section.name not in {"providers", "fallbacks"}:
            assert all(describe_type(field.type) for field in msgspec.structs.fields(section.type))


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=3)))
def test_any_table_is_taken_or_refused_but_never_crashes(tables: dict[str, object]) -> None:
    """Whatever TOML can hold in a section either converts or is a SettingError."""
    from models.settings_loading import _build_settings  # the tree below TOML's syntax

    with suppress(SettingError):
        _build_settings({"server": tables, "providers": {"openai": tables}}, {})
