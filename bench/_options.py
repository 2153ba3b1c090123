"""What all benchmarks share on the command line, and how one is run: options, repeats, JSON, comparison, exit code.

Owns `--json`, `--compare`, `--worse-than`, `--repeat` and `--quick`. Never measures. A benchmark is a function from its
options to tables:

    sys.exit(run_benchmark(measure, __doc__, options, quick={"requests": 20}))

Exit codes: 0, 1 of a benchmark of its own, 2 for mistakes in the options, 3 when something got worse than `--compare`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench._machine import machine
from bench._results import Result, Table, compare, comparison_text, lost, merged, read, table_text, write

WORSE = 3
WORSE_THAN = 1.25
_COMMON = ("json", "compare", "worse_than", "repeat", "quick")

Measure = Callable[[argparse.Namespace], Iterable[Table]]
AddOptions = Callable[[argparse.ArgumentParser], None]


def run_benchmark(
    measure: Measure,
    doc: str | None,
    add_options: AddOptions | None = None,
    *,
    quick: Mapping[str, Any] | None = None,
    repeats_itself: bool = False,
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse, measure, print tables, write JSON, compare; the exit code.

    Args:
        doc: what the benchmark says of itself.
        add_options: adds its own options.
        quick: values that `--quick` puts in the place of defaults, by the names of options.
        repeats_itself: whether `measure` looks at `repeat`, and gives a table as often; else it is called as often.
    """
    options = parse_options(doc, add_options, quick=quick, arguments=arguments)
    try:
        old = read(options.compare) if options.compare else None
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    facts = machine()
    tables: list[Table] = []
    for _ in range(1 if repeats_itself else options.repeat):
        for table in measure(options):
            tables.append(table)
            if options.repeat == 1:
                print("\n" + table_text(merged([table])[0]), flush=True)
    result = Result(
        benchmark=Path(sys.argv[0]).stem,
        machine=facts,
        options={name: shown(value) for name, value in vars(options).items() if name not in _COMMON[:3]},
        tables=merged(tables),
    )
    if options.repeat > 1:
        print(*(f"\n{table_text(table)}" for table in result.tables), sep="\n", flush=True)
    if options.json is not None:
        write(options.json, result)
    if old is None:
        return 0
    changes = compare(old, result, worse_than=options.worse_than)
    print("\n" + comparison_text(changes, worse_than=options.worse_than))
    return WORSE if lost(changes) else 0


def parse_options(
    doc: str | None,
    add_options: AddOptions | None,
    *,
    quick: Mapping[str, Any] | None = None,
    arguments: Sequence[str] | None = None,
) -> argparse.Namespace:
    """The options; those of `quick` stand in for defaults when it is asked for."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if add_options is not None:
        add_options(parser)
    common = parser.add_argument_group("common to all benchmarks")
    common.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures and the facts of the machine there"
    )
    common.add_argument("--compare", type=Path, metavar="OLD.json", help="show ratios to a result of before")
    common.add_argument(
        "--worse-than",
        type=_factor,
        default=WORSE_THAN,
        metavar="FACTOR",
        help=f"with --compare: exit with {WORSE} when a figure got worse by more, outside of the noise (%(default)s)",
    )
    common.add_argument(
        "--repeat", type=_count, default=1, metavar="N", help="medians of so many runs, with their spread"
    )
    common.add_argument("--quick", action="store_true", help="as little as shows that it runs; no figures to quote")
    options = parser.parse_args(arguments)
    if options.quick and quick:
        parser.set_defaults(**quick)
        options = parser.parse_args(arguments)
    return options


def data_options(parser: argparse.ArgumentParser, *, every: str = "use each n-th question only") -> None:
    """What those take that read files of conversations: the files, `--cache` and `--every`."""
    parser.add_argument("data", nargs="+", type=Path, metavar="DATA.json")
    parser.add_argument("--cache", type=Path, required=True, help="directory for vectors and the prepared model")
    if every:
        parser.add_argument("--every", type=_count, default=1, metavar="N", help=every)


def shown(value: Any) -> Any:
    """An option as JSON can hold it."""
    if isinstance(value, list | tuple):
        return [shown(one) for one in value]
    return value if isinstance(value, str | int | float | None) else str(value)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _factor(text: str) -> float:
    value = float(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value
