"""When commands ask again: only where it helps, with growing pauses, and not for ever."""

from __future__ import annotations

import httpx
import pytest

from models.errors import SetupError, StoreUnavailable
from router.commands.retrying import ATTEMPTS_MAX, BACK_OFF_S_MAX, RETRY_AFTER_S_MAX, broken, until_answered

URL = "http://127.0.0.1:9"


class Server:
    """Fails with these errors, one after the other, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.waits: list[float] = []

    def ask(self) -> str:
        if self._errors:
            raise self._errors.pop(0)
        return "answer"

    def asked(self, *, begun: bool = True) -> str:
        """What comes of asking until it answers."""
        return until_answered(self.ask, URL, begun=begun, wait=self.waits.append)


def busy(retry_after_s: int | None = None) -> StoreUnavailable:
    return StoreUnavailable("busy", retry_after_s=retry_after_s or 1)


def test_pauses_grow_up_to_a_bound_and_are_never_shorter_than_asked_for() -> None:
    server = Server(busy(7), *[httpx.ReadError("cut")] * (ATTEMPTS_MAX - 2))

    assert server.asked() == "answer"
    assert server.waits[0] == 7
    assert server.waits[1:] == sorted(server.waits[1:])
    assert server.waits[-1] <= BACK_OFF_S_MAX


def test_patience_ends() -> None:
    with pytest.raises(StoreUnavailable, match="busy"):
        Server(*[busy()] * ATTEMPTS_MAX).asked()
    server = Server(busy(int(RETRY_AFTER_S_MAX) + 1))
    with pytest.raises(StoreUnavailable):
        server.asked()
    assert server.waits == []


def test_a_server_that_was_there_may_be_starting_again() -> None:
    gone = httpx.ConnectError("refused")

    assert Server(gone).asked(begun=True) == "answer"
    with pytest.raises(StoreUnavailable):
        Server(gone).asked(begun=False)


def test_what_will_never_work_is_not_tried_again() -> None:
    with pytest.raises(SetupError):
        broken(URL, httpx.RemoteProtocolError("illegal status line"), begun=True)
