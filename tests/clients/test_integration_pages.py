"""The code of the pages on integrations, in the environments of the packages that they are about.

All blocks of a page in one language are one program, as a reader would put them together; what it prints is what the
page says. Pages whose code needs nothing but what tests need anyway are run by `tests/documents` as well.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.running import INSTALLED, OPEN, assert_remembers, open_pair, run_client, texts_of
from tests.clients.test_sdks import users_texts
from tests.clients.upstream import SUNNY
from tests.documents.blocks import Block, read_blocks
from tests.documents.running import assert_printed
from tests.running import ROOT

PAGES = ROOT / "docs" / "integrations"
RUN_HERE = "run by: tests/clients/test_integration_pages.py"
MARK = "\x1e"
"""Printed behind each block."""

BETWEEN = {"python": 'print("\\x1e", end="", flush=True)\n', "js": 'process.stdout.write("\\x1e");\n'}
QUIET = {"PYTHONWARNINGS": "ignore", "NODE_NO_WARNINGS": "1"}
PROGRAMS = [
    ("openai.md", "python", "openai-3"),
    ("openai.md", "python", "openai-1"),
    ("openai.md", "js", "npm"),
    ("anthropic.md", "python", "anthropic-2"),
    ("anthropic.md", "python", "anthropic-0"),
    ("anthropic.md", "js", "npm"),
    ("google-genai.md", "python", "google-genai-3"),
    ("google-genai.md", "python", "google-genai-1"),
    ("langchain.md", "python", "langchain"),
    ("llamaindex.md", "python", "llama-index"),
    ("vercel-ai-sdk.md", "js", "npm"),
    ("hermes.md", "python", "hermes"),
]
CODE_OF = {"js": ".mjs", "python": ".py"}


@pytest.mark.parametrize(("page", "language", "client"), PROGRAMS)
async def test_a_page_runs_as_its_reader_would_run_it(tmp_path: Path, page: str, language: str, client: str) -> None:
    """It prints what the page says, and what was told in it came back to the model."""
    program, printed = written(page, language)
    script = tmp_path / f"page{CODE_OF[language]}"
    script.write_text(program, encoding="utf-8")
    if client == "npm":  # where Node looks for modules
        (tmp_path / "node_modules").symlink_to(INSTALLED / client / "node_modules")
    async with open_pair(tmp_path) as pair:
        variables = {**QUIET, "HERMES_HOME": str(tmp_path / "hermes")}
        output = await run_client(client, str(script), pair.server, tmp_path, variables=variables)
        for block, said in zip(printed, output.split(MARK), strict=False):
            if block is not None:
                assert_printed(block, said)
        bodies = [call.recorded.body.decode() for call in pair.upstream.calls()]
        assert bodies or page == "hermes.md"
        with_memory = [body for body in bodies if OPEN in body]
        assert with_memory or not bodies
        assert not any("mk_" in body for body in bodies)


def test_every_block_that_is_run_here_is_in_a_program() -> None:
    """No page names this test without being run by it."""
    programs = {(page, language) for page, language, _ in PROGRAMS}
    for path in PAGES.glob("*.md"):
        for block in read_blocks(path):
            if block.marks.get("not run") == RUN_HERE and "output" not in block.marks:
                assert (path.name, block.language) in programs, block.place


def written(page: str, language: str) -> tuple[str, list[Block | None]]:
    """A page's program in one language, and for each of its blocks what the page says that it prints, if anything."""
    program, printed = "", list[Block | None]()
    before = ""
    for block in read_blocks(PAGES / page):
        if block.language == language:
            program += f"{block.text}\n{BETWEEN[language]}"
            printed.append(None)
        elif "output" in block.marks and before == language:
            printed[-1] = block
        before = block.language
    assert printed, page
    return program, printed


GRAPH_WITH_TOOLS = """
config = {"configurable": {"thread_id": "wednesday", "memory_key": KEY, "model": "openai/gpt-tools"}}
for chunk, _ in graph.stream({"messages": [("user", "What is my dog called?")]}, config, stream_mode="messages"):
    print(chunk.text, end="")
"""


async def test_the_graph_of_the_page_remembers_across_threads_and_calls_tools(tmp_path: Path) -> None:
    """A new thread has the memory without the messages; in a tool loop the block stays as it is."""
    script = tmp_path / "page.py"
    script.write_text(written("langchain.md", "python")[0] + GRAPH_WITH_TOOLS, encoding="utf-8")
    async with open_pair(tmp_path) as pair:
        output = await run_client("langchain", str(script), pair.server, tmp_path, variables=QUIET)
        assert SUNNY in output
        tuesday = next(call for call in pair.upstream.calls() if b"my boat called?" in call.recorded.body)
        ((role, text),) = texts_of(tuesday)
        assert role == "user"
        assert "Nemo" in text
        first, second = pair.upstream.calls("tools")
        assert_remembers(first)
        assert second.has_tool_result
        assert users_texts(second) == users_texts(first)
