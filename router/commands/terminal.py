"""How results look: tables, fields, colours and progress on a terminal, and plain lines where something else reads.

Owns the choice between the two: a table stands only where stdout is a terminal, a bar only where stderr is one, and
colours only there too, unless `NO_COLOR`, `TERM=dumb` or `FORCE_COLOR` say otherwise. Lines that are piped have one tab
between two fields and never a colour. Must never let a control character through from a name or a memory: it could
drive the terminal. `rich` is imported where something is shown with it, so that everything else answers at once.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.table import Table
    from rich.text import Text

_STYLES = {"error": "1;31", "warning": "33", "dim": "2", "good": "32", "prompt": "1;36"}
"""SGR parameters of the few styles that single lines have."""

REFRESHES_A_SECOND = 10
MINUTE_CHARACTERS = len("2026-11-21T20:15")
GAP = 2
"""Characters between two columns of a table."""

SHRUNK_CHARACTERS = 20
"""So many of a column that shrinks are left at least, if it has as many."""


# --- what may be written ---


def settle_streams() -> None:
    """Before anything else: a stream that was closed swallows what is written, and its number goes to no other file.

    What stdout's encoding has no letter for stands as its escape.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def is_terminal(stream: IO[str]) -> bool:
    """Whether somebody looks at what is written there."""
    return stream.isatty()


def has_colour(stream: IO[str]) -> bool:
    """Whether colours may be written there: see no-color.org and force-color.org."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def moves_the_cursor(stream: IO[str]) -> bool:
    """Whether a line there can be written over."""
    return is_terminal(stream) and os.environ.get("TERM") not in {None, "", "dumb"}


def styled(text: str, style: str, stream: IO[str]) -> str:
    """A text in one of the styles of single lines, where the stream takes colours."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if has_colour(stream) else text


def printable(text: str) -> str:
    """A text that somebody else chose, on one line and without control characters."""
    return "".join(character if character.isprintable() else "?" for character in text)


def one_line(text: str) -> str:
    """A text of several lines as one."""
    return printable(" ".join(text.split()))


def warn(sentence: str) -> None:
    """Something on stderr that who runs the command should know, though it went well."""
    _say(f"{styled('warning:', 'warning', sys.stderr)} {one_line(sentence)}")


def complain(sentence: str) -> None:
    """Why a command failed, as one line on stderr."""
    _say(f"{styled('error:', 'error', sys.stderr)} {one_line(sentence)}")


def note(sentence: str) -> None:
    """Something on stderr beside the result."""
    _say(styled(one_line(sentence), "dim", sys.stderr))


def _say(text: str) -> None:
    click.echo(text, err=True, color=has_colour(sys.stderr))


# --- results ---


def print_json(value: object) -> None:
    """Print a result as one line of JSON."""
    click.echo(json.dumps(value))


class Column(NamedTuple):
    """One column of a list.

    Attributes:
        shrinks: its texts may be broken into several lines where the terminal is narrow; ids and numbers may not.
        minutes: it holds times, of which a table shows the minute; piped lines have the whole.
        rank: on a terminal that is too narrow, columns are left out, those of the highest rank first; 0 always stays.
    """

    title: str
    justify: Literal["left", "right"] = "left"
    style: str = ""
    shrinks: bool = False
    minutes: bool = False
    rank: int = 0


def print_rows(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
    """A list: a table on a terminal, else one line for each row, tabs between its fields and no title."""
    texts = [[_text_of(value) for value in row] for row in rows]
    if not is_terminal(sys.stdout):
        for row in texts:
            click.echo("\t".join(row))
        return
    console = console_for(sys.stdout)
    shown = _fitting(columns, texts, console.width)
    table = new_table()
    for place in shown:
        column = columns[place]
        table.add_column(
            column.title,
            justify=column.justify,
            style=column.style,
            no_wrap=not column.shrinks,
            overflow="fold",
            min_width=_least_width(column, texts, place),
        )
    for row in texts:
        table.add_row(*(_cell(columns[place], row[place]) for place in shown))
    console.print(table)
    left_out = [column.title for place, column in enumerate(columns) if place not in shown]
    if left_out:
        note(f"left out for lack of room: {', '.join(left_out)}; --json has everything")


def new_table() -> Table:
    """An empty table as all of ours look."""
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold")


def _fitting(columns: Sequence[Column], texts: Sequence[Sequence[str]], width: int) -> list[int]:
    """Places of the columns that have room beside each other."""
    shown = list(range(len(columns)))
    while sum(_least_width(columns[place], texts, place) + GAP for place in shown) > width:
        least = max(shown, key=lambda place: columns[place].rank)
        if not columns[least].rank:
            break
        shown.remove(least)
    return shown


def _least_width(column: Column, texts: Sequence[Sequence[str]], place: int) -> int:
    from rich.cells import cell_len

    widest = max((cell_len(_shortened(column, row[place])) for row in texts), default=0)
    return max(len(column.title), min(widest, SHRUNK_CHARACTERS) if column.shrinks else widest)


def _shortened(column: Column, text: str) -> str:
    return text[:MINUTE_CHARACTERS].replace("T", " ") if column.minutes and "T" in text else text


def _cell(column: Column, text: str) -> Text:
    from rich.text import Text

    return Text(_shortened(column, text))


def print_fields(fields: dict[str, Any]) -> None:
    """One thing: a line for each of its fields."""
    texts = {name: _text_of(value) for name, value in fields.items()}
    if not is_terminal(sys.stdout):
        for name, text in texts.items():
            click.echo(f"{name}: {text}")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in texts.items():
        table.add_row(Text(name), Text(text))
    console_for(sys.stdout).print(table)


def _text_of(value: object) -> str:
    if isinstance(value, dict):
        value = ", ".join(f"{name}={inner}" for name, inner in value.items() if inner is not None)
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return "-" if value is None or value == "" else printable(str(value))


def console_for(stream: IO[str]) -> Console:
    """Rich's way to a stream, with our rule of colours."""
    from rich.console import Console

    return Console(
        file=stream,
        color_system="auto" if has_colour(stream) else None,
        force_terminal=is_terminal(stream),
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )


# --- progress ---


class Progress:
    """How far a long command is: a bar on stderr, only where that is a terminal whose cursor can be moved."""

    def __init__(self, doing: str, *, unit: str = "memories") -> None:
        """Begin.

        Args:
            doing: what is being done, as in "exported".
            unit: what is counted; `bytes` are shown as kB, MB, ...
        """
        self._doing = doing
        self._unit = unit
        self._shown = moves_the_cursor(sys.stderr)
        self._bar: Bar | None = None

    def show(self, count: int, total: int | None = None) -> None:
        """Say how much is through."""
        if not self._shown:
            return
        whole = None if total is None else max(count, total)
        self._bar = self._bar or self._begun(whole)
        self._bar.update(self._bar.tasks[0].id, completed=count, total=whole)
        if count == total:  # now, so that what is logged next gets a line of its own
            self.end()
            self._shown = False

    def _begun(self, total: int | None) -> Bar:
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        counted = DownloadColumn() if self._unit == "bytes" else MofNCompleteColumn()
        unit = [] if self._unit == "bytes" else [TextColumn(self._unit)]
        bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            counted,
            *unit,
            TimeRemainingColumn(compact=True),
            console=console_for(sys.stderr),
            refresh_per_second=REFRESHES_A_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        bar.add_task(self._doing, total=total)
        bar.start()
        return bar

    def end(self) -> None:
        """The last figure stays."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
