"""When what failed may be tried again: an actor that crashed, a call that was refused.

Pure arithmetic on clock values; must never wait itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

RETRY_FIRST_S = 0.1
RETRY_LAST_S = 5.0


def retry_delays(*, last_s: float = RETRY_LAST_S) -> Iterator[float]:
    """Seconds to wait before each further attempt: doubling from `RETRY_FIRST_S` to `last_s`, without end."""
    delay_s = RETRY_FIRST_S
    while True:
        yield delay_s
        delay_s = min(delay_s * 2, last_s)


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
