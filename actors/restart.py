"""When a crashed actor may start again: restart intensity as in OTP's supervisors, pure arithmetic on a clock value."""

from __future__ import annotations

from collections import deque


class RestartPolicy:
    """At most `restarts_max` restarts within `window_s`; one more means quarantine.

    The numbers 3 in 5 s are OTP's defaults (`DynamicSupervisor`).
    """

    def __init__(self, *, restarts_max: int, window_s: float) -> None:
        self._restarts_max = restarts_max
        self._window_s = window_s
        self._crashes: deque[float] = deque()

    def may_restart(self, now_s: float) -> bool:
        """Count a crash at `now_s` and decide."""
        self._crashes.append(now_s)
        while self._crashes[0] < now_s - self._window_s:
            self._crashes.popleft()
        return len(self._crashes) <= self._restarts_max

    def reset(self) -> None:
        """Forget the crashes: the quarantine is over."""
        self._crashes.clear()
