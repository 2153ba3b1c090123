"""The operator's commands on a data directory: their results, their words and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from router.cli import run_program
from tests.router.test_cli import error_line, run_json
from tests.running import open_server

FACTS = [f"The lighthouse keeper's log, entry {number}." for number in range(30)]


@pytest.fixture
def data_dir(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A data directory with memories, that no server uses."""

    async def fill() -> None:
        async with open_server(tmp_path / "data") as server:
            await server.upload([{"content": fact} for fact in FACTS])
            await server.wait_embedded()

    trio.run(fill)
    capsys.readouterr()
    return tmp_path / "data"


def contents(data_dir: Path) -> set[str]:
    """What the vault of the account key holds."""

    async def search() -> set[str]:
        async with open_server(data_dir) as server:
            return await server.contents("lighthouse")

    return trio.run(search)


@pytest.mark.parametrize(
    "command", ["backup", "restore", "doctor", "rotate-server-key", "migrate-store", "export", "import"]
)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run_program([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: memoryrouter {command}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["backup", "b", "--data-dir", "absent"], "There is no data directory absent"),
        (["restore", "absent", "--data-dir", "d"], "absent is no complete backup"),
        (["doctor", "--data-dir", "absent"], "There is no data directory absent"),
        (["doctor", "--repair", "--data-dir", "absent"], "There is no data directory absent"),
        (["rotate-server-key", "--data-dir", "absent"], "There is no data directory absent"),
        (["rotate-server-key", "--new-key", "short"], "must be 32 bytes in base64"),
        (["export"], "Give the vault's Memory Key in MEMORYROUTER_API_KEY or by --key, or its number by --vault."),
        (["export", "--key", "mk_x", "--json"], "--resume and --json need --output."),
        (["export", "--key", "mk_x", "--data-dir", "absent"], "there is no data directory absent"),
        (["export", "--key", "mk_x", "--url", "localhost"], "localhost is not an address like http://"),
        (["import", "absent", "--key", "mk_x"], "absent: cannot be read"),
        (["import", "absent"], "Give the vault's Memory Key in MEMORYROUTER_API_KEY, or by --key."),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run_program(arguments) == 2
    assert words in error_line(capsys)


def test_a_backup_is_restored_elsewhere_and_only_over_data_when_confirmed(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backup, elsewhere = tmp_path / "backup", tmp_path / "elsewhere"
    made = run_json(capsys, "backup", str(backup), "--data-dir", str(data_dir))
    assert isinstance(made, dict)
    assert made["files"] == 3
    assert not (backup / "server.key").exists()
    assert run_program(["backup", str(backup), "--data-dir", str(data_dir)]) == 2
    assert "is not empty" in error_line(capsys)

    assert run_program(["restore", str(backup), "--data-dir", str(elsewhere)]) == 2
    assert "a backup does not hold it" in error_line(capsys)
    (elsewhere / "server.key").write_bytes((data_dir / "server.key").read_bytes())
    (elsewhere / "server.key").chmod(0o600)
    elsewhere.with_suffix(".account-key").write_text(data_dir.with_suffix(".account-key").read_text())
    assert run_program(["restore", str(backup), "--data-dir", str(elsewhere)]) == 0
    assert "restored: 1 vaults" in capsys.readouterr().out
    assert contents(elsewhere) == set(FACTS)
    capsys.readouterr()

    assert run_program(["restore", str(backup), "--data-dir", str(elsewhere)]) == 2
    assert "is not empty" in error_line(capsys)
    restored = run_json(capsys, "restore", str(backup), "--data-dir", str(elsewhere), "--yes")
    assert isinstance(restored, dict)
    assert (restored["vaults"], restored["vaults_erased"], restored["keys_revoked"]) == (1, 0, 0)


def test_the_doctor_tells_healthy_from_damaged_and_goes_on_after_an_accepted_loss(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--data-dir", str(data_dir)]
    assert run_program(["doctor", *where]) == 0
    assert "healthy: 1 vaults, 1 keys\n" in capsys.readouterr().out
    report = run_json(capsys, "doctor", *where)
    assert isinstance(report, dict)
    assert (report["healthy"], report["running"]) == (True, False)

    (data_dir / "shard-00.db").write_bytes(b"nothing that SQLite knows" * 1000)
    assert run_program(["doctor", *where]) == 1
    assert "damage: shard-00.db: " in capsys.readouterr().out
    assert run_program(["doctor", *where, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["healthy"] is False

    assert run_program(["doctor", *where, "--accept-loss"]) == 0
    assert "Accepted the loss of " in capsys.readouterr().out
    assert contents(data_dir) == set()


def test_a_rotated_server_key_opens_everything_and_the_old_one_nothing(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = (data_dir / "server.key").read_bytes()
    assert run_program(["rotate-server-key", "--data-dir", str(data_dir)]) == 0
    assert capsys.readouterr().out == "rotated: the keys of 1 vaults\n"
    new = (data_dir / "server.key").read_bytes()
    assert new != old
    assert contents(data_dir) == set(FACTS)
    capsys.readouterr()

    (data_dir / "server.key").write_bytes(old)
    assert run_program(["keys", "list", "--data-dir", str(data_dir)]) == 2
    assert "The server key is not the one" in error_line(capsys)

    (data_dir / "server.key").write_bytes(new)
    monkeypatch.setenv("MEMORYROUTER_STORE__SERVER_KEY", "A" * 43 + "=")
    assert run_program(["rotate-server-key", "--data-dir", str(data_dir)]) == 2
    assert "the new one must be given too" in error_line(capsys)


def test_a_vault_goes_from_one_directory_into_another_without_a_server(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By key and by number; the second time adds nothing; a cut file is refused."""
    file = tmp_path / "vault.jsonl"
    key = data_dir.with_suffix(".account-key").read_text().removeprefix("account key: ").strip()
    exported = run_json(capsys, "export", "--key", key, "--data-dir", str(data_dir), "--output", str(file))
    assert exported == {"file": str(file), "memories": len(FACTS), "last_seq": len(FACTS)}
    assert not file.with_name("vault.jsonl.part").exists()
    assert run_program(["export", "--vault", "1", "--after", "28", "--data-dir", str(data_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line).get("seq") for line in lines] == [None, 29, 30, None]

    assert run_program(["init", "--json", "--data-dir", str(tmp_path / "new")]) == 0
    monkeypatch.setenv("MEMORYROUTER_API_KEY", json.loads(capsys.readouterr().out)["account_key"])
    into = ["--data-dir", str(tmp_path / "new")]
    first = run_json(capsys, "import", str(file), *into)
    second = run_json(capsys, "import", str(file), *into)
    assert first == {"memories": len(FACTS), "stored": len(FACTS), "duplicates": 0}
    assert second == {"memories": len(FACTS), "stored": 0, "duplicates": len(FACTS)}

    file.write_bytes(file.read_bytes()[:-100])
    assert run_program(["import", str(file), *into]) == 1
    assert "the export is cut here" in error_line(capsys)
    assert run_program(["export", "--vault", "99", *into]) == 1
    assert "There is no vault 99." in error_line(capsys)
    unknown: dict[str, Any] = {"code": run_program(["export", "--key", "mk_" + "x" * 32, *into])}
    assert unknown == {"code": 1}
    assert "Invalid or inactive memory key." in error_line(capsys)
