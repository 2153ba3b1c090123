"""Draws a figure of results as an SVG: bars with the spread of their repeats, or curves of latency.

    python -m bench.plot RESULT.json --table WORDS --figure p50_ms [--rows WORDS] -o chart.svg
    python -m bench.plot RESULT.json --table WORDS --curves -o chart.svg
    python -m bench.plot RESULT.json

Files are those that benchmarks write with `--json`; several are drawn side by side. Without `-o` it lists what a file
holds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench._plots import Bar, bars, curves
from bench._results import MergedTable, Result, read

UNITS = {
    "_ms": "milliseconds", "_s": "seconds", "_us": "microseconds", "_mb": "megabytes", "_kb": "kilobytes",
    "_per_s": "a second",
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT.json")
    parser.add_argument("-o", "--output", type=Path, metavar="CHART.svg")
    parser.add_argument("--table", default="", metavar="WORDS", help="the first table whose title has these words")
    parser.add_argument("--figure", default="p50_ms", help="the column (%(default)s)")
    parser.add_argument("--rows", nargs="+", default=[], metavar="WORDS", help="only rows that have one of these words")
    parser.add_argument("--title", help="in the place of the title of the table")
    parser.add_argument("--curves", action="store_true", help="latency over percentiles")
    chosen = parser.parse_args(arguments)
    try:
        results = {path.stem: read(path) for path in chosen.results}
        if chosen.output is None:
            print(*contents(results), sep="\n")
            return 0
        chosen.output.write_text(chart(results, chosen), encoding="utf-8")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def contents(results: dict[str, Result]) -> Iterator[str]:
    """What could be drawn."""
    for name, result in results.items():
        for table in result.tables:
            figures = dict.fromkeys(figure for row in table.values.values() for figure in row)
            yield f"{name}: {table.title}\n  rows: {'; '.join(table.rows)}\n  figures: {', '.join(figures)}"
            if table.curves:
                yield "  and curves"


def chart(results: dict[str, Result], chosen: argparse.Namespace) -> str:
    """The chart that was asked for.

    Raises:
        ValueError: no table has these words, or no row this figure.
    """
    tables = {name: found for name, result in results.items() if (found := table_with(result, chosen.table))}
    if not tables:
        raise ValueError(f"No table has the words {chosen.table!r}.")
    title = chosen.title or next(iter(tables.values())).title
    if chosen.curves:
        return curves(
            title,
            {
                named(file, row, tables): points
                for file, table in tables.items()
                for row, points in table.curves.items()
                if wanted(row, chosen.rows)
            },
        )
    drawn = [
        Bar(
            name=named(file, row, tables),
            value=float(table.rows[row][chosen.figure]),
            low=min(figures[chosen.figure]),
            high=max(figures[chosen.figure]),
            series=series_of(row, number, tables),
        )
        for number, (file, table) in enumerate(tables.items())
        for row, figures in table.values.items()
        if chosen.figure in figures and wanted(row, chosen.rows)
    ]
    if not drawn:
        raise ValueError(f"No row has the figure {chosen.figure}.")
    return bars(title, unit_of(chosen.figure), drawn)


def table_with(result: Result, words: str) -> MergedTable | None:
    """The first table whose title has these words."""
    return next((table for table in result.tables if words.lower() in table.title.lower()), None)


def wanted(row: str, words: Sequence[str]) -> bool:
    """Whether a row is to be drawn."""
    return not words or any(one.lower() in row.lower() for one in words)


def named(file: str, row: str, tables: dict[str, MergedTable]) -> str:
    """A row by its name, and that of its file where there are several."""
    return row if len(tables) == 1 else f"{file}: {row}"


def series_of(row: str, number: int, tables: dict[str, MergedTable]) -> int:
    """The colour: one for each file, or for what stands before the comma in the names of rows."""
    if len(tables) > 1:
        return number
    kinds = list(dict.fromkeys(name.partition(",")[0] for name in next(iter(tables.values())).rows))
    return kinds.index(row.partition(",")[0])


def unit_of(figure: str) -> str:
    """A figure with its unit in words."""
    unit = next(
        (words for end, words in sorted(UNITS.items(), key=lambda one: -len(one[0])) if figure.endswith(end)), ""
    )
    return f"{figure} ({unit})" if unit else figure


if __name__ == "__main__":
    sys.exit(main())
