"""Which texts go into a context, and which stand together."""

from __future__ import annotations

from models.memory import Memory, Role
from models.messages import Hit
from models.packing import COMPANION_CHARACTERS_MAX, TOGETHER_WITHIN_MS, Entry, Piece, pack

HEADER_TOKENS = 10
CONTINUED_TOKENS = 3


def cost(piece: Piece, continues: bool) -> int:
    """A word is a token."""
    return (CONTINUED_TOKENS if continues else HEADER_TOKENS) + len(piece.text.split())


def conversation(*texts: str, step_ms: int = 1_000) -> list[Memory]:
    """Turns of a session, the user's first."""
    roles: list[Role] = ["user", "assistant"]
    return [
        Memory(
            seq=at + 1, role=roles[at % 2], content=text, timestamp_ms=at * step_ms, stored_ms=0, source="ingest",
            spans=((0, len(text)),),
        )
        for at, text in enumerate(texts)
    ]  # fmt: skip


def hits(memories: list[Memory], *places: int) -> list[Hit]:
    """The memories at these places as they would be found, best first."""
    around = [None, *memories, None]
    return [
        Hit(memory=memories[at], matched=memories[at].content, score=0.5, before=around[at], after=around[at + 2])
        for at in places
    ]


def packed(found: list[Hit], *, hits_max: int = 30, tokens_max: int | None = None) -> list[Entry]:
    return pack(found, hits_max=hits_max, tokens_max=tokens_max, cost=cost)


def seqs(entries: list[Entry]) -> list[list[int]]:
    return [[piece.memory.seq for piece in entry] for entry in entries]


PLAIN = [f"This is plain statement number {number} of a long talk." for number in range(6)]


def test_turns_that_followed_each_other_share_an_entry() -> None:
    """Oldest first, however they were found."""
    assert seqs(packed(hits(conversation(*PLAIN), 4, 1, 0, 2))) == [[1, 2, 3], [5]]


def test_turns_far_apart_in_time_have_their_own_entries() -> None:
    """The header of the first would date the second wrongly."""
    apart = conversation(*PLAIN, step_ms=TOGETHER_WITHIN_MS + 1)
    assert seqs(packed(hits(apart, 0, 1))) == [[1], [2]]


def test_the_cap_counts_what_was_found() -> None:
    """The best stay; a question's answer is not counted."""
    memories = conversation("Shall I take the train to Lisbon tomorrow?", "Take the bus.", *PLAIN[2:])
    entries = packed(hits(memories, 0, 4, 5), hits_max=2)
    assert seqs(entries) == [[1, 2], [5]]
    assert [piece.is_hit for piece in entries[0]] == [True, False]


def test_a_terse_answer_brings_its_question_and_a_long_one_does_not() -> None:
    """It says itself what it is about."""
    asked = "Which seat would you like on the flight?"
    terse = conversation("Hello there", asked, "By the window.")
    long = conversation("Hello there", asked, "By the window, since the mountains of Norway look best from up there.")
    assert seqs(packed(hits(terse, 2))) == [[2, 3]]
    assert seqs(packed(hits(long, 2))) == [[3]]


def test_long_companions_stay_out() -> None:
    """They cost more than what they bring."""
    memories = conversation("How do I bake bread?", "Knead it. " * (COMPANION_CHARACTERS_MAX // 10 + 1))
    assert seqs(packed(hits(memories, 0))) == [[1]]


def test_a_budget_is_kept_and_filled_by_merit() -> None:
    """What does not fit is passed over; companions come after all that was found."""
    memories = conversation("Where is my passport?", "In the drawer.", "Tiny note.", "word " * 50, "Second tiny note.")
    found = hits(memories, 0, 3, 4, 2)
    assert seqs(packed(found, tokens_max=14)) == [[1]]
    assert seqs(packed(found, tokens_max=14 + 13)) == [[1], [5]]
    assert seqs(packed(found, tokens_max=14 + 13 + 12)) == [[1], [3], [5]]
    assert seqs(packed(found, tokens_max=14 + 13 + 12 + 6)) == [[1, 2, 3], [5]]


def test_repeats_take_no_place() -> None:
    """Of texts that differ only in case and signs the better one stays."""
    memories = conversation("I moved to Graz!", "How nice to hear.", "i moved to GRAZ", "I moved to Linz.")
    assert seqs(packed(hits(memories, 2, 0, 3), hits_max=2)) == [[3, 4]]


def test_what_is_left_out_takes_no_place_and_brings_nothing() -> None:
    """It is no hit, and its neighbour is not there for its sake; another hit may still need it beside it."""
    memories = conversation("Where do you live?", "In Oslo.", "It rains a lot here in autumn, more than I would like.")
    asked = "where do you live"
    left_out = pack(hits(memories, 0, 2), hits_max=1, tokens_max=None, cost=cost, left_out=asked)
    assert seqs(left_out) == [[3]]
    beside = pack(hits(memories, 1), hits_max=1, tokens_max=None, cost=cost, left_out=asked)
    assert seqs(beside) == [[1, 2]]
