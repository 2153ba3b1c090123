"""Shell completion and the benchmarks, as an installed copy has them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from router.cli import run_program
from router.commands.tools import benchmarks
from tests.patience import PATIENCE_S
from tests.router.test_cli import error_line
from tests.running import ROOT


def completed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str) -> set[str]:
    """What is offered for the last word of a line, by the protocol that the scripts speak."""
    words = line.split(" ")
    monkeypatch.setenv("_MEMORYROUTER_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    with pytest.raises(SystemExit) as ended:
        run_program([])
    assert ended.value.code == 0
    return {line.partition(",")[2] for line in capsys.readouterr().out.splitlines()}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("memoryrouter se", {"serve", "search"}),
        ("memoryrouter keys re", {"rename", "replace-account-key", "revoke"}),
        ("memoryrouter chat --mem", {"--memory"}),
        ("memoryrouter chat --memory o", {"on", "off"}),
        ("memoryrouter completion ", {"bash", "zsh", "fish"}),
        ("memoryrouter bench prep", {"prepare_latency"}),
    ],
)
def test_commands_options_and_values_are_completed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, offered: set[str]
) -> None:
    assert completed(monkeypatch, capsys, line) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script_that_asks_the_program(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert run_program(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_MEMORYROUTER_COMPLETE={shell}_complete" in script
    assert "%(" not in script


def test_an_unknown_shell_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["completion", "csh"]) == 2
    assert "'csh' is not one of" in error_line(capsys)


def test_bash_completes_by_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shell itself reads the script, calls its function and gets the words."""
    bash = shutil.which("bash")
    assert bash, "every system that builds this has one"
    run_program(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    command = tmp_path / "memoryrouter"
    command.write_text(f'#!{bash}\nexec {sys.executable} -m router "$@"\n')
    command.chmod(0o700)
    words = "COMP_WORDS=(memoryrouter keys ro); COMP_CWORD=2"
    asked = f'source "$1/script"; {words}; _memoryrouter_completion "$1/memoryrouter"'
    done = subprocess.run(
        [bash, "--norc", "-c", asked + '; echo "${COMPREPLY[*]}"', "-", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    assert done.stdout == "rotate\n", done.stderr


def test_benchmarks_are_listed_with_their_questions(capsys: pytest.CaptureFixture[str]) -> None:
    """Without importing one: what stands first in each."""
    names = {path.stem for path in (ROOT / "bench").glob("[a-z]*.py")}
    names |= {path.parent.name for path in (ROOT / "bench").glob("[a-z]*/__main__.py")}
    assert set(benchmarks()) == names
    assert not {name for name in sys.modules if name == "bench.ablations"}
    assert run_program(["bench", "--list"]) == 0
    listed = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert set(listed) == names
    assert listed["prepare_latency"] == "How long does `prepare` take on vaults of 1 000, 10 000 and 100 000 memories?"
    assert all(question.endswith((".", "?")) for question in listed.values())
    assert run_program(["bench", "--json"]) == 0
    assert {entry["name"] for entry in json.loads(capsys.readouterr().out)} == names


def test_a_benchmark_runs_with_its_own_arguments_and_exit_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also from a directory that has something else by that name."""
    (tmp_path / "bench.py").write_text("raise SystemExit('the wrong one')")
    assert run_program(["bench", "prepare-latency", "--help"]) == 0
    assert "usage: prepare_latency.py" in capfd.readouterr().out
    assert run_program(["bench", "prepare_latency", "--no-such-option"]) == 2
    assert "unrecognized arguments: --no-such-option" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench"], "Give the NAME of a benchmark, or --list."),
        (["bench", "absent"], "There is no benchmark absent; `memoryrouter bench --list` names all."),
        (["bench", "_harness"], "There is no benchmark _harness"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run_program(arguments) == 2
    assert words in error_line(capsys)
