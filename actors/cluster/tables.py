"""The two tables that a cluster consists of, as text: `node`, a row for each that is alive; `part`, the partitions.

`actors.store.postgres.schema` makes them. Portable: no triggers, no sequences, nothing that a distributed PostgreSQL
does not have. Knows nothing of how they are used.

`node`: a node is alive while `expires_at` lies ahead on the database's clock. `incarnation` changes whenever it joins:
what an earlier one owned it does not own any more. `draining` is the operator's wish, `leaving` the node's own.

`part`: `owner` is a `node_id`, together with the incarnation under which it took the partition; NULL is nobody. `epoch`
grows with each owner and never goes back. `commits` counts the owner's transactions; each of them changes the row, so
its page keeps room for new versions. `pinned` is the node that the operator wants as owner.
"""

from __future__ import annotations

NODE_TABLE = """
CREATE TABLE node (
  node_id text PRIMARY KEY,
  incarnation bigint NOT NULL,
  addr text NOT NULL,
  zone text NOT NULL DEFAULT '',
  version text NOT NULL DEFAULT '',
  weight double precision NOT NULL DEFAULT 1,
  draining boolean NOT NULL DEFAULT false,
  leaving boolean NOT NULL DEFAULT false,
  expires_at timestamptz NOT NULL
) WITH (fillfactor = 50)
"""

PART_TABLE = """
CREATE TABLE part (
  part integer PRIMARY KEY,
  owner text,
  incarnation bigint,
  epoch bigint NOT NULL DEFAULT 0,
  commits bigint NOT NULL DEFAULT 0,
  pinned text
) WITH (fillfactor = 20)
"""

CLUSTER_TABLES = (NODE_TABLE, PART_TABLE)
"""In the order in which they are made."""

ADD_PARTS = "INSERT INTO part (part) SELECT number FROM generate_series(0, ? - 1) AS numbers (number)"
"""Makes so many partitions, without owners. Once, when the database is prepared: their number never changes."""
