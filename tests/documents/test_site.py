"""What looks through the built site finds dead links, dead anchors, and whatever a page would load from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.site.check import problems

GOOD = '<h2 id="here">x</h2><a href="#here">1</a><a href="b.html#there">2</a><a href="https://e.org/">3</a>'


def build(folder: Path, text: str = GOOD, style: str = "a { background: url(data:x) }") -> list[str]:
    folder.joinpath("index.html").write_text(text, encoding="utf-8")
    folder.joinpath("b.html").write_text('<p id="there"><img src="i.png">', encoding="utf-8")
    folder.joinpath("i.png").write_bytes(b"")
    folder.joinpath("s.css").write_text(style, encoding="utf-8")
    return list(problems(folder))


def test_a_good_site_is_left_alone(tmp_path: Path) -> None:
    assert build(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        '<a href="c.html">',
        '<a href="b.html#nowhere">',
        '<a href="#nowhere">',
        '<a href="../index.html">',
        '<script src="https://cdn.example.org/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example.org/a.css">',
        '<img src="missing.png">',
        '<p style="background: url(http://e.org/a.png)">',
        '<div class="mermaid">',
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str) -> None:
    (found,) = build(tmp_path, text)
    assert found.startswith("index.html: ")


def test_sheets_are_read(tmp_path: Path) -> None:
    assert build(tmp_path, style='@import "https://e.org/a.css";') == ["s.css: loads https://e.org/a.css"]


def test_no_pages_is_wrong(tmp_path: Path) -> None:
    assert list(problems(tmp_path))
