"""A foreign file, whatever it is, as lines of an upload.

Owns how a format is recognised: text and Markdown by the file's name, JSON by its first bytes, and within JSON each
value by its own fields, so that one file may hold several kinds. Whatever a file contains, reading it ends in entries:
what cannot be read is a `Bad` one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

from models.archives.chatgpt import is_chatgpt, read_chatgpt
from models.archives.claude import is_claude, read_claude
from models.archives.entries import ArchiveError, Bad, Entries, Object, Passed
from models.archives.json_values import VALUE_BYTES_MAX, decode_json, json_values
from models.archives.lines import is_chat, is_line, read_chat, read_line
from models.archives.notes import NOTE_CHARACTERS_MAX, read_markdown, read_text
from models.archives.peers import is_mem0, is_zep, read_mem0, read_zep
from models.archives.sources import Source
from models.exports import FORMAT as OWN_EXPORT
from models.sizes import MIB

JSON_FORMATS: tuple[str, ...] = ("jsonl", "chat", "chatgpt", "claude", "mem0", "zep")
FORMATS: tuple[str, ...] = (*JSON_FORMATS, "markdown", "text")
LINE_BYTES_MAX = 64 * MIB
"""Of one line of JSON lines: what one request may carry."""

_HEAD_BYTES = 64 * 1024
_MARKDOWN = (".md", ".markdown")
_TEXT = (".txt", ".text")
_LINES = (".jsonl", ".ndjson")
_BOM = b"\xef\xbb\xbf"

_Kind = tuple[str, Callable[[Object], bool]]
_KINDS: tuple[_Kind, ...] = (
    ("chatgpt", is_chatgpt),
    ("claude", is_claude),
    ("zep", is_zep),
    ("mem0", is_mem0),
    ("jsonl", is_line),
    ("chat", is_chat),
    ("jsonl", lambda value: "content" in value),  # a line with a mistake in it
)


def entries_of(source: Source, *, format_name: str | None = None) -> Entries:
    """What a file holds.

    Args:
        format_name: one of `FORMATS` instead of what the file looks like.
    """
    try:
        with source.open() as stream:
            yield from _read(source, stream, format_name)
    except ArchiveError as error:
        yield Bad(error.message, source.name)


def _read(source: Source, stream: io.BufferedReader[Any], format_name: str | None) -> Entries:
    head = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES].removeprefix(_BOM)
    shape = _shape_of(PurePath(source.name).suffix.lower(), head, format_name)
    if shape == "empty":
        yield Passed("empty", source.name)
    elif shape == "lines":
        yield from _json_lines(stream, source, format_name)
    elif shape == "values":
        yield from _json_stream(stream, source, format_name)
    elif b"\0" in head:
        yield Bad("it is no text.", source.name)
    else:
        read = read_markdown if shape == "markdown" else read_text
        name = source.name.rpartition(": ")[2]
        yield from _decoded(read(_text_lines(stream), PurePath(name).name, modified_ms=source.modified_ms), source)


def _shape_of(suffix: str, head: bytes, format_name: str | None) -> str:
    """How a file is to be taken apart: `lines` or `values` of JSON, `markdown`, `text`, or `empty`."""
    if not head.strip():
        return "empty"
    if format_name in ("markdown", "text"):
        return format_name
    if format_name is None and suffix in _MARKDOWN:
        return "markdown"
    if format_name is None and suffix in _TEXT:
        return "text"
    if suffix in _LINES:
        return "lines"
    return _json_shape(head) or ("values" if format_name or suffix == ".json" else "text")


def _json_shape(head: bytes) -> str | None:
    """`lines` where the first line is an object of its own, `values` for other JSON, None where it does not look so."""
    start = head.lstrip()
    first, has_more, _ = start.partition(b"\n")
    if start.startswith(b"{"):
        try:
            decode_json(first)
        except ValueError:
            return "values"
        return "lines" if has_more else "values"
    inner = start[1:].lstrip() if start.startswith(b"[") else b""
    return "values" if inner.startswith((b"{", b"]")) else None


# --- JSON ---


def _json_lines(stream: io.BufferedReader[Any], source: Source, format_name: str | None) -> Entries:
    number = 0
    while line := stream.readline(LINE_BYTES_MAX + 1):
        number += 1
        place = f"{source.name}, line {number}"
        if len(line) > LINE_BYTES_MAX:
            raise ArchiveError(f"line {number} is longer than {LINE_BYTES_MAX} bytes.")
        if number == 1:
            line = line.removeprefix(_BOM)
        if line.strip():
            yield from _value(line, place, source, format_name)


def _json_stream(stream: io.BufferedReader[Any], source: Source, format_name: str | None) -> Entries:
    values = json_values(stream, value_bytes_max=VALUE_BYTES_MAX)
    for number, data in enumerate(values, start=1):
        yield from _value(data, f"{source.name}, entry {number}", source, format_name)


def _value(data: bytes, place: str, source: Source, format_name: str | None) -> Entries:
    try:
        value = decode_json(data)
    except ValueError as error:
        return iter((Bad(f"{error}.", place),))
    if not isinstance(value, dict):
        return iter((Bad("it must be a JSON object.", place),))
    kind = format_name or next((name for name, fits in _KINDS if fits(value)), None)
    if kind is None:
        return iter((_unknown(value, place, source),))
    return _entries(kind, value, place, source)


def _entries(kind: str, value: Object, place: str, source: Source) -> Entries:
    match kind:
        case "chatgpt":
            return read_chatgpt(value, place)
        case "claude":
            return read_claude(value, place, modified_ms=source.modified_ms)
        case "mem0":
            return read_mem0(value, place)
        case "zep":
            return read_zep(value, place)
        case "chat":
            return read_chat(value, place)
        case _:
            return read_line(value, place)


def _unknown(value: Object, place: str, source: Source) -> Bad | Passed:
    if value.get("format") == OWN_EXPORT:
        return Bad("this is an export of MemoryRouter; `memoryrouter import` takes it.", place)
    if not source.asked:
        return Passed("other_json", place)  # a directory holds files of many kinds
    return Bad("no known format; --format names one.", place)


# --- text ---


def _text_lines(stream: io.BufferedReader[Any]) -> Iterator[str]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="strict", newline=None)
    try:
        while line := text.readline(NOTE_CHARACTERS_MAX):
            yield line
    finally:
        text.detach()


def _decoded(entries: Entries, source: Source) -> Entries:
    try:
        yield from entries
    except UnicodeDecodeError:
        yield Bad("it is not UTF-8 text.", source.name)
