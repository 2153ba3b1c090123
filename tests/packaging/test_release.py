"""What `make release-check` says of a version, and the form of the release notes."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from models.version import VERSION
from tests.running import ROOT


@pytest.fixture(scope="module")
def checking() -> ModuleType:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("release_check", ROOT / ".ci" / "release_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that may release 1.2.3."""
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## 1.2.3 (2027-01-31)\n\n## 1.2.2 (2026-12-31)\n", encoding="utf-8"
    )
    (tmp_path / "tests" / "fixtures" / "data-1.2.3").mkdir(parents=True)
    return tmp_path


def test_a_version_that_is_ready_has_nothing_against_it(checking: ModuleType, project: Path) -> None:
    assert list(checking.offences(project, "1.2.3", tags=["v1.2.2"], uncommitted=[])) == []


def test_everything_that_is_not_ready_is_said(checking: ModuleType, project: Path) -> None:
    (project / "CHANGELOG.md").write_text("## 1.2.3 (unreleased)\n", encoding="utf-8")
    (project / "tests" / "fixtures" / "data-1.2.3").rmdir()
    said = list(checking.offences(project, "1.2.3", tags=["v1.2.3"], uncommitted=["README.md"]))
    assert [sentence.split(" ")[0] for sentence in said] == ["CHANGELOG.md", "tests/fixtures", "The", "Not"]
    assert "no date" in said[0]
    (wrong, *_) = checking.offences(project, "1.3.0", tags=[], uncommitted=[])
    assert "begins with version 1.2.3" in wrong


def test_the_changelog_has_this_version_first(checking: ModuleType) -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = [version for version, _ in checking.HEADING.findall(text)]
    assert versions[0] == VERSION
    assert versions == sorted(versions, key=lambda version: [int(part) for part in version.split(".")], reverse=True)
    assert len(versions) == len(re.findall(r"^## ", text, re.MULTILINE))


def test_the_version_stands_in_one_place() -> None:
    """The project's file reads it from there."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'version = { attr = "models.version.VERSION" }' in text
    assert not re.search(r"^version\s*=\s*\"", text, re.MULTILINE)
