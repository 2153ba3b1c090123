"""The tables of the directory in PostgreSQL: what meta.db holds in SQLite, by the same names, for the same statements.

Owns their DDL. Texts compare by bytes, as in SQLite. Rows are numbered by `next_number`, in the transaction that makes
them: unlike those of a sequence, the numbers have no holes, and one that was rolled back is given out again. That costs
nothing, for all changes of the directory wait for each other at `directory_state` anyway. Must never be edited once
released: see `actors.store.postgres.schema`.
"""

from __future__ import annotations

DIRECTORY_TABLES = """
CREATE TABLE setting(name text PRIMARY KEY, value text NOT NULL);
-- One row, which every transaction of the directory changes first: so there is one at a time. `changes` counts those of
-- what nodes keep in memory; each node watches it.
CREATE TABLE directory_state(
  one integer PRIMARY KEY CHECK (one = 1),
  commits bigint NOT NULL,
  changes bigint NOT NULL
) WITH (fillfactor = 20);
INSERT INTO directory_state VALUES (1, 0, 0);
-- The last transaction of each writer: what tells it, after the connection was lost at a COMMIT, whether that happened.
CREATE TABLE directory_writer(
  writer text PRIMARY KEY,
  commits bigint NOT NULL,
  at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 20);
CREATE TABLE last_number(name text PRIMARY KEY, number bigint NOT NULL) WITH (fillfactor = 20);
INSERT INTO last_number VALUES ('account', 0), ('vault', 0), ('key', 0), ('provider_key', 0), ('audit', 0);
CREATE FUNCTION next_number(of_table text) RETURNS bigint LANGUAGE sql VOLATILE AS
  'UPDATE last_number SET number = number + 1 WHERE name = $1 RETURNING number';

CREATE TABLE account(
  number bigint PRIMARY KEY DEFAULT next_number('account'),
  created_ms bigint NOT NULL,
  name text COLLATE "C" NOT NULL DEFAULT '',
  disabled_ms bigint,
  deleted_ms bigint,
  retention_days bigint
);
CREATE TABLE vault(
  number bigint PRIMARY KEY DEFAULT next_number('vault'),
  account bigint NOT NULL REFERENCES account(number),
  shard bigint NOT NULL,  -- the partition
  state bigint NOT NULL DEFAULT 0 CHECK (state IN (0, 1, 2)),  -- live, shredded, rows removed too
  created_ms bigint NOT NULL,
  retention_days bigint,
  open_keys bigint NOT NULL DEFAULT 0  -- how many of its keys are neither revoked nor rotated
);
CREATE INDEX vault_shredded ON vault(number) WHERE state = 1;
CREATE INDEX vault_account ON vault(account, number) WHERE state = 0;
CREATE INDEX vault_kept ON vault(account) WHERE state = 0 AND open_keys = 0;
-- Wrapped keys are overwritten; the old row version is gone with the next VACUUM of this table.
CREATE TABLE vault_key(vault bigint PRIMARY KEY, wrapped bytea NOT NULL);
CREATE TABLE erasure(vault bigint PRIMARY KEY REFERENCES vault(number), erased_ms bigint NOT NULL);
CREATE TABLE key(
  number bigint PRIMARY KEY DEFAULT next_number('key'),
  account bigint NOT NULL REFERENCES account(number),
  vault bigint NOT NULL REFERENCES vault(number),
  kind text COLLATE "C" NOT NULL CHECK (kind IN ('account', 'user')),
  name text COLLATE "C" NOT NULL,
  shown text COLLATE "C" NOT NULL,
  hash bytea NOT NULL UNIQUE,
  created_ms bigint NOT NULL,
  revoked_ms bigint,
  disabled_ms bigint,
  expires_ms bigint,
  last_used_ms bigint,
  rotated_to bigint REFERENCES key(number),  -- then expires_ms is the end of its grace period
  limits text NOT NULL DEFAULT '{}'  -- JSON of models.key_limits.KeyLimits
);
CREATE INDEX key_vault ON key(vault);
CREATE INDEX key_listed ON key(account, number);
CREATE INDEX key_of_account ON key(account) WHERE kind = 'account';
CREATE INDEX key_rotated ON key(rotated_to) WHERE rotated_to IS NOT NULL;
CREATE TABLE provider_key(
  number bigint PRIMARY KEY DEFAULT next_number('provider_key'),
  account bigint NOT NULL REFERENCES account(number),
  provider text COLLATE "C" NOT NULL,
  last_four text COLLATE "C" NOT NULL,
  mark bytea NOT NULL,
  created_ms bigint NOT NULL,
  erased_ms bigint,
  UNIQUE (account, provider)
);
CREATE TABLE provider_secret(provider_key bigint PRIMARY KEY, sealed bytea NOT NULL);
CREATE TABLE provider_erasure(mark bytea PRIMARY KEY, erased_ms bigint NOT NULL);
CREATE TABLE audit(
  number bigint PRIMARY KEY DEFAULT next_number('audit'),
  at_ms bigint NOT NULL,
  account bigint,  -- whom it concerns; NULL: the whole server
  actor text COLLATE "C" NOT NULL,
  action text COLLATE "C" NOT NULL,
  target text COLLATE "C" NOT NULL,
  detail text NOT NULL,
  request_id text
);
CREATE INDEX audit_listed ON audit(account, number);
CREATE INDEX audit_target ON audit(account, target);
CREATE TABLE usage(
  account bigint NOT NULL,
  day bigint NOT NULL,  -- since the Unix epoch, UTC
  key bigint NOT NULL,
  model text COLLATE "C" NOT NULL,
  requests bigint NOT NULL,
  memories_stored bigint NOT NULL,
  tokens_retrieved bigint NOT NULL,
  tokens_injected bigint NOT NULL,
  tokens_billed bigint NOT NULL,
  input_tokens bigint NOT NULL,
  output_tokens bigint NOT NULL,
  errors bigint NOT NULL,
  latency_ms_sum bigint NOT NULL,
  PRIMARY KEY (account, day, key, model)
);
CREATE INDEX usage_key ON usage(account, key, day);
CREATE TABLE usage_fold(journal text COLLATE "C" PRIMARY KEY, number bigint NOT NULL);

CREATE FUNCTION count_open_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND old.revoked_ms IS NULL AND old.rotated_to IS NULL THEN
    UPDATE vault SET open_keys = open_keys - 1 WHERE number = old.vault;
  END IF;
  IF new.revoked_ms IS NULL AND new.rotated_to IS NULL THEN
    UPDATE vault SET open_keys = open_keys + 1 WHERE number = new.vault;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER key_added AFTER INSERT ON key FOR EACH ROW EXECUTE FUNCTION count_open_keys();
CREATE TRIGGER key_changed AFTER UPDATE OF vault, revoked_ms, rotated_to ON key
  FOR EACH ROW EXECUTE FUNCTION count_open_keys();
"""
