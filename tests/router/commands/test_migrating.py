"""`migrate-store`: its results, its words and its exit codes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from router.cli import run_program
from tests.router.commands.test_operations import FACTS, contents, data_dir
from tests.router.test_cli import error_line, run_json

__all__ = ["data_dir"]


def test_a_directory_moves_to_postgresql_and_back(
    data_dir: Path, tmp_path: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = run_json(capsys, "migrate-store", "--from", str(data_dir), "--to", postgres_url)
    assert isinstance(moved, dict)
    assert (moved["vaults"], moved["memory"], moved["embedding"]) == (1, len(FACTS), len(FACTS))
    assert (moved["sealed_anew"], moved["resumed"]) == (0, False)
    back = tmp_path / "back"
    back.mkdir(mode=0o700)
    shutil.copy2(data_dir / "server.key", back)
    shutil.copy2(tmp_path / "data.account-key", tmp_path / "back.account-key")  # for the test: the key of its account
    assert run_program(["migrate-store", "--from", postgres_url, "--to", str(back)]) == 0
    assert f"moved and compared: 1 vaults, {len(FACTS)} memories" in capsys.readouterr().out
    assert contents(back) == contents(data_dir)


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("a", "b", "One of both must be a data directory"),
        ("absent", "postgresql://127.0.0.1:1/x", "There is no data directory absent"),
        ("postgresql://127.0.0.1:1/x", "absent", "The server key file absent/server.key is missing"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], source: str, target: str, words: str
) -> None:
    assert run_program(["migrate-store", "--from", source, "--to", target]) == 2
    assert words in error_line(capsys)


def test_a_server_that_cannot_be_reached_is_a_mistake_too(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = "postgresql://name:secret@127.0.0.1:1/x"
    assert run_program(["migrate-store", "--from", str(data_dir), "--to", url]) == 2
    line = error_line(capsys)
    assert "The store could not be moved: ConnectionFailed" in line
    assert "secret" not in line
