"""The durable store: SQLite shards with group commit, behind one protocol."""
