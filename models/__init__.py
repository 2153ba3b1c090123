"""What things are: data types, settings, errors, text functions, the embedding model. No concurrency, no network."""
