"""What a benchmark found: tables of rows of figures, medians of repeats, their JSON, and how two results compare.

Owns the format of the files, which figures are better when they are higher, and what counts as noise. Never measures.

A figure's name ends with its unit. `*_per_s`, `share_*` and shares of right answers (`any@5`, `MRR`) are better when
higher; times, sizes, `times_*` (how often something else) and `errors` when lower; all others are facts.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from bench._percentiles import spread

FORMAT = 1
Figure = float | int | str
Rows = Mapping[str, Mapping[str, Figure]]
Curves = dict[str, list[list[float]]]

_HIGHER = re.compile(r"(_per_s|@\d+|^MRR|^equal|^share_\w+)$")
_LOWER = re.compile(r"(^|_)(ms|s|us|ns|mb|kb|bytes)($|_per_\w+$)|_ms_per_\w+$|^times_\w+$|^errors$")
_UNJUDGED = re.compile(r"^generator_|max_ms$|p999_ms$")
"""What is shown and never judged: the generator's own, and what single events make."""

NEGLIGIBLE = {"ms": 0.05, "s": 0.005, "us": 0.5, "mb": 2.0, "kb": 2.0}
"""Differences up to these are none, whatever their ratio."""


class Table(msgspec.Struct):
    """Figures of one question. Tables of one title within a run are repeats of each other.

    Attributes:
        rows: by name, figures by name.
        curves: of rows that have one: points [percent, milliseconds].
        baseline: rows that say something of the machine and nothing of the product.
    """

    title: str
    rows: Rows
    curves: Curves = msgspec.field(default_factory=dict)
    baseline: tuple[str, ...] = ()


class MergedTable(msgspec.Struct):
    """The medians of the repeats of a table, and the values that they are of."""

    title: str
    rows: dict[str, dict[str, Figure]]
    values: dict[str, dict[str, list[float]]]
    curves: Curves = msgspec.field(default_factory=dict)
    baseline: tuple[str, ...] = ()


class Result(msgspec.Struct):
    """What a file holds."""

    benchmark: str
    machine: dict[str, Any]
    options: dict[str, Any]
    tables: list[MergedTable]
    format: int = FORMAT


class Change(msgspec.Struct, frozen=True):
    """A figure in two results.

    Attributes:
        ratio: new / old.
        low, high: the noise band of the ratio: what the repeats that lie nearest to each other, and farthest, give.
        verdict: `noise` where it changed and the band holds no change, too.
    """

    table: str
    row: str
    figure: str
    old: float
    new: float
    ratio: float
    low: float
    high: float
    verdict: Literal["better", "worse", "noise", "same", "not judged"]


def better_when(figure: str) -> Literal["higher", "lower"] | None:
    """Which is better; None of a fact."""
    if _HIGHER.search(figure):
        return "higher"
    return "lower" if _LOWER.search(figure) else None


def merged(tables: Iterable[Table]) -> list[MergedTable]:
    """One table for each title, in the order in which they first came."""
    repeats: dict[str, list[Table]] = {}
    for table in tables:
        repeats.setdefault(table.title, []).append(table)
    return [_merged_one(title, of_it) for title, of_it in repeats.items()]


def _merged_one(title: str, repeats: Sequence[Table]) -> MergedTable:
    rows: dict[str, dict[str, Figure]] = {}
    values: dict[str, dict[str, list[float]]] = {}
    curves: dict[str, dict[float, list[float]]] = {}
    for table in repeats:
        for name, row in table.rows.items():
            for figure, value in row.items():
                rows.setdefault(name, {})[figure] = value
                if isinstance(value, int | float):
                    values.setdefault(name, {}).setdefault(figure, []).append(value)
        for name, points in table.curves.items():
            for percent, at_ms in points:
                curves.setdefault(name, {}).setdefault(percent, []).append(at_ms)
    for name, figures in values.items():
        for figure, of_it in figures.items():
            middle = statistics.median(of_it)
            rows[name][figure] = (
                int(middle) if middle == int(middle) and isinstance(of_it[0], int) else round(middle, 4)
            )
    middles = {
        name: [[percent, statistics.median(at_ms)] for percent, at_ms in sorted(points.items())]
        for name, points in curves.items()
    }
    return MergedTable(title=title, rows=rows, values=values, curves=middles, baseline=repeats[-1].baseline)


