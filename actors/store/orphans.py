"""Rows that nothing opens any more: of vaults that meta.db does not name, and embeddings whose memory is gone.

Pure of threads: every function gets the connection that it works on. Must never take a row of a vault that is named,
whatever its state.
"""

from __future__ import annotations

from collections.abc import Collection

import apsw

from actors.store.database import all_rows, one_row
from actors.store.shard import delete_vault_rows
from actors.store.vault_bodies import SEQ_BITS

_HIGHEST = (
    f"SELECT max(id) >> {SEQ_BITS} FROM memory",
    f"SELECT max(id) >> {SEQ_BITS} FROM embedding",
    "SELECT max(vault) FROM inbox",
    "SELECT max(vault) FROM damaged_inbox",
    "SELECT max(vault) FROM vault_state",
)
_LOOSE_EMBEDDINGS = "FROM embedding WHERE NOT EXISTS (SELECT 1 FROM memory WHERE memory.id = embedding.id)"


def highest_vault(shard: apsw.Connection) -> int:
    """The highest vault number that occurs in a shard; 0 in an empty one."""
    return max(one_row(shard, query)[0] or 0 for query in _HIGHEST)


def vaults_in(shard: apsw.Connection) -> set[int]:
    """Numbers of all vaults that have rows in a shard. One look-up a vault and table, however many rows it has."""
    found = {number for (number,) in all_rows(shard, "SELECT vault FROM vault_state UNION SELECT vault FROM inbox")}
    found |= {number for (number,) in all_rows(shard, "SELECT vault FROM damaged_inbox")}
    for table in ("memory", "embedding"):
        number = -1
        while row := one_row(
            shard,
            f"SELECT id >> {SEQ_BITS} FROM {table} WHERE id >= ? ORDER BY id LIMIT 1",
            ((number + 1) << SEQ_BITS,),
        ):
            (number,) = row
            found.add(number)
    return found


def orphaned_vaults(shard: apsw.Connection, vaults: Collection[int]) -> list[int]:
    """Vaults with rows in this shard that are not among those that meta.db names."""
    return sorted(vaults_in(shard).difference(vaults))


def remove_orphans(shard: apsw.Connection, vaults: Collection[int]) -> int:
    """Remove the rows of vaults that are not among these; how many rows that were. Not in a transaction.

    Raises:
        apsw.Error: the file cannot be read or written.
    """
    removed = 0
    for number in orphaned_vaults(shard, vaults):
        slice_rows = -1
        while slice_rows:
            with shard:
                slice_rows = delete_vault_rows(shard, number)
            removed += slice_rows
    return removed


def count_loose_embeddings(shard: apsw.Connection) -> int:
    """How many embeddings have no memory."""
    return int(one_row(shard, f"SELECT count(*) {_LOOSE_EMBEDDINGS}")[0])


def remove_loose_embeddings(shard: apsw.Connection) -> int:
    """Remove embeddings without a memory; how many that were."""
    before = shard.total_changes()
    shard.execute(f"DELETE {_LOOSE_EMBEDDINGS}")
    return shard.total_changes() - before
