"""Which files of the usage journal are whose, where several workers share a data directory.

Each worker counts in a folder of its own: the first in `usage`, the others below it. How many workers there are may
change from one start to the next, and with it who owns which shard. So before any of them starts, the files of those
that are no more go to the first, which folds them; and each is told of the inbox rows of its shards that another has
counted. Must never touch a folder while a worker counts in it, and never keep a server from starting.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from actors.usage_files import FOLDER, UsageFiles
from actors.usage_leftovers import read_leftovers
from actors.usage_records import JOURNAL_ID_BYTES, Header, Row, encode_rows

if TYPE_CHECKING:
    from actors.cluster.workers import Share

_WORKER_FOLDER = re.compile(r"worker-([1-9]\d*)")

logger = logging.getLogger(__name__)


def usage_files(data_dir: Path, share: Share | None = None) -> UsageFiles:
    """The files of a process that is alone, or of one of several workers."""
    if share is None:
        return UsageFiles(data_dir / FOLDER)
    return UsageFiles(_folder(data_dir, share.index), owns=share.owns)


def hand_out(data_dir: Path, workers: int) -> None:
    """Make the files fit so many workers. Blocks.

    Args:
        workers: how many will share the directory; none has begun.
    """
    try:
        _hand_out(data_dir, workers)
    except OSError as error:  # counts stay where they are, and the next start tries again
        logger.error("usage_not_handed_out", extra={"errno": error.errno})


def _hand_out(data_dir: Path, workers: int) -> None:
    past = _past_workers(data_dir)
    if not past and workers == 1:
        return
    counted = {worker: _rows_in(_folder(data_dir, worker)) for worker in (0, *past)}
    everything: set[Row] = set().union(*counted.values())
    for worker in range(workers):
        own = {row for row in everything if row[0] % workers == worker}
        unknown = own.difference(counted.get(worker, ()))
        if unknown:
            _write(_folder(data_dir, worker), unknown)
    for worker in past:
        if worker >= workers:
            folder = _folder(data_dir, worker)
            for path in folder.iterdir():  # no two journals have the same name
                path.rename(data_dir / FOLDER / path.name)
            folder.rmdir()


def _folder(data_dir: Path, worker: int) -> Path:
    home = data_dir / FOLDER
    return home / f"worker-{worker}" if worker else home


def _past_workers(data_dir: Path) -> list[int]:
    """Those with a folder, but for the first."""
    home = data_dir / FOLDER
    names = [path.name for path in home.iterdir()] if home.is_dir() else []
    return sorted(int(match[1]) for match in map(_WORKER_FOLDER.fullmatch, names) if match)


def _rows_in(folder: Path) -> set[Row]:
    leftovers = read_leftovers(UsageFiles(folder), Counter())
    return {row for leftover in leftovers for row in leftover.totals.rows}


def _write(folder: Path, rows: Iterable[Row]) -> None:
    """A file that counts nothing and names rows."""
    files = UsageFiles(folder)
    opened = files.create(Header(secrets.token_hex(JOURNAL_ID_BYTES), 1))
    try:
        opened.append(encode_rows(sorted(rows), opened.seed))
        descriptor = opened.duplicate()
        try:
            files.sync(descriptor)
        finally:
            os.close(descriptor)
    finally:
        opened.close()
