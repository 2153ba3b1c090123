"""The wheel holds everything that the program needs, and serves from an environment outside of the checkout.

Its dependencies are those of the tests, which are the locked ones; `make release-check` installs them anew.
"""

from __future__ import annotations

import email
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import httpx
import pytest
import trio

from models.version import VERSION
from tests.patience import PATIENCE_S
from tests.running import ROOT, Client, open_http, open_program

BUILT = ("LICENSE", "README.md", "config.toml", "pyproject.toml", "models", "actors", "router", "bench")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make wheel` does it, from links, so that nothing is left in the checkout."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in BUILT:
        (source / name).symlink_to(ROOT / name)
    build(source, target)
    (built,) = target.glob("*.whl")
    return built


def build(source: Path, target: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--disable-pip-version-check",
        "--quiet",
        "--no-index",
        "--no-deps",
    ]
    subprocess.run(
        [*command, "--no-build-isolation", "--wheel-dir", str(target), str(source)],
        check=True, capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": "1767225600"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program in a new environment, which finds the dependencies of the tests, but not the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", str(wheel)], check=True, capture_output=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Files in there that would add the checkout (`.pth`) are read in this environment's own folder only.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "bin" / "memoryrouter"


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_it_holds_all_of_the_program_and_nothing_else(wheel: Path) -> None:
    """Every module, every file of the dashboard, the configuration; no test."""
    folders = ("models", "actors", "router", "bench")
    files = (file for folder in folders for file in (ROOT / folder).rglob("*") if file.is_file())
    wanted = {file.relative_to(ROOT).as_posix() for file in files if "__pycache__" not in file.parts}
    held = {name for name in names_in(wheel) if not name.startswith(f"memoryrouter-{VERSION}.dist-info/")}
    assert held == wanted
    assert {"router/config.toml", "router/dashboard/static/index.html", "bench/_harness.py"} <= held


def test_the_same_source_gives_the_same_files_in_it(wheel: Path, tmp_path: Path) -> None:
    for name in BUILT:
        (tmp_path / name).symlink_to(ROOT / name)
    build(tmp_path, tmp_path)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def test_its_metadata_say_what_pyproject_says(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = email.message_from_bytes(archive.read(f"memoryrouter-{VERSION}.dist-info/METADATA"))
        licence = archive.read(f"memoryrouter-{VERSION}.dist-info/licenses/LICENSE")
    assert (metadata["Name"], metadata["Version"], metadata["License-Expression"]) == ("memoryrouter", VERSION, "MIT")
    assert licence == (ROOT / "LICENSE").read_bytes()


def test_the_installed_copy_is_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = (
        "import models, actors, router, bench; print(models.__file__, actors.__file__, router.__file__, bench.__file__)"
    )
    done = subprocess.run(
        [installed.with_name("python"), "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    environment = str(installed.parents[1])
    assert [path.startswith(environment) for path in done.stdout.split()] == [True] * 4


def test_it_writes_the_configuration_and_knows_its_benchmarks(installed: Path, tmp_path: Path) -> None:
    for command, expected in (
        ("config", (ROOT / "config.toml").read_text(encoding="utf-8")),
        ("bench", "prepare_latency"),
    ):
        arguments = [command] if command == "config" else [command, "--list"]
        done = subprocess.run([installed, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        assert expected in done.stdout


async def test_one_version_everywhere(installed: Path, wheel: Path, tmp_path: Path) -> None:
    """Of the wheel, the command, the server's health, the API's description; and it remembers."""
    assert wheel.name == f"memoryrouter-{VERSION}-py3-none-any.whl"
    said = await trio.run_process([str(installed), "--version"], cwd=tmp_path, capture_stdout=True)
    assert said.stdout.decode() == f"memoryrouter {VERSION}\n"
    command = [str(installed), "serve", "--port", "0"]
    async with (
        open_program(command, cwd=tmp_path, environment={"PATH": os.environ["PATH"]}) as server,
        open_http(server.url) as http,
    ):
        await use(http, Client(http, server.account_key))
        server.process.terminate()
        assert await server.wait() == 0


async def use(http: httpx.AsyncClient, client: Client) -> None:
    """What a first user does, with the dashboard's first page."""
    with trio.fail_after(PATIENCE_S):
        assert (await http.get("/health")).json()["version"] == VERSION
        assert (await http.get("/openapi.json")).json()["info"]["version"] == VERSION
        await client.ingest("My dog is called Rex.")
        await client.wait_embedded()
        assert "Rex" in (await client.chat("What is my dog called?", model="local/recall")).text
        assert (await http.get("/dashboard/")).headers["content-type"].startswith("text/html")
