"""Embedders in the configuration: tables and the environment, keys that stay hidden, mistakes that are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.embedder_settings import BUILT_IN_EMBEDDER, BUILT_IN_EMBEDDERS
from models.errors import SettingError
from models.settings import Settings
from models.settings_loading import load_settings

FAR = {"KIND": "openai", "BASE_URL": "http://localhost:11434/v1/", "MODEL": "nomic-embed-text", "DIMS": "768"}


def loaded(text: str = "", **environment: str) -> Settings:
    """The settings of a configuration's text and of variables without their prefix."""
    names = {f"MEMORYROUTER_{name}": value for name, value in environment.items() if "__" in name}
    path = Path("config.toml")
    path.write_text(text)
    return load_settings(path, {**environment, **names})


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_built_in_one_is_there_and_the_default() -> None:
    settings = loaded()
    assert settings.embedders.by_name == BUILT_IN_EMBEDDERS
    assert settings.embedding.default == BUILT_IN_EMBEDDER
    assert settings.embedders.find("ALL-minilm-l6-V2") == BUILT_IN_EMBEDDER
    assert settings.embedders.find("bge-m3") is None


def test_an_embedder_may_be_defined_by_the_environment_alone() -> None:
    variables = {f"EMBEDDERS__FAR__{key}": value for key, value in FAR.items()}
    far = loaded(**variables, EMBEDDERS__FAR__API_KEY="sk-1", EMBEDDING__DEFAULT="far").embedders.by_name["far"]
    assert (far.base_url, far.model, far.dims) == ("http://localhost:11434/v1", "nomic-embed-text", 768)
    assert far.api_key.reveal() == "sk-1"
    assert "sk-1" not in repr(far)


def test_a_key_may_come_from_a_variable_of_its_own() -> None:
    table = '[embedders.far]\nkind = "openai"\nbase_url = "http://a/v1"\nmodel = "m"\napi_key_env = "FAR_KEY"\n'
    assert loaded(table, FAR_KEY=" sk-2 ").embedders.by_name["far"].api_key.reveal() == "sk-2"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[embedding]\ndefault = "far"', "embedding.default"),
        ('[embedders.x]\nkind = "onnx"', "embedders.x.path"),
        ('[embedders.x]\nkind = "openai"\nbase_url = "http://a/v1"', "embedders.x.model"),
        ('[embedders.x]\nkind = "openai"\nmodel = "m"', "embedders.x.base_url"),
        ('[embedders.x]\nkind = "openai"\nmodel = "m"\nbase_url = "ftp://a"', "embedders.x.base_url"),
        ('[embedders.x]\nkind = "openai"\nmodel = "m"\nbase_url = "http://u:p@a/v1"', "embedders.x.base_url"),
        ('[embedders.x]\nkind = "built-in"', "embedders.x.kind"),
        ("[embedders.x]\ndims = 8", "embedders.x.kind"),
        ('[embedders."a b"]\nkind = "onnx"\npath = "p"', "embedders: the name"),
        ('[embedders.x]\nkind = "onnx"\npath = "p"\n[embedders.X]\nkind = "onnx"\npath = "p"', "but for its case"),
        (f"[embedders.{BUILT_IN_EMBEDDER}]\ntokens_max = 99", f"embedders.{BUILT_IN_EMBEDDER}"),
        ("[embedders.x]\npoolling = 1", "did you mean embedders.x.pooling"),
        ("[embedders]\nx = 1", "embedders.x must be a table"),
    ],
)
def test_a_mistake_is_named(text: str, named: str) -> None:
    with pytest.raises(SettingError, match=named.replace(".", r"\.")):
        loaded(text)
