"""Environments of rivals: each in a folder of its own below a working directory, from the versions pinned here.

Owns what is installed and where. Never starts a rival, and never writes into the repository. Every file that is
installed must have the hash that its lock names, and versions known to be harmful are refused before and after.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench._machine import ROOT

HERE = Path(__file__).resolve().parent
INSTALL_TIMEOUT_S = 900.0
REFUSED = {"litellm": frozenset({"1.82.7", "1.82.8", "1.107.0"})}
"""Releases that were compromised (BerriAI/litellm/issues/24512)."""

_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", re.MULTILINE)


class NotInstalled(Exception):
    """A rival could not be installed; the message says why."""


@contextmanager
def open_work_dir(work_dir: Path | None) -> Iterator[Path]:
    """A directory for environments and for what rivals write: the given one, which stays, or one that is removed.

    Raises:
        NotInstalled: it lies in the repository.
    """
    if work_dir is None:
        with tempfile.TemporaryDirectory(prefix="memoryrouter-peers-") as temporary:
            yield Path(temporary)
        return
    work_dir = work_dir.resolve()
    if work_dir.is_relative_to(ROOT):
        raise NotInstalled(f"{work_dir} lies in the repository: rivals are installed outside of it.")
    work_dir.mkdir(parents=True, exist_ok=True)
    yield work_dir


def pinned(name: str) -> dict[str, str]:
    """Version by package, as the lock of an environment has it.

    Raises:
        NotInstalled: a version is refused.
    """
    versions = dict(_PIN.findall((HERE / f"{name}.txt").read_text()))
    for package, refused in REFUSED.items():
        if versions.get(package) in refused:
            raise NotInstalled(f"{package} {versions[package]} is known to be harmful and is not installed.")
    return versions


def python_environment(name: str, work_dir: Path) -> Path:
    """Install `NAME.txt` unless that is done already; the folder of the environment.

    Raises:
        NotInstalled: a version is refused, or the installer failed.
    """
    versions = pinned(name)
    lock, folder = HERE / f"{name}.txt", work_dir / name
    with _once(folder, lock) as needed:
        if needed:
            uv = _uv()
            python = folder / "bin" / "python"
            if uv is None:
                _run([sys.executable, "-m", "venv", str(folder)])
                _run([str(python), "-m", "pip", "install", "--no-deps", "--require-hashes", "-r", str(lock)])
            else:
                _run([uv, "venv", "--python", sys.executable, str(folder)])
                _run([uv, "pip", "sync", "--require-hashes", "--python", str(python), str(lock)])
            for package in REFUSED.keys() & versions.keys():
                _check_installed(python, package, versions[package])
    return folder


def node_environment(name: str, work_dir: Path) -> Path:
    """Install `NAME/package-lock.json` unless that is done already; the folder that has `node_modules`.

    No script of a package runs.

    Raises:
        NotInstalled: npm is missing, or failed.
    """
    folder = work_dir / name
    with _once(folder, HERE / name / "package-lock.json") as needed:
        if needed:
            npm = shutil.which("npm")
            if npm is None:
                raise NotInstalled(f"{name} needs node and npm.")
            folder.mkdir(parents=True)
            for file in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name / file, folder / file)
            _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)])
    return folder


@contextmanager
def _once(folder: Path, lock: Path) -> Iterator[bool]:
    """Whether the environment is to be made; once it is, a stamp of its lock says so."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    stamp = folder / "installed"
    if stamp.is_file() and stamp.read_text() == digest:
        yield False
        return
    shutil.rmtree(folder, ignore_errors=True)
    yield True
    stamp.write_text(digest)


def _uv() -> str | None:
    """The faster installer, where there is one."""
    tools = ROOT / ".venv" / "tools" / "bin" / "uv"
    return str(tools) if tools.is_file() else shutil.which("uv")


def _run(command: list[str]) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise NotInstalled(f"{' '.join(command[:4])} failed: {(done.stderr or done.stdout).strip()[-600:]}")


def _check_installed(python: Path, package: str, version: str) -> None:
    """What the lock names must be what lies there."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=60, check=True)
    if done.stdout.strip() != version:
        raise NotInstalled(f"{package} {done.stdout.strip()} was installed instead of {version}.")
