"""SECURITY.md names tests, files and settings that exist, and no attack without a test."""

from __future__ import annotations

import re
from pathlib import Path

from models.settings import describe_settings

PROJECT = Path(__file__).parents[1]
TEXT = (PROJECT / "SECURITY.md").read_text(encoding="utf-8")
FILE = re.compile(r"`((?:tests|router|actors|models)/[\w/.]+)`")
TEST = re.compile(r"`(tests/[\w/]+/test_\w+\.py|tests/test_\w+\.py)`")


def attacks() -> list[str]:
    """The rows of the table of attacks."""
    table = TEXT.partition("## Attacks, defences, tests")[2].partition("\n## ")[0]
    return [line for line in table.splitlines() if line.startswith("| ")][1:]


def test_every_file_that_is_named_exists() -> None:
    """Tests and modules."""
    named = set(FILE.findall(TEXT))
    assert len(named) > 40
    assert [name for name in sorted(named) if not (PROJECT / name).exists()] == []


def test_every_attack_has_a_defence_and_a_test() -> None:
    """Three columns, the last of them files with tests in them."""
    rows = attacks()
    assert len(rows) >= 25
    for row in rows:
        attack, defence, tests = row.strip("| ").split(" | ")
        assert attack, row
        assert defence, row
        assert TEST.findall(tests), row
        for name in TEST.findall(tests):
            assert "def test_" in (PROJECT / name).read_text(encoding="utf-8"), name


def test_every_setting_that_is_named_exists() -> None:
    """`section.key`, written as in config.toml."""
    known = {setting.name for setting in describe_settings()}
    sections = {name.partition(".")[0] for name in known}
    named = {name for name in re.findall(r"`([a-z]+\.[a-z_]+)`", TEXT) if name.partition(".")[0] in sections}
    assert {"server.allowed_hosts", "cors.origins"} <= named
    assert named - {"server.key"} <= known


def test_reports_go_through_the_repository() -> None:
    """And to no address that nobody reads."""
    assert "Report a vulnerability" in TEXT
    assert "@" not in TEXT
