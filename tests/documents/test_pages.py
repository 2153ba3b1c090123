"""Every block of code in the documents runs, or says why it cannot.

`pytest -s tests/documents/test_pages.py` prints how many of each kind there are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from models.errors import SettingError
from router.cli import program
from tests.documents.blocks import SHELL, Block, all_pages, find_blocks, page_name, read_blocks
from tests.documents.running import open_page
from tests.running import ROOT

# Why a block is not run, and how many of each there may be: one more is to be seen here.
REASONS = {
    "needs root": 6,
    "needs another program": 13,
    "needs the network": 6,
    "run by": 40,
    "synopsis": 2,
    "takes long": 3,
}
PAGES = [path for path in all_pages() if read_blocks(path)]
BLOCKS = [block for path in PAGES for block in read_blocks(path)]
NOT_RUN = [block for block in BLOCKS if "not run" in block.marks]
CODE = re.compile(r"`(?P<code>[^`\n]+)`")


OWN_SERVER = re.compile(r"^[^#]*\b(memoryrouter|make|data/)", re.M)


def needs_a_server_of_its_own(path: Path) -> bool:
    """Whether something in it starts one, or works on its data directory."""
    return any(block.language in SHELL and OWN_SERVER.search(block.text) for block in to_run(path))


def to_run(path: Path) -> list[Block]:
    return [block for block in read_blocks(path) if "not run" not in block.marks]


@pytest.mark.parametrize("path", [path for path in PAGES if needs_a_server_of_its_own(path)], ids=page_name)
async def test_a_page_runs(path: Path, tmp_path: Path, commands: Path) -> None:
    """Its blocks in order, in one folder, with one server."""
    async with open_page(tmp_path / "page", commands) as page:
        for block in to_run(path):
            await page.run(block)


async def test_the_other_pages_run(tmp_path: Path, commands: Path) -> None:
    """With one server for all, and an account key with a new vault for each."""
    async with open_page(tmp_path / "page", commands) as page:
        for path in PAGES:
            if not needs_a_server_of_its_own(path):
                await page.begin_page()
                for block in to_run(path):
                    await page.run(block)


def test_what_is_not_run_says_why() -> None:
    """A kind of reason, and the reason itself; where another test runs it, that test is there."""
    for block in NOT_RUN:
        kind, _, reason = (part.strip() for part in block.marks["not run"].partition(":"))
        assert kind in REASONS, block.place
        assert len(reason) > 4, block.place
        if kind == "run by":
            assert (ROOT / reason.split()[0].partition(":")[0]).exists(), block.place


def test_few_blocks_are_not_run() -> None:
    counts = Counter(block.marks["not run"].partition(":")[0].strip() for block in NOT_RUN)
    run = Counter(block.language or "text" for block in BLOCKS if block not in NOT_RUN)
    print(f"\nrun: {dict(run)}\nnot run: {dict(counts)}")
    assert all(count <= REASONS[kind] for kind, count in counts.items()), counts
    assert run["sh"] + run["bash"] > 20
    assert run["python"] > 10


def test_named_commands_exist() -> None:
    """Within lines and in what is not run: commands of ours with their options, targets of make, benchmarks."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for path in all_pages():
        for place, code in _commands(path):
            for words in re.findall(r"^(?:\$ )?memoryrouter ((?:[\w./:=|\[\]-]+ ?)+)", code):
                _assert_command(place, words.split())
            for target in re.findall(r"^make ([a-z][a-z-]*)", code):
                assert target in targets, place
            for name in re.findall(r"python -m bench\.(\w+)", code):
                assert (ROOT / "bench" / f"{name}.py").exists(), place


def _commands(path: Path) -> Iterator[tuple[str, str]]:
    """Everything that looks like a command: code within lines, and the lines of shell blocks."""
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        yield from ((f"{page_name(path)}:{number}", match["code"]) for match in CODE.finditer(line))
    for block in read_blocks(path):
        if block.language in {"sh", "bash"}:
            yield from ((block.place, line) for line in block.text.split("\n"))


def _assert_command(place: str, words: list[str]) -> None:
    command: click.Command = program
    context = click.Context(program)
    for word in words:
        if not isinstance(command, click.Group):
            break
        if word.startswith(("-", "[")) or not re.fullmatch(r"[a-z-]+", word):
            break
        found = command.get_command(context, word)
        assert found is not None, f"{place}: memoryrouter has no {word!r}"
        command = found
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h", "--version"}
    for word in words:
        option = word.strip("[]").partition("=")[0]
        if option.startswith("--") and command is not program:
            assert option in known, f"{place}: {command.name} has no {option}"


def test_blocks_are_found() -> None:
    """Fences, indented code, marks; no text of a list."""
    text = "* item\n\n    text\n\nnow\n\n<!-- not run: synopsis: a list of them -->\n\n    make x\n\n```py\n1\n```\n"
    found = [(block.language, block.text, block.line, block.marks) for block in find_blocks("p", text)]
    assert found == [("sh", "make x\n", 9, {"not run": "synopsis: a list of them"}), ("py", "1\n", 12, {})]


def test_a_wrong_block_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not end"):
        list(find_blocks("p", "```python\nprint()\n"))


FAILING = [
    ("sh", "false\ntrue\n", {}),
    ("sh", "curl -s http://127.0.0.1:8080/v1/keys\n", {}),
    ("python", "1 / 0\n", {}),
    ("json", "{\n", {}),
    ("json", '{"query": 5}\n', {"request": "POST /v1/memory/search"}),
    ("toml", "[server]\nprot = 1\n", {}),
    ("text", "something else\n", {"output": ""}),
    ("cobol", "DISPLAY 1\n", {}),
]


async def test_a_failing_block_fails(tmp_path: Path, commands: Path) -> None:
    """One of every kind, and each goes through once it is right."""
    async with open_page(tmp_path / "page", commands) as page:
        for language, text, marks in FAILING:
            with pytest.raises((AssertionError, ValueError, SettingError)):
                await page.run(Block("p", 1, language, text, marks))
        await page.run(Block("p", 1, "sh", "export A=dog && echo a big $A\n", {}))
        await page.run(Block("p", 1, "python", "import os; print('a small', os.environ['A'])\n", {}))
        await page.run(Block("p", 1, "text", "a ... dog\n", {"output": ""}))
        await page.run(Block("p", 1, "json", '{"query": "dog"}\n', {"request": "POST /v1/memory/search"}))
