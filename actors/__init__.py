"""Who owns state: mailbox, vault, index, ranking, store, supervisor, embedder. Knows nothing of HTTP."""
