"""Sessions: how long they live, how many there are, and what is kept of a token."""

from __future__ import annotations

from collections.abc import Iterator

from models.dashboard_settings import DashboardSettings
from router.dashboard.sessions import SESSIONS_OF_ACCOUNT_MAX, VAULTS_OPENED_MAX, Session, Sessions

SETTINGS = DashboardSettings(session_idle_s=100, session_max_s=250, sessions_max=150)


class Clock:
    """Seconds that a test sets."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def reachable(value: object, depth: int = 6) -> Iterator[object]:
    """Everything that an object holds."""
    yield value
    if depth and isinstance(value, dict):
        for key, inner in value.items():
            yield from reachable(key, depth - 1)
            yield from reachable(inner, depth - 1)
    elif depth and not isinstance(value, str | bytes | int | float | None):
        for name in (*getattr(value, "__slots__", ()), *getattr(value, "__dict__", ())):
            yield from reachable(getattr(value, name, None), depth - 1)


def test_a_session_ends_after_idling_and_after_its_longest_time_in_any_case() -> None:
    clock = Clock()
    sessions = Sessions(SETTINGS, clock=clock)
    idle, _ = sessions.open(b"key", 1)
    busy, session = sessions.open(b"key", 1)
    assert sessions.left_s(session) == 250
    for clock.now_s in (60, 99, 100, 180, 249):
        assert sessions.find(busy) is session
        if clock.now_s < 100:
            continue
        assert sessions.find(idle) is None
    assert len(sessions) == 1
    clock.now_s = 250
    assert sessions.find(busy) is None
    assert len(sessions) == 0


def test_a_token_is_found_as_it_was_given_and_is_kept_nowhere() -> None:
    sessions = Sessions(SETTINGS, clock=Clock())
    token, session = sessions.open(b"key", 1)
    other, second = sessions.open(b"key", 1)
    assert len({token, other, session.csrf, second.csrf}) == 4
    assert sessions.find(token) is session
    for wrong in ("", token[:-1], token + "x", session.csrf, "\udc80"):
        assert sessions.find(wrong) is None
    held = [value for value in reachable(sessions) if isinstance(value, str | bytes)]
    assert session.csrf in held  # the search sees what is there
    assert token not in held
    assert token.encode() not in held


def test_only_its_own_token_confirms_a_request() -> None:
    session = Session(1, b"key", 1, now_s=0)
    assert session.is_confirmed_by(session.csrf)
    for wrong in ("", session.csrf[:-1], session.csrf + " ", "\u00fc", "\udc80"):
        assert not session.is_confirmed_by(wrong)


def test_the_one_idle_for_longest_makes_room() -> None:
    clock, ended = Clock(), list[int]()
    sessions = Sessions(SETTINGS, clock=clock, ended=lambda session: ended.append(session.number))
    opened = [sessions.open(b"key", account) for account in range(150)]
    (first, _), (second, gone) = opened[:2]
    sessions.find(first)
    sessions.open(b"key", 999)
    assert sessions.find(first) is not None
    assert (sessions.find(second), ended) == (None, [gone.number])
    assert len(sessions) == 150


def test_a_number_is_never_that_of_a_session_of_before() -> None:
    """Another worker may still know what that one's chats did, after the one with the sessions was started again."""
    numbers = [Sessions(SETTINGS, clock=Clock()).open(b"key", 1)[1].number for _ in range(100)]
    assert len(set(numbers)) == 100
    assert 0 not in numbers, "that is who tells none"


def test_an_account_signs_out_its_own_people_and_no_others() -> None:
    sessions = Sessions(SETTINGS, clock=Clock())
    bystander, _ = sessions.open(b"key", 1)
    own = [sessions.open(b"key", 2)[0] for _ in range(SESSIONS_OF_ACCOUNT_MAX * 2)]
    assert sessions.find(bystander) is not None
    assert sum(sessions.find(token) is not None for token in own) == SESSIONS_OF_ACCOUNT_MAX


def test_ending_one_tells_of_it_once() -> None:
    ended = list[int]()
    sessions = Sessions(SETTINGS, clock=Clock(), ended=lambda session: ended.append(session.number))
    token, session = sessions.open(b"key", 1)
    sessions.end("other")
    sessions.end(token)
    sessions.end(token)
    assert ended == [session.number]


def test_what_a_session_remembers_of_vaults_is_bounded() -> None:
    session = Session(1, b"key", 1, now_s=0)
    for number in range(VAULTS_OPENED_MAX + 5):
        session.opened.put(number, True)
    assert len(session.opened) == VAULTS_OPENED_MAX


def test_statistics_count_the_live_ones_only() -> None:
    clock = Clock()
    sessions = Sessions(SETTINGS, clock=clock)
    sessions.open(b"key", 1)
    clock.now_s = 101
    sessions.open(b"key", 1)
    assert sessions.statistics() == {"sessions": 1}
