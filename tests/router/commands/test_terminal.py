"""How results look: on a terminal, piped, and where colours are wanted or not."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from router.cli import run_program
from router.commands.terminal import (
    Column,
    Progress,
    complain,
    has_colour,
    moves_the_cursor,
    note,
    one_line,
    print_fields,
    print_rows,
    printable,
    styled,
    warn,
)
from tests.router.commands.terminals import show

ESCAPE = "\x1b["


class Screen(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize(
    ("environment", "screen", "pipe"),
    [
        ({}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_colours_stand_on_terminals_and_where_they_are_forced(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], *, screen: bool, pipe: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert has_colour(Screen()) is screen
    assert has_colour(io.StringIO()) is pipe
    assert (styled("x", "good", Screen()) != "x") is screen


def test_a_dumb_terminal_gets_no_moving_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    assert moves_the_cursor(Screen())
    assert not moves_the_cursor(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not moves_the_cursor(Screen())


def test_control_characters_of_names_and_memories_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[31mb\tc\n") == "a?[31mb?c?"
    assert one_line(" a\n b\t\x07c") == "a b ?c"


def test_a_piped_list_has_tabs_and_no_title_and_no_colour_even_where_colours_are_forced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    columns = [Column("number", "right"), Column("name", style="bold", rank=1), Column("at", minutes=True)]
    print_rows(columns, [(1, "a\tb", "2026-11-21T20:15:30.000Z"), (2, None, ["x", "y"])])
    print_fields({"limits": {"a": 1, "b": None}, "name": "x\n", "none": None})
    assert capsys.readouterr().out == ("1\ta?b\t2026-11-21T20:15:30.000Z\n2\t-\tx, y\nlimits: a=1\nname: x?\nnone: -\n")


def on_screen(monkeypatch: pytest.MonkeyPatch, columns: int) -> Screen:
    """What is printed from here on appears on a terminal of this width."""
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    return screen


COLUMNS = [
    Column("number", "right"),
    Column("name", shrinks=True),
    Column("created", minutes=True, rank=1),
    Column("account", rank=2),
]
ROWS = [(1, "a name of many words that is too long for any line here", "2026-11-21T20:15:30.000Z", "acct_1")]


def test_a_narrow_terminal_loses_the_least_important_columns_and_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = on_screen(monkeypatch, 120)
    print_rows(COLUMNS, ROWS)
    assert "2026-11-21 20:15 " in wide.getvalue()
    assert "acct_1" in wide.getvalue()
    assert capsys.readouterr().err == ""

    narrow = on_screen(monkeypatch, 50)
    print_rows(COLUMNS, ROWS)
    assert "acct_1" not in narrow.getvalue()
    assert "2026-11-21 20:15" in narrow.getvalue()
    assert capsys.readouterr().err == "left out for lack of room: account; --json has everything\n"

    tiny = on_screen(monkeypatch, 20)
    print_rows(COLUMNS, ROWS)
    assert all(len(line) <= 20 for line in tiny.getvalue().splitlines())
    assert "created, account" in capsys.readouterr().err
    for shown in (narrow, tiny):
        assert ESCAPE not in shown.getvalue()
        words = shown.getvalue().split()
        assert [word for word in words if word in ROWS[0][1].split()]


def test_what_stands_beside_results_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    complain("it failed.")
    warn("it is odd.")
    note("by the way")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "error: it failed.\nwarning: it is odd.\nby the way\n")


def test_progress_shows_nothing_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("exported") as progress:
        progress.show(1, 2)
        progress.show(2, 2)
    assert capsys.readouterr().err == ""
    assert "rich.progress" not in progress.__dict__


def test_a_bar_ends_with_its_work_and_what_comes_next_has_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "100")
    with Progress("exported") as progress:
        progress.show(1, 3)
        progress.show(3, 3)
        screen.write("next")
        progress.show(4, 4)
    shown = screen.getvalue()
    assert "3/3" in shown
    assert "4/4" not in shown
    assert shown[: shown.index("next")].endswith(("\n", "\x1b[?25h"))
    assert "\x1b[?25h" in shown, "the cursor is back"


def test_a_bar_is_gone_when_the_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor is shown again."""

    def fail() -> None:
        with Progress("copied", unit="bytes") as progress:
            progress.show(1_000, 3_000_000)
            raise ValueError

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with pytest.raises(ValueError):  # noqa: PT011 - it is raised right here
        fail()
    assert "MB" in screen.getvalue()
    assert screen.getvalue().rindex("\x1b[?25h") > screen.getvalue().rindex("\x1b[?25l")


def test_lists_and_bars_on_a_real_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole program: a table in colour, and a bar that is drawn over itself."""
    monkeypatch.setenv("MEMORYROUTER_STORE__SHARDS", "1")
    where = ["--data-dir", str(tmp_path / "data")]
    assert run_program(["init", *where]) == 0
    text, seen = show("keys", "list", *where)
    title, rule, row = text.splitlines()
    assert title.split() == ["number", "name", "kind", "key", "state", "created", "account", "vault", "memories"]
    assert set(rule) == {"─"}
    assert row.split()[:3] == ["1", "account", "account"]
    assert ESCAPE in seen

    text, seen = show("backup", str(tmp_path / "backup"), *where)
    assert "backed up ━" in text
    assert "\x1b[2K" in seen
    assert text.splitlines()[-1].startswith("backed up: 3 files")


def test_what_is_said_on_stderr_drives_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that is not ours chooses the words of its errors."""
    for say in (warn, complain, note):
        say("one\x1b]0;two\x07\nthree\u202e")
        assert "one?]0;two? three?" in capsys.readouterr().err
