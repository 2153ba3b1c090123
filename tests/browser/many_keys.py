"""A server whose account has a hundred thousand keys, put there before it starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import msgspec

from tests.browser.serving import RunningServer, running_server
from tests.prepared_model import put_model
from tests.running import ROOT

KEYS = 100_000

_FILL = """
WITH RECURSIVE made(at) AS (SELECT 1 UNION ALL SELECT at + 1 FROM made WHERE at < {count})
INSERT INTO {what} FROM made"""
_ROWS = (
    "vault(account, shard, created_ms) SELECT 1, 0, 1763700000000 + at",
    "vault_key(vault, wrapped) SELECT at + 1, randomblob(60)",
    "key(account, vault, kind, name, shown, hash, created_ms, limits)"
    " SELECT 1, at + 1, 'user', 'user:' || at, 'mk_many…', randomblob(32), 1763700000000 + at, '{}'",
)


@contextmanager
def server_with_many_keys(data_dir: Path) -> Iterator[RunningServer]:
    """`KEYS` user keys `user:1`, `user:2`, ... beside the account key. Their vaults have never been opened."""
    put_model(data_dir)
    made = subprocess.run(
        [sys.executable, "-m", "router", "init", "--data-dir", str(data_dir), "--json"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    connection = apsw.Connection(str(data_dir / "meta.db"))
    with connection:
        for rows in _ROWS:
            connection.execute(_FILL.format(count=KEYS, what=rows))
    connection.close()
    with running_server(data_dir) as running:
        running.account_key = msgspec.json.decode(made.stdout.splitlines()[-1])["account_key"]
        yield running
