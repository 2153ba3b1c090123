"""The victim of `test_migrating.py`: begins a move with small transactions, and stands still in the middle of it.

Run as `python -m tests.actors.store.migrate_child SOURCE TARGET REPORTS`. After so many reports of how far it is, it
writes one line and waits to be killed.
"""

from __future__ import annotations

import os
import sys
from itertools import count

from actors.store import migrating_ends, migrating_vaults
from actors.store.migrating import Keys, Watcher, migrate_store


def main(source: str, target: str, reports: int) -> None:
    """Move until the time has come."""
    migrating_vaults.TRANSACTION_ROWS = 8
    migrating_ends.ROWS_A_BATCH = 8
    seen = count(1)

    def watch(_done: int, _total: int) -> None:
        if next(seen) == reports:
            os.write(1, b"reached\n")
            sys.stdin.read()

    migrate_store(source, target, keys=Keys(), shards=2, parts=3, now_ms=5, watcher=Watcher(copied=watch))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
