"""What the dashboard keeps while the server runs: who is signed in, what happened lately. None of it is on disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from actors.usage_records import Counted
from models.dashboard_settings import DashboardSettings
from router.dashboard.chats import Chats
from router.dashboard.recent import RecentFigures
from router.dashboard.sessions import Sessions


class DashboardState:
    """One server's.

    Attributes:
        data_dir: the server's, to say how full its disk is; None where there is none.
        started_ms: when this server began.
    """

    __slots__ = ("chats", "data_dir", "recent", "sessions", "started_ms")

    def __init__(self, settings: DashboardSettings, *, now_ms: Callable[[], int]) -> None:
        self.chats = Chats()
        self.sessions = Sessions(
            settings, clock=time.monotonic, ended=lambda session: self.chats.forget_session(session.number)
        )
        self.recent = RecentFigures(now_ms=now_ms)
        self.started_ms = now_ms()
        self.data_dir: Path | None = None

    def note_tokens(self, counted: Counted) -> None:
        """Add what a request used to its account's figures."""
        tokens = self.recent.of(counted.account_number).tokens
        tokens["retrieved"] += counted.tokens_retrieved
        tokens["injected"] += counted.tokens_injected
        tokens["input"] += counted.input_tokens
        tokens["output"] += counted.output_tokens
