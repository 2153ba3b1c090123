"""What a reader found, sorted out for tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from models.archives.entries import Bad, Conversation, Entry, Item, Passed


def said(entries: Iterable[Entry]) -> list[tuple[str, str]]:
    """Role and content of each line."""
    return [(entry.fields["role"], entry.fields["content"]) for entry in entries if isinstance(entry, Item)]


def lines(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """The lines."""
    return [entry.fields for entry in entries if isinstance(entry, Item)]


def reasons(entries: Iterable[Entry]) -> dict[str, int]:
    """Why things were left out, and how many."""
    return dict(Counter(entry.reason for entry in entries if isinstance(entry, Passed)))


def problems(entries: Iterable[Entry]) -> list[str]:
    """What could not be read, each with its place."""
    return [f"{entry.place}: {entry.problem}" for entry in entries if isinstance(entry, Bad)]


def conversations(entries: Iterable[Entry]) -> int:
    """How many began."""
    return sum(isinstance(entry, Conversation) for entry in entries)
