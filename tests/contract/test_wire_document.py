"""docs/wire.md promises what tests prove: each test that it names exists, and no row is without one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
DOCUMENT = PROJECT / "docs" / "wire.md"
LINK = re.compile(r"\[`(?P<path>tests/[a-z0-9_/]+\.py)::(?P<test>test_[a-z0-9_]+)`\]\((?P<target>[^)]+)\)")
PROVING = tuple(f"tests/contract/test_wire_{name}.py" for name in ("table", "requests", "process"))


def links() -> list[tuple[str, str, str]]:
    """Every link to a test: its file, its name, where the link leads."""
    return [(link["path"], link["test"], link["target"]) for link in LINK.finditer(DOCUMENT.read_text())]


def names_in(path: str) -> set[str]:
    """The names of the tests of a file."""
    tree = ast.parse((PROJECT / path).read_text())
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {function.name for function in functions if function.name.startswith("test_")}


def test_every_test_that_it_names_exists() -> None:
    found = links()
    assert len(found) > 40
    for path, test, target in found:
        assert (DOCUMENT.parent / target).resolve() == PROJECT / path
        assert test in names_in(path), f"{path}::{test}"


def test_every_row_of_the_table_ends_with_a_test() -> None:
    section = DOCUMENT.read_text().partition("## Right in every row")[2].partition("\n## ")[0]
    head, _, *rows = [line for line in section.splitlines() if line.startswith("|")]
    assert head.endswith("| MemoryRouter |")
    assert len(rows) > 20
    for row in rows:
        cells = row.strip("|").split("|")
        assert len(cells) == head.count("|") - 1, row
        assert LINK.search(cells[-1]), row


def test_it_names_every_test_of_the_table() -> None:
    named = {(path, test) for path, test, _ in links()}
    assert {(path, test) for path in PROVING for test in names_in(path)} <= named
