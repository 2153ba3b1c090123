"""Text and Markdown: where a note begins and ends, and what time it has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.archives.notes import NOTE_CHARACTERS_MAX, date_in, paragraphs_of, read_markdown, read_text
from tests.models.archives.found import lines, said

NOTES = """---
title: "Garden book"
created: 2024-03-01T10:00:00Z
tags: [a, b]
---
Bought the garden.

# Roses
Need water.

## Tools ##
```sh
# no heading
```

Kitchen
=======
A knife.
Another line
---
- list
"""


def markdown(text: str, name: str = "n.md") -> list[str]:
    """The contents of the notes."""
    return [content for _, content in said(read_markdown(text.splitlines(keepends=True), name, modified_ms=7))]


def test_each_section_is_a_note_below_its_headings() -> None:
    assert markdown(NOTES) == [
        "Garden book\n\nBought the garden.",
        "Roses\n\nNeed water.",
        "Roses > Tools\n\n```sh\n# no heading\n```",
        "Kitchen\n\nA knife.\nAnother line\n---\n- list",
    ]


def test_front_matter_gives_the_time_before_the_name_and_the_file() -> None:
    def told(text: str, name: str) -> int:
        return int(lines(read_markdown(text.splitlines(keepends=True), name, modified_ms=7))[0]["timestamp"])

    assert told(NOTES, "2020-01-01.md") == 1_709_287_200_000
    assert told("Hello", "2020-01-01.md") == 1_577_836_800_000
    assert told("Hello", "hello.md") == 7


def test_a_rule_at_the_top_is_no_front_matter() -> None:
    assert markdown("---\nHello: world\n\nmore") == ["---\nHello: world\n\nmore"]


def test_a_paragraph_is_what_stands_between_blank_lines() -> None:
    text = "one\ntwo\n \n---\n\n***\n\nthree"

    assert list(paragraphs_of(text.splitlines(keepends=True))) == ["one\ntwo", "three"]
    found = lines(read_text(text.splitlines(keepends=True), "20240506 log.txt", modified_ms=7))
    assert [(line["timestamp"], line["metadata"]["file"]) for line in found] == [
        (1_714_953_600_000, "20240506 log.txt")
    ] * 2


def test_dates_in_names_are_dates() -> None:
    assert date_in("2024-02-30.md") is None
    assert date_in("120240506.md") is None
    assert date_in("a 2024-05-06 b.md") == 1_714_953_600_000


def test_long_paragraphs_and_sections_go_on_in_another_note() -> None:
    long = ["x" * (NOTE_CHARACTERS_MAX // 2) + "\n"] * 5

    assert [len(part) <= NOTE_CHARACTERS_MAX for part in paragraphs_of(long)] == [True] * 5
    assert sum(map(len, paragraphs_of(["y" * (3 * NOTE_CHARACTERS_MAX)]))) == 3 * NOTE_CHARACTERS_MAX
    assert len(markdown("".join(long))) == 5


def test_a_heading_with_nothing_below_it_is_a_note_and_one_with_sections_is_not() -> None:
    assert markdown("# Plans\n## Buy milk\n## Call Anna\n# Done\nNothing") == [
        "Plans\n\nBuy milk",
        "Plans\n\nCall Anna",
        "Done\n\nNothing",
    ]
    assert markdown("# Only this") == ["Only this"]


@given(st.text(alphabet="ab#=-`~ \n:", max_size=80))
def test_no_word_of_a_file_is_lost(text: str) -> None:
    listed = text.splitlines(keepends=True)

    assert sum(part.count("a") for part in paragraphs_of(listed)) == text.count("a")
    if not text.startswith("---"):  # front matter is read for its fields alone
        assert ("a" in text) <= any("a" in note for note in markdown(text))
