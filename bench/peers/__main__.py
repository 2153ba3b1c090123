"""`python -m bench.peers gateways` or `memory`, with the options of each."""

from __future__ import annotations

import sys

from bench._options import run_benchmark
from bench.peers import gateways

USAGE = "python -m bench.peers gateways|memory [--help]"


def main() -> int:
    """Run one of the two comparisons; the exit code."""
    what, rest = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    sys.argv = [f"peers_{what}", *rest]  # what the result's file calls the benchmark
    if what == "gateways":
        return run_benchmark(
            gateways.measure,
            gateways.__doc__,
            gateways.add_options,
            quick=gateways.QUICK,
            repeats_itself=True,
            arguments=rest,
        )
    if what == "memory":
        from bench.peers import memory

        return run_benchmark(
            memory.measure, memory.__doc__, memory.add_options, quick=memory.QUICK, repeats_itself=True, arguments=rest
        )
    print(USAGE, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
