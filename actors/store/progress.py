"""How far long work on a data directory is: what whoever waits for it may be told.

Owns the shape of such a report, and no more: who shows it, and how, is the command line's business.
"""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[int, int], None]
"""Told after every step: how many units are done, and how many there are in all as far as is known by then."""


def unreported(_done: int, _total: int, /) -> None:
    """For work that nobody watches."""
