"""The dashboard's files: what the content security policy forbids is not in them, and every import leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

import router.dashboard

STATIC = Path(router.dashboard.__file__).parent / "static"
LINES_MAX = 400
NAMESPACES = "http://www.w3.org/"

FILES = sorted(path for path in STATIC.rglob("*") if path.is_file())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
STYLES = [path for path in FILES if path.suffix == ".css"]
PAGES = [path for path in FILES if path.suffix == ".html"]
DRAWINGS = [path for path in FILES if path.suffix == ".svg"]

MARKUP_FROM_TEXT = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|setHTMLUnsafe|createContextualFragment|DOMParser|srcdoc"
    r"|document\.write|\beval\s*\(|new\s+Function|javascript:"
)
STYLE_ATTRIBUTE = re.compile(r"""setAttribute\(\s*["']style|\.style\b|cssText|[{,]\s*style:""")
NAMED_IMPORT = re.compile(r"""^(?:import|export)\s*\{([^}]*)\}\s*from\s*"([^"]+)";""", re.MULTILINE)
LATE_IMPORT = re.compile(r"""\bimport\(\s*"([^"]+)"\s*\)""")
ANY_IMPORT = re.compile(r"^import\b|\bimport\(", re.MULTILINE)
EXPORT = re.compile(r"^export\s+(?:async\s+)?(?:function\*?|const|let|class)\s+(\w+)", re.MULTILINE)
TIMER_OF_TEXT = re.compile(r"""set(?:Timeout|Interval)\(\s*["'`]""")
ADDRESS = re.compile(r"""(?:https?:)?//[A-Za-z0-9][^\s"'`)]*""")
COMMENT = re.compile(r"/\*.*?\*/|(?<![:\"'`])//[^\n]*", re.DOTALL)
STYLE_ADDRESS = re.compile(r"url\(|@import")
CLASS_OF_RULE = re.compile(r"\.(-?[A-Za-z_][\w-]*)")
TOKEN = re.compile(r"var\((--[\w-]+)")
TOKEN_SET = re.compile(r"^\s*(--[\w-]+):\s*([^;]+);", re.MULTILINE)


def _name(path: Path) -> str:
    return path.relative_to(STATIC).as_posix()


def _exports(path: Path) -> set[str]:
    text = path.read_text()
    lists = re.findall(r"export\s*\{([^}]*)\}", text)
    return {*EXPORT.findall(text), *(name for one in lists for name in _names(one))}


def _names(listed: str) -> list[str]:
    return [name.split(" as ")[0].strip() for name in listed.split(",") if name.strip()]


def _imports(path: Path) -> list[Path]:
    """The files that a script asks for."""
    text = path.read_text()
    targets = [*(target for _, target in NAMED_IMPORT.findall(text)), *LATE_IMPORT.findall(text)]
    return [(path.parent / target).resolve() for target in targets]


def test_there_is_a_page_with_styles_scripts_and_a_sign() -> None:
    assert [_name(path) for path in PAGES] == ["index.html"]
    assert {"js/main.js", "js/api.js", "style.css", "favicon.svg", "logo.svg"} <= {_name(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_a_file_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_a_file_names_no_other_server(path: Path) -> None:
    text = path.read_text()
    bare = COMMENT.sub("", text) if path.suffix == ".js" else text
    found = [address for address in ADDRESS.findall(bare) if not address.startswith(NAMESPACES)]
    assert found == []


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_the_page_holds_neither_scripts_nor_styles_nor_handlers(path: Path) -> None:
    text = path.read_text()
    for attributes, content in re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL):
        assert 'src="/dashboard/static/' in attributes
        assert content.strip() == ""
    assert "<style" not in text
    assert not re.search(r"\sstyle\s*=", text)
    assert not re.search(r"\son[a-z]+\s*=", text)
    assert "<base" not in text


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_what_the_page_asks_for_is_there(path: Path) -> None:
    asked = re.findall(r'(?:src|href)="(/[^"]*)"', path.read_text())
    assert asked
    for address in asked:
        assert (STATIC / address.removeprefix("/dashboard/static/")).is_file(), address
    styles = [address for address in asked if address.endswith(".css")]
    assert len(styles) == len(STYLES), "a style sheet that no page asks for"


@pytest.mark.parametrize("path", SCRIPTS, ids=_name)
def test_a_script_makes_no_markup_and_no_code_of_text(path: Path) -> None:
    text = path.read_text()
    assert not MARKUP_FROM_TEXT.findall(text)
    assert not TIMER_OF_TEXT.findall(text)
    assert not STYLE_ATTRIBUTE.findall(text)


@pytest.mark.parametrize("path", SCRIPTS, ids=_name)
def test_a_script_imports_what_is_there(path: Path) -> None:
    text = COMMENT.sub("", path.read_text())
    assert len(_imports(path)) == len(ANY_IMPORT.findall(text)) + len(
        re.findall(r"^export\s*\{[^}]*\}\s*from", text, re.MULTILINE)
    )
    for found in _imports(path):
        assert found.is_file(), found.name
        assert found.is_relative_to(STATIC), found.name
    for names, target in NAMED_IMPORT.findall(text):
        missing = set(_names(names)) - _exports((path.parent / target).resolve())
        assert not missing, f"{target} has no {missing}"


@pytest.mark.parametrize("path", SCRIPTS, ids=_name)
def test_a_script_uses_what_it_imports(path: Path) -> None:
    text = COMMENT.sub("", path.read_text())
    for names in re.findall(r"^import\s*\{([^}]*)\}", text, re.MULTILINE):
        for name in (one.split(" as ")[-1].strip() for one in names.split(",") if one.strip()):
            assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} is not used"


def test_every_script_is_reached_from_the_page() -> None:
    pages = "".join(path.read_text() for path in PAGES)
    waiting = [path for path in SCRIPTS if f"/dashboard/static/{_name(path)}" in pages]
    reached: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting += _imports(path)
    assert {_name(path) for path in SCRIPTS} == {_name(path) for path in reached}


def test_every_screen_has_a_title_and_shows_itself() -> None:
    screens = [path for path in SCRIPTS if path.parent.name == "screens"]
    assert len(screens) >= 10
    for path in screens:
        assert {"title", "show"} <= _exports(path), _name(path)


@pytest.mark.parametrize("path", STYLES, ids=_name)
def test_a_style_sheet_loads_nothing(path: Path) -> None:
    assert not STYLE_ADDRESS.findall(path.read_text())


def test_every_colour_that_is_used_is_there() -> None:
    everything = "".join(path.read_text() for path in STYLES)
    assert set(TOKEN.findall(everything)) <= {name for name, _ in TOKEN_SET.findall(everything)}


def test_dark_looks_the_same_whether_the_system_or_the_reader_says_so() -> None:
    text = (STATIC / "tokens.css").read_text()
    system = re.search(r"@media \(prefers-color-scheme: dark\) \{\s*:root:not\([^{]*\{(.*?)\}", text, re.DOTALL)
    chosen = re.search(r':root\[data-theme="dark"\] \{(.*?)\}', text, re.DOTALL)
    assert system is not None
    assert chosen is not None
    assert TOKEN_SET.findall(system[1]) == TOKEN_SET.findall(chosen[1]) != []


def test_every_rule_is_for_something_that_is_there() -> None:
    used = "".join(path.read_text() for path in [*SCRIPTS, *PAGES])
    made = {"badge-", "button-", "notice-", "toast-", "from-", "series-", "dialog-"}  # with what a caller says
    for path in STYLES:
        selectors = re.findall(
            r"^([^{}@;]+)\{", re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL), re.MULTILINE
        )
        for name in {found for selector in selectors for found in CLASS_OF_RULE.findall(selector)}:
            assert name in used or name.startswith(tuple(made)), f"{path.name}: nothing has the class {name}"


@pytest.mark.parametrize("path", DRAWINGS, ids=_name)
def test_a_drawing_is_nothing_but_a_drawing(path: Path) -> None:
    root = ElementTree.fromstring(path.read_text())
    for element in root.iter():
        assert element.tag.rpartition("}")[2] in {"svg", "g", "path", "rect", "circle", "title"}
        assert not [name for name in element.attrib if name.startswith("on") or name.endswith(("href", "style"))]
