"""The pages on integrations: all are there, can be found, and name the tests that have run them."""

from __future__ import annotations

import re

import pytest

from tests.documents.blocks import read_blocks
from tests.documents.test_links import NAVIGATION, links
from tests.running import ROOT

FOLDER = ROOT / "docs" / "integrations"
PAGES = [
    "openai", "anthropic", "google-genai", "langchain", "llamaindex", "vercel-ai-sdk", "open-webui", "openclaw",
    "hermes", "claude-code", "codex", "curl",
]  # fmt: skip


def test_all_pages_are_there_and_can_be_found() -> None:
    """On the first page of integrations and in the site's navigation."""
    assert {path.stem for path in FOLDER.glob("*.md")} == {"index", *PAGES}
    listed = {target.partition("#")[0] for target in links(FOLDER / "index.md")}
    navigation = NAVIGATION.read_text(encoding="utf-8")
    for name in PAGES:
        assert f"{name}.md" in listed
        assert f": integrations/{name}.md\n" in navigation


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_code_pitfalls_and_its_test(name: str) -> None:
    """Its last section leads to tests that exist; what is said to be run elsewhere is run by one of them."""
    path = FOLDER / f"{name}.md"
    text = path.read_text(encoding="utf-8")
    tests = [target for target in links(path) if "/tests/" in target]
    assert tests
    assert all((FOLDER / target).resolve().is_file() for target in tests)
    assert "\n## Pitfalls\n" in text
    assert re.search(r"[Rr]un by|was tried|[Nn]ot run", text)
    blocks = read_blocks(path)
    assert any(block.language in {"sh", "python", "js"} for block in blocks)
    named = {target.removeprefix("../../") for target in tests}
    for block in blocks:
        if block.marks.get("not run", "").startswith("run by"):
            assert block.marks["not run"].removeprefix("run by:").strip() in named, block.place
