"""One adapter per wire format: pure functions on bytes."""
