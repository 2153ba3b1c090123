"""The operator's commands where the store is PostgreSQL, and no server runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.cli import run_program
from tests.router.test_cli import error_line, run_json


@pytest.fixture
def data_dir(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The data directory of a node whose settings name an empty database."""
    monkeypatch.setenv("MEMORYROUTER_STORE__KIND", "postgres")
    monkeypatch.setenv("MEMORYROUTER_STORE__URL", postgres_url)
    monkeypatch.setenv("MEMORYROUTER_STORE__PARTS", "2")
    return str(tmp_path / "node")


def test_accounts_and_keys_need_no_server(data_dir: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "init", "--data-dir", data_dir)
    assert isinstance(made, dict)
    assert made["account_key"].startswith("mk_")
    run_json(capsys, "keys", "create", "alice", "--data-dir", data_dir)
    listed = run_json(capsys, "keys", "list", "--data-dir", data_dir)
    assert isinstance(listed, list)
    assert "alice" in [key["name"] for key in listed]
    assert run_program(["init", "--data-dir", data_dir]) == 2
    assert "initialised already" in error_line(capsys)


@pytest.mark.parametrize(
    ("command", "instead"),
    [
        (["backup", "elsewhere"], "pg_dump"), (["restore", "elsewhere"], "pg_restore"), (["doctor"], "pg_amcheck"),
        (["rotate-server-key"], "cannot be changed"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)  # fmt: skip
def test_what_only_files_can_do_names_what_does_it_instead(
    data_dir: str, capsys: pytest.CaptureFixture[str], command: list[str], instead: str
) -> None:
    assert run_program([*command, "--data-dir", data_dir]) == 2
    assert instead in error_line(capsys)
    assert not Path(data_dir).exists()
