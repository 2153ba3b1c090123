"""Which sessions a vault has: the newest first, in pages that neither skip nor repeat any."""

from __future__ import annotations

import random

from actors.session_listing import list_sessions
from actors.session_order import SessionOrder
from models.memory import SessionSummary
from models.messages import ListSessions


def a_vault(sessions: int, *, seed: int) -> dict[str | None, SessionOrder]:
    """Sessions of a few memories each, many of them at the same time; some memories without a session."""
    dice = random.Random(seed)
    orders: dict[str | None, SessionOrder] = {None: SessionOrder(0)}
    for position in range(sessions * 3):
        name = None if position % 7 == 0 else f"s{dice.randrange(sessions)}"
        order = orders.setdefault(name, SessionOrder(len(orders)))
        order.put(dice.randrange(20), position)
        order.tokens += 2
    return orders


def seq_at(position: int) -> int:
    return position + 1


def test_pages_hold_every_session_once_the_newest_first() -> None:
    for seed in range(20):
        orders = a_vault(15, seed=seed)
        whole = list_sessions(orders, ListSessions(limit=100), seq_at=seq_at)
        assert {one.session_id for one in whole.sessions} == set(orders) - {None}
        assert whole.after is None
        places = [one.place for one in whole.sessions]
        assert places == sorted(places, reverse=True)
        paged: list[SessionSummary] = []
        after = None
        while True:
            page = list_sessions(orders, ListSessions(limit=4, after=after), seq_at=seq_at)
            paged += page.sessions
            assert len(page.sessions) <= 4
            if page.after is None:
                break
            after = page.after
        assert tuple(paged) == whole.sessions


def test_a_session_is_told_in_numbers() -> None:
    order = SessionOrder(1)
    for at_ms, position in ((30, 0), (10, 1), (20, 2)):
        order.put(at_ms, position)
    order.tokens = 9
    (one,) = list_sessions({"s": order, None: SessionOrder(0)}, ListSessions(limit=1), seq_at=seq_at).sessions
    assert (one.session_id, one.memories, one.tokens, one.first_ms, one.place) == ("s", 3, 9, 10, (30, 1))


def test_of_none_there_is_an_empty_page() -> None:
    assert list_sessions({None: SessionOrder(0)}, ListSessions(limit=5), seq_at=seq_at).sessions == ()
