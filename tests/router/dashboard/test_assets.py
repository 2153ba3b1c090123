"""The dashboard's files: which there are, under which names, and how long a browser keeps them."""

from __future__ import annotations

import pytest

from router.dashboard.assets import IMMUTABLE, REVALIDATED, SHELL, STATIC, Assets, load_assets

FILES = {
    SHELL: b'<link href="/dashboard/static/style.css"><script src="/dashboard/static/js/main.js"></script>',
    "style.css": b"a{}",
    "js/main.js": b'import "./dom.js";',
    "notes.py": b"secret = 1",
    "README": b"x",
}


def test_a_file_is_found_by_its_name_and_below_the_folder_named_after_all_of_them() -> None:
    assets = Assets(FILES)
    plain, versioned = assets.find("js/main.js"), assets.find(f"v-{assets.version}/js/main.js")
    assert plain is not None
    assert versioned is not None
    assert plain[0] is versioned[0]
    assert (plain[1], versioned[1]) == (REVALIDATED, IMMUTABLE)
    assert (plain[0].content, plain[0].content_type) == (FILES["js/main.js"], "text/javascript; charset=utf-8")


@pytest.mark.parametrize(
    "name",
    [
        "", "js", "js/", "/js/main.js", "../style.css", "js/../style.css", "STYLE.css", "notes.py", "README", SHELL,
        "v-0/style.css",
    ],
)  # fmt: skip
def test_nothing_else_is(name: str) -> None:
    assert Assets(FILES).find(name) is None


def test_the_page_names_files_by_their_content() -> None:
    """Another file, another folder: a browser never mixes the files of two releases."""
    assets = Assets(FILES)
    changed = Assets({**FILES, "js/dom.js": b"x"})
    assert assets.shell.content.count(f"{STATIC}v-{assets.version}/".encode()) == 2
    assert assets.version != changed.version
    assert assets.find(f"v-{changed.version}/style.css") is None
    assert assets.shell.tag != changed.shell.tag
    assert (assets.find("style.css") or [None])[0] == (changed.find("style.css") or [None])[0]


def test_the_package_brings_them() -> None:
    assets = load_assets()
    assert b"<!doctype html>" in assets.shell.content
    assert assets.find("js/main.js") is not None
