"""Any file in, entries out: formats are recognised, mistakes are named, and nothing ends in a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.archives.entries import Bad, Conversation, Entry, Item, Passed
from models.archives.reading import FORMATS, entries_of
from models.archives.sources import Source, sources_of
from router.commands.upload import FORMATS as OFFERED_FORMATS
from tests.fakes.exports import chatgpt_talk, claude_conversation, claude_message
from tests.models.archives.drawn import OBJECTS
from tests.models.archives.found import problems, reasons, said

MEM0 = {"id": 1, "memory": "Likes tea", "user_id": "anna"}
ZEP = {"messages": [{"uuid": "z", "role_type": "user", "role": "anna", "content": "I like tea"}]}
CLAUDE = claude_conversation("k", [claude_message("a", "human", "I like tea")])
CHAT = {"messages": [{"role": "user", "content": "I like tea"}]}
LINE = {"content": "I like tea"}


def read(path: Path, format_name: str | None = None) -> list[Entry]:
    """Everything that is found in a file or directory."""
    found: list[Entry] = []
    for source in sources_of([(path, path.name)]):
        found += entries_of(source, format_name=format_name) if isinstance(source, Source) else [source]
    return found


def read_text_as(folder: Path, name: str, text: str | bytes, format_name: str | None = None) -> list[Entry]:
    """What is found in a file with this name and text."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path, format_name)


def test_the_command_offers_every_format() -> None:
    assert OFFERED_FORMATS == FORMATS


@pytest.mark.parametrize("value", [chatgpt_talk(1, "I like tea"), CLAUDE, ZEP, CHAT, LINE])
@pytest.mark.parametrize("shape", ["array", "pretty", "lines", "alone"])
def test_every_kind_is_recognised_in_every_shape(tmp_path: Path, value: Any, shape: str) -> None:
    texts = {
        "array": json.dumps([value, value]),
        "pretty": json.dumps([value, value], indent=2),
        "lines": f"{json.dumps(value)}\n\n{json.dumps(value)}\n",
        "alone": json.dumps(value, indent=1),
    }
    entries = read_text_as(tmp_path, "x.json", texts[shape])

    assert said([entry for entry in entries if "role" in getattr(entry, "fields", {})]) == [("user", "I like tea")] * (
        0 if value is LINE else 1 if shape == "alone" else 2
    )
    assert sum(isinstance(entry, Item) for entry in entries) == (1 if shape == "alone" else 2)
    assert problems(entries) == []


@pytest.mark.parametrize("name", ["x", "x.json", "x.bin", "stdin"])
def test_json_is_recognised_without_a_name(tmp_path: Path, name: str) -> None:
    assert said(read_text_as(tmp_path, name, json.dumps([MEM0]))) == [("user", "Likes tea")]


def test_text_is_text_even_if_it_begins_like_json(tmp_path: Path) -> None:
    assert said(read_text_as(tmp_path, "a.txt", '{"content": "x"}')) == [("user", '{"content": "x"}')]
    assert said(read_text_as(tmp_path, "a", "[Monday] Met Anna")) == [("user", "[Monday] Met Anna")]
    assert said(read_text_as(tmp_path, "a.md", "# Monday\nMet Anna")) == [("user", "Monday\n\nMet Anna")]
    assert said(read_text_as(tmp_path, "b.log", "# Monday\nMet Anna", "markdown")) == [("user", "Monday\n\nMet Anna")]


def test_bad_lines_are_named_by_file_and_line_and_the_others_are_read(tmp_path: Path) -> None:
    entries = read_text_as(tmp_path, "a.jsonl", '{"content": "a"}\n{"content": \n\n[1]\n{"x": 1}\n{"content": "b"}')

    assert [entry.fields["content"] for entry in entries if isinstance(entry, Item)] == ["a", "b"]
    assert problems(entries) == [
        "a.jsonl, line 2: not valid JSON.",
        "a.jsonl, line 4: it must be a JSON object.",
        "a.jsonl, line 5: no known format; --format names one.",
    ]


def test_a_bad_conversation_is_named_by_its_place(tmp_path: Path) -> None:
    text = f"[{json.dumps(chatgpt_talk(1, 'a'))}, {{bad}}, 5, {json.dumps(chatgpt_talk(2, 'b'))}"

    assert problems(read_text_as(tmp_path, "conversations.json", text)) == [
        "conversations.json, entry 2: not valid JSON.",
        "conversations.json, entry 3: it must be a JSON object.",
        "conversations.json: the file ends in the middle of a value.",
    ]


def test_an_export_of_ours_is_sent_to_import(tmp_path: Path) -> None:
    (problem,) = problems(read_text_as(tmp_path, "e.jsonl", '{"format":"memoryrouter-export","version":1}\n'))

    assert "`memoryrouter import`" in problem


def test_other_json_is_passed_over_in_a_directory_only(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "package.json").write_text('{"name": "x"}')

    assert reasons(read(tmp_path / "d")) == {"other_json": 1}
    assert problems(read(tmp_path / "d" / "package.json")) == [
        "package.json, entry 1: no known format; --format names one."
    ]


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    assert problems(read_text_as(tmp_path, "a.txt", b"\x89PNG\0\0")) == ["a.txt: it is no text."]
    assert problems(read_text_as(tmp_path, "b.txt", b"caf\xe9 is latin-1")) == ["b.txt: it is not UTF-8 text."]
    assert reasons(read_text_as(tmp_path, "c.txt", b" \n")) == {"empty": 1}
    assert said(read_text_as(tmp_path, "d.txt", b"\xef\xbb\xbfcaf\xc3\xa9\r\n\r\nbar")) == [
        ("user", "caf\u00e9"),
        ("user", "bar"),
    ]


def test_only_line_feeds_end_a_line_of_json(tmp_path: Path) -> None:
    text = '{"content": "one\u2028two"}\n{"content": "three"}'

    assert [
        entry.fields["content"] for entry in read_text_as(tmp_path, "a.jsonl", text) if isinstance(entry, Item)
    ] == [
        "one\u2028two",
        "three",
    ]


def only_entries(entries: list[Entry]) -> None:
    """Each is one of the kinds, and each item says where it comes from."""
    for entry in entries:
        assert isinstance(entry, Item | Conversation | Passed | Bad)
        if isinstance(entry, Item):
            assert entry.place


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(value=OBJECTS, format_name=st.sampled_from([None, *FORMATS]), lines=st.booleans())
def test_any_json_ends_in_entries(tmp_path: Path, value: Any, format_name: str | None, lines: bool) -> None:
    text = json.dumps(value) if lines else json.dumps([value, value], indent=1)
    only_entries(read_text_as(tmp_path, "x.jsonl" if lines else "x.json", text, format_name))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    data=st.binary(max_size=80) | st.text(alphabet='{}[]",:\\ \n#-ab1', max_size=60).map(str.encode),
    name=st.sampled_from(["a.json", "a.jsonl", "a.md", "a.txt", "a", "a.zip", "a.gz"]),
    head=st.sampled_from([b"", b"PK\x03\x04", b"\x1f\x8b", b"\xef\xbb\xbf", b'[{"mapping": {']),
)
def test_any_bytes_end_in_entries(tmp_path: Path, data: bytes, name: str, head: bytes) -> None:
    only_entries(read_text_as(tmp_path, name, head + data))
