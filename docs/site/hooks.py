"""What the site adds to the documents: pages from the top of the project, and links that work outside of it.

SECURITY.md, ARCHITECTURE.md and CHANGELOG.md become pages. A link to one of them leads to its page; a link to a file of
the source tree, which the site does not have, becomes plain text. The documents themselves are not touched.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).parents[2]
TOP = {"SECURITY.md": "security.md", "ARCHITECTURE.md": "architecture.md", "CHANGELOG.md": "changelog.md"}
HOME = {"README.md": "index.md"}
LINK = re.compile(r"\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that stand beside `docs`."""
    for source, page in TOP.items():
        text = (PROJECT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_from_the_top(text)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave `docs` lead to the site's own pages, or nowhere."""
    depth = page.file.src_uri.count("/")
    return LINK.sub(lambda match: _link(match, depth), markdown)


def _from_the_top(text: str) -> str:
    """A document of the top as if it stood in `docs`."""

    def moved(match: re.Match[str]) -> str:
        target = match["target"]
        if "://" in target or target.startswith("#"):
            return match[0]
        inside = target.removeprefix("docs/")
        return f"[{match['text']}]({inside if inside != target else '../' + target})"

    return LINK.sub(moved, text)


def _link(match: re.Match[str], depth: int) -> str:
    target, _, anchor = match["target"].partition("#")
    up = "../" * (depth + 1)
    if not target.startswith(up):
        return match[0]
    page = (TOP | HOME).get(target.removeprefix(up))
    if page is None:
        return match["text"]
    return f"[{match['text']}]({'../' * depth}{page}{'#' + anchor if anchor else ''})"
