"""The documents of the project, and the blocks of code in them.

Owns how a Markdown file is read: fences with a language, indented blocks (shell), and the HTML comments on the lines
before a block that say how it is to be taken. Runs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.running import ROOT

SHELL = ("sh", "bash", "shell")
DATA = ("json", "toml", "yaml")
TEXT = ("", "text", "mermaid")

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[\w+.-]*)[^`]*$")
MARK = re.compile(r"^ *<!-- *(?P<text>.*?) *-->$")
LIST_ITEM = re.compile(r"^ *([*+-]|\d+[.)]) ")


class Block(msgspec.Struct, frozen=True):
    """One block of code.

    Attributes:
        page: path of the document in the project.
        line: of its first line of code, from 1.
        language: as the fence says; `sh` for indented blocks.
        marks: what the comments before it say, by the word before the colon: `not run`, `output`, `file`, `request`,
            `another program`, `with the server stopped`.
    """

    page: str
    line: int
    language: str
    text: str
    marks: dict[str, str]

    @property
    def place(self) -> str:
        """Where it stands, as editors jump to it."""
        return f"{self.page}:{self.line}"


def all_pages() -> list[Path]:
    """Every document that people read: those at the top, and all below `docs`."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def page_name(path: Path) -> str:
    """The path in the project, with slashes."""
    return path.relative_to(ROOT).as_posix()


def read_blocks(path: Path) -> list[Block]:
    """The blocks of one document, in order."""
    return list(find_blocks(page_name(path), path.read_text(encoding="utf-8")))


def find_blocks(page: str, text: str) -> Iterator[Block]:
    """The blocks of a document's text."""
    lines = text.split("\n")
    marks: dict[str, str] = {}
    number, in_list = 0, False
    while number < len(lines):
        line = lines[number]
        if fence := FENCE.match(line):
            end = _end_of_fence(lines, number, fence["fence"])
            code = [inner.removeprefix(fence["indent"]) for inner in lines[number + 1 : end]]
            yield Block(page, number + 2, fence["language"], "\n".join(code) + "\n", marks)
            number, marks = end + 1, {}
        elif line.startswith("    ") and not in_list and _is_blank_or_mark(lines, number - 1):
            end = _end_of_indented(lines, number)
            code = [inner.removeprefix("    ") for inner in lines[number:end]]
            yield Block(page, number + 1, "sh", "\n".join(code).rstrip() + "\n", marks)
            number, marks = end, {}
        elif mark := MARK.match(line):
            name, _, value = mark["text"].partition(":")
            marks = {**marks, name.strip(): value.strip()}
            number += 1
        else:
            if line.strip():
                marks = {}
                in_list = bool(LIST_ITEM.match(line)) or (in_list and _continues_list(lines, number))
            number += 1


def without_code(text: str) -> str:
    """The text with its blocks of code, comments and code within lines blanked out; lines keep their numbers."""
    lines = text.split("\n")
    for block in find_blocks("", text):
        for number in range(block.line - 1, block.line - 1 + block.text.count("\n")):
            lines[number] = ""
    prose = re.sub(r"<!--.*?-->", lambda match: re.sub(r"[^\n]", "", match[0]), "\n".join(lines), flags=re.DOTALL)
    return re.sub(r"`[^`\n]*`", lambda match: " " * len(match[0]), prose)


def _end_of_fence(lines: list[str], start: int, fence: str) -> int:
    for number in range(start + 1, len(lines)):
        if lines[number].strip().startswith(fence) and not lines[number].strip().strip(fence[0]):
            return number
    raise ValueError(f"line {start + 1}: a fence that does not end")


def _end_of_indented(lines: list[str], start: int) -> int:
    end = start
    for number in range(start, len(lines)):
        if lines[number].startswith("    "):
            end = number + 1
        elif lines[number].strip():
            break
    return end


def _is_blank_or_mark(lines: list[str], number: int) -> bool:
    return number < 0 or not lines[number].strip() or bool(MARK.match(lines[number]))


def _continues_list(lines: list[str], number: int) -> bool:
    """Within an item: indented, or on from the line before."""
    return lines[number].startswith(" ") or bool(number and lines[number - 1].strip())
