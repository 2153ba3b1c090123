"""Plain text and Markdown as notes: a paragraph or a section each.

Owns where a note begins and ends and what time it has: that of its front matter (`date`, `created`, `created_at`), else
of a file name such as `2024-05-01.md`, else when the file was last changed. Must never hold more than one note.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from models.archives.entries import Entries, Item, time_ms, title_of, upload_line

NOTE_CHARACTERS_MAX = 200_000
"""Of one note; a longer paragraph or section goes on in another one."""

FRONT_MATTER_LINES_MAX = 200
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_FIELD = re.compile(r"([A-Za-z_][\w-]*)[ \t]*:[ \t]*(.*)$")
_FILE_DATE = re.compile(r"(?<!\d)(\d{4})-?(\d{2})-?(\d{2})(?!\d)")
_DATES = ("date", "created", "created_at", "datetime", "updated", "modified")


def read_text(lines: Iterable[str], name: str, *, modified_ms: int | None) -> Entries:
    """Each paragraph as a note."""
    told_ms = date_in(name) or modified_ms
    for number, paragraph in enumerate(paragraphs_of(lines), start=1):
        fields = upload_line("user", paragraph, timestamp_ms=told_ms, source="text", file=title_of(name))
        yield Item(fields, f"{name}: paragraph {number}", is_note=True)


def read_markdown(lines: Iterable[str], name: str, *, modified_ms: int | None) -> Entries:
    """Each section as a note that begins with its headings; what stands before the first heading is one, too."""
    matter, body = _front_matter(iter(lines))
    dates = (time_ms(matter.get(field, "")) for field in _DATES)
    told_ms = next((date for date in dates if date is not None), None) or date_in(name) or modified_ms
    title = title_of(matter.get("title"))
    for number, (headings, text) in enumerate(_sections(body), start=1):
        above = " > ".join(headings) or title
        fields = upload_line(
            "user",
            f"{above}\n\n{text}" if above else text,
            timestamp_ms=told_ms,
            source="markdown",
            file=title_of(name),
            title=title,
        )
        yield Item(fields, f"{name}: section {number}", is_note=True)


def paragraphs_of(lines: Iterable[str]) -> Iterator[str]:
    """What stands between blank lines and holds at least one letter or digit."""
    held: list[str] = []
    size = 0
    for line in lines:
        if not line.strip() or size + len(line) > NOTE_CHARACTERS_MAX:
            yield from _worth("".join(held))
            held, size = [], 0
        held.append(line)
        size += len(line)
    yield from _worth("".join(held))


def date_in(name: str) -> int | None:
    """The day in a file name, as that day's beginning in UTC."""
    found = _FILE_DATE.search(name)
    return time_ms("-".join(found.groups())) if found else None


def _worth(text: str) -> Iterator[str]:
    text = text.strip()
    for start in range(0, len(text), NOTE_CHARACTERS_MAX):
        part = text[start : start + NOTE_CHARACTERS_MAX]
        if any(map(str.isalnum, part)):
            yield part


def _front_matter(lines: Iterator[str]) -> tuple[dict[str, str], Iterator[str]]:
    """The plain fields between two lines of `---` at the beginning, and the lines behind them."""
    first = next(lines, "")
    if first.rstrip() != "---":
        return {}, _again([first], lines)
    fields: dict[str, str] = {}
    read = [first]
    for line in lines:
        read.append(line)
        if line.rstrip() in ("---", "..."):
            return fields, lines
        field = _FIELD.match(line.rstrip())
        if field:
            fields[field[1].lower()] = field[2].strip().strip("\"'")
        if len(read) > FRONT_MATTER_LINES_MAX:
            break
    return {}, _again(read, lines)  # it was a rule, not front matter


def _again(read: list[str], lines: Iterator[str]) -> Iterator[str]:
    yield from read
    yield from lines


def _sections(lines: Iterator[str]) -> Iterator[tuple[list[str], str]]:
    """The headings above each section, and its text."""
    headings: dict[int, str] = {}
    held: list[str] = []
    size = 0
    fence = ""
    for line in lines:
        heading = None if fence else _heading(line, held)
        if heading is not None:
            level, text = heading
            yield from _section(headings, held, ends=level <= max(headings, default=0))
            headings = {depth: above for depth, above in headings.items() if depth < level} | {level: text}
            held, size = [], 0
            continue
        fence = _fence_after(line, fence)
        if size + len(line) > NOTE_CHARACTERS_MAX:
            yield from _section(headings, held, ends=False)
            held, size = [], 0
        held.append(line)
        size += len(line)
    yield from _section(headings, held, ends=True)


def _section(headings: dict[int, str], held: list[str], *, ends: bool) -> Iterator[tuple[list[str], str]]:
    """What is held, as notes.

    Args:
        ends: nothing deeper follows: a heading with nothing below it is a note of its own.
    """
    above = [text[:NOTE_CHARACTERS_MAX] for text in headings.values() if text]
    found = list(_worth("".join(held)))
    if not found and ends and above:
        above, found = above[:-1], list(_worth(above[-1]))
    for text in found:
        yield above, text


def _heading(line: str, held: list[str]) -> tuple[int, str] | None:
    """The level and text of a heading; one that is underlined takes the line before it out of what is held."""
    marked = _HEADING.match(line)
    if marked:
        return len(marked[1]), marked[2]
    underlined = _UNDERLINE.match(line)
    alone = bool(held and held[-1].strip()) and (len(held) == 1 or not held[-2].strip())
    if not underlined or not alone:
        return None
    return (1 if underlined[1].startswith("=") else 2), held.pop().strip()


def _fence_after(line: str, fence: str) -> str:
    """The fence of the code that is open behind this line, or ""."""
    found = _FENCE.match(line)
    if not found:
        return fence
    if not fence:
        return found[1]
    return "" if found[1].startswith(fence) else fence