def table_text(table: MergedTable) -> str:
    """A table in Markdown; behind a median of repeats stands how far they lie apart, in percent of it."""
    longest_first = sorted(table.rows.values(), key=len, reverse=True)
    columns = list(dict.fromkeys(name for row in longest_first for name in row))
    lines = [f"## {table.title}", "", f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, row in table.rows.items():
        cells = [_cell(row.get(column, ""), table.values.get(name, {}).get(column, [])) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: Figure, values: Sequence[float]) -> str:
    text = f"{value:g}" if isinstance(value, float) and abs(value) < 100_000 else str(value)
    return f"{text} ±{50 * spread(values):.0f}%" if len(values) > 1 and spread(values) else text


def write(path: Path, result: Result) -> None:
    """Write a result as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def read(path: Path) -> Result:
    """A result from its file.

    Raises:
        ValueError: it is none, or of another format.
    """
    try:
        result = msgspec.json.decode(path.read_bytes(), type=Result)
    except (OSError, msgspec.DecodeError) as error:
        raise ValueError(f"{path} holds no result of a benchmark: {error}") from None
    if result.format != FORMAT:
        raise ValueError(f"{path} has format {result.format}; this program reads {FORMAT}.")
    return result


# Comparing.


def compare(old: Result, new: Result, *, worse_than: float) -> list[Change]:
    """Every figure that both have and that has a better and a worse.

    Args:
        worse_than: by which factor a figure must be worse to be called so; by the same it must be better.
    """
    before = {table.title: table for table in old.tables}
    return [
        change
        for table in new.tables
        if table.title in before
        for change in _changes(before[table.title], table, worse_than)
    ]


def _changes(old: MergedTable, new: MergedTable, worse_than: float) -> Iterator[Change]:
    for name, figures in new.values.items():
        for figure, now in figures.items():
            then = old.values.get(name, {}).get(figure)
            if then and better_when(figure):
                yield _change(new, name, figure, then, now, worse_than)


def _change(
    table: MergedTable, name: str, figure: str, then: Sequence[float], now: Sequence[float], worse_than: float
) -> Change:
    old, new = statistics.median(then), statistics.median(now)
    ratio = _ratio(new, old)
    low, high = _ratio(min(now), max(then)), _ratio(max(now), min(then))
    if better_when(figure) == "lower":
        worse, worse_at_least, better_at_least = ratio, low, _ratio(1, high)
    else:
        worse, worse_at_least, better_at_least = _ratio(1, ratio), _ratio(1, high), low
    better = _ratio(1, worse)
    verdict: Literal["better", "worse", "noise", "same", "not judged"] = "same"
    negligible = NEGLIGIBLE.get(re.sub(r"_per_\w+$", "", figure).rpartition("_")[2], 0.0)
    if _UNJUDGED.search(figure) or name in table.baseline or (figure != "errors" and min(old, new) <= 0):
        verdict = "not judged"
    elif abs(new - old) > negligible and worse > worse_than:
        verdict = "worse" if worse_at_least > 1 else "noise"
    elif abs(new - old) > negligible and better > worse_than:
        verdict = "better" if better_at_least > 1 else "noise"
    return Change(table.title, name, figure, old, new, round(ratio, 3), round(low, 3), round(high, 3), verdict)


def _ratio(one: float, other: float) -> float:
    if other == 0:
        return 1.0 if one == 0 else float("inf")
    return one / other


def comparison_text(changes: Sequence[Change], *, worse_than: float) -> str:
    """The table of ratios, and what follows from it."""
    lines = [
        f"## Compared; better or worse: by more than {worse_than:g} times, outside of the noise of the repeats",
        "",
        "| | | figure | old | new | new / old | noise band | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.table} | {one.row} | {one.figure} | {one.old:g} | {one.new:g} | {one.ratio:.2f} "
        f"| {one.low:.2f} to {one.high:.2f} | {one.verdict} |"
        for one in changes
    ]
    counts = {verdict: sum(one.verdict == verdict for one in changes) for verdict in ("better", "worse", "noise")}
    lines += ["", ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + f" of {len(changes)}"]
    return "\n".join(lines)


def lost(changes: Iterable[Change]) -> bool:
    """Whether something got worse."""
    return any(one.verdict == "worse" for one in changes)
