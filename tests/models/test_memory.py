"""What is remembered: plain data."""

from __future__ import annotations

import gc

from models.memory import Memory


def test_the_garbage_collector_does_not_look_at_memories() -> None:
    """A full collection over a million of them would hold up everybody."""
    memory = Memory(seq=1, role="user", content="x", timestamp_ms=1, stored_ms=1, source="upload", metadata={"a": [1]})
    assert not gc.is_tracked(memory)
