"""The files for operating say what the program does: commands, folders, variables, time-outs, sources."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from models.server_settings import ServerSettings
from models.settings_loading import load_settings
from router.cli import program
from router.ending import HARD_EXIT_GRACE_S
from tests.packaging.test_wheel import BUILT
from tests.running import ROOT

DEPLOY = ROOT / "docs" / "deploy"
STOP_S = 2 * ServerSettings().drain_timeout_s + HARD_EXIT_GRACE_S
PIP = "/opt/memoryrouter/bin/python -m pip install --disable-pip-version-check --no-cache-dir "
LOCKED = f"{PIP}--require-hashes --no-build-isolation --requirement requirements/"


def unit() -> dict[str, dict[str, list[str]]]:
    """The systemd unit: section, key, values in their order."""
    sections: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    section = ""
    for line in (DEPLOY / "memoryrouter.service").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            sections[section][key].append(value)
    return sections


def stages() -> list[list[tuple[str, str]]]:
    """The Containerfile: instructions and their words, by stage."""
    found: list[list[tuple[str, str]]] = []
    for line in (DEPLOY / "Containerfile").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            instruction, _, words = line.partition(" ")
            if instruction == "FROM":
                found.append([])
            found[-1].append((instruction, words))
    return found


def words_of(stage: list[tuple[str, str]], instruction: str) -> list[str]:
    return [words for name, words in stage if name == instruction]


def compose() -> Any:
    return importlib.import_module("yaml").safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def assert_is_a_command(words: list[str]) -> None:
    """The program knows this command and its options."""
    assert CliRunner().invoke(program, [words[0], "--help"]).exit_code == 0
    known = {option for parameter in program.commands[words[0]].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


# --- systemd ---


def test_the_unit_runs_the_program_in_its_own_folders() -> None:
    service = unit()["Service"]
    binary, *words = service["ExecStart"][0].split()
    assert Path(binary).name == "memoryrouter"
    assert_is_a_command(words)
    assert words[words.index("--data-dir") + 1] == f"/var/lib/{service['StateDirectory'][0]}"
    users = (DEPLOY / "memoryrouter.sysusers").read_text(encoding="utf-8")
    assert re.search(rf"^u {service['User'][0]} ", users, re.MULTILINE)


def test_the_unit_waits_as_long_as_the_server_may_take() -> None:
    assert float(unit()["Service"]["TimeoutStopSec"][0]) > STOP_S
    assert unit()["Service"]["Type"] == ["notify"]
    assert unit()["Service"]["RestartPreventExitStatus"] == ["2"]


def test_what_the_unit_leaves_to_uncomment_names_real_settings(tmp_path: Path) -> None:
    text = (DEPLOY / "memoryrouter.service").read_text(encoding="utf-8")
    assignments = re.findall(r"^#Environment=(MEMORYROUTER_\w+)=(\S+)$", text, re.MULTILINE)
    assert len(assignments) == 2
    load_settings(None, dict(assignments), directory=tmp_path)


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    """Where there is one to ask. What it says of the program's path is that it is not installed here."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    copy = tmp_path / "memoryrouter.service"
    text = (DEPLOY / "memoryrouter.service").read_text(encoding="utf-8")
    copy.write_text(text.replace("/usr/local/bin/memoryrouter", "/bin/true"), encoding="utf-8")
    said = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, check=False).stderr
    assert [line for line in said.splitlines() if "memoryrouter" in line] == []


# --- containers ---


def test_the_container_installs_by_hash_and_only_what_is_locked() -> None:
    build, _ = stages()
    installs = [command for command in words_of(build, "RUN") if "pip install" in command]
    assert installs == [
        f"{LOCKED}build.txt",
        f"HNSWLIB_NO_NATIVE=1 {LOCKED}tracing.txt --requirement requirements/postgres.txt",
        f"{PIP}--no-index --no-deps --no-build-isolation .",
    ]


def test_the_container_is_built_from_all_that_the_wheel_is_built_from() -> None:
    build, _ = stages()
    copied = {source for words in words_of(build, "COPY") for source in words.split()[:-1]}
    locks = {f"requirements/{name}.txt" for name in ("build", "postgres", "tracing")}
    assert copied - locks == set(BUILT)
    assert all((ROOT / source).exists() for source in copied)


def test_the_container_runs_as_nobody_special_with_a_pinned_base() -> None:
    build, final = stages()
    for stage in (build, final):
        assert re.match(r"docker\.io/library/python:3\.\d+-slim-\w+\b", words_of(stage, "FROM")[0])
    assert words_of(final, "USER") == ["10001:10001"]
    assert words_of(final, "STOPSIGNAL") == ["SIGTERM"]


@pytest.mark.parametrize("instruction", ["CMD", "HEALTHCHECK"])
def test_what_the_container_runs_are_commands_of_the_program(instruction: str) -> None:
    _, final = stages()
    words = re.findall(r'"([^"]+)"', words_of(final, instruction)[0])
    assert_is_a_command([word for word in words if word != "memoryrouter"])
    assert words[words.index("--data-dir") + 1] == words_of(final, "VOLUME")[0]


def test_the_containers_environment_are_settings(tmp_path: Path) -> None:
    _, final = stages()
    given = dict(word.split("=", 1) for words in words_of(final, "ENV") for word in words.split())
    service = compose()["services"]["memoryrouter"]
    given |= {name: value for name, value in service["environment"].items() if name.startswith("MEMORYROUTER_")}
    settings = load_settings(None, given, directory=tmp_path)
    assert settings.server.host == "0.0.0.0"
    assert settings.providers.by_name["openai"].api_key_env in service["secrets"]


def test_the_composition_is_closed_and_keeps_its_data() -> None:
    service = compose()["services"]["memoryrouter"]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["ports"] == ["127.0.0.1:8080:8080"]
    assert service["volumes"] == ["memories:/data"]
    assert "memories" in compose()["volumes"]
    assert float(service["stop_grace_period"].removesuffix("s")) > STOP_S
    assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
