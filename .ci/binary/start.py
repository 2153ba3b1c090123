"""Where the single executable file begins: the program, or one of its modules as a process of its own.

`sys.executable` is this program, so that `-m MODULE` has to mean what it means to Python: `memoryrouter bench` and the
benchmarks themselves start their processes that way. Owns nothing else; of Python's other options it takes -P, which
says what holds here anyway.
"""

from __future__ import annotations

import runpy
import sys

OWN = ("actors", "bench", "models", "router")


def run(arguments: list[str]) -> None:
    """Run what Python would run with these arguments, if it is ours; else the program."""
    if "--multiprocessing-fork" in arguments or arguments[:1] == ["-c"]:  # a child of a benchmark
        import multiprocessing

        multiprocessing.freeze_support()
    rest = arguments[1:] if arguments[:1] == ["-P"] else arguments
    if rest[:1] == ["-m"] and len(rest) > 1 and rest[1].partition(".")[0] in OWN:
        sys.argv[1:] = rest[2:]
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
    else:
        from router.cli import main

        main()


if __name__ == "__main__":
    run(sys.argv[1:])
