"""What is installed is what is locked, by hash, and the locks follow pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
LOCKS = ("build", "runtime", "tests", "tracing", "docs", "binary", "tools")
EXTRAS = [
    ("runtime", ()),
    ("tests", ("test", "lint", "tracing")),
    ("tracing", ("tracing",)),
    ("binary", ("binary", "tracing")),
]
"""The locks that follow pyproject.toml, with the extras that each of them has."""


class Pin(msgspec.Struct, frozen=True):
    """One locked version."""

    name: str
    version: str
    marker: str
    hashes: int

    def applies(self, environment: dict[str, str] | None = None) -> bool:
        """Whether this interpreter, or one of this kind, gets it."""
        return not self.marker or Marker(self.marker).evaluate(environment)


def pins(lock: str) -> list[Pin]:
    """What a lock pins. A requirement may go on over several lines, each but the last with a backslash behind it."""
    text = (PROJECT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    return [parsed(line) for line in lines]


def parsed(line: str) -> Pin:
    head, *hashes = line.split("--hash=sha256:")
    matched = re.fullmatch(r"([A-Za-z0-9._-]+)==([^ ;]+)(?: *; *(.+))?", head.strip())
    assert matched, line
    assert all(re.fullmatch("[0-9a-f]{64} *", digest) for digest in hashes), line
    name, pinned, marker = matched.groups()
    return Pin(canonicalize_name(name), pinned, marker or "", len(hashes))


def wanted(*extras: str) -> Iterator[Requirement]:
    """The requirements of pyproject.toml."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    yield from (Requirement(text) for texts in lists for text in texts)


def python(minor: str) -> dict[str, str]:
    """An environment of this Python on Linux, as markers see it."""
    return {"python_version": minor, "python_full_version": f"{minor}.7", "sys_platform": "linux"}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_its_hashes(lock: str) -> None:
    """And nothing else stands in a lock: no index, no path, no option."""
    locked = pins(lock)
    assert locked
    assert [pin.name for pin in locked if not pin.hashes] == []
    text = (PROJECT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*(-i|--index|--extra|--find|--trusted|-f)\b", text, re.MULTILINE)


@pytest.mark.parametrize("minor", PYTHONS)
@pytest.mark.parametrize(("lock", "extras"), EXTRAS)
def test_the_locks_hold_what_pyproject_asks_for(lock: str, extras: tuple[str, ...], minor: str) -> None:
    """One version of each, within its bounds, on every Python; `make lock` brings them together again."""
    environment = python(minor)
    locked = {pin.name: pin.version for pin in pins(lock) if pin.applies(environment)}
    for requirement in wanted(*extras):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            pinned = locked.get(canonicalize_name(requirement.name))
            assert pinned is not None, requirement
            assert requirement.specifier.contains(Version(pinned)), requirement


@pytest.mark.parametrize("lock", ["build", "docs", "tools"])
def test_the_other_locks_hold_what_their_lists_ask_for(lock: str) -> None:
    """A list is `requirements/NAME.in`: none of it is part of the program."""
    lines = (PROJECT / "requirements" / f"{lock}.in").read_text(encoding="utf-8").splitlines()
    locked = {pin.name: pin.version for pin in pins(lock) if pin.applies()}
    for requirement in (Requirement(line) for line in lines if not line.startswith("#")):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("minor", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS)
def test_a_python_gets_one_version_of_a_package(lock: str, minor: str) -> None:
    names = [pin.name for pin in pins(lock) if pin.applies(python(minor))]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("minor", PYTHONS)
def test_tests_run_with_the_versions_that_are_served_with(minor: str) -> None:
    """As does what has to be built: numpy's headers are those of the numpy that runs."""
    served = {pin.name: pin.version for pin in pins("runtime") if pin.applies(python(minor))}
    for lock in ("tests", "build", "tracing", "binary"):
        here = {pin.name: pin.version for pin in pins(lock) if pin.applies(python(minor))}
        assert {name: here[name] for name in here.keys() & served} == {
            name: served[name] for name in here.keys() & served
        }
    assert served.keys() <= {pin.name for pin in pins("tests")}


def test_what_builds_this_project_is_locked() -> None:
    build = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    locked = {pin.name: pin.version for pin in pins("build") if pin.applies()}
    for requirement in map(Requirement, build):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)])


def test_this_environment_is_the_locked_one() -> None:
    """So that what is tested is what is served. `make test` installs it; other ways to install it are not tested."""
    locked = {pin.name: pin.version for pin in pins("tests") if pin.applies()}
    assert {name: version(name) for name in locked} == locked


def test_make_installs_by_hash_only() -> None:
    """Every `pip install` of the Makefile, but the one that links this project itself without looking for anything."""
    lines = [line for line in (PROJECT / "Makefile").read_text(encoding="utf-8").splitlines() if "pip install" in line]
    assert lines == [
        "INSTALL := -m pip install --disable-pip-version-check --quiet",
        *[line for line in lines if line.lstrip("\t").startswith("@$(UV) pip install")],
    ]
    text = (PROJECT / "Makefile").read_text(encoding="utf-8")
    assert "INSTALL_LOCKED := $(INSTALL) --require-hashes --no-build-isolation" in text
    assert "INSTALL_SELF := $(INSTALL) --no-index --no-deps --no-build-isolation" in text
