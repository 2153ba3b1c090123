"""The tables of the vaults' logs in PostgreSQL: what `shard-NN.db` holds in SQLite, with the partition before each key.

Owns their DDL. A portable subset, so that a database that spreads tables over machines by `part` can take them: every
primary key begins with `part`, there are no triggers, no sequences and no foreign keys. `model` is the exception: a few
rows, the same for all partitions. What is kept in two places (how much a vault holds) is kept by the statements of
`actors.store.postgres.vault_rows`, in one transaction. Must never be edited once released: see `migrations`.
"""

from __future__ import annotations

VAULT_TABLES = """
-- The models that embeddings were made with. Numbers are associated data of sealed rows, so they never change.
CREATE TABLE model(number integer PRIMARY KEY, id text NOT NULL UNIQUE, dims integer NOT NULL);
CREATE TABLE vault_state(
  part integer NOT NULL,
  vault bigint NOT NULL,
  next_seq bigint NOT NULL,
  memories bigint NOT NULL DEFAULT 0,  -- how many rows of `memory` it has, and the bytes of their bodies
  content_bytes bigint NOT NULL DEFAULT 0,
  moves smallint NOT NULL DEFAULT 0 CHECK (moves IN (0, 1)),  -- 1 from the choice of another embedder to its end
  embedder text,  -- the name of the one that the vault remembers
  PRIMARY KEY (part, vault)
);
CREATE INDEX vault_moves ON vault_state(part, vault) WHERE moves = 1;
-- id = (number of the partition's commit << 20) | place in the commit: grows in commit order, never used twice.
CREATE TABLE inbox(
  part integer NOT NULL, vault bigint NOT NULL, id bigint NOT NULL, body bytea NOT NULL, PRIMARY KEY (part, vault, id)
);
-- Inbox rows that fail their checksum, as they are: out of the way, but never thrown away.
CREATE TABLE damaged_inbox(
  part integer NOT NULL, vault bigint NOT NULL, id bigint NOT NULL, set_aside_ms bigint NOT NULL, body bytea NOT NULL,
  PRIMARY KEY (part, vault, id)
);
-- id = (vault number << 32) | seq: one vault is one range of the index.
CREATE TABLE memory(part integer NOT NULL, id bigint NOT NULL, body bytea NOT NULL, PRIMARY KEY (part, id));
CREATE TABLE embedding(
  part integer NOT NULL, model integer NOT NULL, id bigint NOT NULL, body bytea NOT NULL, PRIMARY KEY (part, id)
);
-- Sealed bytes do not shrink: no time is spent on trying.
ALTER TABLE inbox ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE damaged_inbox ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE memory ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE embedding ALTER COLUMN body SET STORAGE EXTERNAL;
-- Rows of the inbox live for a second: what they leave behind is cleared often, and their pages have room for it.
ALTER TABLE inbox SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 10000);
ALTER TABLE vault_state SET (fillfactor = 70);
"""
