"""Where a worker begins: `python -m router.worker_process N`, which only `router.worker_start` calls.

Owns the process: what it logs, how it ends. Its exit codes are those of the command line, but what keeps it from
serving is told to the parent, for whom one line is enough.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from models.errors import SetupError
from router.commands.options import EXIT_FAULT, EXIT_SETUP
from router.observe import configure_logging, log_event
from router.runtime import begin_imports, settle_interpreter, uncaught_errors_logged
from router.worker_budgets import divided
from router.worker_link import Order, read_order

if TYPE_CHECKING:
    from router.worker import Worker


def main(arguments: list[str]) -> int:
    """Do what the order says in the descriptor that the arguments name; the exit code."""
    try:
        order = read_order(int(arguments[0]))
    except (IndexError, ValueError, OSError, msgspec.MsgspecError):
        sys.stderr.write("error: workers are started by `memoryrouter serve` alone.\n")
        return EXIT_SETUP
    configure_logging(order.settings.log, worker=order.index)
    begin_imports()
    with uncaught_errors_logged():
        return _work(order)


def _work(order: Order) -> int:
    from router.worker import Worker

    worker = Worker.of(order)
    code = EXIT_FAULT
    try:
        trio.run(_serve, order, worker)
        code = 0
    except* SetupError as errors:
        worker.refuse(first_error(errors))
        code = EXIT_SETUP
    except* Exception as errors:
        log_event("crashed", level=logging.CRITICAL, error=errors)
    finally:
        worker.close()
    return code


async def _serve(order: Order, worker: Worker) -> None:
    from router import service
    from router.embedding_models import bulk_running_max

    settle_interpreter()
    bulk_batches = bulk_running_max(order.settings.embedding)
    async with trio.open_nursery() as beside:
        beside.start_soon(worker.listen)
        beside.start_soon(worker.beat)
        await service.serve(
            divided(order.settings, order.count, bulk_batches=bulk_batches),
            data_dir=Path(order.data_dir),
            announce=worker.announce,
            worker=worker,
        )
        beside.cancel_scope.cancel(reason="the server has ended")


def first_error(errors: BaseExceptionGroup[SetupError]) -> SetupError:
    """Any of a group of groups."""
    first = errors.exceptions[0]
    return first_error(first) if isinstance(first, BaseExceptionGroup) else first


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
