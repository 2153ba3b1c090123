"""The records of a vault: numbering, neighbours in time, sessions, scopes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.catalogue import Catalogue, Count
from actors.session_order import NOBODY
from models.memory import Memory
from models.messages import Scope


def memory(seq: int, *, at: int = 0, session: str | None = None, chunks: int = 1, **fields: Any) -> Memory:
    content = fields.pop("content", f"text {seq}")
    return Memory(
        **{
            "seq": seq,
            "role": "user",
            "content": content,
            "timestamp_ms": at,
            "stored_ms": at,
            "source": "proxy",
            "tokens": 2,
            "spans": ((0, 1),) * chunks,
            "session_id": session,
            **fields,
        }
    )


def catalogue(*memories: Memory) -> Catalogue:
    filled = Catalogue()
    for one in memories:
        filled.add(one)
    return filled


def test_chunks_are_numbered_in_the_order_of_adding() -> None:
    filled = catalogue(memory(5, chunks=2), memory(9, chunks=0), memory(7, chunks=3))
    assert filled.chunks_of(5).tolist() == [0, 1]
    assert filled.chunks_of(9).tolist() == []
    assert filled.chunks_of(7).tolist() == [2, 3, 4]
    assert filled.first_chunk(7) == 2
    assert filled.arrays().chunk_memory.tolist() == [0, 0, 2, 2, 2]


def test_neighbours_are_those_beside_in_time_within_the_session() -> None:
    filled = catalogue(
        memory(1, at=30, session="a"),
        memory(2, at=10, session="a"),
        memory(3, at=15, session="b"),
        memory(4, at=20, session="a"),
    )
    arrays = filled.arrays()
    assert arrays.previous.tolist() == [3, NOBODY, NOBODY, 1]
    assert arrays.next.tolist() == [NOBODY, 3, NOBODY, 0]
    assert filled.session_seqs("a") == [2, 4, 1]


def test_at_the_same_time_the_order_of_storing_counts() -> None:
    filled = catalogue(*(memory(seq, at=5, session="a") for seq in (3, 1, 2)))
    assert filled.session_seqs("a") == [3, 1, 2]


def test_when_a_memory_goes_its_neighbours_become_neighbours() -> None:
    filled = catalogue(*(memory(seq, at=seq, session="a") for seq in (1, 2, 3)))
    filled.remove(2)
    assert filled.arrays().next.tolist()[0] == 2
    assert filled.arrays().previous.tolist()[2] == 0
    filled.remove(1)
    assert filled.arrays().previous.tolist()[2] == NOBODY
    assert filled.session_seqs("a") == [3]


def test_a_session_that_is_empty_is_gone_and_its_number_is_not_used_again() -> None:
    filled = catalogue(memory(1, session="a"), memory(2, session="b"))
    number = filled.session_number("a")
    filled.remove(1)
    assert filled.session_number("a") is None
    assert filled.sessions == 1
    filled.add(memory(3, session="a"))
    assert filled.session_number("a") not in (None, number, filled.session_number("b"))


def test_counts_of_the_vault_and_of_a_session() -> None:
    filled = catalogue(memory(1, at=5, chunks=2), memory(2, at=3, session="a"), memory(3, at=9, session="a"))
    assert filled.count(None) == Count(memories=3, chunks=4, tokens=6, oldest_ms=3, newest_ms=9)
    assert filled.count("a") == Count(memories=2, chunks=2, tokens=4, oldest_ms=3, newest_ms=9)
    assert filled.count("unknown") == Count()
    for seq in (1, 2, 3):
        filled.remove(seq)
    assert filled.count(None) == Count()


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (Scope(), [1, 2, 3, 4]),
        (Scope(session_id="a"), [2, 3]),
        (Scope(session_id="unknown"), []),
        (Scope(session_id="a", whole_vault=True), [1, 2, 3, 4]),
        (Scope(sessionless_only=True), [1]),
    ],
)
def test_a_scope_says_which_memories_may_be_read(scope: Scope, expected: list[int]) -> None:
    filled = catalogue(
        memory(1), memory(2, session="a"), memory(3, session="a"), memory(4, session="b"), memory(5, session="a")
    )
    filled.remove(5)
    eligible = filled.eligible(scope, small_talk=True)
    assert [filled.at(int(position)).seq for position in np.flatnonzero(eligible)] == expected


def test_small_talk_is_eligible_only_where_it_is_wanted() -> None:
    filled = catalogue(memory(1, small_talk=True), memory(2))
    assert filled.eligible(Scope(), small_talk=True).tolist() == [True, True]
    assert filled.eligible(Scope(), small_talk=False).tolist() == [False, True]


def test_texts_that_differ_in_case_and_signs_only_share_a_number() -> None:
    filled = catalogue(memory(1, content="Hello, World!"), memory(2, content="hello world"), memory(3, content="other"))
    numbers = filled.arrays().text_number.tolist()
    assert numbers[0] == numbers[1] != numbers[2]


def test_what_was_removed_cannot_be_asked_for() -> None:
    filled = catalogue(memory(1))
    filled.remove(1)
    with pytest.raises(KeyError):
        filled.memory(1)
    assert len(filled) == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([None, "a", "b"]), st.booleans()), max_size=60))
def test_the_chain_of_neighbours_is_always_the_sorted_session(steps: list[tuple[int, str | None, bool]]) -> None:
    filled = Catalogue()
    live: dict[int, Memory] = {}
    for seq, (at, session, removes) in enumerate(steps, start=1):
        if removes and live:
            del live[removed := sorted(live)[at % len(live)]]
            filled.remove(removed)
        else:
            live[seq] = memory(seq, at=at, session=session)
            filled.add(live[seq])
    arrays = filled.arrays()
    for session in (None, "a", "b"):
        mine = [one for one in live.values() if one.session_id == session]
        expected = [one.seq for one in sorted(mine, key=lambda one: (one.timestamp_ms, one.seq))]
        assert filled.session_seqs(session) == expected
        positions = [int(arrays.chunk_memory[filled.first_chunk(seq)]) for seq in expected]
        assert [int(arrays.next[place]) for place in positions] == [*positions[1:], NOBODY][: len(positions)]
        assert [int(arrays.previous[place]) for place in positions] == [NOBODY, *positions[:-1]][: len(positions)]


def test_what_stands_beside_a_memory_is_what_carries_something() -> None:
    """In the order of time, within the session; small talk and texts without chunks are passed off as nothing."""
    filled = catalogue(
        memory(1, at=30, session="a"),
        memory(2, at=10, session="a"),
        memory(3, at=20, session="b"),
        memory(4, at=40, session="a", small_talk=True),
        memory(5, at=50, session="a", chunks=0),
    )

    def seqs(seq: int) -> list[int | None]:
        position = filled.arrays().chunk_memory[filled.first_chunk(seq)] if seq != 5 else 4
        (neighbours,) = filled.beside(np.array([position]))
        return [None if beside is None else beside.seq for beside in neighbours]

    assert seqs(1) == [2, None]
    assert seqs(2) == [None, 1]
    assert seqs(3) == [None, None]
    assert seqs(4) == [1, None]
    assert seqs(5) == [None, None]
