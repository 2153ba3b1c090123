"""Links between documents lead somewhere, anchors too, and every page can be reached from the first one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents.blocks import all_pages, find_blocks, page_name, without_code
from tests.running import ROOT

LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (?P<text>.+?)\s*$", re.M)
INDEX = ROOT / "docs" / "index.md"
NAVIGATION = ROOT / "docs" / "site" / "mkdocs.yml"


def links(path: Path) -> Iterator[str]:
    """Targets of the links in a page, without those in its code."""
    yield from (match["target"] for match in LINK.finditer(without_code(path.read_text(encoding="utf-8"))))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings: lower case, marks of punctuation left out, hyphens for blanks."""
    made: list[str] = []
    lines = text.split("\n")
    for block in find_blocks("", text):
        for number in range(block.line - 1, block.line - 1 + block.text.count("\n")):
            lines[number] = ""
    for match in HEADING.finditer("\n".join(lines)):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match["text"])
        made.append(re.sub(r"[^\w\- ]", "", shown.lower()).strip().replace(" ", "-"))
    repeated = {name for name, count in Counter(made).items() if count > 1}
    return set(made) - repeated  # what these are called differs from one renderer to the next


@pytest.mark.parametrize("path", all_pages(), ids=page_name)
def test_links_lead_somewhere(path: Path) -> None:
    """To a file of the project, or to a heading of a page, whoever renders it."""
    for target in links(path):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        goal = (path.parent / file).resolve() if file else path
        assert goal.exists(), f"{page_name(path)}: {target}"
        assert goal.is_relative_to(ROOT), f"{page_name(path)}: {target}"
        if anchor:
            assert anchor in anchors(goal.read_text(encoding="utf-8")), f"{page_name(path)}: {target}"


def test_every_page_stands_in_the_index_and_in_the_navigation() -> None:
    listed = {(INDEX.parent / target.partition("#")[0]).resolve() for target in links(INDEX)}
    navigation = re.findall(r": (\S+\.md)$", NAVIGATION.read_text(encoding="utf-8"), re.M)
    pages = {path for path in all_pages() if path.is_relative_to(INDEX.parent)}
    assert len(pages) > 15
    assert pages - listed - {INDEX} == set()
    assert {path.relative_to(INDEX.parent).as_posix() for path in pages} - set(navigation) == set()
    assert len(navigation) == len(set(navigation))


@pytest.mark.parametrize("path", all_pages(), ids=page_name)
def test_no_number_is_left_to_be_filled_in(path: Path) -> None:
    assert "@@" not in path.read_text(encoding="utf-8")


def test_the_readme_leads_to_the_index() -> None:
    assert "docs/index.md" in set(links(ROOT / "README.md"))


def test_anchors_are_those_of_the_renderers() -> None:
    assert anchors("# What it *is* `/v1`\n\n## A, b & c\n\n```\n# no\n```\n") == {"what-it-is-v1", "a-b--c"}
