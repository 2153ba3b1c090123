"""`memoryrouter config` gives the whole configuration file, which means what having none means."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.settings import Settings
from models.settings_loading import load_settings
from router.cli import run_program
from tests.running import ROOT


def test_it_prints_the_file_with_every_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["config"]) == 0
    assert capsys.readouterr().out == (ROOT / "config.toml").read_text(encoding="utf-8")


def test_it_writes_a_file_that_can_be_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.toml"
    assert run_program(["config", "--output", str(file)]) == 0
    assert capsys.readouterr().out == f"written: {file}\n"
    assert load_settings(file, {}) == Settings()


@pytest.mark.parametrize(("name", "reason"), [("there", "already there"), ("none/there", "No such file")])
def test_it_never_writes_over_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, reason: str
) -> None:
    (tmp_path / "there").write_text("mine", encoding="utf-8")
    assert run_program(["config", "--output", str(tmp_path / name)]) == 2
    assert reason in capsys.readouterr().err
    assert (tmp_path / "there").read_text(encoding="utf-8") == "mine"
