"""What an earlier run left of the usage journal: files that it could not fold, read as far as they are whole.

Everything here waits for the disk, so it belongs into a thread. What cannot be read is set aside or left where it is,
and reported: never deleted, and never a reason not to start.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import msgspec

from actors.usage_files import UsageFiles
from actors.usage_records import HEADER_BYTES, Header, Totals, header_of, scan

logger = logging.getLogger(__name__)


class Leftover(msgspec.Struct, frozen=True):
    """One file, and what it adds up to."""

    header: Header
    path: Path
    totals: Totals


def read_leftovers(files: UsageFiles, counters: Counter[str]) -> list[Leftover]:
    """Every file that can be read; those of one run in their order."""
    leftovers = []
    for path in files.found():
        try:
            leftover = _read(files, path, counters)
        except OSError as error:
            logger.error("usage_file_unreadable", extra={"errno": error.errno})
            counters["files_failed"] += 1
            continue
        if leftover is not None:
            leftovers.append(leftover)
    return leftovers


def _read(files: UsageFiles, path: Path, counters: Counter[str]) -> Leftover | None:
    data = path.read_bytes()
    header = header_of(data)
    if header is None and len(data) <= HEADER_BYTES:
        files.remove(path)  # it was just being made
        return None
    if header is None:
        logger.error("usage_file_damaged", extra={"bytes": len(data)})
        counters["files_damaged"] += 1
        files.set_aside(path)
        return None
    scanned = scan(data)
    if scanned.torn_bytes:
        logger.info("usage_record_torn", extra={"bytes": scanned.torn_bytes})
    if scanned.damaged_bytes:
        logger.error("usage_records_damaged", extra={"bytes": scanned.damaged_bytes})
        counters["bytes_damaged"] += scanned.damaged_bytes
    return Leftover(header, path, Totals(scanned.records))
