"""Which messages add nothing: the rules of design section 6, one by one, on whole exchanges."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.analysis import analyse
from actors.identity import content_digest, identity, timed_digest
from actors.vault import Vault
from models.memory import Exchange, InboxRow, Message, Source
from models.messages import Sift
from tests.actors.house import NOW_MS
from tests.fakes.embedding import HashEmbedding

ENCODER = HashEmbedding(dims=8)
WINDOW_MS = 600_000


class Log:
    """A vault that is fed exchanges and says which of their messages were new."""

    def __init__(self) -> None:
        self.vault = Vault(dims=8, repeat_window_ms=WINDOW_MS, relevance_min=0.2)
        self.rows = 0

    def take(self, *messages: Message, after_ms: int = 0, source: Source = "proxy") -> list[int]:
        """The positions of the new messages; the sift before must say the same."""
        exchange = Exchange(messages=messages, source=source, accepted_ms=NOW_MS + after_ms)
        sifted = self.vault.sift(Sift(exchange)).unknown
        self.rows += 1
        row = InboxRow(self.rows, exchange)
        new = self.vault.begin_row(row)
        for message in new:
            self.vault.add(row, message, analyse(message, ENCODER, 200))
        self.vault.end_row(row)
        positions = [position for position, message in enumerate(messages) if any(message is one for one in new)]
        assert list(sifted) == positions
        return positions


def forget_one(log: Log, seq: int) -> None:
    log.vault.know_again([log.vault.forget(seq)])


@pytest.fixture
def log() -> Log:
    return Log()


def said(content: str, **fields: Any) -> Message:
    return Message(**{"role": "user", "content": content, **fields})


def final(content: str, **fields: Any) -> Message:
    return said(content, final=True, **fields)


def test_history_adds_nothing_however_old_it_is(log: Log) -> None:
    assert log.take(final("hello"), final("hi", role="assistant")) == [0, 1]
    much_later = 100 * WINDOW_MS
    history = said("hello"), said("hi", role="assistant")
    assert log.take(*history, final("how are you?"), after_ms=much_later) == [2]


def test_history_that_was_never_seen_is_stored(log: Log) -> None:
    """A client may come with a conversation that it had elsewhere."""
    assert log.take(said("hello"), said("hi", role="assistant"), final("how are you?")) == [0, 1, 2]


def test_a_repeat_within_the_window_adds_nothing(log: Log) -> None:
    assert log.take(final("I moved to Lisbon")) == [0]
    assert log.take(final("I moved to Lisbon"), after_ms=WINDOW_MS - 1) == []
    assert log.vault.duplicates == 1


def test_a_repeat_after_the_window_is_a_new_statement(log: Log) -> None:
    assert log.take(final("I moved to Lisbon")) == [0]
    assert log.take(final("I moved to Lisbon"), after_ms=WINDOW_MS) == [0]
    assert log.vault.stats(None).newest_ms == NOW_MS + WINDOW_MS


def test_the_window_runs_from_the_last_stored_statement(log: Log) -> None:
    """What added nothing does not prolong it."""
    assert log.take(final("good morning to all")) == [0]
    assert log.take(final("good morning to all"), after_ms=WINDOW_MS - 1) == []
    assert log.take(final("good morning to all"), after_ms=WINDOW_MS) == [0]
    assert log.take(final("good morning to all"), after_ms=2 * WINDOW_MS - 1) == []


def test_a_late_repeat_is_new_although_the_history_of_the_same_request_holds_it_too(log: Log) -> None:
    assert log.take(final("what is the weather?")) == [0]
    assert log.take(said("what is the weather?"), final("what is the weather?"), after_ms=WINDOW_MS) == [1]


def test_a_clock_that_went_back_does_not_make_a_repeat_new(log: Log) -> None:
    assert log.take(final("I moved to Lisbon")) == [0]
    assert log.take(final("I moved to Lisbon"), after_ms=-10 * WINDOW_MS) == []


@pytest.mark.parametrize("difference", [{"session_id": "other"}, {"role": "assistant"}, {"content": "I moved."}])
def test_session_role_and_content_tell_messages_apart(log: Log, difference: dict[str, str]) -> None:
    fields = {"content": "I moved to Lisbon", "session_id": "one"}
    assert log.take(final(**fields)) == [0]
    assert log.take(final(**{**fields, **difference})) == [0]
    assert log.take(said(**{**fields, **difference})) == []


def test_a_client_id_is_the_identity(log: Log) -> None:
    assert log.take(final("first version", external_id="m-1")) == [0]
    assert log.take(final("second version", external_id="m-1"), after_ms=100 * WINDOW_MS) == []
    assert log.take(final("first version", external_id="m-2")) == [0]


def test_a_client_id_counts_over_all_sessions_and_sources(log: Log) -> None:
    assert log.take(final("one", external_id="m-1", session_id="a")) == [0]
    assert log.take(said("one", external_id="m-1", session_id="b"), source="upload") == []


def test_history_without_ids_is_known_by_the_words_of_messages_with_ids(log: Log) -> None:
    assert log.take(final("hello there", external_id="m-1")) == [0]
    assert log.take(said("hello there"), after_ms=100 * WINDOW_MS) == []


def test_a_given_time_is_part_of_the_identity(log: Log) -> None:
    assert log.take(final("status: green", timestamp_ms=1_000)) == [0]
    assert log.take(final("status: green", timestamp_ms=1_000), after_ms=100 * WINDOW_MS) == []
    assert log.take(final("status: green", timestamp_ms=2_000)) == [0]


def test_an_upload_again_adds_nothing_with_or_without_times(log: Log) -> None:
    lines = said("a"), said("b", timestamp_ms=5), said("c", external_id="c"), said("a", timestamp_ms=6)
    assert log.take(*lines, source="upload") == [0, 1, 2, 3]
    assert log.take(*lines, source="upload", after_ms=100 * WINDOW_MS) == []
    assert log.vault.duplicates == 4


def test_an_upload_line_without_time_is_not_the_one_with_a_time(log: Log) -> None:
    assert log.take(said("a", timestamp_ms=5), source="upload") == [0]
    assert log.take(said("a"), source="upload") == [0]
    assert log.take(said("a"), source="upload") == []


def test_an_upload_of_what_a_chat_has_stored_adds_nothing(log: Log) -> None:
    assert log.take(final("I moved to Lisbon")) == [0]
    assert log.take(said("I moved to Lisbon"), source="upload", after_ms=100 * WINDOW_MS) == []


def test_a_retry_of_the_same_exchange_adds_nothing(log: Log) -> None:
    request = said("hello"), final("how are you?"), final("fine", role="assistant")
    assert log.take(*request) == [0, 1, 2]
    assert log.take(*request, after_ms=2_000) == []


def test_within_one_exchange_the_same_message_counts_once(log: Log) -> None:
    """A conversation in which somebody says the same twice is sent as a whole."""
    assert log.take(said("yes"), said("really?", role="assistant"), said("yes"), final("yes")) == [0, 1]
    assert log.vault.duplicates == 2


def test_within_one_exchange_a_client_id_counts_once(log: Log) -> None:
    assert log.take(final("one", external_id="m"), final("two", external_id="m"), final("two", external_id="n")) == [
        0,
        2,
    ]


def test_within_one_upload_times_and_sessions_tell_lines_apart(log: Log) -> None:
    lines = said("a", timestamp_ms=1), said("a", timestamp_ms=2), said("a", session_id="s"), said("a"), said("a")
    assert log.take(*lines, source="upload") == [0, 1, 2, 3]


def test_what_is_forgotten_may_come_again(log: Log) -> None:
    messages = (
        final("a", session_id="s"),
        final("b", session_id="s", external_id="b"),
        final("c", session_id="s", timestamp_ms=7),
    )
    kept = final("a")
    assert log.take(*messages, kept) == [0, 1, 2, 3]
    log.vault.know_again([log.vault.forget(seq) for seq in log.vault.session_seqs("s")])
    assert log.take(kept) == []
    assert log.take(*messages) == [0, 1, 2]


def test_forgotten_upload_lines_may_come_again(log: Log) -> None:
    lines = said("a", session_id="s"), said("b", session_id="s", timestamp_ms=5), said("a")
    assert log.take(*lines, source="upload") == [0, 1, 2]
    log.vault.know_again([log.vault.forget(seq) for seq in log.vault.session_seqs("s")])
    assert log.take(*lines, source="upload") == [0, 1]


def test_of_two_with_the_same_words_and_time_one_stays_known_when_the_other_is_forgotten(log: Log) -> None:
    """Two clients gave them different ids."""
    first = final("a", external_id="x", timestamp_ms=7)
    second = final("a", external_id="y", timestamp_ms=7)
    assert log.take(first) == [0]
    assert log.take(second) == [0]
    forget_one(log, 2)
    assert log.take(final("a", timestamp_ms=7), first) == []
    assert log.take(second) == [0]
    forget_one(log, 1)
    assert log.take(final("a", timestamp_ms=7)) == []
    forget_one(log, 3)
    assert log.take(final("a", timestamp_ms=7)) == [0]


def test_when_the_newer_statement_is_forgotten_the_older_one_counts_again(log: Log) -> None:
    assert log.take(final("a")) == [0]
    assert log.take(final("a"), after_ms=2 * WINDOW_MS) == [0]
    assert log.take(final("a"), after_ms=2 * WINDOW_MS + 1) == []
    forget_one(log, 2)
    assert log.take(said("a"), after_ms=2 * WINDOW_MS + 2) == [], "as a message of earlier turns it is known still"
    assert log.take(final("a"), after_ms=2 * WINDOW_MS + 3) == [0]


def test_an_upload_line_stays_known_while_any_of_its_words_without_a_time_is_there(log: Log) -> None:
    assert log.take(final("a")) == [0]
    assert log.take(final("a"), after_ms=2 * WINDOW_MS) == [0]
    forget_one(log, 2)
    assert log.take(said("a"), source="upload") == []
    forget_one(log, 1)
    assert log.take(said("a"), source="upload") == [0]


def test_what_is_alike_but_not_the_same_is_told_apart_when_one_is_forgotten(log: Log) -> None:
    assert log.take(final("alpha"), final("Alpha!"), final("alpha", session_id="s")) == [0, 1, 2]
    forget_one(log, 1)
    assert log.take(final("alpha"), final("Alpha!"), final("alpha", session_id="s")) == [0]


def test_a_statement_with_an_earlier_clock_does_not_shorten_the_window(log: Log) -> None:
    assert log.take(final("I moved to Lisbon")) == [0]
    assert log.take(final("I moved to Lisbon", external_id="x"), after_ms=-WINDOW_MS) == [0]
    assert log.take(final("I moved to Lisbon"), after_ms=1) == []


_PARTS = st.tuples(
    st.none() | st.text("1:-us", max_size=4),
    st.sampled_from(["user", "assistant"]),
    st.text("1:-us", max_size=4),
    st.integers(-99, 99),
)
Parts = tuple[str | None, str, str, int]


@given(_PARTS, _PARTS)
def test_digests_are_equal_only_for_equal_parts(one: Parts, other: Parts) -> None:
    said_by_one, said_by_other = content_digest(*one[:3]), content_digest(*other[:3])
    assert (said_by_one == said_by_other) is (one[:3] == other[:3])
    assert (timed_digest(said_by_one, one[3]) == timed_digest(said_by_other, other[3])) is (one == other)


def test_a_client_id_alone_makes_the_identity_within_an_exchange() -> None:
    assert identity(said("a", external_id="x")) == identity(said("b", external_id="x"))
    assert identity(said("a")) != identity(said("a", timestamp_ms=0))
    assert identity(said("x")) != identity(said("y", external_id="x"))


uploads = st.lists(
    st.lists(
        st.builds(
            Message,
            role=st.sampled_from(["user", "assistant"]),
            content=st.sampled_from(["one", "two", "One!", "three"]),
            timestamp_ms=st.sampled_from([None, 5, NOW_MS]),
            session_id=st.sampled_from([None, "s"]),
            external_id=st.sampled_from([None, None, "a", "b"]),
        ),
        min_size=1,
        max_size=6,
    ),
    max_size=8,
)


@given(uploads)
def test_leaving_out_what_an_upload_repeats_changes_nothing_but_the_log(told: list[list[Message]]) -> None:
    """A vault that is sifted first holds the same memories under the same numbers, and has counted the same."""
    whole, sifted = Log(), Log()
    for at, messages in enumerate(told):
        whole.take(*messages, after_ms=at, source="upload")
        fresh = sifted.vault.sift(Sift(Exchange(tuple(messages), "upload", NOW_MS + at)))
        sifted.take(*(messages[position] for position in fresh.unknown), after_ms=at, source="upload")
        left_out = len(messages) - len(fresh.unknown)
        told_now = sifted.vault.sift(Sift(Exchange((), "upload", 0), left_out=left_out, forgotten=fresh.forgotten))
        assert told_now.forgotten == fresh.forgotten

    assert sifted.vault.duplicates == whole.vault.duplicates
    assert [sifted.vault.find(seq) for seq in range(1, 50)] == [whole.vault.find(seq) for seq in range(1, 50)]


def test_what_was_left_out_is_not_counted_once_something_was_deleted(log: Log) -> None:
    """It may be what was left out that is gone: then all of the upload is handed over."""
    log.take(said("one"), said("two"), source="upload")
    before = log.vault.sift(Sift(Exchange((said("one"),), "upload", NOW_MS)))
    forget_one(log, 2)
    after = log.vault.sift(Sift(Exchange((), "upload", 0), left_out=1, forgotten=before.forgotten))

    assert after.forgotten != before.forgotten
    assert log.vault.duplicates == 0
